//! The HTTPS client of one STS host: its pool of keep-alive connections, and one attempt of a
//! request.
//!
//! Every setting of the HTTP library that matters here is set explicitly: https only, no redirect
//! followed, no proxy from the environment, a status is not an error, every size has an upper
//! bound.

use super::connection::{Observer, StsConnector};
use super::endpoint::Endpoint;
use super::health::Outcome;
use super::request::{BODY, CONTENT_TYPE, IdentityRequest};
use super::resolver::FixedTarget;
use super::response::{self, CallerIdentity, Response};
use super::route::Route;
use super::tls;
use super::unreached::{Names, Sent, Unreached};
use crate::denial::{Cause, Denial, Kind};
use crate::process::Process;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use ureq::config::Config;
use ureq::http::{HeaderMap, HeaderValue};
use ureq::typestate::WithBody;
use ureq::{Agent, Error, RequestBuilder};

/// The maximum length of a response header, in bytes. Those of STS have about 300.
const MAX_HEADER_LENGTH: usize = 8 * 1024;

/// The sizes of a connection's buffers, in bytes. The first holds the header of a response, the
/// second the longest header of a request, the session token.
const INPUT_BUFFER_LENGTH: usize = 16 * 1024;
const OUTPUT_BUFFER_LENGTH: usize = 24 * 1024;

/// The maximum number of idle connections. A login storm opens more and closes them again.
const MAX_IDLE_CONNECTIONS: usize = 64;

/// How long an idle connection is kept. STS is not known to close one earlier.
const MAX_IDLE_AGE: Duration = Duration::from_secs(15);

/// The share of a login's time in which a kept connection must answer. If it died unseen, the rest
/// is for a new one.
pub const STALE_CONNECTION_SHARE: u32 = 3;

/// The maximum time of one check of a host. awsStsTimeoutMS does not count: a short one must not
/// prove that STS is unreachable.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// A client that can be used by many threads at once.
#[derive(Debug)]
pub struct Client {
    names: Names,
    url: String,
    stale_connection_timeout: Duration,
    process: Arc<Process>,
    agent: Agent,
    /// Takes no kept connection and keeps none.
    new_connections: Agent,
}

/// Why an attempt has no identity.
enum Unanswered {
    /// No response began.
    Transport(Error, Failure),
    /// A response denies the login, or there cannot be one.
    Denied(Failure),
}

impl Unanswered {
    fn into_failure(self) -> Failure {
        match self {
            Self::Denied(failure) | Self::Transport(_, failure) => failure,
        }
    }
}

/// An attempt that failed.
#[derive(Debug)]
pub struct Failure {
    /// Why the login is denied, unless another attempt succeeds.
    pub denial: Denial,
    /// How long to wait before the next attempt, if STS has said so.
    pub retry_after: Option<Duration>,
    /// What the attempt says of the host.
    pub outcome: Outcome,
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        Self { denial, retry_after: None, outcome: Outcome::NotReached }
    }
}

impl Client {
    /// Makes a client. Nothing is looked up or sent. An observer receives how each of its
    /// connections was made.
    pub fn new(route: Route<'_>, observer: Option<Observer>, process: Arc<Process>) -> Self {
        let config = |max_idle_connections| {
            Config::builder()
                .https_only(true)
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .proxy(None)
                .user_agent(concat!("psmdb-aws-iam/", env!("CARGO_PKG_VERSION")))
                .max_response_header_size(MAX_HEADER_LENGTH)
                .input_buffer_size(INPUT_BUFFER_LENGTH)
                .output_buffer_size(OUTPUT_BUFFER_LENGTH)
                .max_idle_connections(max_idle_connections)
                .max_idle_connections_per_host(max_idle_connections)
                .max_idle_age(MAX_IDLE_AGE)
                .timeout_global(Some(route.timeout))
                .build()
        };
        let names = Names::new(&route);
        let sts = route.endpoint.map_or_else(|| format!("{}:443", route.host), Endpoint::authority);
        // With a proxy, it is the proxy that looks up the name of STS.
        let (target, tunnel) = match route.proxy {
            Some(proxy) => (FixedTarget::new(proxy.authority()), Some(sts)),
            None => (FixedTarget::new(sts), None),
        };
        let stale_connection_timeout = route.timeout / STALE_CONNECTION_SHARE;
        let connector = StsConnector::new(tunnel, route.tls, stale_connection_timeout, Arc::clone(&process));
        let connector = observer.map_or(connector.clone(), |observer| connector.observed(observer));
        let agent = |config| Agent::with_parts(config, connector.clone(), target.clone());
        let (agent, new_connections) = (agent(config(MAX_IDLE_CONNECTIONS)), agent(config(0)));
        let url = format!("https://{}/", route.host);
        Self { names, url, stale_connection_timeout, process, agent, new_connections }
    }

