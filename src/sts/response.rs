//! Reads the response of STS: it must be one complete XML document of the expected form.
//!
//! Lenient parsing of this document has made other products vulnerable (CVE-2020-16250). Therefore
//! everything that a real response does not need is rejected: document types, comments, CDATA,
//! processing instructions, a second document, misplaced elements.
//!
//! ```text
//! document    = [declaration] B element B          ; UTF-8, at most 64 KiB
//! declaration = "<?xml version=" Q "1.0" Q [" encoding=" Q "utf-8" Q] B "?>"
//! element     = "<" name *attribute ">" (B *(element B) / text) "</" name ">"  ; at most 8 deep
//! attribute   = 1*(ALPHA / DIGIT) and a quoted value without "<" and "&"; no duplicate names
//! name        = a name as in XML 1.0, without ":"
//! text        = *(%x09 / %x0A / %x0D / any character but controls, "<" and "&" / reference)
//! reference   = %s"&lt;" / %s"&gt;" / %s"&amp;" / %s"&apos;" / %s"&quot;"
//!               / "&#" 1*DIGIT ";" / %s"&#x" 1*HEXDIG ";"
//! B           = *(SP / %x09 / %x0A / %x0D)
//! Q           = DQUOTE / "'"
//! ```
//!
//! With status 200, the root element is `GetCallerIdentityResponse`. It contains one
//! `GetCallerIdentityResult`, which contains one each of the following elements, in any order:
//!
//! ```text
//! Arn         = arn        ; `crate::principal`
//! Account     = account    ; `crate::principal`; the same as in Arn
//! UserId      = 1*256(ALPHA / DIGIT / "_" / "+" / "=" / "," / "." / "@" / ":" / "-")
//! ```
//!
//! These four names occur nowhere else in the document. Elements of other names are allowed, since
//! AWS may add some; AWS does not guarantee the order of the three. From an error, only two texts
//! are read, `ErrorResponse/Error/Code` and `ErrorResponse/RequestId`, each of the form
//!
//! ```text
//! plain       = 1*64(ALPHA / DIGIT / "." / "-")
//! ```
//!
//! They only affect how the login is denied.
//!
//! Sources:
//! - example response: AWS, "GetCallerIdentity",
//!   <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>
//! - characters of a unique id with a session name: AWS, "AssumedRoleUser",
//!   <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumedRoleUser.html>
//! - error codes: AWS, "Common error types",
//!   <https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html>
//! - W3C, "Extensible Markup Language (XML) 1.0"
//!
//! Stricter than XML: besides the list at the top, no prefixes, empty elements, text beside
//! elements, byte order mark, other encodings or control characters. The namespace is not compared:
//! partitions may have their own, and TLS authenticates the sender.

use crate::denial::{Cause, Denial, Retry};
use crate::principal::{self, Principal};
use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};
use std::time::{Duration, SystemTime};

/// Maximum length of a body, in bytes. Real ones have about 500.
pub const MAX_BODY_LENGTH: usize = 64 * 1024;

/// Maximum depth of nested elements. Real responses have three levels.
const MAX_DEPTH: usize = 8;

/// Maximum value of Retry-After, in seconds: the maximum duration of a login.
const MAX_RETRY_AFTER_SECONDS: u64 = 60;

/// Maximum length of a UserId. AWS documents 193 for a role's session, see the top.
const MAX_USER_ID_LENGTH: usize = 256;

/// The signer of the request, as STS identified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerIdentity {
    /// The ARN, unchanged.
    pub arn: String,
    /// The unique id behind the ARN. No decision depends on it.
    pub user_id: String,
    /// The ARN's fields.
    pub principal: Principal,
}

/// One HTTP response of STS.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The status code.
    pub status: u16,
    /// The Content-Type header, empty if there is none.
    pub content_type: &'a str,
    /// The body, at most [`MAX_BODY_LENGTH`] bytes.
    pub body: &'a [u8],
}

