//! Checks the client's AWS Signature Version 4 as far as a server without the secret key can.
//!
//! STS verifies the signature itself. This module checks that it covers what the server requires:
//! the nonce, the host, the date, the region and the service. The header is parsed into its parts
//! and rebuilt from them; the client's own bytes are never forwarded.
//!
//! Sources: the pages of AWS that the functions below name; MongoDB drivers' specification
//! "Authentication" (`source/auth/auth.md`), section MONGODB-AWS, for the signed headers.

use crate::denial::{Cause, Denial};
use crate::secret::Secret;
use time::{Date, Month, PrimitiveDateTime, Time};

/// Maximum difference between X-Amz-Date and the server's clock, in seconds. STS allows the same 15
/// minutes: "Common error types", `RequestExpired`,
/// <https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html>.
pub const MAX_CLOCK_SKEW_SECONDS: i64 = 15 * 60;

/// Maximum length of a session token, in bytes: four times what AWS calls typical, see
/// [`check_token`].
pub const MAX_TOKEN_LENGTH: usize = 16 * 1024;

/// Maximum length of an access key id, see [`Authorization::parse`].
const MAX_ACCESS_KEY_ID_LENGTH: usize = 128;

/// The headers that a driver may or must sign, sorted. STS receives each of them once.
const KNOWN_HEADERS: [(&str, Need); 7] = [
    ("content-length", Need::Optional),
    ("content-type", Need::Optional),
    ("host", Need::Always),
    ("x-amz-date", Need::Always),
    ("x-amz-security-token", Need::WithToken),
    ("x-mongodb-gs2-cb-flag", Need::Always),
    ("x-mongodb-server-nonce", Need::Always),
];

#[derive(Clone, Copy, PartialEq)]
enum Need {
    Optional,
    Always,
    /// If and only if the client sends a session token.
    WithToken,
}

/// The value of X-Amz-Date: `YYYYMMDDTHHMMSSZ`, a valid time in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmzDate {
    text: String,
    unix_seconds: i64,
}

impl AmzDate {
    /// Parses the 16 characters; no other form of ISO 8601 is accepted.
    ///
    /// ```text
    /// date   = year month day %s"T" hour minute second %s"Z"
    /// year   = 4DIGIT
    /// month  = 2DIGIT  ; 01 to 12
    /// day    = 2DIGIT  ; 01 to the length of that month of the Gregorian calendar
    /// hour   = 2DIGIT  ; 00 to 23
    /// minute = 2DIGIT  ; 00 to 59
    /// second = 2DIGIT  ; 00 to 59
    /// ```
    ///
    /// The text is sent to STS as a header and its day is part of the scope, so it may contain only
    /// digits and the two letters.
    ///
    /// Source: AWS, "Elements of an AWS API request signature",
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-signing-elements.html>: the
    /// basic format of ISO 8601 in UTC, without milliseconds. Stricter: AWS also accepts a header
    /// `Date`, which no driver sends; leap seconds are denied, since the clocks of drivers have
    /// none.
    ///
    /// # Errors
    /// A malformed-message denial if the form is wrong or the time does not exist.
    pub fn parse(text: &str) -> Result<Self, Denial> {
        let wrong = || Denial::malformed("X-Amz-Date must be a valid UTC time of the form YYYYMMDDTHHMMSSZ");
        let bytes = text.as_bytes();
        let shaped = bytes.len() == 16
            && bytes.iter().enumerate().all(|(at, byte)| match at {
                8 => *byte == b'T',
                15 => *byte == b'Z',
                _ => byte.is_ascii_digit(),
            });
        if !shaped {
            return Err(wrong());
        }
        let number = |from: usize, to: usize| text[from..to].parse::<u16>().map_err(|_| wrong());
        let small = |from: usize| number(from, from + 2).and_then(|n| u8::try_from(n).map_err(|_| wrong()));
        let month = Month::try_from(small(4)?).map_err(|_| wrong())?;
        let date = Date::from_calendar_date(i32::from(number(0, 4)?), month, small(6)?).map_err(|_| wrong())?;
        let time = Time::from_hms(small(9)?, small(11)?, small(13)?).map_err(|_| wrong())?;
        let unix_seconds = PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp();
        Ok(Self { text: text.to_owned(), unix_seconds })
    }

