//! Certificates in messages: the contents of an X.509 certificate, and why it was not trusted.
//!
//! rustls decides whether a certificate is trusted; [`explain`] only rewords its errors.

use super::errors::printable;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error, OtherError};
use std::fmt;
use std::sync::Arc;
use time::OffsetDateTime;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::Version;
use x509_cert::der::Decode;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::{Certificate, TbsCertificate};

/// Maximum length of a subject or issuer in a message, in characters. Two of them fit into the part
/// of an error that is logged.
const MAX_NAME_LENGTH: usize = 90;

/// Maximum number of a certificate's host names in a message.
const MAX_HOST_NAMES: usize = 3;

/// The contents of a certificate, which are unverified.
#[derive(Debug)]
pub struct Facts {
    /// The subject in the form of RFC 4514; at most 90 printable ASCII characters.
    pub subject: String,
    /// The issuer in the same form.
    pub issuer: String,
    /// Whether subject and issuer are the same name.
    pub is_self_issued: bool,
    /// The bounds of the validity period, inclusive.
    not_before: UnixTime,
    not_after: UnixTime,
    /// Why it cannot be a CA certificate.
    not_a_ca: Option<&'static str>,
}

impl Facts {
    /// Reads a certificate in DER. Returns `None` if it is not an X.509 certificate (RFC 5280).
    pub fn read(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let certificate = certificate.tbs_certificate();
        let validity = certificate.validity();
        Some(Self {
            subject: shown_name(certificate.subject()),
            issuer: shown_name(certificate.issuer()),
            is_self_issued: certificate.subject() == certificate.issuer(),
            not_before: UnixTime::since_unix_epoch(validity.not_before.to_unix_duration()),
            not_after: UnixTime::since_unix_epoch(validity.not_after.to_unix_duration()),
            not_a_ca: not_a_ca(certificate),
        })
    }

    /// Returns why this cannot be used as a CA certificate now, if so: the end of a sentence about
    /// it.
    ///
    /// A CA certificate is of version 3 and has CA:TRUE (RFC 5280, 4.2.1.9), and its key usage, if
    /// it has one, includes keyCertSign (4.2.1.3). Versions 1 and 2 cannot mark a CA certificate.
    pub fn unfit_as_ca(&self, now: UnixTime) -> Option<String> {
        if let Some(why) = self.not_a_ca {
            return Some(why.to_owned());
        }
        if now > self.not_after {
            return Some(expired("", now, self.not_after));
        }
        (now < self.not_before).then(|| not_valid_yet("", now, self.not_before))
    }
}

fn not_a_ca(certificate: &TbsCertificate) -> Option<&'static str> {
    if certificate.version() != Version::V3 {
        return Some("is not an X.509 version 3 certificate, so it cannot be marked as a CA certificate");
    }
    match certificate.get_extension::<BasicConstraints>() {
        Ok(Some((_, constraints))) if constraints.ca => {}
        _ => return Some("is not a CA certificate: its basic constraints lack CA:TRUE"),
    }
    match certificate.get_extension::<KeyUsage>() {
        Ok(None) => None,
        Ok(Some((_, usage))) if usage.key_cert_sign() => None,
        _ => Some("is not a CA certificate: its key usage lacks keyCertSign"),
    }
}

/// Writes a name in the form of RFC 4514, truncated to [`MAX_NAME_LENGTH`].
fn shown_name(name: &Name) -> String {
    let mut attributes: Vec<_> = name.iter().map(shown_attribute).collect();
    // The last attribute, mostly the common name, comes first (RFC 4514, 2.1).
    attributes.reverse();
    match printable(&attributes.join(",")) {
        name if name.is_empty() => "no name".to_owned(),
        name if name.len() > MAX_NAME_LENGTH => format!("{}...", &name[..MAX_NAME_LENGTH - 3]),
        name => name,
    }
}

