//! Maps the ARN that STS returns to the name of a MongoDB user.
//!
//! Sources: the pages of AWS that [`Principal::parse`] names.

use crate::denial::{Cause, Denial};

/// Maximum length of an ARN, in bytes, as STS documents it for GetCallerIdentity.
pub const MAX_ARN_LENGTH: usize = 2048;

/// Maximum length of the name of a user, role, session or federated user, in bytes.
const MAX_NAME_LENGTH: usize = 64;

/// The caller's identity as STS returned it, in fields that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The AWS partition: `aws`, `aws-cn`, `aws-us-gov` and so on.
    pub partition: String,
    /// The 12-digit account id.
    pub account: String,
    /// The kind of principal, with its names.
    pub kind: Kind,
}

/// The kinds of principal that can log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An IAM user, with its path and name, such as `team/alice`.
    User {
        /// Path and name without the leading `user/`.
        path_and_name: String,
    },
    /// The account's root user.
    Root,
    /// A session of a role. STS does not return the role's path.
    AssumedRole {
        /// The role's name.
        role: String,
        /// The session's name. The caller chooses it, so no decision may depend on it.
        session: String,
    },
    /// A session created by GetFederationToken.
    FederatedUser {
        /// The name that its creator chose.
        name: String,
    },
}

/// The form of the user name that sessions of a role log in with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoleUserFormat {
    /// `arn:P:iam::A:role/ROLE`, as in Percona Server for MongoDB.
    #[default]
    IamRole,
    /// `arn:P:sts::A:assumed-role/ROLE/*`, as in MongoDB Enterprise and Atlas. The asterisk means
    /// any session; it cannot occur in a session's name.
    AssumedRole,
}

impl Principal {
    /// Parses an ARN from the response to GetCallerIdentity.
    ///
    /// ```text
    /// arn       = %s"arn:" partition ":" (user / root / session / federated)  ; at most 2048 bytes
    /// user      = %s"iam::" account %s":user/" [path "/"] name
    /// root      = %s"iam::" account %s":root"
    /// session   = %s"sts::" account %s":assumed-role/" name "/" name  ; the role, the session
    /// federated = %s"sts::" account %s":federated-user/" name
    /// partition = %s"aws" *("-" 1*(%x61-7A / DIGIT))                  ; at most 32 bytes
    /// account   = 12DIGIT
    /// path      = (%x21-2E / %x30-7E) *VCHAR               ; printable ASCII, not "/" first
    /// name      = 1*64(ALPHA / DIGIT / "_" / "+" / "=" / "," / "." / "@" / "-")
    /// ```
    ///
    /// Only a user's path may contain a colon or a slash. Therefore the first five colons and the
    /// first slash after them separate the fields, and the last slash separates a user's path from
    /// its name.
    ///
    /// Sources:
    /// - forms: AWS, "IAM identifiers",
    ///   <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html>
    /// - maximum length: AWS, "GetCallerIdentity",
    ///   <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>
    /// - characters and length of names: AWS, "IAM and AWS STS quotas",
    ///   <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>
    /// - paths: AWS, "CreateUser",
    ///   <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateUser.html>
    ///
    /// Stricter than AWS: no DEL in a path, since it is a control character in a log; no path in a
    /// session, since AWS writes none; no other kind of principal, since none has signing keys.
    /// Less strict: names of one character where AWS requires two, and unknown partitions. STS
    /// decides about both, and neither can be mistaken for another principal.
    ///
    /// # Errors
    /// A denial for every other text. It repeats the text only if that is printable ASCII of
    /// bounded length.
    pub fn parse(arn: &str) -> Result<Self, Denial> {
        const WHO_CAN: &str = "only IAM users, the root user, role sessions and federated users can log in";
        if arn.len() > MAX_ARN_LENGTH || !arn.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Denial::new(
                Cause::CannotLogIn,
                format!("STS returned a principal that cannot log in: {WHO_CAN}"),
            ));
        }
        // The text is printable and short: see above.
        let unknown = || {
            Denial::new(Cause::CannotLogIn, format!("STS returned a principal that cannot log in, {arn}: {WHO_CAN}"))
        };
        // IAM paths may contain colons, so only the first five separate fields.
        let fields: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", partition, service, "", account, resource] = fields[..] else {
            return Err(unknown());
        };
        if !is_partition(partition) || !is_account(account) {
            return Err(unknown());
        }
        let kind = match (service, resource.split_once('/')) {
            ("iam", None) if resource == "root" => Kind::Root,
            ("iam", Some(("user", path_and_name))) if is_user(path_and_name) => {
                Kind::User { path_and_name: path_and_name.to_owned() }
            }
            ("sts", Some(("assumed-role", names))) => match names.split_once('/') {
                Some((role, session)) if is_name(role) && is_name(session) => {
                    Kind::AssumedRole { role: role.to_owned(), session: session.to_owned() }
                }
                _ => return Err(unknown()),
            },
            ("sts", Some(("federated-user", name))) if is_name(name) => Kind::FederatedUser { name: name.to_owned() },
            _ => return Err(unknown()),
        };
        Ok(Self { partition: partition.to_owned(), account: account.to_owned(), kind })
    }

    /// The name of the user in `$external` that this principal logs in as.
    ///
    /// For users, root and federated users, it is the ARN that STS returns; for a role session, it
    /// is the role in this format, independent of the session's name.
    pub fn user_name(&self, roles: RoleUserFormat) -> String {
        let Self { partition, account, kind } = self;
        match kind {
            Kind::User { path_and_name } => format!("arn:{partition}:iam::{account}:user/{path_and_name}"),
            Kind::Root => format!("arn:{partition}:iam::{account}:root"),
            Kind::AssumedRole { role, .. } => match roles {
                RoleUserFormat::IamRole => format!("arn:{partition}:iam::{account}:role/{role}"),
                RoleUserFormat::AssumedRole => format!("arn:{partition}:sts::{account}:assumed-role/{role}/*"),
            },
            Kind::FederatedUser { name } => format!("arn:{partition}:sts::{account}:federated-user/{name}"),
        }
    }
}