    /// The 16 characters.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The day, `YYYYMMDD`, which the credential scope must contain.
    pub fn day(&self) -> &str {
        &self.text[..8]
    }

    /// Denies a date that STS would deny too, with the difference in the reason.
    ///
    /// `now` is the server's time in seconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// A clock-skew denial if the date differs from `now` by more than [`MAX_CLOCK_SKEW_SECONDS`].
    pub fn check_skew(&self, now: i64) -> Result<(), Denial> {
        let skew = self.unix_seconds.saturating_sub(now);
        if skew.saturating_abs() <= MAX_CLOCK_SKEW_SECONDS {
            return Ok(());
        }
        let side = if skew < 0 { "behind" } else { "ahead of" };
        let reason = format!(
            "the client's clock is {} seconds {side} the server's, and the limit is {MAX_CLOCK_SKEW_SECONDS} seconds: \
             synchronize both clocks",
            skew.unsigned_abs()
        );
        Err(Denial::new(Cause::ClockSkew, reason))
    }
}

/// Checks a session token.
///
/// ```text
/// token = 1*16384VCHAR  ; MAX_TOKEN_LENGTH; VCHAR is %x21-7E, printable ASCII without the space
/// ```
///
/// It is sent to STS as a header, so it may contain no line break, and no space that would be
/// trimmed. A token is opaque and its characters are not documented: they are base64 today, but
/// nothing depends on that.
///
/// Source: AWS, "GetSessionToken",
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html>: the size is not
/// fixed, no assumption should be made about its maximum, and it is typically under 4096 bytes.
/// Stricter: the maximum, which keeps an unauthenticated client from making the server store and
/// send any amount; and the characters.
///
/// # Errors
/// A malformed-message denial, which never contains the token.
pub fn check_token(token: &str) -> Result<(), Denial> {
    if token.is_empty() || token.len() > MAX_TOKEN_LENGTH {
        return Err(Denial::malformed(format!(
            "the session token has {} bytes, but must have 1 to {MAX_TOKEN_LENGTH}",
            token.len()
        )));
    }
    if token.contains(' ') && token.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Err(Denial::malformed("the session token contains a space: in a connection string, write + as %2B"));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Denial::malformed("the session token contains a character that is not printable ASCII"));
    }
    Ok(())
}

/// What the signature must cover in this login.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The date that the client sent with the header.
    pub date: &'a AmzDate,
    /// The region that the STS host implies.
    pub region: &'a str,
    /// Whether the client sent a session token.
    pub with_token: bool,
}

/// A client's Authorization header that has passed all checks.
#[derive(Clone, Debug)]
pub struct Authorization {
    access_key_id: String,
    scope: String,
    signed_headers: String,
    signature: Secret,
}

