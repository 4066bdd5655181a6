//! Verifies that a request was signed with the secret of the access key it names, as AWS does.
//!
//! `aws-sigv4` signs the request as it was received with the known secret, and the two signatures
//! are compared in constant time. `aws-sigv4` adds `host` and `x-amz-date` to the signed header
//! fields if they are missing; both are required before, so that exactly the client's list is
//! signed.
//!
//! The rules and the codes that a MongoDB login can meet follow [Create a signed request] and the
//! [common errors] of STS. The order of the checks and the texts of messages are AWS's as far as
//! they are known; do not depend on them. What AWS does not document has codes of this server:
//! MisdirectedRequest, InvalidRequest, MalformedInput, MethodNotAllowed, UnknownOperationException.
//! Signatures in a query string are not offered.
//!
//! [Create a signed request]: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
//! [common errors]: https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use subtle::ConstantTimeEq;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::error::StsError;
use crate::http::Request;
use crate::identity::{Identity, is_access_key_id};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "sts";
const TERMINATOR: &str = "aws4_request";
const VERSION: &str = "2011-06-15";
/// A signature is valid from this long before its date until this long after it.
const WINDOW: Duration = Duration::from_secs(15 * 60);

const DOES_NOT_MATCH: &str = "The request signature we calculated does not match the signature you provided. Check \
     your AWS Secret Access Key and signing method. Consult the service documentation for details.";

/// What a verification needs besides the request.
pub(crate) struct Verifier<'a> {
    /// The server's names; other `Host` fields are refused.
    pub(crate) host_names: &'a [String],
    /// The port it listens on, which a `Host` field may name; so may it name 443.
    pub(crate) port: u16,
    /// The time on the server's clock.
    pub(crate) now: SystemTime,
}

impl Verifier<'_> {
    /// Returns the identity that signed `request`, or the error of STS.
    ///
    /// `identity_of` finds an identity by its access key id.
    pub(crate) fn verify(
        &self,
        request: &Request,
        identity_of: impl FnOnce(&str) -> Option<Identity>,
    ) -> Result<Identity, StsError> {
        let region = self.region(request)?;
        check_action(request)?;
        let authorization = Authorization::of(request)?;
        let date = self.check_scope_and_date(request, &authorization, region)?;
        authorization.check_signed_headers(request)?;

        let invalid_token =
            || StsError::new(403, "InvalidClientTokenId", "The security token included in the request is invalid.");
        let identity = identity_of(authorization.access_key_id).ok_or_else(invalid_token)?;
        let token = single(request, "x-amz-security-token")?;
        if !same(token.unwrap_or_default(), identity.session_token.as_deref().unwrap_or_default()) {
            return Err(invalid_token());
        }
        if identity.expires_at.is_some_and(|end| end <= self.now) {
            return Err(StsError::new(403, "ExpiredToken", "The security token included in the request is expired"));
        }

        let expected = authorization.signature_with(&identity.secret_access_key, request, date, region);
        match expected {
            Some(expected) if same(&expected, authorization.signature) => Ok(identity),
            _ => Err(StsError::new(403, "SignatureDoesNotMatch", DOES_NOT_MATCH)),
        }
    }

    /// Returns the region of the host that `request` was sent to, if it is one of the server's
    /// names.
    fn region<'r>(&self, request: &'r Request) -> Result<&'r str, StsError> {
        let mut hosts = request.values("host");
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            // RFC 9112 section 3.2
            return Err(StsError::new(400, "InvalidRequest", "A request must have exactly one Host header field."));
        };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port == "443" || port == self.port.to_string() => name,
            _ => host,
        };
        if !self.host_names.iter().any(|ours| ours.eq_ignore_ascii_case(name)) {
            // RFC 9110 section 15.5.20
            return Err(StsError::new(
                421,
                "MisdirectedRequest",
                "This server does not serve the host of the request.",
            ));
        }
        Ok(region_of_host(name))
    }

    /// Checks the credential scope against the endpoint and `X-Amz-Date`, and that date against the
    /// clock.
    fn check_scope_and_date(
        &self,
        request: &Request,
        authorization: &Authorization<'_>,
        region: &str,
    ) -> Result<SystemTime, StsError> {
        let mismatch = |message: String| StsError::new(403, "SignatureDoesNotMatch", message);
        let Some(text) = single(request, "x-amz-date")? else {
            return Err(StsError::new(
                400,
                "IncompleteSignature",
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
            ));
        };
        let Some(date) = parse_date(text) else {
            return Err(StsError::new(
                400,
                "IncompleteSignature",
                format!(
                    "Date must be in ISO-8601 'basic format'. Got '{text}'. See http://en.wikipedia.org/wiki/ISO_8601"
                ),
            ));
        };

        if authorization.region != region {
            return Err(mismatch("Credential should be scoped to a valid region. ".to_owned()));
        }
        if authorization.service != SERVICE {
            return Err(mismatch(format!("Credential should be scoped to correct service: '{SERVICE}'. ")));
        }
        if authorization.terminator != TERMINATOR {
            return Err(mismatch(format!(
                "Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{}'. ",
                authorization.terminator
            )));
        }
        if authorization.day != &text[..8] {
            return Err(mismatch(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != \
                 '{}', from '{text}'.",
                authorization.day,
                &text[..8],
            )));
        }

        let (earliest, latest) = (self.now - WINDOW, self.now + WINDOW);
        let now = write_date(self.now);
        if date < earliest {
            let limit = write_date(earliest);
            return Err(mismatch(format!("Signature expired: {text} is now earlier than {limit} ({now} - 15 min.)")));
        }
        if date > latest {
            let limit = write_date(latest);
            return Err(mismatch(format!(
                "Signature not yet current: {text} is still later than {limit} ({now} + 15 min.)"
            )));
        }
        Ok(date)
    }
}