/// Whether the text is an AWS account id: exactly 12 digits, `account` in the grammar of
/// [`Principal::parse`].
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `partition`: `aws`, or `aws` with suffixes, such as `aws-cn` and `aws-iso-b`.
fn is_partition(text: &str) -> bool {
    let mut parts = text.split('-');
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 32 && parts.next() == Some("aws") && parts.all(|part| !part.is_empty() && part.bytes().all(plain))
}

/// `name`: the characters that IAM allows in names, `[\w+=,.@-]`.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    !text.is_empty() && text.len() <= MAX_NAME_LENGTH && text.bytes().all(allowed)
}

/// `[path "/"] name`. The caller has checked that the path is printable ASCII.
fn is_user(path_and_name: &str) -> bool {
    match path_and_name.rsplit_once('/') {
        None => is_name(path_and_name),
        Some((path, name)) => !path.is_empty() && !path.starts_with('/') && is_name(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::PARTITIONS;

    #[test]
    fn miri_every_principal_that_can_log_in_has_one_user_name() {
        let rows = [
            ("arn:aws:iam::123456789012:user/alice", "arn:aws:iam::123456789012:user/alice"),
            ("arn:aws:iam::123456789012:user/team/a:b*<&/alice", "arn:aws:iam::123456789012:user/team/a:b*<&/alice"),
            ("arn:aws:iam::123456789012:root", "arn:aws:iam::123456789012:root"),
            ("arn:aws:sts::123456789012:assumed-role/app/i-0abc", "arn:aws:iam::123456789012:role/app"),
            ("arn:aws-cn:sts::123456789012:assumed-role/app/s", "arn:aws-cn:iam::123456789012:role/app"),
            ("arn:aws-us-gov:iam::123456789012:user/bob", "arn:aws-us-gov:iam::123456789012:user/bob"),
            ("arn:aws-iso-b:iam::123456789012:root", "arn:aws-iso-b:iam::123456789012:root"),
            ("arn:aws-eusc:iam::123456789012:root", "arn:aws-eusc:iam::123456789012:root"),
            ("arn:aws:sts::123456789012:federated-user/fred", "arn:aws:sts::123456789012:federated-user/fred"),
            (
                "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Admin_0123456789abcdef/ann@example.com",
                "arn:aws:iam::123456789012:role/AWSReservedSSO_Admin_0123456789abcdef",
            ),
        ];
        for (arn, name) in rows {
            assert_eq!(Principal::parse(arn).unwrap().user_name(RoleUserFormat::IamRole), name);
        }
        for partition in &PARTITIONS {
            let arn = format!("arn:{}:iam::123456789012:user/alice", partition.id);
            assert_eq!(Principal::parse(&arn).unwrap().user_name(RoleUserFormat::IamRole), arn);
        }
    }

    #[test]
    fn miri_a_role_user_name_can_have_the_assumed_role_format() {
        for (arn, name) in [
            ("arn:aws:sts::123456789012:assumed-role/app/i-0abc", "arn:aws:sts::123456789012:assumed-role/app/*"),
            ("arn:aws-cn:sts::123456789012:assumed-role/app/s", "arn:aws-cn:sts::123456789012:assumed-role/app/*"),
            ("arn:aws:iam::123456789012:user/team/alice", "arn:aws:iam::123456789012:user/team/alice"),
        ] {
            assert_eq!(Principal::parse(arn).unwrap().user_name(RoleUserFormat::AssumedRole), name);
            assert!(arn == name || Principal::parse(name).is_err(), "{name} is also the ARN of a principal");
        }
    }

    #[test]
    fn miri_limits_are_exact() {
        let accepts = |arn: &str| Principal::parse(arn).is_ok();
        let named = |length: usize| format!("arn:aws:iam::123456789012:user/{}", "n".repeat(length));
        assert!(accepts(&named(64)) && !accepts(&named(65)));
        let long = |length: usize| format!("arn:aws:iam::123456789012:user/{}/n", "p".repeat(length - 33));
        assert_eq!(long(2048).len(), 2048);
        assert!(accepts(&long(2048)) && !accepts(&long(2049)));
        let partition = |length: usize| format!("arn:aws-{}:iam::123456789012:root", "x".repeat(length - 4));
        assert!(accepts(&partition(32)) && !accepts(&partition(33)));
    }

    #[test]
    fn miri_every_other_arn_is_denied() {
        for arn in [
            "",
            "arn",
            "arn:aws:iam::123456789012:",
            "arn:aws:iam::123456789012:user",
            "arn:aws:iam::123456789012:user/",
            "arn:aws:iam::123456789012:user//alice",
            "arn:aws:iam::123456789012:user/team/",
            "arn:aws:iam::123456789012:root/x",
            "arn:aws:iam::123456789012:role/app",
            "arn:aws:iam::123456789012:group/g",
            "arn:aws:iam:us-east-1:123456789012:user/alice",
            "arn:aws:iam::12345678901:user/alice",
            "arn:aws:iam::1234567890123:user/alice",
            "arn:aws:iam::12345678901x:user/alice",
            "arn:aws:iam::aws:user/alice",
            "arn:aws:sts::123456789012:user/alice",
            "arn:aws:iam::123456789012:assumed-role/app/s",
            "arn:aws:sts::123456789012:assumed-role/app",
            "arn:aws:sts::123456789012:assumed-role/app/",
            "arn:aws:sts::123456789012:assumed-role//s",
            "arn:aws:sts::123456789012:assumed-role/path/app/s",
            "arn:aws:sts::123456789012:assumed-role/app/*",
            "arn:aws:sts::123456789012:assumed-role/a:b/s",
            "arn:aws:sts::123456789012:federated-user/",
            "arn:aws:sts::123456789012:federated-user/a/b",
            "arn:aws:ec2::123456789012:instance/i-0abc",
            "arn:awsx:iam::123456789012:root",
            "arn:aws-:iam::123456789012:root",
            "arn:AWS:iam::123456789012:root",
            "ARN:aws:iam::123456789012:root",
            "arn::iam::123456789012:root",
            " arn:aws:iam::123456789012:root",
            "arn:aws:iam::123456789012:root\n",
            "arn:aws:iam::123456789012:user/al ice",
            "arn:aws:iam::123456789012:user/alicé",
            "arn:aws:iam::123456789012:user/alice\0",
        ] {
            assert!(Principal::parse(arn).is_err(), "{arn:?} was accepted");
        }
    }
}