impl Authorization {
    /// Parses the header value that every driver sends.
    ///
    /// ```text
    /// header     = %s"AWS4-HMAC-SHA256" SP credential "," SP headers "," SP signature
    /// credential = %s"Credential=" key-id "/" day "/" region "/" %s"sts/aws4_request"
    /// key-id     = 1*128(ALPHA / DIGIT / "_")
    /// day        = 8DIGIT  ; as in X-Amz-Date
    /// region     = label   ; the one that the STS host implies
    /// headers    = %s"SignedHeaders=" [%s"content-length;"] [%s"content-type;"]
    ///              %s"host;x-amz-date;" [%s"x-amz-security-token;"]
    ///              %s"x-mongodb-gs2-cb-flag;x-mongodb-server-nonce"
    ///              ; x-amz-security-token if and only if the client sends a token
    /// signature  = %s"Signature=" 64(DIGIT / %x61-66)
    /// ```
    ///
    /// One text can be read in only one way, and the rebuilt header equals the original. `headers`
    /// binds the signature to this login: to the nonce, the host and the date. The two optional
    /// headers are sent with constant values, whether or not the client signs them.
    ///
    /// Sources:
    /// - order of the elements, the space, the signed headers: MongoDB drivers' specification
    ///   "Authentication", section MONGODB-AWS
    /// - scope, sorted list in lower case: AWS, "Create a signed AWS API request",
    ///   <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
    /// - 64 lower-case digits: AWS, "Authenticating Requests: Using the Authorization Header",
    ///   <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-auth-using-authorization-header.html>
    /// - key id, `[\w]*` up to 128: AWS, "Credentials",
    ///   <https://docs.aws.amazon.com/STS/latest/APIReference/API_Credentials.html>
    ///
    /// Stricter than AWS, which also accepts a comma without a space, other algorithms, and any
    /// signed header. Less strict than AWS: key ids of fewer than 16 characters, since STS knows
    /// its keys. Less strict than the drivers' specification, which requires the two optional
    /// headers to be signed.
    ///
    /// # Errors
    /// A malformed-message denial that names the invalid part; other denials if the region is
    /// wrong, or if the key and the token are not of the same kind.
    pub fn parse(header: &str, expected: &Expected<'_>) -> Result<Self, Denial> {
        let rest = header
            .strip_prefix("AWS4-HMAC-SHA256 ")
            .ok_or_else(|| Denial::malformed("the Authorization header must use the scheme AWS4-HMAC-SHA256"))?;
        let mut elements = rest.split(", ");
        let mut element = |name: &str| {
            elements
                .next()
                .and_then(|element| element.strip_prefix(name)?.strip_prefix('='))
                .ok_or_else(|| Denial::malformed(format!("the Authorization header has no {name} in its place")))
        };
        let credential = element("Credential")?;
        let signed_headers = element("SignedHeaders")?;
        let signature = element("Signature")?;
        if elements.next().is_some() {
            return Err(Denial::malformed("the Authorization header has more than three elements"));
        }

        let access_key_id = check_credential(credential, expected)?;
        check_kind_of_key(access_key_id, expected.with_token)?;
        check_signed_headers(signed_headers, expected.with_token)?;
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if signature.len() != 64 || !signature.bytes().all(lower_hex) {
            return Err(Denial::malformed("the signature must be 64 lower-case hexadecimal digits"));
        }
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            scope: scope(expected),
            signed_headers: signed_headers.to_owned(),
            signature: Secret::new(signature.to_owned()),
        })
    }

    /// The access key id that the client claims. STS verifies it.
    pub fn claimed_access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// Whether the signature covers the header of this lower-case name.
    pub fn signs(&self, header: &str) -> bool {
        self.signed_headers.split(';').any(|signed| signed == header)
    }

    /// The header value, rebuilt from the checked parts.
    pub fn to_header(&self) -> Secret {
        Secret::concat(&[
            "AWS4-HMAC-SHA256 Credential=",
            &self.access_key_id,
            "/",
            &self.scope,
            ", SignedHeaders=",
            &self.signed_headers,
            ", Signature=",
            self.signature.expose(),
        ])
    }
}

/// Returns the access key id in a header value that begins as [`Authorization::parse`] requires.
/// The rest of the header may be anything.
pub fn claimed_access_key_id(header: &str) -> Option<&str> {
    let (id, _) = header.strip_prefix("AWS4-HMAC-SHA256 Credential=")?.split_once('/')?;
    is_access_key_id(id).then_some(id)
}

fn is_access_key_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=MAX_ACCESS_KEY_ID_LENGTH).contains(&text.len()) && text.bytes().all(allowed)
}