    /// Sends a request that is always the same and has no signature, over a connection of its own,
    /// and judges the response as that of a login. Blocks for at most the timeout.
    ///
    /// # Errors
    /// Why there is no identity. [`Outcome::Reached`] means that STS refused the request, as it
    /// does.
    pub fn check(&self, timeout: Duration) -> Result<CallerIdentity, Failure> {
        let post = self.new_connections.post(&self.url).content_type(CONTENT_TYPE).header("Accept", "text/xml");
        let post = post.config().timeout_global(Some(timeout)).build();
        self.exchange(post, timeout).map_err(Unanswered::into_failure)
    }

    /// Sends the request once. A kept connection may turn out to be dead when it is used: then the
    /// request goes over a new one. The others stay in the pool, since the client's own bytes may
    /// be why it died; `has_stale_connections` keeps later attempts of the login from trying them
    /// too.
    ///
    /// # Errors
    /// Why there is no identity, and what that says of the host.
    pub fn attempt(
        &self,
        request: &IdentityRequest,
        deadline: Instant,
        has_stale_connections: &mut bool,
    ) -> Result<CallerIdentity, Failure> {
        let was_nearly_due = self.is_nearly_due(deadline);
        self.send_once_or_twice(request, deadline, has_stale_connections).map_err(|mut failure| {
            if was_nearly_due && Instant::now() >= deadline {
                // It had waited for a permit, and ran out of time itself.
                failure.outcome = Outcome::Inconclusive;
            }
            failure
        })
    }

    fn send_once_or_twice(
        &self,
        request: &IdentityRequest,
        deadline: Instant,
        has_stale_connections: &mut bool,
    ) -> Result<CallerIdentity, Failure> {
        let left = || deadline.saturating_duration_since(Instant::now());
        let was_nearly_due = self.is_nearly_due(deadline);
        let agent = if *has_stale_connections { &self.new_connections } else { &self.agent };
        let (result, connected) = tls::track_new_connections(|| self.send(agent, request, left()));
        let (error, failure) = match result {
            Ok(identity) => return Ok(identity),
            Err(Unanswered::Denied(failure)) => return Err(failure),
            Err(Unanswered::Transport(error, failure)) => (error, failure),
        };
        // A connection that had less time than it needs says nothing about the kept ones either.
        if connected || was_nearly_due && matches!(error, Error::Timeout(_)) {
            return Err(failure);
        }
        *has_stale_connections = true;
        if left().is_zero() {
            return Err(failure);
        }
        self.process.metrics.sts_retries.add();
        self.send(&self.new_connections, request, left()).map_err(Unanswered::into_failure)
    }

    /// Sends the request over one connection.
    fn send(&self, agent: &Agent, request: &IdentityRequest, timeout: Duration) -> Result<CallerIdentity, Unanswered> {
        let denied = |denial: Denial| Unanswered::Denied(denial.into());
        let mut post = agent.post(&self.url).config().timeout_global(Some(timeout)).build();
        for (name, value) in request.headers() {
            let mut value = HeaderValue::from_maybe_shared(value.into_bytes())
                .map_err(|_| denied(Denial::internal("a validated value is not a valid HTTP header value")))?;
            // Keeps it out of logs of headers.
            value.set_sensitive(true);
            post = post.header(name, value);
        }
        self.exchange(post, timeout)
    }

