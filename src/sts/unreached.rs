//! Explains why a request to STS got no response: the host, the address, the step that failed and
//! how long it took. Nothing that the other side has sent is repeated.

use super::connection::{ConnectError, Step, StepError};
use super::endpoint::Endpoint;
use super::errors::{is_local, printable};
use super::route::Route;
use crate::aws::GLOBAL_HOST;
use crate::denial::{Cause, Denial, Retry};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use ureq::{Error, Timeout};

/// Advice about the default host, which an STS interface endpoint does not serve: AWS, "Create a
/// VPC endpoint for AWS STS",
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sts_vpc_endpoint_create.html>.
const SUSPECT_DEFAULT_HOST: &str = "in a VPC without internet access, set awsStsHost to the regional host, such as \
                                    sts.eu-west-1.amazonaws.com: an STS interface endpoint answers only for the \
                                    regional name";

/// The names of a route in log messages.
#[derive(Clone, Debug)]
pub struct Names {
    host: String,
    endpoint: Option<String>,
    proxy: Option<String>,
}

/// How far a request got.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The address it was sent to, if it was sent.
    pub peer: Option<SocketAddr>,
    /// How long it took until it failed.
    pub took: Duration,
    /// Whether the header of the response has arrived.
    pub response_begun: bool,
}

/// A request without a response.
#[derive(Debug)]
pub struct Unreached {
    /// The reason, and whether the request may be sent again.
    pub denial: Denial,
    /// Whether this machine lacks a resource, so the error says nothing about STS.
    pub is_local: bool,
}

impl Names {
    /// Takes the names of a route.
    pub fn new(route: &Route<'_>) -> Self {
        Self {
            host: route.host.as_str().to_owned(),
            endpoint: route.endpoint.map(Endpoint::authority),
            proxy: route.proxy.map(|proxy| proxy.authority()),
        }
    }

    /// STS with the address of the connection, which may be the proxy's:
    /// `sts.amazonaws.com (10.0.0.5:443)`.
    pub fn sts(&self, address: Option<SocketAddr>) -> String {
        match &self.proxy {
            Some(_) => format!("{} through {}", self.host, self.first_hop(address)),
            None => self.first_hop(address),
        }
    }

    /// The proxy if there is one, otherwise STS.
    fn first_hop(&self, address: Option<SocketAddr>) -> String {
        let name = self.proxy.as_ref().map_or_else(|| self.host.clone(), |proxy| format!("the proxy {proxy}"));
        match address.map(|address| address.to_string()) {
            // Not repeated for a proxy that is configured by its address.
            Some(address) if !name.ends_with(&address) => format!("{name} ({address})"),
            _ => name,
        }
    }

    /// The name that the resolver looks up.
    fn resolved(&self) -> String {
        match (&self.proxy, &self.endpoint) {
            (Some(proxy), _) => format!("the proxy {proxy}"),
            (None, Some(endpoint)) => format!("the endpoint {endpoint}"),
            (None, None) => format!("STS host {}", self.host),
        }
    }

    /// Advice if the host is the default one, which is then the first suspect.
    fn suspect(&self) -> String {
        let is_default = self.host == GLOBAL_HOST && self.endpoint.is_none() && self.proxy.is_none();
        if is_default { format!("; {SUSPECT_DEFAULT_HOST}") } else { String::new() }
    }

