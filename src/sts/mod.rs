//! Verifies a signed request with AWS STS. [`Sts`] is the only entry point: a login takes a host from
//! it and calls [`Sts::ask`].
//!
//! Inside, [`hosts`] holds the hosts, [`health`] decides whether one can be reached, and
//! [`failover`] which one new logins use. [`gate`] decides when a request may be sent; [`request`]
//! is what is sent, [`client`] sends it by a [`route`], and [`response`] reads the response.
//! [`endpoint`] has the grammars of addresses, [`resolver`] looks them up, and [`connection`], with
//! [`proxy`] and [`tls`], connects. [`roots`] holds the trusted certificates. [`certificates`],
//! [`unreached`] and [`errors`] describe what is wrong with other certificates, why there is no
//! response, and what errors of libraries mean.

pub mod certificates;
pub mod client;
pub mod connection;
pub mod endpoint;
pub mod errors;
pub mod failover;
pub mod gate;
pub mod health;
pub mod hosts;
pub mod proxy;
pub mod request;
pub mod resolver;
pub mod response;
pub mod roots;
pub mod route;
pub mod tls;
pub mod unreached;

pub use route::{Config, HostConfig};

use crate::denial::{Cause, Denial, Retry};
use crate::process::Process;
use client::{Client, Failure};
use endpoint::StsHost;
use gate::{Gate, Refused};
use health::{CheckReason, Outage, Outcome};
use hosts::{Host, Hosts};
use once_cell::sync::OnceCell;
use request::IdentityRequest;
use response::CallerIdentity;
use roots::CaFile;
use route::Route;
use rustls::ClientConfig;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// No attempt begins with less time left than this, or than [`STALE_CONNECTION_SHARE`] of the
/// timeout if that is less: it would time out itself, and the denial would blame STS.
///
/// [`STALE_CONNECTION_SHARE`]: client::STALE_CONNECTION_SHARE
const MIN_ATTEMPT_TIME: Duration = Duration::from_secs(1);

/// The maximum of the first pause between two attempts; it doubles with each attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The maximum of every pause.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// What serverStatus shows of STS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The host of new logins.
    pub host: StsHost,
    /// Since when it is that one.
    pub since: SystemTime,
}

/// AWS STS, shared by all logins that began with the same configuration.
#[derive(Debug)]
pub struct Sts {
    config: Config,
    hosts: Hosts,
    /// Made when it is first needed, so that a server starts without root certificates. It is
    /// shared while the roots stay the same, with the TLS sessions that can be resumed.
    tls: Arc<OnceCell<Arc<ClientConfig>>>,
    shared: Arc<Shared>,
    process: Arc<Process>,
}

/// What outlives a change of the configuration.
#[derive(Debug, Default)]
struct Shared {
    gate: Gate,
    outage: Outage,
}

impl Sts {
    /// Takes where STS is. Nothing is looked up or sent.
    pub fn new(config: Config, process: Arc<Process>) -> Self {
        let hosts = Hosts::new(&config.hosts);
        Self { config, hosts, tls: Arc::default(), shared: Arc::default(), process }
    }

    /// `before` itself if the configuration is the same, and otherwise one that begins with the
    /// preferred host and without connections.
    pub fn with_config(before: &Arc<Self>, config: Config) -> Arc<Self> {
        if before.config == config {
            return Arc::clone(before);
        }
        let same_roots = before.config.ca_file == config.ca_file;
        let tls = if same_roots { Arc::clone(&before.tls) } else { Arc::default() };
        let shared = Arc::clone(&before.shared);
        Arc::new(Self { tls, shared, ..Self::new(config, Arc::clone(&before.process)) })
    }

    /// Another configuration is in force from now on: this one logs nothing and changes its host no
    /// more, while logins that began with it end with it.
    pub fn retire(&self) {
        self.hosts.retire();
    }

    /// The host for a login that begins now. Also checks, when it is due, whether a better host can
    /// be reached again.
    pub fn host_for_login(self: &Arc<Self>, now: Instant) -> Arc<Host> {
        if self.hosts.start_recovery_check(&self.shared.outage, now) {
            self.spawn_check(CheckReason::Recovery);
        }
        Arc::clone(self.hosts.current())
    }

    /// The preferred host, awsStsHost.
    pub fn first_host(&self) -> &Arc<Host> {
        self.hosts.first()
    }

    /// The host of new logins.
    pub fn status(&self) -> Status {
        Status { host: self.hosts.current().name().clone(), since: self.hosts.current_since() }
    }