fn shown_attribute(attribute: &AttributeTypeAndValue) -> String {
    // The crate's table of all object identifiers would add 200 KB to the object.
    const TYPES: [(ObjectIdentifier, &str); 7] = [
        (ObjectIdentifier::new_unwrap("2.5.4.3"), "CN"),
        (ObjectIdentifier::new_unwrap("2.5.4.6"), "C"),
        (ObjectIdentifier::new_unwrap("2.5.4.7"), "L"),
        (ObjectIdentifier::new_unwrap("2.5.4.8"), "ST"),
        (ObjectIdentifier::new_unwrap("2.5.4.10"), "O"),
        (ObjectIdentifier::new_unwrap("2.5.4.11"), "OU"),
        (ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.25"), "DC"),
    ];
    let AttributeTypeAndValue { oid, value } = attribute;
    let name =
        TYPES.iter().find(|(known, _)| known == oid).map_or_else(|| oid.to_string(), |(_, name)| (*name).to_owned());
    let mut text = String::new();
    for character in String::from_utf8_lossy(value.value()).chars() {
        // Escaped, so that one attribute cannot look like two.
        if matches!(character, ',' | '+' | '\\' | '"') {
            text.push('\\');
        }
        text.push(character);
    }
    format!("{name}={text}")
}

/// A certificate error of rustls with a message for operators.
#[derive(Debug)]
struct Explained {
    cause: CertificateError,
    message: String,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Explained {}

/// Adds a message for operators to a certificate error about the certificate that a server sent. It
/// stays a certificate error, and other errors stay unchanged.
pub fn explain(error: Error, certificate: &CertificateDer<'_>) -> Error {
    with_message(error, |cause| message(cause, Facts::read(certificate).as_ref()))
}

/// Does the same for an error about the signature of a handshake.
pub fn explain_signature(error: Error) -> Error {
    with_message(error, |cause| match cause {
        CertificateError::BadSignature => {
            "the server did not prove that it has the private key of its certificate".to_owned()
        }
        cause => message(cause, None),
    })
}

fn with_message(error: Error, message: impl FnOnce(&CertificateError) -> String) -> Error {
    match error {
        Error::InvalidCertificate(cause) => {
            let message = message(&cause);
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Explained { cause, message }))))
        }
        other => other,
    }
}

/// Returns the message of a TLS error: the one that [`explain`] added, or the library's.
pub fn reason(error: &Error) -> String {
    explained(error).map_or_else(|| printable(error), |explained| printable(explained))
}

/// Returns the certificate error of rustls that [`explain`] added a message to, if it is one.
pub fn cause(error: &Error) -> Option<&CertificateError> {
    explained(error).map(|explained| &explained.cause)
}

fn explained(error: &Error) -> Option<&Explained> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref(),
        _ => None,
    }
}

fn message(error: &CertificateError, facts: Option<&Facts>) -> String {
    match error {
        CertificateError::BadEncoding => "its certificate is not a well-formed X.509 certificate".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            let whose = whose(facts.is_none_or(|facts| facts.not_after == *not_after));
            expired(whose, *time, *not_after)
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let whose = whose(facts.is_none_or(|facts| facts.not_before == *not_before));
            not_valid_yet(whose, *time, *not_before)
        }
        CertificateError::Expired => "the validity period of its certificate ends before it begins".to_owned(),
        CertificateError::UnknownIssuer => match facts {
            Some(Facts { subject, is_self_issued: true, .. }) => {
                format!("its certificate ({subject}) is self-signed and not a trusted root")
            }
            Some(Facts { subject, issuer, .. }) => {
                format!("its certificate ({subject}), issued by {issuer}, does not chain to a trusted root")
            }
            None => "its certificate does not chain to a trusted root".to_owned(),
        },
        CertificateError::BadSignature => match facts {
            Some(Facts { subject, issuer, .. }) => format!(
                "the signature of its certificate ({subject}) does not match the key of the trusted CA with the name \
                 of its issuer, {issuer}"
            ),
            None => "the signature of its certificate does not match the key of its issuer".to_owned(),
        },
        #[expect(deprecated, reason = "rustls still returns it for some errors of webpki")]
        CertificateError::UnsupportedSignatureAlgorithm
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "its certificate has an unsupported key type or signature algorithm".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            format!("its certificate is not valid for {}{}", expected.to_str(), other_names(presented))
        }
        CertificateError::NotValidForName => "its certificate is not valid for this host".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not a TLS server certificate: its extended key usage lacks serverAuth".to_owned()
        }
        CertificateError::UnhandledCriticalExtension => {
            "its certificate has a critical extension that is not supported".to_owned()
        }
        CertificateError::Revoked => "its certificate has been revoked".to_owned(),
        CertificateError::Other(OtherError(inner)) => match inner.downcast_ref::<webpki::Error>() {
            Some(webpki::Error::CaUsedAsEndEntity) => {
                let self_signed = facts.is_some_and(|facts| facts.is_self_issued);
                let what = if self_signed { "self-signed CA certificate" } else { "CA certificate" };
                format!("its certificate is a {what} (CA:TRUE); a server needs its own certificate, issued by the CA")
            }
            Some(webpki::Error::EndEntityUsedAsCa) => {
                "its certificate was issued by a certificate that is not a CA certificate".to_owned()
            }
            Some(webpki::Error::PathLenConstraintViolated) => {
                "its certificate chain is longer than the path length constraint of one of its CAs allows".to_owned()
            }
            Some(webpki::Error::NameConstraintViolation) => {
                "its certificate violates the name constraints of an issuing CA".to_owned()
            }
            _ => OTHER_DEFECT.to_owned(),
        },
        _ => OTHER_DEFECT.to_owned(),
    }
}