    /// Explains why a request got no response.
    pub fn explain(&self, error: &Error, sent: &Sent) -> Unreached {
        let Sent { peer, response_begun, .. } = *sent;
        let took = Milliseconds(sent.took);
        let sts = self.sts(peer);
        if let Error::Other(inner) = error
            && let Some(error) = inner.downcast_ref()
        {
            return self.explain_connection(error);
        }
        let (cause, retry, reason) = match error {
            Error::HostNotFound => {
                let name = self.resolved();
                let reason = format!("{name} was not found: name resolution failed after {took}{}", self.suspect());
                (Cause::NameNotFound, Retry::AfterPause, reason)
            }
            Error::Timeout(Timeout::Resolve) => {
                let name = self.resolved();
                let reason = format!("name resolution of {name} timed out after {took}{}", self.suspect());
                (Cause::Timeout, Retry::AfterPause, reason)
            }
            Error::BodyExceedsLimit(limit) => (
                Cause::InvalidResponse,
                Retry::Never,
                format!("the response is not a valid STS response: it is longer than {limit} bytes"),
            ),
            Error::Timeout(_) if response_begun => {
                (Cause::Timeout, Retry::AfterPause, format!("the response from {sts} was not complete within {took}"))
            }
            _ if response_begun => {
                let reason = format!("the connection to {sts} closed before the response was complete");
                (Cause::NoConnection, Retry::AfterPause, reason)
            }
            Error::Timeout(_) => (Cause::Timeout, Retry::AfterPause, format!("no response from {sts} within {took}")),
            Error::Io(error) if peer.is_none() => {
                let reason = format!("name resolution of {} failed: {}", self.resolved(), printable(error));
                (Cause::NoConnection, Retry::AfterPause, reason)
            }
            // Its text comes from the TLS library, with a link to the library's documentation.
            Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let reason = format!("the connection to {sts} was closed before the response, after {took}");
                (Cause::NoConnection, Retry::AfterPause, reason)
            }
            Error::Io(error) => {
                let reason =
                    format!("the connection to {sts} failed before the response, after {took}: {}", printable(error));
                (Cause::NoConnection, Retry::AfterPause, reason)
            }
            Error::ConnectionFailed => (Cause::NoConnection, Retry::AfterPause, format!("no connection to {sts}")),
            Error::Tls(error) => (Cause::NoConnection, Retry::Never, format!("no TLS connection to {sts}: {error}")),
            _ => (
                Cause::InvalidResponse,
                Retry::Never,
                "the response is not a valid STS response: its HTTP is malformed or its header is too long".to_owned(),
            ),
        };
        let is_local = matches!(error, Error::Io(error) if is_local(error));
        Unreached { denial: Denial::new(cause, reason).retryable(retry), is_local }
    }

    fn explain_connection(&self, error: &ConnectError) -> Unreached {
        let ConnectError { address, step, error: step_error, addresses, .. } = error;
        let took = Milliseconds(error.took);
        let (sts, first) = (self.sts(Some(*address)), self.first_hop(Some(*address)));
        let mut cause = Cause::NoConnection;
        let mut reason = match (step, step_error) {
            (Step::Tcp, StepError::TimedOut) => {
                format!("cannot connect to {first}: the TCP connection timed out after {took}")
            }
            (Step::Tcp, _) => format!("cannot connect to {first}: {step_error} after {took}"),
            (Step::Tunnel, StepError::TimedOut) => format!("CONNECT to {first} timed out after {took}"),
            (Step::Tunnel, StepError::NoTunnel(no)) => format!("{first} {no}, after {took}"),
            (Step::Tunnel, _) => format!("CONNECT to {first} failed after {took}: {step_error}"),
            (Step::Tls, StepError::TimedOut) => format!("TLS handshake with {sts} timed out after {took}"),
            (Step::Tls, _) if step_error.is_untrusted() => {
                cause = Cause::UntrustedTls;
                format!("the TLS connection to {sts} is not trusted: {step_error}")
            }
            (Step::Tls, _) => format!("TLS handshake with {sts} failed after {took}: {step_error}"),
        };
        if matches!(step_error, StepError::TimedOut) {
            cause = Cause::Timeout;
        }
        if *addresses > 1 {
            reason.push_str(&format!("; {addresses} addresses were tried"));
        }
        if *step == Step::Tcp || matches!(step_error, StepError::TimedOut) {
            reason.push_str(&self.suspect());
        }
        let retry = if error.is_final { Retry::Never } else { Retry::AfterPause };
        let is_local = matches!(step_error, StepError::Io(error) if is_local(error));
        Unreached { denial: Denial::new(cause, reason).retryable(retry), is_local }
    }
}