/// Reads the response to GetCallerIdentity.
///
/// # Errors
/// A refusal for a 4xx status with an STS error code, otherwise an unavailable denial: throttling,
/// a server error, or a 200 that is not exactly one GetCallerIdentityResponse document. The reason
/// repeats nothing of the body except an error code and a request id of the documented characters,
/// and an ARN of printable ASCII that cannot log in.
pub fn read(response: &Response<'_>) -> Result<CallerIdentity, Denial> {
    if response.status != 200 {
        return Err(read_error(response));
    }
    let invalid = |what: &str| Denial::invalid_response(format!("the response is not a valid STS response: {what}"));
    if !is_xml(response.content_type) {
        return Err(invalid("its content type is not text/xml"));
    }
    let elements = parse(response.body).map_err(invalid)?;
    let one = |path: &[&str]| {
        let name = path.last().copied().unwrap_or_default();
        let mut of_name = elements.iter().filter(|element| element.name() == name);
        match (of_name.next(), of_name.next()) {
            (Some(element), None) if element.path == path => Ok(element),
            _ => Err(invalid(&format!("it does not contain exactly one {name}"))),
        }
    };
    const RESULT: [&str; 2] = ["GetCallerIdentityResponse", "GetCallerIdentityResult"];
    one(&RESULT)?;
    let one = |name: &str| match one(&[RESULT[0], RESULT[1], name])? {
        Element { has_children: false, text, .. } => Ok(text.as_str()),
        _ => Err(invalid(&format!("its {name} is not text"))),
    };
    let (arn, user_id, account) = (one("Arn")?, one("UserId")?, one("Account")?);
    let principal = Principal::parse(arn)?;
    if !principal::is_account(account) || principal.account != account {
        return Err(invalid("its Account is not the account in its Arn"));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@:-".contains(&byte);
    if user_id.is_empty() || user_id.len() > MAX_USER_ID_LENGTH || !user_id.bytes().all(plain) {
        return Err(invalid("its UserId is not a valid unique id"));
    }
    Ok(CallerIdentity { arn: arn.to_owned(), user_id: user_id.to_owned(), principal })
}

/// Turns a response other than 200 into a denial. Only a 4xx status with an STS error code is a
/// refusal: proxies and load balancers return such statuses too, independent of the client's
/// credentials.
fn read_error(response: &Response<'_>) -> Denial {
    let elements = error_elements(response);
    let code = plain_text(&elements, &ERROR_CODE);
    let request_id = plain_text(&elements, &["ErrorResponse", "RequestId"]);

    let mut reason = format!("STS returned {}", response.status);
    if let Some(code) = code {
        reason.push(' ');
        reason.push_str(code);
    } else {
        reason.push_str(" without an STS error code");
    }
    if let Some(advice) = code.and_then(advice) {
        reason.push_str(": ");
        reason.push_str(advice);
    }
    if let Some(request_id) = request_id {
        reason.push_str(&format!(" (request id {request_id})"));
    }
    let throttled = matches!(code, Some("Throttling" | "ThrottlingException" | "RequestLimitExceeded"));
    // The cases in which AWS's clients retry; see "Common error types" for the codes.
    let retry = match response.status {
        429 => Retry::AfterThrottling,
        400 if throttled => Retry::AfterThrottling,
        500 | 503 => Retry::AfterPause,
        _ => Retry::Never,
    };
    if response.status == 429 && code.is_none() {
        reason.push_str(": STS is limiting the account's requests");
    }
    let cause = match (response.status, code) {
        (429, _) => Cause::Throttled,
        (408 | 500..=599, _) => Cause::ServerError,
        (400..=499, Some(_)) if throttled => Cause::Throttled,
        (400..=499, Some(code)) => refusal(code),
        _ => Cause::InvalidResponse,
    };
    Denial::new(cause, reason).retryable(retry)
}

/// Minimum difference between this machine's clock and that of STS that can explain a refusal. STS
/// accepts a difference of 15 minutes, and so does this plugin between the client's clock and this
/// machine's.
const MIN_CLOCK_DIFFERENCE: Duration = Duration::from_secs(300);

/// Adds to a time-dependent refusal that this machine's clock is wrong, if the response's `Date`
/// header (RFC 9110, section 6.6.1) shows that. `now` is this machine's time; the clock of STS is
/// assumed to be right.
pub fn explain_clock(denial: Denial, date: &str, now: SystemTime) -> Denial {
    let depends_on_time = denial.cause() == Cause::WrongSignature || denial.reason().contains(" RequestExpired");
    let Some(date) = httpdate::parse_http_date(date).ok().filter(|_| depends_on_time) else { return denial };
    let (difference, side) = match date.duration_since(now) {
        Ok(behind) => (behind, "behind"),
        Err(error) => (error.duration(), "ahead of"),
    };
    if difference < MIN_CLOCK_DIFFERENCE {
        return denial;
    }
    let advice = format!("this machine's clock is {} seconds {side} that of STS: synchronize it", difference.as_secs());
    let reason = denial.reason();
    Denial::new(
        Cause::ClockSkew,
        match reason.split_once(WRONG_SIGNATURE) {
            Some((before, after)) => format!("{before}{advice}{after}"),
            None => format!("{reason}; {advice}"),
        },
    )
}

const WRONG_SIGNATURE: &str = "the client's secret key does not match its access key id, or its clock is wrong";

const ERROR_CODE: [&str; 3] = ["ErrorResponse", "Error", "Code"];

/// Whether STS itself sent the response: it is an ErrorResponse with a code.
pub fn has_error_code(response: &Response<'_>) -> bool {
    plain_text(&error_elements(response), &ERROR_CODE).is_some()
}

fn error_elements(response: &Response<'_>) -> Vec<Element> {
    if is_xml(response.content_type) { parse(response.body).unwrap_or_default() } else { Vec::new() }
}

/// The text of the element at this path, if it is `plain`.
fn plain_text<'a>(elements: &'a [Element], path: &[&str]) -> Option<&'a str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    let found = elements.iter().find(|element| element.path == path).map(|element| element.text.as_str())?;
    (!found.is_empty() && found.len() <= 64 && found.bytes().all(plain)).then_some(found)
}

