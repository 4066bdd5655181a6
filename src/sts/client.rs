//! The HTTPS client towards STS: one pool of keep-alive connections, one deadline for the whole question.
//!
//! Every setting of the HTTP library that matters here is set explicitly: https only, no redirect followed, no proxy
//! from the environment, a status is not an error, every size has an upper bound.

use super::admission::Admission;
use super::endpoint::{Endpoint, StsHost};
use super::request::{BODY, IdentityRequest};
use super::resolver::FixedTarget;
use super::response::{self, Answer, CallerIdentity};
use super::tls::{self, NotedTcpConnector, TlsConnector};
use crate::denial::Denial;
use rustls::ClientConfig;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use ureq::config::Config;
use ureq::http::{HeaderMap, HeaderValue};
use ureq::unversioned::transport::Connector;
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
    /// Whole time one question may take: a turn, name resolution, connection, TLS, answer.
    pub timeout: Duration,
    /// What bounds the questions that are under way at once.
    pub admission: Arc<Admission>,
}

/// A client that can be used by many threads at once.
#[derive(Debug)]
pub struct Client {
    config: Config,
    tls: Arc<ClientConfig>,
    target: FixedTarget,
    timeout: Duration,
    admission: Arc<Admission>,
    pool: RwLock<Pool>,
}

/// The connections that are kept, and the number of times that others were there before them.
#[derive(Clone, Debug)]
struct Pool {
    agent: Agent,
    generation: u64,
}

/// Why a question has no answer.
enum Unanswered {
    /// There was no answer at all, not even the beginning of one.
    Transport(Error),
    /// There was an answer, and it denies the login; or there cannot be one.
    Denied(Denial),
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
        let target =
            FixedTarget::new(route.endpoint.map_or_else(|| format!("{}:443", route.host), Endpoint::authority));
        let pool = Pool { agent: new_agent(&config, &route.tls, &target), generation: 0 };
        Self {
            config,
            tls: route.tls,
            target,
            timeout: route.timeout,
            admission: route.admission,
            pool: RwLock::new(pool),
        }
    }

    /// Asks STS who signed the request and reads the answer.
    ///
    /// Blocks until the answer is there, at most for the route's timeout; while too many others ask, it waits for its
    /// turn in that time. A kept connection may turn out to be dead when
    /// it is used: then the kept ones are given up, and the question is asked once more, with the same signature, over a
    /// new one.
    ///
    /// # Errors
    /// A refusal when STS says no, an unavailable denial when it could not be asked in time.
    pub fn get_caller_identity(&self, request: &IdentityRequest) -> Result<CallerIdentity, Denial> {
        let deadline = Instant::now() + self.timeout;
        let claimed = request.authorization.claimed_access_key_id();
        let _turn = self.admission.enter(claimed, deadline).ok_or_else(|| {
            Denial::unavailable(format!(
                "too many logins at once: there was no turn to ask STS within {} ms",
                self.timeout.as_millis()
            ))
        })?;
        let left = || deadline.saturating_duration_since(Instant::now());
        let pool = self.pool();
        let (result, connected) = tls::noting_connections(|| ask(&pool.agent, request, left()));
        let error = match result {
            Ok(identity) => return Ok(identity),
            Err(Unanswered::Denied(denial)) => return Err(denial),
            Err(Unanswered::Transport(error)) => error,
        };
        // A name that was not found says nothing about the kept connections.
        if connected || matches!(error, Error::HostNotFound) {
            return Err(self.unavailable(&error));
        }
        self.give_up(&pool);
        let left = left();
        if left.is_zero() || !matches!(error, Error::Io(_) | Error::ConnectionFailed) {
            return Err(self.unavailable(&error));
        }
        ask(&self.pool().agent, request, left).map_err(|unanswered| match unanswered {
            Unanswered::Denied(denial) => denial,
            Unanswered::Transport(error) => self.unavailable(&error),
        })
    }

    fn pool(&self) -> Pool {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the kept connections, of which one was dead, unless another thread has done so. Questions under way end
    /// on the old ones.
    fn give_up(&self, dead: &Pool) {
        let mut pool = self.pool.write().unwrap_or_else(PoisonError::into_inner);
        if pool.generation == dead.generation {
            let agent = new_agent(&self.config, &self.tls, &self.target);
            *pool = Pool { agent, generation: dead.generation + 1 };
        }
    }

    /// Says why there is no answer. Only errors whose text is known to hold no bytes of a message are shown.
    fn unavailable(&self, error: &Error) -> Denial {
        Denial::unavailable(match error {
            Error::Timeout(_) => format!("STS did not answer within {} ms", self.timeout.as_millis()),
            Error::HostNotFound => "the name of the STS host or endpoint was not found".to_owned(),
            Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(error @ rustls::Error::InvalidCertificate(_)) => {
                    format!("the TLS connection to STS is not trusted: {}", printable(error))
                }
                Some(error) => format!("no TLS connection to STS: {}", printable(error)),
                // The text of this one is the TLS library's, with a link to its documentation.
                None if error.kind() == io::ErrorKind::UnexpectedEof => {
                    "the connection to STS was closed before there was an answer".to_owned()
                }
                None => format!("no connection to STS: {}", printable(error)),
            },
            Error::Tls(error) => format!("no TLS connection to STS: {error}"),
            Error::ConnectionFailed => "no connection to STS".to_owned(),
            _ => "what answered for STS does not speak HTTP as expected".to_owned(),
        })
    }
}

