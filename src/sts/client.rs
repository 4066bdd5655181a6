//! The HTTPS client towards STS: one pool of keep-alive connections, one deadline for the whole question.
//!
//! Every setting of the HTTP library that matters here is set explicitly: https only, no redirect followed, no proxy
//! from the environment, a status is not an error, every size has an upper bound.

use super::endpoint::Endpoint;
use super::request::{BODY, IdentityRequest};
use super::response::{self, Answer, CallerIdentity};
use crate::denial::Denial;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Duration;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector, NextTimeout, RustlsConnector, TcpConnector};
use ureq::{Agent, Error};

/// Largest answer header that is read, in bytes. Real ones have about 300.
const MAX_HEADER_LENGTH: usize = 16 * 1024;

/// Idle connections that are kept. A login storm opens more and closes them again.
const MAX_IDLE_CONNECTIONS: usize = 64;

/// How long an idle connection is kept. STS is not known to drop one earlier.
const MAX_IDLE_AGE: Duration = Duration::from_secs(15);

/// How to reach STS.
#[derive(Clone, Debug)]
pub struct Route<'a> {
    /// Where to connect instead of the host's own port 443.
    pub endpoint: Option<&'a Endpoint>,
    /// Roots that are trusted besides the system's.
    pub extra_roots: &'a [CertificateDer<'static>],
    /// Whole time one question may take: name resolution, connection, TLS, answer.
    pub timeout: Duration,
}

/// A client that can be used by many threads at once.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    timeout: Duration,
}

impl Client {
    /// Makes a client and loads the system's root certificates. Nothing is sent.
    ///
    /// # Errors
    /// An unavailable denial when there is no root certificate at all.
    pub fn new(route: &Route<'_>) -> Result<Self, Denial> {
        let system = rustls_native_certs::load_native_certs();
        let roots: Vec<_> =
            system.certs.iter().chain(route.extra_roots).map(|root| Certificate::from_der(root).to_owned()).collect();
        if roots.is_empty() {
            return Err(Denial::unavailable(
                "no root certificate is there to verify STS with: install the system's ca-certificates or set \
                 awsStsCAFile",
            ));
        }
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            // Given explicitly: the library's default provider is a setting of the whole process.
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&roots))
            .build();
        let config = Config::builder()
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("psmdb-aws-iam/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(MAX_HEADER_LENGTH)
            .max_idle_connections(MAX_IDLE_CONNECTIONS)
            .max_idle_connections_per_host(MAX_IDLE_CONNECTIONS)
            .max_idle_age(MAX_IDLE_AGE)
            .timeout_global(Some(route.timeout))
            .tls_config(tls)
            .build();
        let connector = ().chain(TcpConnector::default()).chain(RustlsConnector::default());
        let resolver = ConnectTo { endpoint: route.endpoint.map(endpoint_uri).transpose()?, names: <_>::default() };
        Ok(Self { agent: Agent::with_parts(config, connector, resolver), timeout: route.timeout })
    }

    /// Asks STS who signed the request and reads the answer.
    ///
    /// Blocks until the answer is there, at most for the route's timeout.
    ///
    /// # Errors
    /// A refusal when STS says no, an unavailable denial when it could not be asked in time.
    pub fn get_caller_identity(&self, request: &IdentityRequest) -> Result<CallerIdentity, Denial> {
        let mut post = self.agent.post(request.url());
        for (name, value) in request.headers() {
            post = post.header(name, value.expose());
        }
        let mut answer = post.send(BODY).map_err(|error| self.unavailable(&error))?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !header("content-encoding").is_empty() {
            return Err(Denial::unavailable("what answered for STS sent an encoding that was not asked for"));
        }
        let content_type = header("content-type").to_owned();
        let status = answer.status().as_u16();
        let body = answer
            .body_mut()
            .with_config()
            .limit(response::MAX_BODY_LENGTH as u64)
            .read_to_vec()
            .map_err(|error| self.unavailable(&error))?;
        response::read(&Answer { status, content_type: &content_type, body: &body })
    }

    /// Says what went wrong on the way. Only errors whose text is known to hold no bytes of a message are shown whole.
    fn unavailable(&self, error: &Error) -> Denial {
        Denial::unavailable(match error {
            Error::Timeout(phase) => {
                format!("STS did not answer within {} ms (waiting for: {phase})", self.timeout.as_millis())
            }
            Error::HostNotFound => "the name of the STS host or endpoint was not found".to_owned(),
            Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(error) => untrusted(error),
                None => format!("no connection to STS: {error}"),
            },
            Error::Rustls(error) => untrusted(error),
            Error::Tls(error) => format!("no TLS connection to STS: {error}"),
            Error::ConnectionFailed => "no connection to STS".to_owned(),
            Error::BodyExceedsLimit(limit) => format!("what answered for STS sent more than {limit} bytes"),
            _ => "what answered for STS does not speak HTTP as expected".to_owned(),
        })
    }
}

fn untrusted(error: &rustls::Error) -> String {
    format!("the TLS connection to STS is not trusted: {error}")
}

fn endpoint_uri(endpoint: &Endpoint) -> Result<Uri, Denial> {
    format!("https://{}/", endpoint.authority())
        .parse()
        .map_err(|_| Denial::internal("awsStsEndpoint is not an address after all"))
}

/// Resolves every name to the configured endpoint, when there is one, as curl's connect-to does.
#[derive(Debug)]
struct ConnectTo {
    endpoint: Option<Uri>,
    names: DefaultResolver,
}

impl Resolver for ConnectTo {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let target = self.endpoint.as_ref().unwrap_or(uri);
        let authority = target.authority().ok_or(Error::HostNotFound)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse() {
            // An address needs no look-up, and the look-up would start a thread.
            let mut addresses = self.empty();
            addresses.push(std::net::SocketAddr::new(address, authority.port_u16().unwrap_or(443)));
            return Ok(addresses);
        }
        self.names.resolve(target, config, timeout)
    }
}