/// Reads a Retry-After header (RFC 9110, section 10.2.3) that is a number of seconds. Its other
/// form, a date, is ignored.
pub fn retry_after(header: &str) -> Option<Duration> {
    let seconds: u64 = header.bytes().all(|byte| byte.is_ascii_digit()).then(|| header.parse().ok())??;
    Some(Duration::from_secs(seconds.min(MAX_RETRY_AFTER_SECONDS)))
}

/// The cause of a refusal, by the error code.
fn refusal(code: &str) -> Cause {
    match code {
        "InvalidClientTokenId" => Cause::UnknownKey,
        "SignatureDoesNotMatch" => Cause::WrongSignature,
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => Cause::ExpiredToken,
        _ => Cause::OtherRefusal,
    }
}

/// The explanation of an error code for the operator.
fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "InvalidClientTokenId" => "the access key or the session token is unknown to AWS, or not valid in this region",
        "SignatureDoesNotMatch" => WRONG_SIGNATURE,
        "ExpiredToken" | "ExpiredTokenException" => "the client's session token has expired",
        "Throttling" | "ThrottlingException" | "RequestLimitExceeded" => "STS is limiting the account's requests",
        _ => return None,
    })
}

/// `"text/xml"`, in any letter case, alone or with parameters after a semicolon (RFC 9110 section
/// 8.3.1).
fn is_xml(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("text/xml")
}

/// One element: the names from the root to it, and its text.
#[derive(Debug)]
struct Element {
    path: Vec<String>,
    text: String,
    has_children: bool,
}

impl Element {
    fn name(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }
}