    /// Asks STS who signed the request, which was signed for this host.
    ///
    /// Blocks until there is an answer, for at most the configured timeout. In that time it waits
    /// for a permit while too many others ask, and retries with the same signature when STS cannot
    /// be reached, has an error or throttles: after a random pause of growing length (AWS,
    /// "Exponential backoff and jitter"), or when STS says.
    ///
    /// # Errors
    /// A refusal when STS says no, an unavailable denial when it could not be asked in time.
    pub fn ask(self: &Arc<Self>, host: &Arc<Host>, request: &IdentityRequest) -> Result<CallerIdentity, Denial> {
        let client = self.client(host)?;
        let timeout = self.config.timeout;
        let deadline = Instant::now() + timeout;
        let latest_start = deadline - MIN_ATTEMPT_TIME.min(timeout / client::STALE_CONNECTION_SHARE);
        let (metrics, gate) = (&self.process.metrics, &self.shared.gate);
        let caller = gate.caller(request.authorization.claimed_access_key_id(), Instant::now());
        let (mut last, mut has_stale_connections) = (None, false);
        for attempt in 0_u32.. {
            let queued = metrics.sts_queued.hold();
            let permit = match gate.enter(&caller, latest_start) {
                Ok(permit) => permit,
                Err(refused) => return Err(last.unwrap_or_else(|| self.refused(refused))),
            };
            drop(queued);
            if attempt > 0 {
                metrics.sts_retries.add();
            }
            let in_flight = metrics.sts_in_flight.hold();
            let result = client.attempt(request, deadline, &mut has_stale_connections);
            drop(in_flight);
            drop(permit);
            let outcome = result.as_ref().map_or_else(|failure| failure.outcome, |_| Outcome::Reached);
            self.record_outcome(host, outcome);
            let Failure { denial, retry_after, .. } = match result {
                Ok(identity) => {
                    gate.confirmed(&caller, Instant::now());
                    return Ok(identity);
                }
                Err(failure) => failure,
            };
            match denial.retry() {
                Retry::Never => return Err(denial),
                Retry::AfterThrottling => {
                    metrics.sts_throttled.add();
                    gate.throttled(&caller, retry_after, Instant::now());
                }
                Retry::AfterPause => {}
            }
            let pause = pause(attempt).max(retry_after.unwrap_or_default());
            if Instant::now() + pause >= latest_start {
                return Err(denial);
            }
            thread::sleep(pause);
            last = Some(denial);
        }
        Err(Denial::internal("too many attempts to send the STS request"))
    }

    /// How to reach a host.
    ///
    /// # Errors
    /// As [`tls::client_config`].
    pub fn route<'a>(&'a self, host: &'a Host) -> Result<Route<'a>, Denial> {
        let roots = self.config.ca_file.as_ref().map_or(&[][..], CaFile::roots);
        let tls = self.tls.get_or_try_init(|| tls::client_config(roots))?;
        Ok(Route {
            host: host.name(),
            endpoint: host.endpoint(),
            proxy: self.config.proxy.as_ref(),
            tls: Arc::clone(tls),
            timeout: self.config.timeout,
        })
    }

    /// Remembers an access key whose login has succeeded now, and the account that STS has named
    /// for it. Its later logins do not wait among those of newcomers.
    pub fn remember(&self, access_key_id: &str, account: &str) {
        self.shared.gate.remember(access_key_id, account, Instant::now());
    }

    /// Whether this access key is one that [`Sts::remember`] remembers.
    #[cfg(test)]
    pub fn is_known(&self, access_key_id: &str) -> bool {
        self.shared.gate.caller(access_key_id, Instant::now()).is_known()
    }

    /// The counters and events of the process.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    fn client<'a>(&self, host: &'a Host) -> Result<&'a Client, Denial> {
        host.client.get_or_try_init(|| Ok(Client::new(self.route(host)?, None, Arc::clone(&self.process))))
    }

    fn record_outcome(self: &Arc<Self>, host: &Arc<Host>, outcome: Outcome) {
        let (outage, events) = (&self.shared.outage, &self.process.events);
        if self.hosts.record_outcome(host, outcome, outage, events, Instant::now()) {
            self.spawn_check(CheckReason::Suspicion);
        }
    }

    /// Checks the hosts on a thread that ends with the check. The check has been started.
    fn spawn_check(self: &Arc<Self>, reason: CheckReason) {
        let sts = Arc::clone(self);
        let check = move || {
            let running = sts.hosts.running_check();
            let check = |host: &Host| sts.check(host);
            let (outage, Process { events, metrics, .. }) = (&sts.shared.outage, &*sts.process);
            let result = sts.hosts.check(reason, outage.is_on(), check);
            sts.hosts.conclude(result, outage, events, metrics, Instant::now());
            drop(running);
        };
        // A closure that never ran drops what it holds, but not `running`.
        if thread::Builder::new().name("awsStsCheck".to_owned()).spawn(check).is_err() {
            drop(self.hosts.running_check());
        }
    }

    /// Sends the constant request to a host. Blocks for at most [`client::CHECK_TIMEOUT`].
    pub fn check(&self, host: &Host) -> Outcome {
        let Ok(client) = self.client(host) else { return Outcome::Inconclusive };
        client.check(client::CHECK_TIMEOUT).map_or_else(|failure| failure.outcome, |_| Outcome::Reached)
    }

    fn refused(&self, refused: Refused) -> Denial {
        let timeout = self.config.timeout.as_millis();
        let (cause, reason) = match refused {
            // Often at once, so the reason must not say that time has passed.
            Refused::Throttled => (
                Cause::Throttled,
                format!(
                    "STS is limiting the account's requests: the request cannot be sent in time (awsStsTimeoutMS is \
                     {timeout})"
                ),
            ),
            Refused::QueueTimeout => (
                Cause::QueueTimeout,
                format!("too many logins at once: timed out after {timeout} ms waiting for a free STS request slot"),
            ),
        };
        Denial::new(cause, reason)
    }
}

/// A random pause before the next attempt ("full jitter"), so that logins that failed together do
/// not retry together.
fn pause(attempt: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << attempt.min(16)).min(MAX_PAUSE);
    let mut random = [0; 4];
    // Without random bytes no login gets this far.
    let _ = getrandom::fill(&mut random);
    longest.mul_f64(f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX))
}
