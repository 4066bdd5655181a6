//! Identities: access keys, their secrets, and the principals they belong to.
//!
//! The forms are those of
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html>.

use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// An access key together with the principal that STS returns for it.
///
/// Its `Debug` output shows neither the secret access key nor the session token.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// `AKIA…` for a long-term key, `ASIA…` for temporary credentials.
    pub access_key_id: String,
    /// The secret that signatures are made with.
    pub secret_access_key: String,
    /// The token that must come with the key, in `X-Amz-Security-Token`; `None` for a long-term
    /// key, which must come without one.
    #[serde(default)]
    pub session_token: Option<String>,
    /// When the credentials end; from then on STS responds with `ExpiredToken`. `None`: never.
    #[serde(default, deserialize_with = "rfc3339")]
    pub expires_at: Option<SystemTime>,
    /// What STS returns as `Arn`.
    pub arn: String,
    /// What STS returns as `UserId`.
    pub user_id: String,
    /// What STS returns as `Account`: twelve digits.
    pub account: String,
}

impl Identity {
    /// Makes an IAM user with a random long-term key (`AKIA…`).
    ///
    /// Takes the account id (twelve digits) and the user's name, with its path if it has one:
    /// `alice` or `team/db/alice`. The ARN is `arn:aws:iam::ACCOUNT:user/PATH/NAME` and the
    /// `UserId` is `AIDA…`.
    ///
    /// # Panics
    /// When the operating system gives no random bytes.
    pub fn iam_user(account: &str, path_and_name: &str) -> Self {
        Self {
            access_key_id: format!("AKIA{}", random_text(BASE32, 16)),
            secret_access_key: random_text(BASE64, 40),
            session_token: None,
            expires_at: None,
            arn: format!("arn:aws:iam::{account}:user/{path_and_name}"),
            user_id: format!("AIDA{}", random_text(BASE32, 17)),
            account: account.to_owned(),
        }
    }

    /// Makes a role session with random temporary credentials (`ASIA…`, a secret and a session
    /// token) that do not expire.
    ///
    /// Takes the account id (twelve digits), the role's name without its path, and the session's
    /// name. The ARN is `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION` and the `UserId` is
    /// `AROA…:SESSION`.
    ///
    /// # Panics
    /// When the operating system gives no random bytes.
    pub fn assumed_role(account: &str, role: &str, session: &str) -> Self {
        Self {
            access_key_id: format!("ASIA{}", random_text(BASE32, 16)),
            secret_access_key: random_text(BASE64, 40),
            session_token: Some(format!("{}==", random_text(BASE64, 410))),
            expires_at: None,
            arn: format!("arn:aws:sts::{account}:assumed-role/{role}/{session}"),
            user_id: format!("AROA{}:{session}", random_text(BASE32, 17)),
            account: account.to_owned(),
        }
    }

    /// Returns the same identity with credentials that expired an hour ago.
    pub fn expired(self) -> Self {
        Self { expires_at: Some(SystemTime::now() - Duration::from_secs(3600)), ..self }
    }

    /// Reads identities from a JSON list.
    ///
    /// Each element is an object with the fields of [`Identity`] by name. `session_token` and
    /// `expires_at` may be absent or null; `expires_at` is an RFC 3339 date and time. The text is
    /// refused as a whole when it is not such a list, when a field is missing or unknown, or when
    /// an access key id occurs twice.
    ///
    /// # Errors
    /// When the text is refused. The error names the fault and its place, and repeats no values.
    pub fn list_from_json(text: &str) -> Result<Vec<Self>, ParseIdentitiesError> {
        let identities: Vec<Self> =
            serde_json::from_str(text).map_err(|error| ParseIdentitiesError(describe(&error)))?;
        for (at, identity) in identities.iter().enumerate() {
            if !is_access_key_id(&identity.access_key_id) {
                return Err(ParseIdentitiesError(format!(
                    "element {at}: access_key_id must be 1 to 128 letters, digits or underscores"
                )));
            }
            if identities[..at].iter().any(|earlier| earlier.access_key_id == identity.access_key_id) {
                return Err(ParseIdentitiesError(format!("element {at}: its access_key_id occurs twice")));
            }
        }
        Ok(identities)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("access_key_id", &self.access_key_id)
            .field("secret_access_key", &"<redacted>")
            .field("session_token", &self.session_token.as_ref().map(|_| "<redacted>"))
            .field("expires_at", &self.expires_at)
            .field("arn", &self.arn)
            .field("user_id", &self.user_id)
            .field("account", &self.account)
            .finish()
    }
}