/// Parses a document into its elements, in the order of their end tags.
fn parse(body: &[u8]) -> Result<Vec<Element>, &'static str> {
    const BROKEN: &str = "it is not a well-formed XML document";
    let text = str::from_utf8(body).map_err(|_| "it is not UTF-8")?;
    if body.len() > MAX_BODY_LENGTH {
        return Err("it is longer than 64 KiB");
    }
    if text.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\r' | '\n')) {
        return Err("it contains a control character");
    }
    if text.starts_with('\u{feff}') {
        return Err("it begins with a byte order mark");
    }
    let mut reader = Reader::from_str(text);
    let mut elements = Vec::new();
    let mut open: Vec<Element> = Vec::new();
    let mut first = true;
    let mut finished = false;
    loop {
        match reader.read_event().map_err(|_| BROKEN)? {
            Event::Decl(declaration) if first && is_expected(&declaration) => {}
            Event::Start(start) => {
                if finished || open.len() == MAX_DEPTH {
                    return Err(if finished { BROKEN } else { "its elements are nested too deeply" });
                }
                for attribute in start.attributes() {
                    let attribute = attribute.map_err(|_| BROKEN)?;
                    // STS sends only a namespace. Attributes are not used, but must be well-formed.
                    let name = attribute.key.as_ref();
                    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) || attribute.value.contains(['<', '&']) {
                        return Err("it contains an attribute that STS does not send");
                    }
                }
                let name = start.name().as_ref().to_owned();
                // STS sends a default namespace. Prefixes would allow two names for one element.
                if name.contains(':') {
                    return Err("it contains a name with a prefix");
                }
                let mut path = Vec::new();
                if let Some(parent) = open.last_mut() {
                    parent.has_children = true;
                    path.clone_from(&parent.path);
                }
                path.push(name);
                open.push(Element { path, text: String::new(), has_children: false });
            }
            Event::Empty(_) => {
                // No element of a real response is empty.
                return Err(BROKEN);
            }
            Event::End(_) => {
                let closed = open.pop().ok_or(BROKEN)?;
                if closed.has_children && !is_blank(&closed.text) {
                    return Err("it mixes text and elements");
                }
                elements.push(closed);
                finished = open.is_empty();
            }
            Event::Text(part) => match open.last_mut() {
                Some(element) => element.text.push_str(&part),
                None if is_blank(&part) => {}
                None => return Err(BROKEN),
            },
            Event::GeneralRef(reference) => {
                let character = resolve(&reference).ok_or("it contains an undefined entity")?;
                open.last_mut().ok_or(BROKEN)?.text.push(character);
            }
            Event::Eof if finished => return Ok(elements),
            Event::Eof => return Err(BROKEN),
            Event::DocType(_) => return Err("it contains a document type declaration"),
            Event::Decl(_) | Event::Comment(_) | Event::CData(_) | Event::PI(_) => {
                return Err("it contains markup that STS does not send");
            }
        }
        first = false;
    }
}

/// Whether this is the declaration of a document in UTF-8, in one of its usual forms.
fn is_expected(declaration: &str) -> bool {
    let plain = declaration.trim_end().replace('\'', "\"").to_ascii_lowercase();
    matches!(plain.as_str(), "xml version=\"1.0\"" | "xml version=\"1.0\" encoding=\"utf-8\"")
}

/// Resolves the five predefined entities of XML and numeric references. Without a document type,
/// there are no others.
fn resolve(reference: &BytesRef<'_>) -> Option<char> {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return Some(character);
    }
    match reference.as_ref() {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "apos" => Some('\''),
        "quot" => Some('"'),
        _ => None,
    }
}