/// Returns the access key id that a request claims, if it claims one in the form of an access key
/// id.
pub(crate) fn claimed_access_key_id(request: &Request) -> Option<String> {
    Authorization::of(request).ok().map(|authorization| authorization.access_key_id.to_owned())
}

/// The parts of an `Authorization` header field, as they were written.
struct Authorization<'a> {
    access_key_id: &'a str,
    day: &'a str,
    region: &'a str,
    service: &'a str,
    terminator: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    /// Parses the field. Each part must be there once, in any order; nothing else may be.
    fn of(request: &'a Request) -> Result<Self, StsError> {
        let incomplete = |message: &str| StsError::new(400, "IncompleteSignature", message);
        let Some(text) = single(request, "authorization")? else {
            return Err(StsError::new(403, "MissingAuthenticationToken", "Request is missing Authentication Token"));
        };
        let (algorithm, parts) = text.split_once(' ').unwrap_or((text, ""));
        if algorithm != ALGORITHM {
            return Err(incomplete("Unsupported AWS 'algorithm' in the Authorization header."));
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in parts.split(',') {
            let Some((name, value)) = part.trim_matches(' ').split_once('=') else {
                return Err(incomplete("Authorization header holds a part that is not of the form name=value."));
            };
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(incomplete("Authorization header holds an unknown parameter.")),
            };
            if slot.replace(value).is_some() {
                return Err(incomplete("Authorization header holds a parameter twice."));
            }
        }
        let credential: &str =
            credential.ok_or_else(|| incomplete("Authorization header requires 'Credential' parameter."))?;
        let signed_headers: &str =
            signed_headers.ok_or_else(|| incomplete("Authorization header requires 'SignedHeaders' parameter."))?;
        let signature: &str =
            signature.ok_or_else(|| incomplete("Authorization header requires 'Signature' parameter."))?;

        let elements: Vec<&str> = credential.split('/').collect();
        let &[access_key_id, day, region, service, terminator] = elements.as_slice() else {
            return Err(incomplete("Credential must have exactly 5 slash-delimited elements."));
        };
        if !is_access_key_id(access_key_id) {
            return Err(incomplete("Credential must begin with an access key id."));
        }
        if signature.len() != 64 || !signature.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(incomplete("Signature must be 64 hexadecimal digits."));
        }
        let signed_headers: Vec<&str> = signed_headers.split(';').collect();
        if !signed_headers.iter().all(|name| is_lower_case_field_name(name))
            || !signed_headers.is_sorted_by(|a, b| a < b)
        {
            return Err(incomplete("SignedHeaders must be header names in lower case, sorted, each once."));
        }
        Ok(Self { access_key_id, day, region, service, terminator, signed_headers, signature })
    }

    /// Checks that every field that must be signed is signed, and that every signed field was
    /// received.
    fn check_signed_headers(&self, request: &Request) -> Result<(), StsError> {
        let mismatch = |message: String| StsError::new(403, "SignatureDoesNotMatch", message);
        let is_signed = |name: &str| self.signed_headers.iter().any(|signed| signed.eq_ignore_ascii_case(name));
        if !is_signed("host") {
            return Err(mismatch(
                "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".to_owned(),
            ));
        }
        for (name, _) in &request.headers {
            let name = name.to_ascii_lowercase();
            if name.starts_with("x-amz-") && !is_signed(&name) {
                return Err(mismatch(format!("'{name}' must be a 'SignedHeader' in the AWS Authorization.")));
            }
        }
        for name in &self.signed_headers {
            if request.values(name).next().is_none() {
                return Err(mismatch(format!(
                    "'{name}' is named as a SignedHeader, but it does not exist in the HTTP request"
                )));
            }
        }
        Ok(())
    }

    /// Signs `request` with `secret`; returns the signature in hexadecimal digits, or `None` if it
    /// cannot be signed because of bytes that no signer sends.
    fn signature_with(&self, secret: &str, request: &Request, date: SystemTime, region: &str) -> Option<String> {
        let headers: Vec<(&str, &str)> =
            self.signed_headers.iter().flat_map(|name| request.values(name).map(move |value| (*name, value))).collect();
        if !headers.iter().all(|(_, value)| value.is_ascii()) {
            return None;
        }
        // Without a token here: it is signed as the header field that was received, if it is in the
        // list.
        let credentials = Credentials::new(self.access_key_id, secret, None, None, "local-sts").into();
        let mut settings = SigningSettings::default();
        // The default leaves out user-agent and others even if the client's list has them.
        settings.excluded_headers = None;
        let parameters = v4::SigningParams::builder()
            .identity(&credentials)
            .region(region)
            .name(SERVICE)
            .time(date)
            .settings(settings)
            .build()
            .ok()?
            .into();
        let signable = SignableRequest::new(
            &request.method,
            request.target.as_str(),
            headers.into_iter(),
            SignableBody::Bytes(&request.body),
        )
        .ok()?;
        let (_, signature) = sign(signable, &parameters).ok()?.into_parts();
        Some(signature)
    }
}

