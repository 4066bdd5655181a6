//! The HTTPS client towards STS: one pool of keep-alive connections, one deadline for the whole question.
//!
//! Every setting of the HTTP library that matters here is set explicitly: https only, no redirect followed, no proxy
//! from the environment, a status is not an error, every size has an upper bound.

use super::endpoint::{Endpoint, StsHost};
use super::request::{BODY, IdentityRequest};
use super::resolver::FixedTarget;
use super::response::{self, Answer, CallerIdentity};
use super::tls::TlsConnector;
use crate::denial::Denial;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;
use ureq::config::Config;
use ureq::http::HeaderValue;
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, Error};

/// Largest answer header that is read, in bytes. Real ones have about 300.
const MAX_HEADER_LENGTH: usize = 8 * 1024;

/// Sizes of a connection's buffers, in bytes; it has each of them twice, around TLS. The first holds an answer's header,
/// the second a request's longest header, the session token.
const INPUT_BUFFER_LENGTH: usize = 16 * 1024;
const OUTPUT_BUFFER_LENGTH: usize = 24 * 1024;

/// Idle connections that are kept. A login storm opens more and closes them again.
const MAX_IDLE_CONNECTIONS: usize = 64;

/// How long an idle connection is kept. STS is not known to drop one earlier.
const MAX_IDLE_AGE: Duration = Duration::from_secs(15);

/// How to reach STS.
#[derive(Clone, Debug)]
pub struct Route<'a> {
    /// The name of STS.
    pub host: &'a StsHost,
    /// Where to connect instead of the host's own port 443.
    pub endpoint: Option<&'a Endpoint>,
    /// The settings of TLS, with the roots that are trusted.
    pub tls: Arc<ClientConfig>,
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
    /// Makes a client. Nothing is looked up or sent.
    pub fn new(route: Route<'_>) -> Self {
        let config = Config::builder()
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("psmdb-aws-iam/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(MAX_HEADER_LENGTH)
            .input_buffer_size(INPUT_BUFFER_LENGTH)
            .output_buffer_size(OUTPUT_BUFFER_LENGTH)
            .max_idle_connections(MAX_IDLE_CONNECTIONS)
            .max_idle_connections_per_host(MAX_IDLE_CONNECTIONS)
            .max_idle_age(MAX_IDLE_AGE)
            .timeout_global(Some(route.timeout))
            .build();
        let target = route.endpoint.map_or_else(|| format!("{}:443", route.host), Endpoint::authority);
        let connector = ().chain(TcpConnector::default()).chain(TlsConnector::new(route.tls));
        Self { agent: Agent::with_parts(config, connector, FixedTarget::new(target)), timeout: route.timeout }
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
            let mut value = HeaderValue::from_str(value.expose())
                .map_err(|_| Denial::internal("a checked value is not a header value after all"))?;
            // Keeps it out of whatever prints headers.
            value.set_sensitive(true);
            post = post.header(name, value);
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
            Error::Tls(error) => format!("no TLS connection to STS: {error}"),
            Error::ConnectionFailed => "no connection to STS".to_owned(),
            Error::BodyExceedsLimit(limit) => format!("what answered for STS sent more than {limit} bytes"),
            _ => "what answered for STS does not speak HTTP as expected".to_owned(),
        })
    }
}

/// A TLS error may repeat names from a certificate that nobody vouches for: what is shown of it is short and printable.
fn untrusted(error: &rustls::Error) -> String {
    const LONGEST: usize = 300;
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let shown: String = error.to_string().chars().take(LONGEST).map(plain).collect();
    format!("the TLS connection to STS is not trusted: {shown}")
}