fn is_blank(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denial::Kind;

    const USER: &str = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
        <GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/svcacct1</Arn><UserId>AIDAUH3H6EGKDO36JYJH3</UserId>\
        <Account>123456789012</Account></GetCallerIdentityResult><ResponseMetadata>\
        <RequestId>d8741953-0000-1111-2222-333344445555</RequestId></ResponseMetadata></GetCallerIdentityResponse>";

    fn read_200(body: &str) -> Result<CallerIdentity, Denial> {
        read(&Response { status: 200, content_type: "text/xml", body: body.as_bytes() })
    }

    #[test]
    fn miri_a_real_response_is_accepted() {
        let identity = read_200(USER).unwrap();
        assert_eq!(identity.arn, "arn:aws:iam::123456789012:user/svcacct1");
        assert_eq!(identity.user_id, "AIDAUH3H6EGKDO36JYJH3");
        assert_eq!(identity.principal.user_name(Default::default()), identity.arn);
    }

    #[test]
    fn miri_harmless_differences_are_accepted() {
        let indented = USER.replace("><", ">\n  <");
        for (name, body) in [
            ("a prolog", format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{USER}")),
            ("indentation", indented),
            ("a trailing newline", format!("{USER}\n")),
            (
                "another order",
                USER.replace("<Account>123456789012</Account>", "")
                    .replace("<Arn>", "<Account>123456789012</Account><Arn>"),
            ),
            ("a new field", USER.replace("<Arn>", "<Organization>o-1</Organization><Arn>")),
            ("no metadata", USER.replace("<ResponseMetadata>", "").replace("</ResponseMetadata>", "")),
        ] {
            assert!(read_200(&body).is_ok(), "{name}: {:?}", read_200(&body));
        }
        let typed = Response { status: 200, content_type: "text/xml;charset=utf-8", body: USER.as_bytes() };
        assert!(read(&typed).is_ok());
    }

    #[test]
    fn miri_predefined_entities_are_decoded() {
        let body = USER.replace("user/svcacct1", "user/&amp;&lt;&gt;&apos;&quot;&#x3c;&#99;/svcacct1");
        assert_eq!(read_200(&body).unwrap().arn, "arn:aws:iam::123456789012:user/&<>'\"<c/svcacct1");
    }

    #[test]
    fn miri_every_other_200_is_rejected() {
        let result = &USER[USER.find("<GetCallerIdentityResult>").unwrap()..USER.find("<ResponseMetadata>").unwrap()];
        let arn = "<Arn>arn:aws:iam::123456789012:user/svcacct1</Arn>";
        let cases = [
            ("empty", String::new()),
            ("blank", " \n".to_owned()),
            ("text before", format!("x{USER}")),
            ("text after", format!("{USER}x")),
            ("two documents", format!("{USER}{USER}")),
            ("cut short", USER[..USER.len() - 3].to_owned()),
            ("root not closed", USER.replace("</GetCallerIdentityResponse>", "")),
            ("another root", USER.replace("GetCallerIdentityResponse", "AssumeRoleResponse")),
            ("embedded in another response", format!("<AssumeRoleResponse>{USER}</AssumeRoleResponse>")),
            ("another result", USER.replace("GetCallerIdentityResult", "Result")),
            ("result at the root", result.to_owned()),
            ("two results", USER.replace(result, &format!("{result}{result}"))),
            ("two arns", USER.replace(arn, &format!("{arn}{arn}"))),
            ("no arn", USER.replace(arn, "")),
            ("arn elsewhere too", USER.replace("<ResponseMetadata>", &format!("<ResponseMetadata>{arn}"))),
            ("nested arn", USER.replace(arn, &format!("<Arn>{arn}</Arn>"))),
            ("text beside elements", USER.replace("<Arn>", "x<Arn>")),
            ("empty arn element", USER.replace(arn, "<Arn/>")),
            ("doctype", format!("<!DOCTYPE x>{USER}")),
            ("entity bomb", format!("<!DOCTYPE x [<!ENTITY a \"arn\">]>{}", USER.replace("arn:", "&a;:"))),
            ("unknown entity", USER.replace("arn:", "&arn;:")),
            ("comment", USER.replace("svcacct1", "svc<!-- -->acct1")),
            ("cdata", USER.replace("svcacct1", "<![CDATA[svcacct1]]>")),
            ("instruction", USER.replace("<Arn>", "<?x y?><Arn>")),
            ("late prolog", USER.replace("<Arn>", "<?xml version=\"1.0\"?><Arn>")),
            ("other encoding", format!("<?xml version=\"1.0\" encoding=\"utf-16\"?>{USER}")),
            ("misspelt prolog", format!("<?xml vesrion=\"1.0\"?>{USER}")),
            ("broken prolog", format!("<?xml version=\"1.0\"`encoding=\"UTF-8\"?>{USER}")),
            ("tag in an attribute", USER.replace("2011-06-15/", "2011<Arn>06-15/")),
            ("entity in an attribute", USER.replace("2011-06-15/", "2011&a;06-15/")),
            ("odd attribute", USER.replace(" xmlns", " -xmlns")),
            ("control character", USER.replace("d8741953", "d874\u{1}953")),
            ("nul", USER.replace("d8741953", "d874\0953")),
            ("wrong end tag", USER.replace("</Arn>", "</arn>")),
            ("attribute twice", USER.replace("<Arn>", "<Arn a='1' a='2'>")),
            ("other account", USER.replace("<Account>123456789012", "<Account>210987654321")),
            ("space in account", USER.replace("<Account>", "<Account> ")),
            ("space in arn", USER.replace("<Arn>", "<Arn> ")),
            ("odd user id", USER.replace("AIDA", "AIDA&lt;")),
            ("empty user id", USER.replace("AIDAUH3H6EGKDO36JYJH3", "")),
            ("line in arn", USER.replace("svcacct1", "svc&#10;acct1")),
            ("too deep", USER.replace("<Arn>", &format!("{}{}<Arn>", "<x>".repeat(8), "</x>".repeat(8)))),
            ("too long", format!("{USER}{}", " ".repeat(MAX_BODY_LENGTH))),
            ("a prefix", USER.replace("Arn>", "z:Arn>")),
            ("a byte order mark", format!("\u{feff}{USER}")),
            (
                "identity in two results",
                USER.replace("</Arn>", "</Arn></GetCallerIdentityResult><GetCallerIdentityResult>"),
            ),
            ("a second arn that is no text", USER.replace("<UserId>", "<Arn><x>y</x></Arn><UserId>")),
            ("html", "<html><body>Sign in</body></html>".to_owned()),
            ("json", "{\"GetCallerIdentityResponse\":{}}".to_owned()),
        ];
        for (name, body) in cases {
            assert!(read_200(&body).is_err(), "{name} was accepted");
        }
        assert!(read(&Response { status: 200, content_type: "text/xml", body: b"\xff" }).is_err());
        for content_type in ["", "application/json", "text/html", "text/xmlx", "x-text/xml"] {
            assert!(read(&Response { status: 200, content_type, body: USER.as_bytes() }).is_err(), "{content_type}");
        }
    }

    #[test]
    fn miri_limits_are_exact() {
        let padded = |length: usize| format!("{USER}{}", " ".repeat(length - USER.len()));
        let nested = |depth: usize| {
            // Two levels are above the Arn.
            let (start, end) = ("<x>".repeat(depth - 2), "</x>".repeat(depth - 2));
            USER.replace("<Arn>", &format!("{start}{end}<Arn>"))
        };
        let user_id = |length: usize| USER.replace("AIDAUH3H6EGKDO36JYJH3", &"A".repeat(length));
        for (name, body) in [("length", padded(65_536)), ("depth", nested(8)), ("user id", user_id(256))] {
            assert!(read_200(&body).is_ok(), "{name}: {:?}", read_200(&body));
        }
        for (name, body) in [("length", padded(65_537)), ("depth", nested(9)), ("user id", user_id(257))] {
            assert!(read_200(&body).is_err(), "{name} was accepted");
        }
        let (code, long) = ("c".repeat(64), "c".repeat(65));
        assert!(error(403, &code).reason().starts_with(&format!("STS returned 403 {code} (")));
        assert!(error(403, &long).reason().starts_with("STS returned 403 without an STS error code"));
    }

    fn error(status: u16, code: &str) -> Denial {
        let body = format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>secret text</Message></Error><RequestId>d8741953-0000</RequestId></ErrorResponse>"
        );
        read(&Response { status, content_type: "text/xml", body: body.as_bytes() }).unwrap_err()
    }

    #[test]
    fn miri_a_refusal_carries_the_code_and_the_request_id() {
        let denial = error(403, "InvalidClientTokenId");
        assert_eq!(denial.kind(), Kind::RefusedBySts);
        assert!(denial.reason().starts_with("STS returned 403 InvalidClientTokenId: "), "{denial}");
        assert!(denial.reason().ends_with("(request id d8741953-0000)"), "{denial}");
        assert!(!denial.reason().contains("secret text"));
        assert_eq!(
            error(403, "a b\n").reason(),
            "STS returned 403 without an STS error code (request id d8741953-0000)"
        );
    }

    #[test]
    fn miri_every_error_code_has_its_cause_and_advice() {
        const UNKNOWN: &str = ": the access key or the session token is unknown to AWS, or not valid in this region";
        const SIGNATURE: &str = ": the client's secret key does not match its access key id, or its clock is wrong";
        const EXPIRED: &str = ": the client's session token has expired";
        const THROTTLED: &str = ": STS is limiting the account's requests";
        for (status, code, cause, advice) in [
            (403, "InvalidClientTokenId", Cause::UnknownKey, UNKNOWN),
            (403, "SignatureDoesNotMatch", Cause::WrongSignature, SIGNATURE),
            (403, "ExpiredToken", Cause::ExpiredToken, EXPIRED),
            (400, "ExpiredTokenException", Cause::ExpiredToken, EXPIRED),
            (400, "RequestExpired", Cause::ExpiredToken, ""),
            (403, "AccessDenied", Cause::OtherRefusal, ""),
            (400, "Throttling", Cause::Throttled, THROTTLED),
            (400, "ThrottlingException", Cause::Throttled, THROTTLED),
            (403, "RequestLimitExceeded", Cause::Throttled, THROTTLED),
            (429, "TooMany", Cause::Throttled, ""),
            (408, "RequestTimeout", Cause::ServerError, ""),
            (500, "InternalFailure", Cause::ServerError, ""),
            (599, "Unknown", Cause::ServerError, ""),
            (600, "Unknown", Cause::InvalidResponse, ""),
            (302, "Found", Cause::InvalidResponse, ""),
        ] {
            let denial = error(status, code);
            assert_eq!(denial.cause(), cause, "{status} {code}");
            assert_eq!(denial.reason(), format!("STS returned {status} {code}{advice} (request id d8741953-0000)"));
        }
        let throttled = Response { status: 429, content_type: "text/html", body: b"<html>" };
        assert_eq!(
            read(&throttled).unwrap_err().reason(),
            "STS returned 429 without an STS error code: STS is limiting the account's requests"
        );
        assert!(!has_error_code(&throttled));
        let body = b"<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>";
        assert!(has_error_code(&Response { status: 429, content_type: "text/xml", body }));
    }

    #[test]
    fn miri_a_refusal_names_this_machines_clock_if_it_is_wrong() {
        const DATE: &str = "Sat, 21 Nov 2026 19:13:00 GMT";
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let sts = 1_795_288_380;
        let wrong_signature = || error(403, "SignatureDoesNotMatch");
        for (denial, now, clock) in [
            (
                wrong_signature(),
                sts - 1200,
                "this machine's clock is 1200 seconds behind that of STS: synchronize it (request id",
            ),
            (
                wrong_signature(),
                sts + 300,
                "this machine's clock is 300 seconds ahead of that of STS: synchronize it (request id",
            ),
            (
                error(403, "RequestExpired"),
                sts - 901,
                "; this machine's clock is 901 seconds behind that of STS: synchronize it",
            ),
        ] {
            let explained = explain_clock(denial, DATE, at(now));
            assert_eq!((explained.cause(), explained.retry()), (Cause::ClockSkew, Retry::Never));
            assert!(explained.reason().contains(clock), "{explained}");
            assert!(!explained.reason().contains("secret key"), "{explained}");
        }
        for (denial, date, now) in [
            (wrong_signature(), DATE, sts - 299),
            (wrong_signature(), DATE, sts + 299),
            (wrong_signature(), "", sts - 1200),
            (wrong_signature(), "2026-11-21", sts - 1200),
            (error(403, "ExpiredToken"), DATE, sts - 1200),
            (error(403, "InvalidClientTokenId"), DATE, sts - 1200),
            (error(503, "ServiceUnavailable"), DATE, sts - 1200),
        ] {
            assert_eq!(explain_clock(denial.clone(), date, at(now)), denial);
        }
    }

    #[test]
    fn miri_only_a_refusal_of_sts_counts_as_one() {
        assert_eq!(error(400, "IncompleteSignature").kind(), Kind::RefusedBySts);
        for (status, code) in
            [(400, "Throttling"), (400, "ThrottlingException"), (400, "RequestLimitExceeded"), (429, "TooMany")]
        {
            assert_eq!(error(status, code).kind(), Kind::Throttled, "{status} {code}");
        }
        for (status, code) in [
            (408, "RequestTimeout"),
            (500, "InternalFailure"),
            (503, "ServiceUnavailable"),
            (302, "Found"),
            (204, "None"),
        ] {
            assert_eq!(error(status, code).kind(), Kind::StsUnavailable, "{status} {code}");
        }
    }

    #[test]
    fn miri_only_temporary_errors_are_retried() {
        for (status, code, retry) in [
            (400, "Throttling", Retry::AfterThrottling),
            (400, "ThrottlingException", Retry::AfterThrottling),
            (400, "RequestLimitExceeded", Retry::AfterThrottling),
            (429, "TooMany", Retry::AfterThrottling),
            (500, "InternalFailure", Retry::AfterPause),
            (503, "ServiceUnavailable", Retry::AfterPause),
            (400, "IncompleteSignature", Retry::Never),
            (403, "Throttling", Retry::Never),
            (403, "ExpiredToken", Retry::Never),
            (408, "RequestTimeout", Retry::Never),
            (302, "Found", Retry::Never),
            (501, "NotImplemented", Retry::Never),
        ] {
            assert_eq!(error(status, code).retry(), retry, "{status} {code}");
        }
        assert_eq!(read_200("<html/>").unwrap_err().retry(), Retry::Never);
    }

    #[test]
    fn miri_retry_after_is_a_bounded_number_of_seconds() {
        assert_eq!(retry_after("2"), Some(Duration::from_secs(2)));
        assert_eq!(retry_after("86400"), Some(Duration::from_secs(MAX_RETRY_AFTER_SECONDS)));
        for none in ["", "-1", "+1", "1.5", "Sat, 21 Nov 2026 19:13:00 GMT", "99999999999999999999999"] {
            assert_eq!(retry_after(none), None, "{none:?}");
        }
    }

    #[test]
    fn miri_an_error_without_an_sts_error_code_is_not_a_refusal() {
        for (content_type, body) in [("text/html", "<html>"), ("text/xml", "<x"), ("", ""), ("text/xml", USER)] {
            let denial = read(&Response { status: 403, content_type, body: body.as_bytes() }).unwrap_err();
            assert_eq!(
                (denial.kind(), denial.reason()),
                (Kind::StsUnavailable, "STS returned 403 without an STS error code")
            );
        }
    }
}