    /// Sends a request and reads the response, which must be complete within the timeout.
    fn exchange(&self, post: RequestBuilder<WithBody>, timeout: Duration) -> Result<CallerIdentity, Unanswered> {
        let denied = |denial: Denial| Unanswered::Denied(denial.into());
        let metrics = &self.process.metrics;
        let begun = Instant::now();
        metrics.sts_requests.add();
        // An earlier request of this thread may have left one.
        tls::take_peer();
        let sent = |response_begun| Sent { peer: tls::take_peer(), took: begun.elapsed().min(timeout), response_begun };
        let unreached = |unreached: Unreached| Failure {
            denial: unreached.denial,
            retry_after: None,
            outcome: if unreached.is_local { Outcome::Inconclusive } else { Outcome::NotReached },
        };
        let mut answer = post.send(BODY).map_err(|error| {
            let failure = unreached(self.names.explain(&error, &sent(false)));
            Unanswered::Transport(error, failure)
        })?;
        metrics.sts_answers.add(answer.status().as_u16());
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !header("content-encoding").is_empty() {
            return Err(denied(Denial::invalid_response(
                "the response is not a valid STS response: its content is encoded, which the request does not allow",
            )));
        }
        if !is_framed_once(answer.headers()) {
            return Err(denied(Denial::invalid_response(
                "the response is not a valid STS response: its header says in two ways where the body ends",
            )));
        }
        let content_type = header("content-type").to_owned();
        let retry_after = response::retry_after(header("retry-after"));
        let date = header("date").to_owned();
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(response::MAX_BODY_LENGTH as u64).read_to_vec();
        let body = body.map_err(|error| Unanswered::Denied(unreached(self.names.explain(&error, &sent(true)))))?;
        metrics.sts_latency.add(begun.elapsed());
        let answer = Response { status, content_type: &content_type, body: &body };
        response::read(&answer).map_err(|denial| {
            let of_sts = match denial.cause() {
                Cause::Throttled => response::has_error_code(&answer),
                cause => cause.kind() == Kind::RefusedBySts,
            };
            let outcome = if of_sts { Outcome::Reached } else { Outcome::NotReached };
            let denial = response::explain_clock(denial, &date, SystemTime::now());
            Unanswered::Denied(Failure { denial, retry_after, outcome })
        })
    }

    /// Whether an attempt that begins now has less time than a kept connection has to answer in.
    fn is_nearly_due(&self, deadline: Instant) -> bool {
        deadline.saturating_duration_since(Instant::now()) < self.stale_connection_timeout
    }
}

/// Whether the header says in one way where the body ends. The HTTP library prefers chunks to a
/// length, as RFC 9112 (6.3) allows, and ignores codings that it does not know; a proxy in between
/// may have read the response otherwise.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sigv4::{AmzDate, Authorization, Expected};
    use crate::sts::endpoint::StsHost;
    use local_sts::LocalSts;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    /// A request that STS refuses: no key made the signature.
    fn forged() -> IdentityRequest {
        let date = AmzDate::parse("20261121T191300Z").unwrap();
        let header = format!(
            "AWS4-HMAC-SHA256 Credential=AKIANOBODY/20261121/us-east-1/sts/aws4_request, \
             SignedHeaders=host;x-amz-date;x-mongodb-gs2-cb-flag;x-mongodb-server-nonce, Signature={}",
            "0".repeat(64)
        );
        let expected = Expected { date: &date, region: "us-east-1", with_token: false };
        let authorization = Authorization::parse(&header, &expected).unwrap();
        IdentityRequest { authorization, date, token: None, nonce: "AAAA".to_owned() }
    }

    /// An attempt that a wait for a permit left little time says nothing of STS, and a kept
    /// connection that had little time is not a dead one.
    #[test]
    fn a_request_whose_time_ran_out_in_the_queue_blames_no_host() {
        let sts = LocalSts::builder().start().unwrap();
        let roots: Vec<_> = CertificateDer::pem_slice_iter(sts.ca_pem().as_bytes()).map(Result::unwrap).collect();
        let endpoint = Endpoint::parse(&sts.endpoint()).unwrap();
        let timeout = Duration::from_secs(6);
        let route = Route {
            host: &StsHost::default(),
            endpoint: Some(&endpoint),
            proxy: None,
            tls: tls::client_config(&roots).unwrap(),
            timeout,
        };
        let client = Client::new(route, None, Arc::default());
        let (request, mut has_stale_connections) = (forged(), false);
        let mut attempt =
            |time| client.attempt(&request, Instant::now() + time, &mut has_stale_connections).unwrap_err();
        let answered = attempt(timeout);
        assert!(answered.denial.reason().starts_with("STS returned 403"), "{answered:?}");
        assert_eq!(answered.outcome, Outcome::Reached);

        sts.set_processing_time(Duration::from_millis(1500));
        let late = attempt(Duration::from_millis(750));
        assert!(late.denial.reason().starts_with("no response from sts.amazonaws.com (127.0.0.1:"), "{late:?}");
        assert_eq!((late.outcome, sts.request_count()), (Outcome::Inconclusive, 2), "it is not sent again");
        assert!(!has_stale_connections);
    }

    #[test]
    fn miri_a_response_must_say_once_where_its_body_ends() {
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