/// The message about a defect that has no message of its own.
const OTHER_DEFECT: &str = "its certificate or that of an issuing CA is not valid";

fn whose(is_of_the_server: bool) -> &'static str {
    if is_of_the_server { "its certificate " } else { "the certificate of an issuing CA " }
}

fn expired(whose: &str, now: UnixTime, end: UnixTime) -> String {
    let (now, end) = dates(now, end);
    format!("{whose}expired on {end} (this machine's clock says {now}); if that date is wrong, set the clock")
}

fn not_valid_yet(whose: &str, now: UnixTime, begin: UnixTime) -> String {
    let (now, begin) = dates(now, begin);
    format!(
        "{whose}is not valid before {begin} (this machine's clock says {now}); if that date is wrong, set the clock"
    )
}

/// Writes two points in time as dates, with the time of day if the dates are the same.
fn dates(one: UnixTime, other: UnixTime) -> (String, String) {
    let calendar = |time: UnixTime| {
        i64::try_from(time.as_secs()).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
    };
    let same_day = calendar(one).map(OffsetDateTime::date) == calendar(other).map(OffsetDateTime::date);
    let written = |time| match calendar(time) {
        Some(at) if same_day => format!("{} {:02}:{:02}:{:02} UTC", at.date(), at.hour(), at.minute(), at.second()),
        Some(at) => at.date().to_string(),
        None => "a date after the year 9999".to_owned(),
    };
    (written(one), written(other))
}

