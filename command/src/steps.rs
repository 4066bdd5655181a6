//! The steps of one question to STS, each measured, with the addresses that were tried.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use psmdb_aws_iam::denial::Denial;
use psmdb_aws_iam::settings::Settings;
use psmdb_aws_iam::sts::client::Client;
use psmdb_aws_iam::sts::connection::{AttemptEnd, AttemptReport, Connecting, Step};

/// What was seen of one question.
#[derive(Debug, Default)]
pub struct Steps {
    /// How long name resolution took, and the addresses it gave, if it came to that.
    pub resolution: Option<(Duration, Option<Vec<SocketAddr>>)>,
    /// The addresses that were tried; the last of them decided.
    pub tried: Vec<Address>,
    /// How long all of it took.
    pub whole: Duration,
    /// Whether STS has answered.
    pub answered: bool,
}

/// What came of one address.
#[derive(Debug)]
pub struct Address {
    /// The address.
    pub address: SocketAddr,
    /// How long after the first one it was tried.
    pub begun_after: Duration,
    /// The steps that were begun, and how long each took.
    pub steps: Vec<(Step, Duration)>,
    /// How it ended: nothing when it is connected.
    pub failure: Option<String>,
}

impl Address {
    fn of(tried: &AttemptReport) -> Self {
        let failure = match &tried.end {
            AttemptEnd::Connected => None,
            AttemptEnd::Failed(error) => Some(error.to_string()),
            AttemptEnd::LostRace => Some("not used, since another address was faster".to_owned()),
        };
        let AttemptReport { address, started_after, ref steps, .. } = *tried;
        Self { address, begun_after: started_after, steps: steps.clone(), failure }
    }
}

/// A part of a question, as `whoami` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    NameResolution,
    Connect,
    Tunnel,
    Tls,
    Answer,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::NameResolution => "name resolution",
            Self::Connect => "connect",
            Self::Tunnel => "proxy's tunnel",
            Self::Tls => "TLS",
            Self::Answer => "answer",
        }
    }

    pub fn json_name(self) -> &'static str {
        match self {
            Self::NameResolution => "nameResolution",
            Self::Connect => "connect",
            Self::Tunnel => "tunnel",
            Self::Tls => "tls",
            Self::Answer => "answer",
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

/// One part that was tried.
#[derive(Clone, Copy, Debug)]
pub struct Lap {
    pub phase: Phase,
    pub took: Duration,
    pub done: bool,
}

impl Steps {
    /// Sends one request to the preferred host. `send` does, with a client that has no connection, and
    /// within the time that it is given.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn of<T, E>(
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
            let took = connecting.began.saturating_duration_since(began);
            steps.resolution = Some((took, Some(connecting.addresses.to_vec())));
            steps.tried = connecting.attempts.iter().map(Address::of).collect();
        };
        let client = Client::new(route, Some(Arc::new(observer)), Arc::clone(sts.process()));
        let result = send(&client, timeout);
        let mut steps = std::mem::take(&mut *lock(&steps));
        (steps.whole, steps.answered) = (began.elapsed(), result.is_ok());
        // A request that failed before it had an address failed in name resolution.
        let whole = steps.whole;
        steps.resolution.get_or_insert((whole, None));
        Ok((result, steps))
    }

    /// The parts one after another, on the way of the address that decided; together they took the whole time.
    pub fn laps(&self) -> Vec<Lap> {
        let Some((took, addresses)) = &self.resolution else { return Vec::new() };
        let mut laps = vec![Lap { phase: Phase::NameResolution, took: *took, done: addresses.is_some() }];
        let Some(last) = self.tried.last() else { return laps };
        laps.extend(last.steps.iter().map(|(step, took)| Lap { phase: (*step).into(), took: *took, done: true }));
        // The addresses before it are what connecting took, too.
        laps[1].took += last.begun_after;
        if last.failure.is_some() {
            laps.last_mut().expect("one at least").done = false;
        } else {
            let before: Duration = laps.iter().map(|lap| lap.took).sum();
            let took = self.whole.saturating_sub(before);
            laps.push(Lap { phase: Phase::Answer, took, done: self.answered });
        }
        laps
    }
}

fn lock(seen: &Mutex<Steps>) -> std::sync::MutexGuard<'_, Steps> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A time, with a tenth of a millisecond.
pub fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
