//! The STS host name that clients sign for, and the address to connect to.

use crate::aws::{self, Doubt, GLOBAL_HOST, GLOBAL_REGION};
use std::fmt;

/// The STS host name that the server sends to clients, that they sign for, and that STS's
/// certificate must be valid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StsHost(String);

impl StsHost {
    /// Checks a configured host name.
    ///
    /// ```text
    /// host  = label 1*("." label)  ; at most 253 characters; the last label is not a number;
    ///                              ; accepted by aws::check_sts_host
    /// label = alnum [*61(alnum / "-") alnum]
    /// alnum = %x61-7A / DIGIT
    /// ```
    ///
    /// Only lower case is accepted, since drivers derive the region by comparing bytes.
    ///
    /// Sources: RFC 1123 section 2.1 and RFC 1035 section 2.3.4 for the name; MongoDB drivers'
    /// specification "Authentication", section MONGODB-AWS, for 1 to 255 bytes without empty
    /// labels, and for the region. Stricter here: lower case, 253 characters, no IP address (it has
    /// no region), and no name that cannot exist in AWS.
    ///
    /// # Errors
    /// What the value must be, to stand after the parameter's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let numeric = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if text.len() > 253 || numeric || !text.split('.').all(label) {
            return Err("must be a host name in lower case, without scheme, port or trailing dot, such as \
                        sts.amazonaws.com or sts.eu-west-1.amazonaws.com; to connect to another address, set \
                        awsStsEndpoint"
                .to_owned());
        }
        aws::check_sts_host(text)?;
        Ok(Self(text.to_owned()))
    }

    /// Why the name is accepted but may be a mistake.
    pub fn doubt(&self) -> Option<Doubt> {
        aws::check_sts_host(&self.0).ok().flatten()
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The region that drivers derive from the name (drivers' specification "Authentication",
    /// MONGODB-AWS): `us-east-1` for the global host, otherwise the second label. Signatures for
    /// any other region are refused.
    pub fn region(&self) -> &str {
        match self.0.split('.').nth(1) {
            Some(region) if self.0 != GLOBAL_HOST => region,
            _ => GLOBAL_REGION,
        }
    }
}

impl Default for StsHost {
    fn default() -> Self {
        Self(GLOBAL_HOST.to_owned())
    }
}

impl fmt::Display for StsHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The address to connect to instead of port 443 of the STS host. TLS and HTTP still use the host's
/// name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    text: String,
    authority: String,
}

impl Endpoint {
    /// Checks an address.
    ///
    /// ```text
    /// endpoint = %s"https://" (name / "[" IPv6address "]") [":" port]
    /// name     = part *("." part)                      ; at most 253 characters; or an IPv4 address
    /// part     = 1*63(ALPHA / DIGIT / "-" / "_")
    /// port     = 1*5DIGIT                              ; 1 to 65535, 443 if absent
    /// ```
    ///
    /// The endpoint decides where to connect, not what to trust: the certificate must be valid for
    /// the STS host. So upper case and underscores are accepted here.
    ///
    /// Source: RFC 3986 sections 3.1 and 3.2, with `IPv6address` in section 3.2.2. Stricter here:
    /// one scheme in lower case, no user, path, query or fragment, no percent-encoding.
    ///
    /// # Errors
    /// What the value must be, to stand after the parameter's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        match authority(text, "https://", Some(443)) {
            Some(authority) => Ok(Self { text: text.to_owned(), authority }),
            None => Err("must be https://host or https://host:port without path, user or spaces, such as \
                         https://vpce-0123.sts.eu-west-1.vpce.amazonaws.com"
                .to_owned()),
        }
    }

    /// The value as it was configured.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `host:port`, with the brackets of an IPv6 address.
    pub fn authority(&self) -> String {
        self.authority.clone()
    }
}

/// An HTTP proxy that supports CONNECT. The connection to it is not encrypted; the traffic in the
/// tunnel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    text: String,
    authority: String,
}