/// Lists the host names of a certificate, which rustls gives as `DnsName("x")` or `IpAddress(x)`.
fn other_names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    let names: Vec<_> = presented.iter().take(MAX_HOST_NAMES).map(bare).collect();
    match (names.join(", "), presented.len().saturating_sub(MAX_HOST_NAMES)) {
        (names, _) if names.is_empty() => ": it has no host name".to_owned(),
        (names, 0) => format!(", only for {names}"),
        (names, more) => format!(", only for {names} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
    use rustls::pki_types::{AlgorithmIdentifier, ServerName};
    use std::time::Duration;

    /// 2026-11-27 12:00:00 UTC.
    fn now() -> UnixTime {
        after(0)
    }

    fn after(seconds: i64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(1_795_780_800_u64.saturating_add_signed(seconds)))
    }

    fn facts(params: CertificateParams) -> Facts {
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Facts::read(der.der()).unwrap()
    }

    fn ca(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2027, 1, 1));
        params
    }

    #[test]
    fn a_ca_certificate_is_marked_as_one_and_valid_now() {
        assert_eq!(facts(ca("root")).unfit_as_ca(now()), None);
        let changed = |change: fn(&mut CertificateParams)| {
            let mut params = ca("root");
            change(&mut params);
            facts(params).unfit_as_ca(now()).unwrap_or_else(|| "nothing".to_owned())
        };
        let clock = "(this machine's clock says 2026-11-27); if that date is wrong, set the clock";
        for (unfit, expected) in [
            (
                changed(|it| it.is_ca = IsCa::NoCa),
                "is not a CA certificate: its basic constraints lack CA:TRUE".to_owned(),
            ),
            (
                changed(|it| it.is_ca = IsCa::ExplicitNoCa),
                "is not a CA certificate: its basic constraints lack CA:TRUE".to_owned(),
            ),
            (
                changed(|it| it.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
                "is not a CA certificate: its key usage lacks keyCertSign".to_owned(),
            ),
            (changed(|it| it.key_usages = vec![KeyUsagePurpose::KeyCertSign]), "nothing".to_owned()),
            (changed(|it| it.not_after = rcgen::date_time_ymd(2026, 1, 31)), format!("expired on 2026-01-31 {clock}")),
            (
                changed(|it| it.not_before = rcgen::date_time_ymd(2026, 12, 1)),
                format!("is not valid before 2026-12-01 {clock}"),
            ),
        ] {
            assert_eq!(unfit, expected);
        }
        // The bounds are inclusive (RFC 5280, 4.1.2.5).
        let facts = facts(ca("root"));
        assert_eq!((facts.unfit_as_ca(facts.not_before), facts.unfit_as_ca(facts.not_after)), (None, None));
    }

    /// Made by OpenSSL 3.0: `openssl x509 -req -in v1.csr -signkey v1.key -days 30000`.
    #[test]
    fn a_version_1_certificate_is_not_a_ca_certificate() {
        use rustls::pki_types::pem::PemObject;
        const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----
MIIBIjCByQIUfcQmuY1HYqjP4Ar1e5HbppJ5kcowCgYIKoZIzj0EAwIwEzERMA8G
A1UEAwwIb2xkIHJvb3QwIBcNMjYxMTI3MDQzMzA4WhgPMjEwOTAxMTYwNDMzMDha
MBMxETAPBgNVBAMMCG9sZCByb290MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
aaTkTwfz3kPrIjA0agF6NA56QmVcoENajA9SzpTtTn+fyT++nqqD0Y/17Sc9bDQN
X89eCi3qSO0R3dnofHW6NDAKBggqhkjOPQQDAgNIADBFAiEAse0CPlOER+lwmmUQ
xWllIEaks7NRsvNtUppgroaFGu8CIEf/LvDHQQTspWUXcJyQfYL0MvVgD4ztcetn
vKrSymPZ
-----END CERTIFICATE-----
";
        let facts = Facts::read(&CertificateDer::from_pem_slice(PEM).unwrap()).unwrap();
        assert_eq!(facts.subject, "CN=old root");
        assert!(facts.unfit_as_ca(now()).unwrap().starts_with("is not an X.509 version 3 certificate"));
    }

    #[test]
    fn names_are_short_and_printable() {
        let named = |name: &str| facts(ca(name)).subject;
        assert_eq!(named("Example \"CA\", Inc"), "CN=Example \\\"CA\\\"\\, Inc");
        assert_eq!(named("a\nb\u{1b}[31m\u{202e}"), "CN=a?b?[31m?");
        let long = named(&"x".repeat(5000));
        assert!(long.len() == MAX_NAME_LENGTH && long.ends_with("xxx..."), "{long}");
        let mut several = ca("root");
        several.distinguished_name.push(DnType::OrganizationName, "Example+Co");
        several.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 12]), "title");
        assert_eq!(facts(several).subject, "2.5.4.12=title,O=Example\\+Co,CN=root");
        let mut nameless = ca("");
        nameless.distinguished_name = rcgen::DistinguishedName::new();
        assert_eq!(facts(nameless).subject, "no name");
    }

    /// Every certificate error of rustls, with its message.
    #[test]
    fn certificate_errors_have_messages_with_names_and_dates() {
        let issuer = CertifiedIssuer::self_signed(ca("Example TLS Inspection"), KeyPair::generate().unwrap()).unwrap();
        let mut leaf = CertificateParams::new(["sts.amazonaws.com".to_owned()]).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, "sts");
        (leaf.not_before, leaf.not_after) = (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2026, 1, 31));
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let facts = Facts::read(leaf.der()).unwrap();
        let self_signed = Facts::read(issuer.der()).unwrap();
        let other = |error: webpki::Error| CertificateError::Other(OtherError(Arc::new(error)));
        let for_names = |names: &[&str]| CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("sts.amazonaws.com").unwrap(),
            presented: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let oid = || vec![0x2a];
        let usage = || rustls::ExtendedKeyPurpose::ServerAuth;
        let (end, begin) = (facts.not_after, facts.not_before);
        let clock = "; if that date is wrong, set the clock";
        let none = None::<&Facts>;
        let untrusted = "does not chain to a trusted root";
        let unsupported = "its certificate has an unsupported key type or signature algorithm";
        let wrong_purpose = "its certificate is not a TLS server certificate: its extended key usage lacks serverAuth";
        #[expect(deprecated, reason = "rustls still makes it")]
        let without_context = CertificateError::UnsupportedSignatureAlgorithm;
        for (error, facts, expected) in [
            (CertificateError::BadEncoding, none, "its certificate is not a well-formed X.509 certificate".to_owned()),
            (
                CertificateError::ExpiredContext { time: now(), not_after: end },
                Some(&facts),
                format!("its certificate expired on 2026-01-31 (this machine's clock says 2026-11-27){clock}"),
            ),
            (
                CertificateError::ExpiredContext { time: now(), not_after: after(-3600) },
                Some(&facts),
                format!(
                    "the certificate of an issuing CA expired on 2026-11-27 11:00:00 UTC (this machine's clock says \
                     2026-11-27 12:00:00 UTC){clock}"
                ),
            ),
            (
                CertificateError::NotValidYetContext {
                    time: UnixTime::since_unix_epoch(Duration::ZERO),
                    not_before: begin,
                },
                Some(&facts),
                format!("its certificate is not valid before 2026-01-01 (this machine's clock says 1970-01-01){clock}"),
            ),
            (
                CertificateError::NotValidYetContext {
                    time: now(),
                    not_before: UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX)),
                },
                none,
                format!(
                    "its certificate is not valid before a date after the year 9999 (this machine's clock says \
                     2026-11-27){clock}"
                ),
            ),
            (
                CertificateError::Expired,
                none,
                "the validity period of its certificate ends before it begins".to_owned(),
            ),
            (
                CertificateError::UnknownIssuer,
                Some(&facts),
                format!("its certificate (CN=sts), issued by CN=Example TLS Inspection, {untrusted}"),
            ),
            (
                CertificateError::UnknownIssuer,
                Some(&self_signed),
                "its certificate (CN=Example TLS Inspection) is self-signed and not a trusted root".to_owned(),
            ),
            (CertificateError::UnknownIssuer, none, format!("its certificate {untrusted}")),
            (
                CertificateError::BadSignature,
                Some(&facts),
                "the signature of its certificate (CN=sts) does not match the key of the trusted CA with the name \
                 of its issuer, CN=Example TLS Inspection"
                    .to_owned(),
            ),
            (
                CertificateError::BadSignature,
                none,
                "the signature of its certificate does not match the key of its issuer".to_owned(),
            ),
            (without_context, none, unsupported.to_owned()),
            (
                CertificateError::UnsupportedSignatureAlgorithmContext {
                    signature_algorithm_id: oid(),
                    supported_algorithms: vec![AlgorithmIdentifier::from_slice(&[])],
                },
                none,
                unsupported.to_owned(),
            ),
            (
                CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                    signature_algorithm_id: oid(),
                    public_key_algorithm_id: oid(),
                },
                none,
                unsupported.to_owned(),
            ),
            (
                for_names(&["DnsName(\"portal.example.com\")", "IpAddress(192.0.2.1)"]),
                none,
                "its certificate is not valid for sts.amazonaws.com, only for portal.example.com, 192.0.2.1".to_owned(),
            ),
            (
                for_names(&["DnsName(\"a\")", "DnsName(\"b\")", "DnsName(\"c\")", "DnsName(\"d\")", "odd"]),
                none,
                "its certificate is not valid for sts.amazonaws.com, only for a, b, c and 2 more".to_owned(),
            ),
            (
                for_names(&[]),
                none,
                "its certificate is not valid for sts.amazonaws.com: it has no host name".to_owned(),
            ),
            (CertificateError::NotValidForName, none, "its certificate is not valid for this host".to_owned()),
            (CertificateError::InvalidPurpose, none, wrong_purpose.to_owned()),
            (
                CertificateError::InvalidPurposeContext { required: usage(), presented: vec![] },
                none,
                wrong_purpose.to_owned(),
            ),
            (
                CertificateError::UnhandledCriticalExtension,
                none,
                "its certificate has a critical extension that is not supported".to_owned(),
            ),
            (CertificateError::Revoked, none, "its certificate has been revoked".to_owned()),
            (
                other(webpki::Error::CaUsedAsEndEntity),
                Some(&self_signed),
                "its certificate is a self-signed CA certificate (CA:TRUE); a server needs its own certificate, issued \
                 by the CA"
                    .to_owned(),
            ),
            (
                other(webpki::Error::CaUsedAsEndEntity),
                Some(&facts),
                "its certificate is a CA certificate (CA:TRUE); a server needs its own certificate, issued by the CA"
                    .to_owned(),
            ),
            (
                other(webpki::Error::EndEntityUsedAsCa),
                none,
                "its certificate was issued by a certificate that is not a CA certificate".to_owned(),
            ),
            (
                other(webpki::Error::PathLenConstraintViolated),
                none,
                "its certificate chain is longer than the path length constraint of one of its CAs allows".to_owned(),
            ),
            (
                other(webpki::Error::NameConstraintViolation),
                none,
                "its certificate violates the name constraints of an issuing CA".to_owned(),
            ),
            (other(webpki::Error::MaximumPathDepthExceeded), none, OTHER_DEFECT.to_owned()),
            (CertificateError::UnknownRevocationStatus, none, OTHER_DEFECT.to_owned()),
            (CertificateError::ExpiredRevocationList, none, OTHER_DEFECT.to_owned()),
            (CertificateError::InvalidOcspResponse, none, OTHER_DEFECT.to_owned()),
            (CertificateError::ApplicationVerificationFailure, none, OTHER_DEFECT.to_owned()),
        ] {
            assert_eq!(message(&error, facts), expected, "{error:?}");
        }
    }

    #[test]
    fn an_explained_error_stays_a_certificate_error() {
        let der = ca("root").self_signed(&KeyPair::generate().unwrap()).unwrap();
        let explained = explain(CertificateError::UnknownIssuer.into(), der.der());
        assert!(matches!(cause(&explained), Some(CertificateError::UnknownIssuer)));
        assert!(matches!(explained, Error::InvalidCertificate(_)));
        assert_eq!(reason(&explained), "its certificate (CN=root) is self-signed and not a trusted root");
        let junk = explain(CertificateError::UnknownIssuer.into(), &CertificateDer::from(vec![0; 5]));
        assert_eq!(reason(&junk), "its certificate does not chain to a trusted root");
        let forged = explain_signature(CertificateError::BadSignature.into());
        assert_eq!(reason(&forged), "the server did not prove that it has the private key of its certificate");
        for other in [Error::DecryptError, Error::General("x\u{1b}".to_owned())] {
            assert_eq!(explain(other.clone(), der.der()), other);
            assert!(cause(&other).is_none() && reason(&other).bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }

    /// Certificates are untrusted input: reading them must not panic, and messages must be short
    /// and printable.
    #[test]
    fn no_certificate_causes_a_panic() {
        let mut params = ca("a name");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::OrganizationName, "\u{fc}");
        let good = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let mut read = 0;
        let mut try_one = |der: &[u8]| {
            if let Some(facts) = Facts::read(der) {
                read += 1;
                for name in [&facts.subject, &facts.issuer] {
                    assert!(name.len() <= MAX_NAME_LENGTH && name.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                }
                for seconds in [i64::MIN, 0, i64::MAX] {
                    let _ = facts.unfit_as_ca(after(seconds));
                }
                let _ = message(
                    &CertificateError::ExpiredContext { time: now(), not_after: facts.not_after },
                    Some(&facts),
                );
                let _ = message(&CertificateError::UnknownIssuer, Some(&facts));
            }
        };
        for at in 0..good.len() {
            try_one(&good[..at]);
            for byte in [0, 1, 0x7f, 0x80, 0x81, 0x84, 0xff, good[at] ^ 1, good[at].wrapping_add(1), 0x1e, 0x14, 0x30] {
                let mut changed = good.clone();
                changed[at] = byte;
                try_one(&changed);
                changed.insert(at, byte);
                try_one(&changed);
                changed.remove(at);
                changed.remove(at);
                try_one(&changed);
            }
        }
        assert!(read > 100, "only {read} of the changed certificates could be read");
    }
}
