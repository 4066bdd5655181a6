//! The steps of one request to STS, each with its duration, and the addresses that were tried.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use psmdb_aws_iam::denial::Denial;
use psmdb_aws_iam::settings::Settings;
use psmdb_aws_iam::sts::client::Client;
use psmdb_aws_iam::sts::connection::{AttemptEnd, AttemptReport, Connecting, Step};

/// The steps of one request.
#[derive(Debug, Default)]
pub struct Steps {
    /// The duration of name resolution, and its addresses unless it failed. `None` before it began.
    pub resolution: Option<(Duration, Option<Vec<SocketAddr>>)>,
    /// The addresses that were tried. The last one decided the result.
    pub attempts: Vec<Attempt>,
    /// The duration of the whole request.
    pub whole: Duration,
    /// Whether STS has responded.
    pub responded: bool,
}

/// The attempt to connect to one address.
#[derive(Debug)]
pub struct Attempt {
    /// The address.
    pub address: SocketAddr,
    /// The time between the start of the first attempt and this one.
    pub began_after: Duration,
    /// The steps that began, with their durations.
    pub steps: Vec<(Step, Duration)>,
    /// Why the connection was not used; `None` if it was.
    pub failure: Option<String>,
}

impl From<&AttemptReport> for Attempt {
    fn from(report: &AttemptReport) -> Self {
        let failure = match &report.end {
            AttemptEnd::Connected => None,
            AttemptEnd::Failed(error) => Some(error.to_string()),
            AttemptEnd::LostRace => Some("not used, since another address was faster".to_owned()),
        };
        Self { address: report.address, began_after: report.started_after, steps: report.steps.clone(), failure }
    }
}

/// A phase of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    NameResolution,
    Connect,
    Tunnel,
    Tls,
    Response,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::NameResolution => "name resolution",
            Self::Connect => "connect",
            Self::Tunnel => "proxy tunnel",
            Self::Tls => "TLS",
            Self::Response => "response",
        }
    }

    pub fn json_name(self) -> &'static str {
        match self {
            Self::NameResolution => "nameResolution",
            Self::Connect => "connect",
            Self::Tunnel => "tunnel",
            Self::Tls => "tls",
            Self::Response => "response",
        }
    }
}

impl From<Step> for Phase {
    fn from(step: Step) -> Self {
        match step {
            Step::Tcp => Self::Connect,
            Step::Tunnel => Self::Tunnel,
            Step::Tls => Self::Tls,
        }
    }
}

/// The duration and the result of a phase.
#[derive(Clone, Copy, Debug)]
pub struct PhaseResult {
    pub phase: Phase,
    pub duration: Duration,
    pub succeeded: bool,
}

impl Steps {
    /// Sends one request to the preferred host. `send` gets a client without a connection, and the
    /// maximum duration.
    ///
    /// # Errors
    /// When no client can be created.
    pub fn measure<T, E>(
        settings: &Settings,
        send: impl FnOnce(&Client, Duration) -> Result<T, E>,
    ) -> Result<(Result<T, E>, Self), Denial> {
        let steps = Arc::new(Mutex::new(Self::default()));
        let sts = settings.sts();
        let route = sts.route(sts.first_host())?;
        let timeout = route.timeout;
        let (began, observed) = (Instant::now(), Arc::clone(&steps));
        let observer = move |connecting: Connecting<'_>| {
            let mut steps = lock(&observed);
            let duration = connecting.began.saturating_duration_since(began);
            steps.resolution = Some((duration, Some(connecting.addresses.to_vec())));
            steps.attempts = connecting.attempts.iter().map(Attempt::from).collect();
        };
        let client = Client::new(route, Some(Arc::new(observer)), Arc::clone(sts.process()));
        let result = send(&client, timeout);
        let mut steps = std::mem::take(&mut *lock(&steps));
        (steps.whole, steps.responded) = (began.elapsed(), result.is_ok());
        // A request that failed before it had an address failed in name resolution.
        let whole = steps.whole;
        steps.resolution.get_or_insert((whole, None));
        Ok((result, steps))
    }

    /// The phases in order, with the steps of the address that decided the result. Their durations
    /// add up to the whole.
    pub fn phases(&self) -> Vec<PhaseResult> {
        let Some((duration, addresses)) = &self.resolution else { return Vec::new() };
        let resolution =
            PhaseResult { phase: Phase::NameResolution, duration: *duration, succeeded: addresses.is_some() };
        let mut phases = vec![resolution];
        let Some(last) = self.attempts.last() else { return phases };
        phases.extend(last.steps.iter().map(|&(step, duration)| PhaseResult {
            phase: step.into(),
            duration,
            succeeded: true,
        }));
        // The attempts before it are part of connecting.
        phases[1].duration += last.began_after;
        if last.failure.is_some() {
            phases.last_mut().expect("at least one").succeeded = false;
        } else {
            let before: Duration = phases.iter().map(|phase| phase.duration).sum();
            let duration = self.whole.saturating_sub(before);
            phases.push(PhaseResult { phase: Phase::Response, duration, succeeded: self.responded });
        }
        phases
    }
}

fn lock(steps: &Mutex<Steps>) -> MutexGuard<'_, Steps> {
    steps.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A duration in milliseconds, with one decimal.
pub fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