impl Proxy {
    /// Checks `http://host:port`; the host follows the grammar of [`Endpoint::parse`].
    ///
    /// # Errors
    /// What the value must be, to stand after the parameter's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        match authority(text, "http://", None) {
            Some(authority) => Ok(Self { text: text.to_owned(), authority }),
            None => Err("must be http://host:port without path, user, password or spaces, such as \
                         http://proxy.example.com:3128"
                .to_owned()),
        }
    }

    /// The value as it was configured.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `host:port`, with the brackets of an IPv6 address.
    pub fn authority(&self) -> String {
        self.authority.clone()
    }
}

/// Reads `host` or `host:port` after the scheme, and returns it with a port. The port is mandatory
/// if there is no default.
fn authority(text: &str, scheme: &str, default_port: Option<u16>) -> Option<String> {
    let authority = text.strip_prefix(scheme)?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port {
        None => default_port?,
        Some(digits) if (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0)?
        }
        Some(_) => return None,
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            let labels = || host.split('.').all(|label| !label.is_empty() && label.len() <= 63);
            host.len() <= 253 && host.bytes().all(name) && labels()
        }
    };
    valid.then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn miri_the_region_follows_the_drivers_rule() {
        for (host, region) in [
            ("sts.amazonaws.com", "us-east-1"),
            ("sts.eu-west-1.amazonaws.com", "eu-west-1"),
            ("sts-fips.us-west-2.amazonaws.com", "us-west-2"),
            ("sts.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("sts.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
            ("sts.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"),
        ] {
            assert_eq!(StsHost::parse(host).unwrap().region(), region);
        }
    }

    #[test]
    fn miri_names_that_clients_cannot_use_are_refused() {
        let long = format!("sts.{}", "a.".repeat(130));
        let long_label = format!("sts.{}.com", "a".repeat(64));
        for wrong in [
            "",
            ".",
            "sts.",
            ".sts",
            "sts..com",
            "https://sts.amazonaws.com",
            "sts.amazonaws.com:443",
            "sts.amazonaws.com/",
            "STS.amazonaws.com",
            "sts amazonaws",
            "sts\n.com",
            "sts.amazonaws.com\0",
            "-sts.com",
            "sts-.com",
            "127.0.0.1",
            "[::1]",
            "sts",
            "eu-west-1",
            "sts.cn-north-1.amazonaws.com",
            "sts_x.eu.com",
            "sts.amazonaws.com.cn",
            "vpce-1.sts.eu-west-1.vpce.amazonaws.com",
            "stß.de",
            &long,
            &long_label,
        ] {
            assert!(StsHost::parse(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn miri_endpoints_are_https_addresses_and_nothing_more() {
        for (text, authority) in [
            ("https://127.0.0.1:8443", "127.0.0.1:8443"),
            ("https://localhost", "localhost:443"),
            ("https://[::1]:8443", "[::1]:8443"),
            ("https://[::1]", "[::1]:443"),
            ("https://vpce-1.sts.eu-west-1.vpce.amazonaws.com", "vpce-1.sts.eu-west-1.vpce.amazonaws.com:443"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().authority(), authority);
        }
        for wrong in [
            "",
            "https://",
            "http://127.0.0.1",
            "127.0.0.1:8443",
            "https://host/",
            "https://host/path",
            "https://host?q",
            "https://user@host",
            "https://host:0",
            "https://host:65536",
            "https://host:",
            "https://host:+1",
            "https://host:8443\r\nX: 1",
            "https://ho st",
            "https://[::1",
            "https://::1",
            "https://[zz]",
            "HTTPS://host",
            "https://a..b",
        ] {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn miri_a_proxy_is_an_http_address_with_a_port() {
        for (text, authority) in [("http://127.0.0.1:3128", "127.0.0.1:3128"), ("http://[::1]:80", "[::1]:80")] {
            assert_eq!(Proxy::parse(text).unwrap().authority(), authority);
        }
        for wrong in [
            "",
            "http://proxy",
            "https://proxy:3128",
            "proxy:3128",
            "http://user:pass@proxy:3128",
            "http://proxy:3128/",
        ] {
            assert!(Proxy::parse(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