/// Denies a temporary key without a session token, and a long-term key with one: STS knows neither.
///
/// Source: AWS, "IAM identifiers", table of prefixes,
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids>:
/// `AKIA` is an access key; `ASIA` is a temporary one of STS, unique only with its secret key and
/// session token.
fn check_kind_of_key(access_key_id: &str, with_token: bool) -> Result<(), Denial> {
    let reason = if access_key_id.starts_with("ASIA") && !with_token {
        "an access key id that begins with ASIA belongs to temporary credentials, but the client sent no session token: \
         set AWS_SESSION_TOKEN in the client's environment or in authMechanismProperties"
    } else if access_key_id.starts_with("AKIA") && with_token {
        "an access key id that begins with AKIA belongs to a long-term key, but the client sent a session token: unset \
         AWS_SESSION_TOKEN"
    } else {
        return Ok(());
    };
    Err(Denial::new(Cause::TokenMismatch, reason))
}

fn scope(expected: &Expected<'_>) -> String {
    format!("{}/{}/sts/aws4_request", expected.date.day(), expected.region)
}

/// Returns the access key id.
fn check_credential<'a>(credential: &'a str, expected: &Expected<'_>) -> Result<&'a str, Denial> {
    let parts: Vec<&str> = credential.split('/').collect();
    let [access_key_id, day, region, service, terminator] = parts[..] else {
        return Err(Denial::malformed("Credential must have the form ID/DATE/REGION/SERVICE/aws4_request"));
    };
    if !is_access_key_id(access_key_id) {
        return Err(Denial::malformed(format!(
            "the access key id must be 1 to {MAX_ACCESS_KEY_ID_LENGTH} letters, digits and underscores"
        )));
    }
    if day != expected.date.day() {
        return Err(Denial::malformed("the credential scope must contain the day of X-Amz-Date"));
    }
    if region != expected.region {
        return Err(Denial::new(Cause::WrongRegion, region_mismatch(region, expected.region)));
    }
    if service != "sts" || terminator != "aws4_request" {
        return Err(Denial::malformed("the credential scope must end in sts/aws4_request"));
    }
    Ok(access_key_id)
}

fn region_mismatch(signed: &str, wanted: &str) -> String {
    // Only text that looks like a region may be repeated in the log. The login is denied in either
    // case.
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let signed = if !signed.is_empty() && signed.len() <= 32 && signed.bytes().all(plain) {
        format!("region {signed}")
    } else {
        "another region".to_owned()
    };
    format!("the client signed for {signed}, but awsStsHost implies region {wanted}")
}