/// Why a list of identities was refused.
#[derive(Debug)]
pub struct ParseIdentitiesError(String);

impl fmt::Display for ParseIdentitiesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a list of identities: {}", self.0)
    }
}

impl Error for ParseIdentitiesError {}

/// Returns whether `text` has the form of an access key id in IAM's API reference: at most 128 word
/// characters.
pub(crate) fn is_access_key_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Returns bytes from the operating system's random source.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// Returns `length` characters drawn evenly from `alphabet`, whose size must be a power of two of
/// at most 256.
fn random_text(alphabet: &[u8], length: usize) -> String {
    debug_assert!(alphabet.len().is_power_of_two() && alphabet.len() <= 256);
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes.into_iter().map(|byte| char::from(alphabet[usize::from(byte) % alphabet.len()])).collect()
}

/// serde_json repeats values in some of its messages; a secret in the wrong place must not reach a
/// terminal.
fn describe(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Data => "a field is missing, unknown or of the wrong type",
        serde_json::error::Category::Eof => "the text ends too early",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "the text is not JSON",
    };
    format!("line {} column {}: {kind}", error.line(), error.column())
}

fn rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
    let time: Option<OffsetDateTime> = time::serde::rfc3339::option::deserialize(deserializer)?;
    Ok(time.map(SystemTime::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_a_role_have_the_formats_of_aws() {
        let user = Identity::iam_user("123456789012", "team/alice");
        assert_eq!(user.arn, "arn:aws:iam::123456789012:user/team/alice");
        assert!(user.access_key_id.starts_with("AKIA") && user.access_key_id.len() == 20);
        assert!(user.user_id.starts_with("AIDA") && user.user_id.len() == 21);
        assert_eq!(user.secret_access_key.len(), 40);
        assert!(user.session_token.is_none());

        let role = Identity::assumed_role("123456789012", "app", "i-0abc");
        assert_eq!(role.arn, "arn:aws:sts::123456789012:assumed-role/app/i-0abc");
        assert!(role.access_key_id.starts_with("ASIA") && role.access_key_id.len() == 20);
        assert!(role.user_id.starts_with("AROA") && role.user_id.ends_with(":i-0abc"));
        assert!(role.session_token.is_some());
        assert!(role.expired().expires_at.is_some_and(|end| end < SystemTime::now()));
    }

    #[test]
    fn debug_shows_no_secret() {
        let role = Identity::assumed_role("123456789012", "app", "s");
        let shown = format!("{role:?}");
        assert!(shown.contains(&role.access_key_id));
        assert!(!shown.contains(&role.secret_access_key));
        assert!(!shown.contains(role.session_token.as_deref().unwrap()));
    }

    #[test]
    fn a_list_is_read_with_and_without_the_optional_fields() {
        let list = Identity::list_from_json(
            r#"[{"access_key_id":"AKIA1","secret_access_key":"s","arn":"a","user_id":"u","account":"123456789012"},
                {"access_key_id":"ASIA2","secret_access_key":"s","session_token":"t",
                 "expires_at":"2020-01-02T03:04:05Z","arn":"a","user_id":"u","account":"123456789012"}]"#,
        )
        .unwrap();
        assert_eq!(list.len(), 2);
        assert!(list[0].session_token.is_none() && list[0].expires_at.is_none());
        assert_eq!(list[1].session_token.as_deref(), Some("t"));
        assert_eq!(list[1].expires_at, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_934_245)));
    }

    #[test]
    fn a_bad_list_is_refused_without_repeating_it() {
        let twice = r#"{"access_key_id":"AKIA1","secret_access_key":"s","arn":"a","user_id":"u","account":"1"}"#;
        for text in [
            r#"[{"access_key_id":"AKIA1"}]"#.to_owned(),
            r#"[{"sesion_token":"planted"}]"#.to_owned(),
            r#"["planted"]"#.to_owned(),
            format!("[{twice},{twice}]"),
            "planted".to_owned(),
        ] {
            let error = Identity::list_from_json(&text).unwrap_err().to_string();
            assert!(!error.contains("planted"), "{error}");
        }
    }
}
