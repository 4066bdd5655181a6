//! Which STS host new logins use. A client signs for the host that it was sent, so a login keeps
//! its host to the end.

use super::health::{CheckReason, Outcome};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a check of the hosts found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// New logins should use the host of this index.
    Use(usize),
    /// No host can be reached.
    NoneReached,
    /// Nothing changes: the preferred host is still unreachable, or nothing was proven.
    Unchanged,
}

/// The current host, as an index; 0 is the preferred one. Read without a lock.
#[derive(Debug)]
pub struct Failover {
    current: AtomicUsize,
    /// In milliseconds since 1970.
    since: AtomicI64,
}

impl Default for Failover {
    /// Begins with the preferred host.
    fn default() -> Self {
        Self { current: AtomicUsize::new(0), since: AtomicI64::new(epoch_millis()) }
    }
}

impl Failover {
    /// The current host.
    pub fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Since when it is the current one.
    pub fn since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.since.load(Ordering::Relaxed).unsigned_abs())
    }

    /// Makes another host the current one.
    pub fn switch_to(&self, index: usize) {
        self.current.store(index, Ordering::Relaxed);
        self.since.store(epoch_millis(), Ordering::Relaxed);
    }

    /// Finds the host for new logins among `count`: the preferred one if it can be reached, else
    /// the current one, else the first after it in the list's order, from its end on to its
    /// beginning. `check` sends the constant request to the host of an index.
    pub fn find_host(
        &self,
        count: usize,
        reason: CheckReason,
        in_outage: bool,
        mut check: impl FnMut(usize) -> Outcome,
    ) -> CheckResult {
        // Only a check changes the current host, and one runs at a time.
        let current = self.current();
        if current != 0 {
            if check(0) == Outcome::Reached {
                return CheckResult::Use(0);
            }
            if reason == CheckReason::Recovery && !in_outage {
                return CheckResult::Unchanged;
            }
        }
        // If it is not the current one, the preferred host has just been checked.
        let others = (current..count).chain(1.min(current)..current);
        for index in others {
            match check(index) {
                Outcome::Reached => return CheckResult::Use(index),
                Outcome::NotReached => {}
                // This machine lacks something: nothing is proven.
                Outcome::Inconclusive => return CheckResult::Unchanged,
            }
        }
        CheckResult::NoneReached
    }
}

fn epoch_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