fn check_signed_headers(list: &str, with_token: bool) -> Result<(), Denial> {
    let mut known = KNOWN_HEADERS.iter();
    // The known headers are sorted, so a sorted list without duplicates is one pass over them.
    let missing = |name: &str| {
        // Observed with these versions; 3.6.12 and 4.1.4 are known to be fixed.
        let advice = match name {
            "x-amz-security-token" => {
                "; versions 3.6.0 to 3.6.4, 4.0.0 and 4.1.0 of the Node.js driver do not sign it: update the driver"
            }
            _ => "",
        };
        Denial::malformed(format!("the signature does not cover the header {name}{advice}"))
    };
    let wanted = |need: Need| need == Need::Always || (need == Need::WithToken && with_token);
    for signed in list.split(';') {
        loop {
            let Some((name, need)) = known.next() else {
                return Err(Denial::malformed(
                    "SignedHeaders must list the headers that drivers sign, sorted, each once and in lower case",
                ));
            };
            if *name == signed {
                if *need == Need::WithToken && !with_token {
                    return Err(Denial::malformed("the signature covers a session token, but the client sent none"));
                }
                break;
            }
            if wanted(*need) {
                return Err(missing(name));
            }
        }
    }
    match known.find(|(_, need)| wanted(*need)) {
        Some((name, _)) => Err(missing(name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const HEADERS: &str = "content-length;content-type;host;x-amz-date;x-mongodb-gs2-cb-flag;x-mongodb-server-nonce";
    const HEADERS_WITH_TOKEN: &str = "content-length;content-type;host;x-amz-date;x-amz-security-token;\
                                      x-mongodb-gs2-cb-flag;x-mongodb-server-nonce";

    fn date() -> AmzDate {
        AmzDate::parse("20261121T191300Z").unwrap()
    }

    fn parse(header: &str, with_token: bool) -> Result<Authorization, Denial> {
        Authorization::parse(header, &Expected { date: &date(), region: "us-east-1", with_token })
    }

    fn header(credential: &str, headers: &str, signature: &str) -> String {
        format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={headers}, Signature={signature}")
    }

    fn good() -> String {
        header("AKIDEXAMPLE/20261121/us-east-1/sts/aws4_request", HEADERS, SIGNATURE)
    }

    #[test]
    fn miri_a_rebuilt_header_equals_the_drivers() {
        let parsed = parse(&good(), false).unwrap();
        assert_eq!(parsed.to_header().expose(), good());
        assert_eq!(parsed.claimed_access_key_id(), "AKIDEXAMPLE");
        assert!(parsed.signs("content-length"));
        assert!(!parsed.signs("content"));
    }

    #[test]
    fn miri_a_session_token_is_signed_if_and_only_if_it_is_sent() {
        let with = header("AKIDEXAMPLE/20261121/us-east-1/sts/aws4_request", HEADERS_WITH_TOKEN, SIGNATURE);
        assert!(parse(&with, true).is_ok());
        assert!(parse(&with, false).is_err());
        assert!(parse(&good(), true).is_err());
    }

    #[test]
    fn miri_a_key_and_a_token_of_different_kinds_are_denied() {
        let header =
            |id: &str, headers: &str| header(&format!("{id}/20261121/us-east-1/sts/aws4_request"), headers, SIGNATURE);
        for (id, with_token, expected) in [
            ("ASIAEXAMPLE", false, Some("begins with ASIA belongs to temporary credentials, but the client sent no")),
            (
                "AKIAEXAMPLE",
                true,
                Some("begins with AKIA belongs to a long-term key, but the client sent a session token"),
            ),
            ("AKIAEXAMPLE", false, None),
            ("ASIAEXAMPLE", true, None),
            // Of no known kind: STS decides.
            ("asiaexample", false, None),
            ("EXAMPLEASIA", false, None),
            ("EXAMPLEAKIA", true, None),
        ] {
            let good = if with_token { HEADERS_WITH_TOKEN } else { HEADERS };
            let denial = parse(&header(id, good), with_token).err();
            assert_eq!(denial.as_ref().map(Denial::cause), expected.map(|_| Cause::TokenMismatch), "{id}");
            assert!(denial.is_none_or(|denial| denial.reason().contains(expected.unwrap())), "{id}");
            // The signed headers do not hide it.
            let other = if with_token { HEADERS } else { HEADERS_WITH_TOKEN };
            let denial = parse(&header(id, other), with_token).unwrap_err();
            assert_eq!(denial.cause() == Cause::TokenMismatch, expected.is_some(), "{id}");
        }
    }

    #[test]
    fn miri_a_denial_names_the_driver_that_does_not_sign_the_token() {
        let denial = parse(&header("X/20261121/us-east-1/sts/aws4_request", HEADERS, SIGNATURE), true).unwrap_err();
        assert_eq!(
            denial.reason(),
            "the signature does not cover the header x-amz-security-token; versions 3.6.0 to 3.6.4, 4.0.0 and 4.1.0 of the \
             Node.js driver do not sign it: update the driver"
        );
        let denial = parse(&good().replace("host;", ""), false).unwrap_err();
        assert_eq!(denial.reason(), "the signature does not cover the header host");
    }

    #[test]
    fn miri_the_claimed_key_id_is_read_only_from_its_place() {
        let longest = "A".repeat(128);
        for (header, expected) in [
            (good(), Some("AKIDEXAMPLE")),
            ("AWS4-HMAC-SHA256 Credential=AKID_9/and what is wrong\n".to_owned(), Some("AKID_9")),
            (format!("AWS4-HMAC-SHA256 Credential={longest}/"), Some(&*longest)),
            (format!("AWS4-HMAC-SHA256 Credential={longest}A/"), None),
            ("AWS4-HMAC-SHA256 Credential=/20261121".to_owned(), None),
            ("AWS4-HMAC-SHA256 Credential=AKID".to_owned(), None),
            ("AWS4-HMAC-SHA256 Credential=AK\nID/".to_owned(), None),
            ("AWS4-HMAC-SHA256 Credential=AK ID/".to_owned(), None),
            ("AWS4-HMAC-SHA256 Credential=AK\u{e9}/".to_owned(), None),
            ("AWS4-HMAC-SHA256 SignedHeaders=host, Credential=AKID/".to_owned(), None),
            (" AWS4-HMAC-SHA256 Credential=AKID/".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(claimed_access_key_id(&header), expected, "{header:?}");
        }
    }

    #[test]
    fn miri_optional_headers_may_be_left_out() {
        let short = "host;x-amz-date;x-mongodb-gs2-cb-flag;x-mongodb-server-nonce";
        assert!(parse(&header("A/20261121/us-east-1/sts/aws4_request", short, SIGNATURE), false).is_ok());
    }

    #[test]
    fn miri_every_other_header_is_denied() {
        let credential = "AKIDEXAMPLE/20261121/us-east-1/sts/aws4_request";
        let long_id = format!("{}/20261121/us-east-1/sts/aws4_request", "A".repeat(129));
        let cases = [
            ("empty", String::new()),
            ("other scheme", good().replace("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA512")),
            ("lower-case scheme", good().replace("AWS4-HMAC", "aws4-hmac")),
            ("two spaces", good().replace("SHA256 ", "SHA256  ")),
            ("no space after comma", good().replace(", ", ",")),
            ("leading space", format!(" {}", good())),
            ("trailing space", format!("{} ", good())),
            ("trailing newline", format!("{}\n", good())),
            ("header injected", format!("{}\r\nX-Evil: 1", good())),
            ("nul", format!("{}\0", good())),
            ("trailing comma", format!("{}, ", good())),
            ("credential twice", good().replace("SignedHeaders=", &format!("Credential={credential}, SignedHeaders="))),
            ("signed headers twice", good().replace("Signature=", &format!("SignedHeaders={HEADERS}, Signature="))),
            ("signature twice", format!("{}, Signature={SIGNATURE}", good())),
            (
                "other order",
                format!("AWS4-HMAC-SHA256 SignedHeaders={HEADERS}, Credential={credential}, Signature={SIGNATURE}"),
            ),
            ("lower-case element", good().replace("Credential=", "credential=")),
            ("empty key id", header("/20261121/us-east-1/sts/aws4_request", HEADERS, SIGNATURE)),
            ("long key id", header(&long_id, HEADERS, SIGNATURE)),
            ("odd key id", header("AKID%41/20261121/us-east-1/sts/aws4_request", HEADERS, SIGNATURE)),
            ("other day", good().replace("20261121", "20261120")),
            ("other region", good().replace("us-east-1", "eu-west-1")),
            ("other service", good().replace("/sts/", "/iam/")),
            ("other terminator", good().replace("aws4_request", "aws4_requests")),
            ("scope too short", header("AKIDEXAMPLE/20261121/us-east-1/sts", HEADERS, SIGNATURE)),
            ("scope too long", header(&format!("{credential}/x"), HEADERS, SIGNATURE)),
            ("no nonce", good().replace(";x-mongodb-server-nonce", "")),
            ("no gs2 flag", good().replace(";x-mongodb-gs2-cb-flag", "")),
            ("no host", good().replace("host;", "")),
            ("no date", good().replace("x-amz-date;", "")),
            ("upper-case header", good().replace("host;", "Host;")),
            ("unsorted", good().replace("content-length;content-type", "content-type;content-length")),
            ("header twice", good().replace("host;", "host;host;")),
            ("unknown header", good().replace("x-mongodb-server-nonce", "x-mongodb-server-nonce;x-other")),
            ("unknown header first", good().replace("content-length", "accept;content-length")),
            ("empty header name", good().replace("host;", "host;;")),
            ("trailing semicolon", good().replace("server-nonce,", "server-nonce;,")),
            ("no signed headers", header(credential, "", SIGNATURE)),
            ("short signature", header(credential, HEADERS, &SIGNATURE[1..])),
            ("long signature", header(credential, HEADERS, &format!("{SIGNATURE}0"))),
            ("upper-case signature", header(credential, HEADERS, &SIGNATURE.to_uppercase())),
            ("non-hex signature", header(credential, HEADERS, &SIGNATURE.replace('a', "g"))),
            ("look-alike digit", header(credential, HEADERS, &SIGNATURE.replacen("01", "٠", 1))),
        ];
        for (name, case) in cases {
            assert!(parse(&case, false).is_err(), "{name} was accepted");
        }
    }

    #[test]
    fn miri_the_reason_names_both_regions_but_repeats_no_unsafe_text() {
        let denial = parse(&good().replace("us-east-1", "eu-west-1"), false).unwrap_err();
        assert_eq!(denial.reason(), "the client signed for region eu-west-1, but awsStsHost implies region us-east-1");
        let denial = parse(&good().replace("us-east-1", "eu\u{1b}[31m"), false).unwrap_err();
        assert_eq!(denial.reason(), "the client signed for another region, but awsStsHost implies region us-east-1");
        let longest = "x".repeat(32);
        let denial = parse(&good().replace("us-east-1", &longest), false).unwrap_err();
        assert!(denial.reason().starts_with(&format!("the client signed for region {longest}, ")), "{denial}");
        for region in ["", "a b", &format!("{longest}x")] {
            let denial = parse(&good().replace("us-east-1", region), false).unwrap_err();
            assert!(denial.reason().starts_with("the client signed for another region, "), "{denial}");
        }
    }

    #[test]
    fn miri_dates_are_valid_times_of_one_form() {
        assert_eq!(AmzDate::parse("19700101T000001Z").unwrap().unix_seconds, 1);
        assert_eq!((date().as_str(), date().day()), ("20261121T191300Z", "20261121"));
        assert_eq!(AmzDate::parse("20240229T235959Z").unwrap().unix_seconds, 1_709_251_199);
        for wrong in [
            "",
            "20261121T191300",
            "20261121 191300Z",
            "20261121t191300z",
            "20261321T191300Z",
            "20260230T191300Z",
            "20261121T241300Z",
            "20261121T196000Z",
            "20261121T191360Z",
            "+2026112T191300Z",
            "20261121T19130 Z",
            "20261121T191300Z\n",
            "2026-11-21T19:13:00Z",
            "２０２６1121T1913",
        ] {
            assert!(AmzDate::parse(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn miri_the_date_may_differ_by_up_to_fifteen_minutes() {
        let at = date().unix_seconds;
        assert!(date().check_skew(at + 900).is_ok());
        assert!(date().check_skew(at - 900).is_ok());
        let behind = date().check_skew(at + 901).unwrap_err();
        assert!(behind.reason().contains("901 seconds behind"), "{behind}");
        let ahead = date().check_skew(at - 901).unwrap_err();
        assert!(ahead.reason().contains("901 seconds ahead of"), "{ahead}");
        assert!(date().check_skew(i64::MIN).is_err());
        assert!(date().check_skew(i64::MAX).is_err());
    }

    #[test]
    fn miri_tokens_are_printable_ascii_of_bounded_length() {
        assert!(check_token("FwoGZXIvYXdzE//+=").is_ok());
        assert!(check_token(&"t".repeat(16_384)).is_ok());
        for (name, wrong) in [
            ("empty", String::new()),
            ("too long", "t".repeat(16_385)),
            ("space", "a b".to_owned()),
            ("newline", "a\r\nX-Evil: 1".to_owned()),
            ("nul", "a\0".to_owned()),
            ("delete", "a\u{7f}".to_owned()),
            ("not ascii", "é".to_owned()),
        ] {
            assert!(check_token(&wrong).is_err(), "{name} was accepted");
        }
        let denial = check_token("a b").unwrap_err();
        assert_eq!(denial.reason(), "the session token contains a space: in a connection string, write + as %2B");
    }
}
