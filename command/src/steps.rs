//! The steps of one question to STS, each measured, with the addresses that were tried.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use psmdb_aws_iam::denial::Denial;
use psmdb_aws_iam::settings::Settings;
use psmdb_aws_iam::sts::client::Client;
use psmdb_aws_iam::sts::connection::{End, Step, Tried};
use psmdb_aws_iam::sts::resolver::FixedTarget;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Agent, Error};

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
    fn of(tried: &Tried) -> Self {
        let failure = match &tried.end {
            End::Connected => None,
            End::Failed(trouble) => Some(trouble.to_string()),
            End::Overtaken => Some("not used, since another address was faster".to_owned()),
        };
        let Tried { address, begun_after, ref steps, .. } = *tried;
        Self { address, begun_after, steps: steps.clone(), failure }
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
    /// Asks STS once, with this client's method.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn of<T, E>(
        settings: &Settings,
        ask: impl FnOnce(&Client) -> Result<T, E>,
    ) -> Result<(Result<T, E>, Self), Denial> {
        let seen = Arc::new(Mutex::new(Self::default()));
        let route = settings.sts().route(settings.sts().first_host())?;
        let client = Client::with_agent(route, Arc::clone(settings.sts().process()), |connector, config, target| {
            let for_connector = Arc::clone(&seen);
            let connector = connector.observed(Arc::new(move |tried: &[Tried]| {
                lock(&for_connector).tried = tried.iter().map(Address::of).collect();
            }));
            let resolver = Timed { target: target.clone(), seen: Arc::clone(&seen) };
            Agent::with_parts(config.clone(), connector, resolver)
        });
        let began = Instant::now();
        let answer = ask(&client);
        let mut steps = std::mem::take(&mut *lock(&seen));
        (steps.whole, steps.answered) = (began.elapsed(), answer.is_ok());
        Ok((answer, steps))
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

/// Name resolution that is measured.
#[derive(Debug)]
struct Timed {
    target: FixedTarget,
    seen: Arc<Mutex<Steps>>,
}

impl Resolver for Timed {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let began = Instant::now();
        let result = self.target.resolve(uri, config, timeout);
        let addresses = result.as_ref().ok().map(|addresses| addresses.to_vec());
        lock(&self.seen).resolution = Some((began.elapsed(), addresses));
        result
    }
}

/// A time, with a tenth of a millisecond.
pub fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
