//! Whether the current STS host can be reached, and when to find out.
//!
//! Attempts of logins decide nothing, since a client chooses part of their bytes: after some in a
//! row that did not reach the current host, a constant request decides. While another host than the
//! preferred one is current, and in an outage, such a request also finds out whether that is over.

use super::endpoint::StsHost;
use crate::events::{Event, Events};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Attempts in a row that do not reach the current host before it is checked.
pub const SUSPECT_ATTEMPTS: u32 = 3;

/// The minimum time between two checks for suspect attempts, so that clients cannot cause more.
const SUSPICION_INTERVAL: Duration = Duration::from_secs(1);

/// How often the preferred host is checked while another is current, and all hosts in an outage.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(5);

/// What one request says of its STS host. A client chooses part of a login's request, so only the
/// constant request of a check proves that a host is unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// STS named an identity, or refused with an error code of its own.
    Reached,
    /// There was no response, a server error, or a response that STS does not send.
    NotReached,
    /// The request failed for lack of time, or of a resource of this machine.
    Inconclusive,
}

/// Why hosts are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckReason {
    /// Attempts did not reach the current host.
    Suspicion,
    /// The preferred host, or in an outage any, may be reachable again.
    Recovery,
}

/// What is known of the current host. One check runs at a time.
#[derive(Debug, Default)]
pub struct Health {
    /// Attempts in a row that did not reach it.
    suspect_attempts: u32,
    /// When the latest check ended.
    checked: Option<Instant>,
    is_checking: bool,
}

impl Health {
    /// Records what an attempt says of the current host; returns whether the host is suspect.
    pub fn record(&mut self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Reached => self.suspect_attempts = 0,
            Outcome::NotReached => self.suspect_attempts = self.suspect_attempts.saturating_add(1),
            Outcome::Inconclusive => {}
        }
        outcome == Outcome::NotReached && self.suspect_attempts >= SUSPECT_ATTEMPTS
    }

    /// Begins a check if none is running and one is due; returns whether it did.
    pub fn start_check(&mut self, reason: CheckReason, now: Instant) -> bool {
        let interval = match reason {
            CheckReason::Suspicion => SUSPICION_INTERVAL,
            CheckReason::Recovery => RECOVERY_INTERVAL,
        };
        let is_due = self.checked.is_none_or(|checked| now.saturating_duration_since(checked) >= interval);
        let starts = is_due && !self.is_checking;
        self.is_checking |= starts;
        starts
    }

    /// Ends the running check.
    pub fn end_check(&mut self, now: Instant) {
        self.is_checking = false;
        self.checked = Some(now);
    }

    /// A check has reached the host that is current from now on.
    pub fn reset(&mut self) {
        self.suspect_attempts = 0;
    }
}

/// Since when no host can be reached. It belongs to the process, so that the end of an outage is
/// logged whatever ended it: hosts live only until a parameter changes.
#[derive(Debug, Default)]
pub struct Outage(Mutex<Option<Instant>>);

impl Outage {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is an outage.
    pub fn is_on(&self) -> bool {
        self.lock().is_some()
    }

    /// None of these hosts can be reached. Logged once.
    pub fn begin<'a>(&self, hosts: impl Iterator<Item = &'a StsHost>, events: &Events, now: Instant) {
        let mut since = self.lock();
        if since.is_none() {
            *since = Some(now);
            let hosts = hosts.map(StsHost::as_str).collect::<Vec<_>>().join(", ");
            events.push(Event::OutageBegan { hosts });
        }
    }

    /// This host can be reached. Logged when that ends an outage.
    pub fn end(&self, host: &StsHost, events: &Events, now: Instant) {
        if let Some(since) = self.lock().take() {
            let seconds = now.saturating_duration_since(since).as_secs();
            events.push(Event::OutageEnded { host: host.as_str().to_owned(), seconds });
        }
    }
}