/// Checks that `request` calls GetCallerIdentity by the [AWS query protocol].
///
/// [AWS query protocol]: https://smithy.io/2.0/aws/protocols/aws-query-protocol.html
fn check_action(request: &Request) -> Result<(), StsError> {
    if request.target != "/" {
        return Err(StsError::new(404, "UnknownOperationException", "Only the path / is served."));
    }
    if request.method != "POST" {
        return Err(StsError::new(405, "MethodNotAllowed", "Only POST is served."));
    }
    let is_form = single(request, "content-type")?.is_some_and(|value| {
        value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    let (mut action, mut version) = (None, None);
    if is_form {
        for (name, value) in form_urlencoded::parse(&request.body) {
            let slot = match name.as_ref() {
                "Action" => &mut action,
                "Version" => &mut version,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(StsError::new(400, "MalformedInput", format!("{name} occurs twice.")));
            }
        }
    }
    let Some(action) = action else {
        return Err(StsError::new(400, "MissingAction", "The request is missing an action or a required parameter."));
    };
    let version = version.unwrap_or("NO_VERSION_SPECIFIED".into());
    if action != "GetCallerIdentity" || version != VERSION {
        return Err(StsError::new(
            400,
            "InvalidAction",
            format!("Could not find operation {action} for version {version}"),
        ));
    }
    Ok(())
}

/// Returns the value of a field that may occur only once.
fn single<'a>(request: &'a Request, name: &'static str) -> Result<Option<&'a str>, StsError> {
    let mut values = request.values(name);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(StsError::new(400, "IncompleteSignature", format!("The header field {name} occurs twice."))),
    }
}

/// Returns the region that a signature for an STS host name must name, by the drivers'
/// specification: the second label, but us-east-1 for the global name and for names without a dot.
fn region_of_host(name: &str) -> &str {
    if name.eq_ignore_ascii_case("sts.amazonaws.com") {
        return "us-east-1";
    }
    name.split('.').nth(1).unwrap_or("us-east-1")
}

/// Parses `YYYYMMDDTHHMMSSZ`.
fn parse_date(text: &str) -> Option<SystemTime> {
    let is_form = text.len() == 16
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    if !is_form {
        return None;
    }
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    Some(PrimitiveDateTime::parse(text, format).ok()?.assume_utc().into())
}

fn write_date(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(format_description!("[year][month][day]T[hour][minute][second]Z"))
        .expect("a date of four-digit years can be written")
}

/// Compares in a time that depends on the lengths only.
fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// Returns whether `name` is a field name, RFC 9110 section 5.6.2, without upper-case letters.
fn is_lower_case_field_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2015-08-30T12:36:00Z, the date of AWS's own examples.
    const NOW: Duration = Duration::from_secs(1_440_938_160);
    const DATE: &str = "20150830T123600Z";
    const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLE==";
    const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==";
    // Signed with botocore 1.43.11, independently of aws-sigv4.
    const USER_SIGNATURE: &str = "839d01251b7fc911c2d27c442dc2e78ccc2b4c31f71b48e639ceaa32e321b8be";
    const ROLE_SIGNATURE: &str = "38ecb89e7455dd10f907c47365c04eba710becfe318ad79016aa2aeaceb14b24";
    const NOTE_SIGNATURE: &str = "2df66f76e063512e7011039d2cbda4a2123f03c19d71dd130643adaa8c7d0801";
    // Signed by hand: no client signs this field, but one that is listed must be verified.
    const AGENT_SIGNATURE: &str = "ffe7e68e12e54a119de443e872924d56a7aa12fa2475891d01bb6b0948d354a0";
    const USER_HEADERS: &str =
        "content-length;content-type;host;x-amz-date;x-mongodb-gs2-cb-flag;x-mongodb-server-nonce";

    type Change = fn(&mut Request);

    fn identity() -> Identity {
        Identity {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
            expires_at: None,
            arn: "arn:aws:iam::123456789012:user/alice".to_owned(),
            user_id: "AIDAEXAMPLE".to_owned(),
            account: "123456789012".to_owned(),
        }
    }

    fn authorization(region: &str, signed_headers: &str, signature: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/{region}/sts/aws4_request, \
             SignedHeaders={signed_headers}, Signature={signature}"
        )
    }

    /// The request that a driver's login makes, as botocore signed it for a user.
    fn user_request() -> Request {
        let fields = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Content-Length", "43"),
            ("Host", "sts.amazonaws.com"),
            ("X-MongoDB-Server-Nonce", NONCE),
            ("X-MongoDB-GS2-CB-Flag", "n"),
            ("X-Amz-Date", DATE),
            ("Authorization", &authorization("us-east-1", USER_HEADERS, USER_SIGNATURE)),
        ];
        Request {
            method: "POST".to_owned(),
            target: "/".to_owned(),
            headers: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: b"Action=GetCallerIdentity&Version=2011-06-15".to_vec(),
            raw_head: Vec::new(),
            keep_alive: true,
        }
    }

    /// The same for a role session at a regional endpoint.
    fn role_request() -> Request {
        let mut request = user_request();
        set(&mut request, "Host", "sts.eu-west-1.amazonaws.com");
        set(&mut request, "X-Amz-Security-Token", TOKEN);
        let signed = USER_HEADERS.replace("x-amz-date", "x-amz-date;x-amz-security-token");
        set(&mut request, "Authorization", &authorization("eu-west-1", &signed, ROLE_SIGNATURE));
        request
    }

    fn role_identity() -> Identity {
        Identity { session_token: Some(TOKEN.to_owned()), ..identity() }
    }

    fn set(request: &mut Request, name: &str, value: &str) {
        remove(request, name);
        add(request, name, value);
    }

    fn add(request: &mut Request, name: &str, value: &str) {
        request.headers.push((name.to_owned(), value.to_owned()));
    }

    fn remove(request: &mut Request, name: &str) {
        request.headers.retain(|(field, _)| !field.eq_ignore_ascii_case(name));
    }

    fn replace(request: &mut Request, name: &str, from: &str, to: &str) {
        let value = request.values(name).next().unwrap().to_owned();
        assert!(value.contains(from), "{from:?} is not in {value:?}");
        set(request, name, &value.replace(from, to));
    }

    fn verify_at(request: &Request, identity: &Identity, now: SystemTime) -> Result<Identity, StsError> {
        let names = ["sts.amazonaws.com".to_owned(), "sts.eu-west-1.amazonaws.com".to_owned()];
        let verifier = Verifier { host_names: &names, port: 8443, now };
        verifier.verify(request, |id| (id == identity.access_key_id).then(|| identity.clone()))
    }

    fn verify(request: &Request, identity: &Identity) -> Result<Identity, StsError> {
        verify_at(request, identity, SystemTime::UNIX_EPOCH + NOW)
    }

    fn refusal_of(change: impl FnOnce(&mut Request)) -> (u16, &'static str, String) {
        let mut request = user_request();
        change(&mut request);
        let refusal = verify(&request, &identity()).expect_err("accepted");
        (refusal.status, refusal.code, refusal.message)
    }

    #[test]
    fn signatures_of_botocore_are_accepted() {
        assert_eq!(verify(&user_request(), &identity()).unwrap().arn, identity().arn);
        assert!(verify(&role_request(), &role_identity()).is_ok());

        let mut request = user_request();
        add(&mut request, "X-Note", "two   spaces");
        let signed = format!("{USER_HEADERS};x-note");
        set(&mut request, "Authorization", &authorization("us-east-1", &signed, NOTE_SIGNATURE));
        assert!(verify(&request, &identity()).is_ok());
    }

    #[test]
    fn fields_that_signers_leave_out_are_verified_when_they_are_listed() {
        let mut request = user_request();
        add(&mut request, "User-Agent", "mongo/1");
        let signed = USER_HEADERS.replace("host;", "host;user-agent;");
        set(&mut request, "Authorization", &authorization("us-east-1", &signed, AGENT_SIGNATURE));
        assert!(verify(&request, &identity()).is_ok());
        set(&mut request, "User-Agent", "mongo/2");
        assert_eq!(verify(&request, &identity()).unwrap_err().code, "SignatureDoesNotMatch");
    }

    #[test]
    fn fields_that_are_not_signed_do_not_matter() {
        let mut request = user_request();
        for name in ["Accept", "User-Agent", "Connection", "X-Amzn-Trace-Id"] {
            add(&mut request, name, "anything");
        }
        assert!(verify(&request, &identity()).is_ok());
    }

    #[test]
    fn any_change_to_what_was_signed_is_refused() {
        let changes: [(&str, Change); 8] = [
            ("nonce", |request| replace(request, "X-MongoDB-Server-Nonce", "AAEC", "AAED")),
            ("flag", |request| set(request, "X-MongoDB-GS2-CB-Flag", "y")),
            ("content type", |request| replace(request, "Content-Type", "urlencoded", "urlencoded; charset=utf-8")),
            ("length", |request| set(request, "Content-Length", "044")),
            ("date", |request| set(request, "X-Amz-Date", "20150830T123601Z")),
            ("body", |request| request.body.extend_from_slice(b"&x=y")),
            ("nonce twice", |request| add(request, "X-MongoDB-Server-Nonce", NONCE)),
            ("signature", |request| replace(request, "Authorization", "Signature=8", "Signature=9")),
        ];
        for (name, change) in changes {
            let (status, code, message) = refusal_of(change);
            assert_eq!((status, code, message.as_str()), (403, "SignatureDoesNotMatch", DOES_NOT_MATCH), "{name}");
        }
        let other = Identity { secret_access_key: "another".to_owned(), ..identity() };
        assert_eq!(verify(&user_request(), &other).unwrap_err().code, "SignatureDoesNotMatch");
    }

    #[test]
    fn a_signature_in_upper_case_is_refused() {
        let upper = format!("Signature={}", USER_SIGNATURE.to_uppercase());
        let lower = format!("Signature={USER_SIGNATURE}");
        let (_, code, _) = refusal_of(|request| replace(request, "Authorization", &lower, &upper));
        assert_eq!(code, "SignatureDoesNotMatch");
    }

    #[test]
    fn the_authorization_field_has_one_form() {
        let rows: [(&str, &str, &str); 13] = [
            ("other algorithm", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA512"),
            ("no algorithm", "AWS4-HMAC-SHA256 ", ""),
            ("no credential", "Credential=AKIDEXAMPLE/20150830/us-east-1/sts/aws4_request, ", ""),
            ("no signed headers", "SignedHeaders=", "Other="),
            ("no signature", "Signature=", "Sig="),
            ("signature twice", "Signature=", "Signature=a, Signature="),
            ("four elements", "/aws4_request", ""),
            ("six elements", "/aws4_request", "/aws4_request/x"),
            ("no key", "Credential=AKIDEXAMPLE/", "Credential=/"),
            ("short signature", "Signature=8", "Signature="),
            ("not sorted", "content-length;content-type", "content-type;content-length"),
            ("header twice", "host;", "host;host;"),
            ("upper case", ";host;", ";Host;"),
        ];
        for (name, from, to) in rows {
            let (status, code, message) = refusal_of(|request| replace(request, "Authorization", from, to));
            assert_eq!((status, code), (400, "IncompleteSignature"), "{name}: {message}");
        }
        let (status, code, _) = refusal_of(|request| remove(request, "Authorization"));
        assert_eq!((status, code), (403, "MissingAuthenticationToken"));
        let (status, code, _) = refusal_of(|request| add(request, "authorization", "x"));
        assert_eq!((status, code), (400, "IncompleteSignature"));
    }

    #[test]
    fn the_scope_must_fit_endpoint_service_and_date() {
        for (from, to, expected) in [
            ("us-east-1", "eu-west-1", "Credential should be scoped to a valid region. "),
            ("/sts/", "/iam/", "Credential should be scoped to correct service: 'sts'. "),
            (
                "aws4_request",
                "aws4",
                "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws4'. ",
            ),
            (
                "20150830",
                "20150831",
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: \
                 '20150831' != '20150830', from '20150830T123600Z'.",
            ),
        ] {
            let (status, code, message) = refusal_of(|request| replace(request, "Authorization", from, to));
            assert_eq!((status, code, message.as_str()), (403, "SignatureDoesNotMatch", expected));
        }
    }

    #[test]
    fn a_date_is_valid_for_fifteen_minutes_either_way() {
        let now = SystemTime::UNIX_EPOCH + NOW;
        let second = Duration::from_secs(1);
        for good in [now - WINDOW, now + WINDOW] {
            assert!(verify_at(&user_request(), &identity(), good).is_ok());
        }
        let late = verify_at(&user_request(), &identity(), now + WINDOW + second).unwrap_err();
        assert_eq!((late.status, late.code), (403, "SignatureDoesNotMatch"));
        assert_eq!(
            late.message,
            "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T125101Z - 15 min.)"
        );
        let early = verify_at(&user_request(), &identity(), now - WINDOW - second).unwrap_err();
        assert_eq!(
            early.message,
            "Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z (20150830T122059Z + 15 \
             min.)"
        );
    }

    #[test]
    fn exactly_one_well_formed_date_is_required() {
        for date in
            ["", "20150830T123600", "2015-08-30T12:36:00Z", "20150830T250000Z", "20150230T123600Z", "+0150830T123600Z"]
        {
            let (status, code, _) = refusal_of(|request| set(request, "X-Amz-Date", date));
            assert_eq!((status, code), (400, "IncompleteSignature"), "{date:?}");
        }
        assert_eq!(refusal_of(|request| remove(request, "X-Amz-Date")).1, "IncompleteSignature");
        assert_eq!(refusal_of(|request| add(request, "X-Amz-Date", DATE)).1, "IncompleteSignature");
    }

    #[test]
    fn required_fields_must_be_signed_and_signed_fields_present() {
        for (from, to, expected) in [
            ("host;", "", "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."),
            ("x-amz-date;", "", "'x-amz-date' must be a 'SignedHeader' in the AWS Authorization."),
            (
                "x-amz-date;",
                "x-amz-date;x-amz-new;",
                "'x-amz-new' is named as a SignedHeader, but it does not exist in the HTTP request",
            ),
        ] {
            let (status, code, message) = refusal_of(|request| replace(request, "Authorization", from, to));
            assert_eq!((status, code, message.as_str()), (403, "SignatureDoesNotMatch", expected));
        }
        let (_, code, message) = refusal_of(|request| add(request, "X-AMZ-New", "1"));
        assert_eq!(code, "SignatureDoesNotMatch");
        assert!(message.starts_with("'x-amz-new' must be"), "{message}");
    }

    #[test]
    fn the_token_must_be_that_of_the_key() {
        let role = role_identity();
        for token in [None, Some("other")] {
            let other = Identity { session_token: token.map(str::to_owned), ..role.clone() };
            let refusal = verify(&role_request(), &other).unwrap_err();
            assert_eq!((refusal.status, refusal.code), (403, "InvalidClientTokenId"), "{token:?}");
        }
        // The token left out, of the request and of the list of what is signed.
        let refusal = verify(&user_request(), &role).unwrap_err();
        assert_eq!((refusal.status, refusal.code), (403, "InvalidClientTokenId"));

        let now = SystemTime::UNIX_EPOCH + NOW;
        let expired = Identity { expires_at: Some(now), ..role.clone() };
        let refusal = verify(&role_request(), &expired).unwrap_err();
        assert_eq!((refusal.status, refusal.code), (403, "ExpiredToken"));
        let still_good = Identity { expires_at: Some(now + Duration::from_secs(1)), ..role };
        assert!(verify(&role_request(), &still_good).is_ok());
    }

    #[test]
    fn an_unknown_key_is_an_invalid_token() {
        let (status, code, message) =
            refusal_of(|request| replace(request, "Authorization", "AKIDEXAMPLE", "AKIDOTHER"));
        assert_eq!((status, code), (403, "InvalidClientTokenId"));
        assert_eq!(message, "The security token included in the request is invalid.");
    }

    #[test]
    fn only_get_caller_identity_by_post_is_offered() {
        let bodies = [
            ("", "MissingAction"),
            ("Version=2011-06-15", "MissingAction"),
            ("Action=GetCallerIdentity", "InvalidAction"),
            ("Action=GetCallerIdentity&Version=2010-05-08", "InvalidAction"),
            ("Action=AssumeRole&Version=2011-06-15", "InvalidAction"),
            ("Action=GetCallerIdentity&Action=AssumeRole&Version=2011-06-15", "MalformedInput"),
        ];
        for (body, expected) in bodies {
            let (status, code, _) = refusal_of(|request| request.body = body.into());
            assert_eq!((status, code), (400, expected), "{body:?}");
        }
        assert_eq!(refusal_of(|request| set(request, "Content-Type", "text/plain")).1, "MissingAction");
        assert_eq!(refusal_of(|request| request.method = "GET".to_owned()).0, 405);
        assert_eq!(refusal_of(|request| request.target = "/?Action=GetCallerIdentity".to_owned()).0, 404);
    }

    #[test]
    fn the_host_must_be_one_of_the_server() {
        for host in ["sts.example.com", "", "sts.amazonaws.com:9", "sts.amazonaws.com.", "evil@sts.amazonaws.com"] {
            assert_eq!(refusal_of(|request| set(request, "Host", host)).0, 421, "{host:?}");
        }
        assert_eq!(refusal_of(|request| remove(request, "Host")).0, 400);
        assert_eq!(refusal_of(|request| add(request, "Host", "sts.amazonaws.com")).0, 400);
        // Ours, but not what was signed.
        for host in ["STS.amazonaws.com", "sts.amazonaws.com:443", "sts.amazonaws.com:8443"] {
            assert_eq!(refusal_of(|request| set(request, "Host", host)).1, "SignatureDoesNotMatch", "{host:?}");
        }
    }

    #[test]
    fn the_region_is_the_second_label() {
        for (host, region) in [
            ("sts.amazonaws.com", "us-east-1"),
            ("STS.AMAZONAWS.COM", "us-east-1"),
            ("localhost", "us-east-1"),
            ("sts.eu-west-1.amazonaws.com", "eu-west-1"),
            ("sts-fips.us-west-2.amazonaws.com", "us-west-2"),
            ("sts.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ] {
            assert_eq!(region_of_host(host), region);
        }
    }

    #[test]
    fn bytes_that_no_client_signs_are_a_mismatch_not_a_crash() {
        let (_, code, _) = refusal_of(|request| set(request, "X-MongoDB-GS2-CB-Flag", "\u{fffd}"));
        assert_eq!(code, "SignatureDoesNotMatch");
    }
}