fn new_agent(config: &Config, tls: &Arc<ClientConfig>, target: &FixedTarget) -> Agent {
    let connector = ().chain(NotedTcpConnector::default()).chain(TlsConnector::new(Arc::clone(tls)));
    Agent::with_parts(config.clone(), connector, target.clone())
}

/// Asks once.
fn ask(agent: &Agent, request: &IdentityRequest, timeout: Duration) -> Result<CallerIdentity, Unanswered> {
    let denied = |denial| Unanswered::Denied(denial);
    let mut post = agent.post(request.url()).config().timeout_global(Some(timeout)).build();
    for (name, value) in request.headers() {
        let mut value = HeaderValue::from_maybe_shared(value.into_bytes())
            .map_err(|_| denied(Denial::internal("a checked value is not a header value after all")))?;
        // Keeps it out of whatever prints headers.
        value.set_sensitive(true);
        post = post.header(name, value);
    }
    let mut answer = post.send(BODY).map_err(Unanswered::Transport)?;
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !header("content-encoding").is_empty() {
        return Err(denied(Denial::unavailable("what answered for STS sent an encoding that was not asked for")));
    }
    if !is_framed_once(answer.headers()) {
        return Err(denied(Denial::unavailable("what answered for STS sent a body whose end can be read in two ways")));
    }
    let content_type = header("content-type").to_owned();
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(response::MAX_BODY_LENGTH as u64).read_to_vec();
    let body = body.map_err(|error| {
        denied(Denial::unavailable(match error {
            Error::Timeout(_) => "STS did not finish its answer in time".to_owned(),
            Error::BodyExceedsLimit(limit) => format!("what answered for STS sent more than {limit} bytes"),
            _ => "STS broke off in its answer".to_owned(),
        }))
    })?;
    response::read(&Answer { status, content_type: &content_type, body: &body }).map_err(denied)
}

/// Whether the header says in one way where the body ends. The HTTP library lets chunks win over a length, as RFC 9112
/// (6.3) allows, and passes over codings that it does not know; whoever passed the answer on may have read it otherwise.
fn is_framed_once(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all("transfer-encoding").iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") && !headers.contains_key("content-length")
        }
        (Some(_), Some(_)) => false,
    }
}

/// A TLS error may repeat names from a certificate that nobody vouches for: what is shown of it is short and printable.
fn printable(error: &dyn std::fmt::Display) -> String {
    const LONGEST: usize = 300;
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    error.to_string().chars().take(LONGEST).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn miri_an_answer_says_once_where_its_body_ends() {
        let framed_once = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            is_framed_once(&headers)
        };
        for fields in [&[][..], &[("content-length", "5")], &[("transfer-encoding", "Chunked")]] {
            assert!(framed_once(fields), "{fields:?}");
        }
        for fields in [
            &[("transfer-encoding", "chunked"), ("content-length", "5")][..],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "identity")],
            &[("transfer-encoding", "")],
        ] {
            assert!(!framed_once(fields), "{fields:?}");
        }
    }
}