/// A duration, shown in whole milliseconds.
struct Milliseconds(Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} ms", self.0.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sts::proxy::NoTunnel;
    use rustls::{CertificateError, InvalidMessage};

    const DEFAULT_HOST: &str = "; in a VPC without internet access, set awsStsHost to the regional host, such as \
                                sts.eu-west-1.amazonaws.com: an STS interface endpoint answers only for the \
                                regional name";

    fn names(host: &str, endpoint: Option<&str>, proxy: Option<&str>) -> Names {
        Names { host: host.to_owned(), endpoint: endpoint.map(str::to_owned), proxy: proxy.map(str::to_owned) }
    }

    fn address() -> SocketAddr {
        "10.0.0.5:443".parse().unwrap()
    }

    fn sent(peer: bool, response_begun: bool) -> Sent {
        Sent { peer: peer.then(address), took: Duration::from_micros(2_499_600), response_begun }
    }

    fn connect_error(step: Step, error: StepError, addresses: usize, is_final: bool) -> Error {
        let took = Duration::from_micros(1_999_800);
        Error::Other(Box::new(ConnectError { address: address(), step, took, error, addresses, is_final }))
    }

    fn os_error(code: i32) -> io::Error {
        io::Error::from_raw_os_error(code)
    }

    #[test]
    fn miri_name_resolution_that_fails_names_what_was_not_found() {
        let regional = "sts.us-east-5.amazonaws.com";
        for (names, name, suspect) in [
            (names(regional, None, None), "STS host sts.us-east-5.amazonaws.com", ""),
            (names(GLOBAL_HOST, None, None), "STS host sts.amazonaws.com", DEFAULT_HOST),
            (names(GLOBAL_HOST, Some("sts.invalid:443"), None), "the endpoint sts.invalid:443", ""),
            (names(GLOBAL_HOST, Some("x:443"), Some("proxy:3128")), "the proxy proxy:3128", ""),
        ] {
            for (error, cause, reason) in [
                (
                    Error::HostNotFound,
                    Cause::NameNotFound,
                    format!("{name} was not found: name resolution failed after 2500 ms{suspect}"),
                ),
                (
                    Error::Timeout(Timeout::Resolve),
                    Cause::Timeout,
                    format!("name resolution of {name} timed out after 2500 ms{suspect}"),
                ),
            ] {
                let denial = names.explain(&error, &sent(false, false)).denial;
                assert_eq!((denial.reason(), denial.cause(), denial.retry()), (&*reason, cause, Retry::AfterPause));
            }
        }
    }

    /// Each message is different, and each denial says whether a retry can help.
    #[test]
    fn miri_each_failed_step_of_a_connection_has_its_own_message() {
        use Cause::{NoConnection, UntrustedTls};
        use Retry::{AfterPause, Never};
        let no_tunnel = |what: &str| StepError::NoTunnel(NoTunnel { what: what.to_owned(), is_final: true });
        let untrusted = || StepError::Tls(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let no_tls = || StepError::Tls(InvalidMessage::InvalidContentType.into());
        let host = "sts.eu-west-1.amazonaws.com";
        for (step, error, cause, direct, proxied) in [
            (
                Step::Tcp,
                StepError::TimedOut,
                Cause::Timeout,
                "cannot connect to STS: the TCP connection timed out after 2000 ms",
                "cannot connect to PROXY: the TCP connection timed out after 2000 ms",
            ),
            (
                Step::Tcp,
                StepError::Io(os_error(libc::ECONNREFUSED)),
                NoConnection,
                "cannot connect to STS: Connection refused (os error 111) after 2000 ms",
                "cannot connect to PROXY: Connection refused (os error 111) after 2000 ms",
            ),
            (Step::Tunnel, StepError::TimedOut, Cause::Timeout, "", "CONNECT to PROXY timed out after 2000 ms"),
            (
                Step::Tunnel,
                StepError::Closed,
                NoConnection,
                "",
                "CONNECT to PROXY failed after 2000 ms: the connection was closed",
            ),
            (
                Step::Tunnel,
                no_tunnel("answered 407 to CONNECT"),
                NoConnection,
                "",
                "PROXY answered 407 to CONNECT, after 2000 ms",
            ),
            (
                Step::Tls,
                StepError::TimedOut,
                Cause::Timeout,
                "TLS handshake with STS timed out after 2000 ms",
                "TLS handshake with STS through PROXY timed out after 2000 ms",
            ),
            (
                Step::Tls,
                StepError::Closed,
                NoConnection,
                "TLS handshake with STS failed after 2000 ms: the connection was closed",
                "TLS handshake with STS through PROXY failed after 2000 ms: the connection was closed",
            ),
            (
                Step::Tls,
                no_tls(),
                NoConnection,
                "TLS handshake with STS failed after 2000 ms: received corrupt message of type InvalidContentType",
                "TLS handshake with STS through PROXY failed after 2000 ms: received corrupt message of type \
                 InvalidContentType",
            ),
            (
                Step::Tls,
                untrusted(),
                UntrustedTls,
                "the TLS connection to STS is not trusted: invalid peer certificate: UnknownIssuer",
                "the TLS connection to STS through PROXY is not trusted: invalid peer certificate: UnknownIssuer",
            ),
        ] {
            let error = connect_error(step, error, 1, false);
            let through = "the proxy proxy:3128 (10.0.0.5:443)";
            for (proxy, expected) in [
                (None, direct.replace("STS", &format!("{host} (10.0.0.5:443)"))),
                (Some("proxy:3128"), proxied.replace("STS", host).replace("PROXY", through)),
            ] {
                if !expected.is_empty() {
                    let denial = names(host, None, proxy).explain(&error, &sent(false, false)).denial;
                    assert_eq!((denial.reason(), denial.cause(), denial.retry()), (&*expected, cause, AfterPause));
                }
            }
        }
        let denial = names(host, None, None)
            .explain(&connect_error(Step::Tls, untrusted(), 3, true), &sent(false, false))
            .denial;
        assert!(denial.reason().ends_with("UnknownIssuer; 3 addresses were tried"), "{denial}");
        assert_eq!(denial.retry(), Never);
        // The proxy's address is not repeated.
        let error = connect_error(Step::Tcp, StepError::TimedOut, 1, false);
        let denial = names(host, None, Some("10.0.0.5:443")).explain(&error, &sent(false, false)).denial;
        assert!(denial.reason().starts_with("cannot connect to the proxy 10.0.0.5:443: "), "{denial}");
    }

    #[test]
    fn miri_the_default_host_is_the_first_suspect_before_any_response() {
        let refused = || StepError::Io(os_error(libc::ECONNREFUSED));
        let untrusted = || StepError::Tls(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let shown = |names: &Names, error: &Error| {
            names.explain(error, &sent(false, false)).denial.reason().ends_with(DEFAULT_HOST)
        };
        let default = names(GLOBAL_HOST, None, None);
        assert!(shown(&default, &connect_error(Step::Tcp, StepError::TimedOut, 1, false)));
        assert!(shown(&default, &connect_error(Step::Tcp, refused(), 2, false)));
        assert!(shown(&default, &connect_error(Step::Tls, StepError::TimedOut, 1, false)));
        assert!(!shown(&default, &connect_error(Step::Tls, untrusted(), 1, true)));
        assert!(!shown(&default, &Error::Timeout(Timeout::Global)));
        for other in [
            names("sts.eu-west-1.amazonaws.com", None, None),
            names(GLOBAL_HOST, Some("127.0.0.1:8443"), None),
            names(GLOBAL_HOST, None, Some("proxy:3128")),
        ] {
            assert!(!shown(&other, &connect_error(Step::Tcp, StepError::TimedOut, 1, false)), "{other:?}");
        }
    }

    #[test]
    fn miri_a_connection_that_fails_after_the_handshake_says_how_far_the_request_got() {
        let names = names("sts.eu-west-1.amazonaws.com", None, None);
        let eof = || Error::Io(io::ErrorKind::UnexpectedEof.into());
        let sts = "sts.eu-west-1.amazonaws.com (10.0.0.5:443)";
        for (error, response_begun, cause, reason) in [
            (Error::Timeout(Timeout::Global), false, Cause::Timeout, format!("no response from {sts} within 2500 ms")),
            (
                eof(),
                false,
                Cause::NoConnection,
                format!("the connection to {sts} was closed before the response, after 2500 ms"),
            ),
            (
                Error::Io(os_error(libc::ECONNRESET)),
                false,
                Cause::NoConnection,
                format!(
                    "the connection to {sts} failed before the response, after 2500 ms: Connection reset by peer (os \
                     error 104)"
                ),
            ),
            (
                Error::Timeout(Timeout::Global),
                true,
                Cause::Timeout,
                format!("the response from {sts} was not complete within 2500 ms"),
            ),
            (
                eof(),
                true,
                Cause::NoConnection,
                format!("the connection to {sts} closed before the response was complete"),
            ),
        ] {
            let denial = names.explain(&error, &sent(true, response_begun)).denial;
            assert_eq!((denial.reason(), denial.cause(), denial.retry()), (&*reason, cause, Retry::AfterPause));
        }
    }

    #[test]
    fn miri_a_shortage_of_this_machine_says_nothing_about_sts() {
        let names = names("sts.eu-west-1.amazonaws.com", None, None);
        for error in [
            Error::Io(os_error(libc::EMFILE)),
            connect_error(Step::Tcp, StepError::Io(os_error(libc::EMFILE)), 1, false),
        ] {
            assert!(names.explain(&error, &sent(false, false)).is_local, "{error}");
        }
        for error in [Error::HostNotFound, connect_error(Step::Tcp, StepError::TimedOut, 1, false)] {
            assert!(!names.explain(&error, &sent(false, false)).is_local, "{error}");
        }
    }
}
