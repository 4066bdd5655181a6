//! Who may send a request to STS, and when.
//!
//! A stranger can make a request with a signature that means nothing: only STS can tell. So that
//! strangers cannot hold every slot, there are two lanes of the same width. Known callers, whose
//! access key id has logged in lately, share one; all newcomers, honest or not, share the other.
//! An access key id is no secret, so the lane is all that depends on it: never a verdict.
//!
//! Before a caller takes a slot, it keeps to the [pace](pace) of its account, if STS has throttled
//! that. Waiters for both are in [rooms](room) of the same kind: the earliest deadline goes first,
//! so a second attempt comes before later logins, and a waiter that cannot be served in time is
//! refused at once.

mod known_keys;
#[cfg(test)]
mod model;
mod pace;
mod room;

use known_keys::KnownKeys;
use pace::Paces;
use room::{Room, Slots, TooLate};
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Requests in flight at once in each lane. At 20 ms a request it lets 3,200 of them through in a
/// second; STS takes 600 of an account.
pub const LANE_WIDTH: usize = 64;

/// What bounds the requests of all logins of a process.
pub struct Gate {
    newcomers: Room<Slots>,
    known: Room<Slots>,
    paces: Paces,
    known_keys: Mutex<KnownKeys>,
    hasher: RandomState,
}

/// A client, as far as it decides whom to wait with.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    is_known: bool,
    /// A keyed hash of the account that the client claims, and of whether it is known.
    account: u64,
}

/// The permission to have one request in flight. It is given back when it is dropped.
#[derive(Debug)]
pub struct Permit<'a> {
    lane: &'a Room<Slots>,
}

/// Why a request may not be sent before its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// STS is throttling the caller's account, and its pace is too slow.
    Throttled,
    /// Too many requests are in flight.
    QueueTimeout,
}

#[cfg(test)]
impl Caller {
    /// Whether a login with its access key id has succeeded lately.
    pub fn is_known(&self) -> bool {
        self.is_known
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(LANE_WIDTH)
    }
}

impl Gate {
    /// Lets this many requests be in flight at once in each of the two lanes.
    pub(crate) fn new(lane_width: usize) -> Self {
        let lane = || Room::new(Slots::new(lane_width));
        Self {
            newcomers: lane(),
            known: lane(),
            paces: Paces::default(),
            known_keys: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Looks up what is known of the access key id that a client claims.
    pub fn caller(&self, access_key_id: &str, now: Instant) -> Caller {
        let is_known = self.known_keys().contains(self.hasher.hash_one(access_key_id), now);
        let account = match pace::account_number(access_key_id) {
            Some(number) => self.hasher.hash_one((is_known, number)),
            None => self.hasher.hash_one((is_known, access_key_id)),
        };
        Caller { is_known, account }
    }

    /// Blocks until the caller may send a request, at most until the deadline, which is the latest
    /// time at which the request can start.
    ///
    /// # Errors
    /// When that cannot be before the deadline: at once, if that is clear at once.
    pub fn enter(&self, caller: &Caller, deadline: Instant) -> Result<Permit<'_>, Refused> {
        self.paces.enter(caller.account, deadline).map_err(|TooLate| Refused::Throttled)?;
        let lane = if caller.is_known { &self.known } else { &self.newcomers };
        lane.enter(deadline).map_err(|TooLate| Refused::QueueTimeout)?;
        Ok(Permit { lane })
    }

    /// STS has confirmed the caller: the pace of its account may rise. A refusal does not count,
    /// since anybody can have one for any account.
    pub fn confirmed(&self, caller: &Caller, now: Instant) {
        self.paces.confirmed(caller.account, now);
    }

    /// STS has throttled the caller's account, and may have said how long to wait.
    pub fn throttled(&self, caller: &Caller, retry_after: Option<Duration>, now: Instant) {
        self.paces.throttled(caller.account, retry_after, now);
    }

    /// A login with this access key id has succeeded, for the account that STS has named: its next
    /// callers are known.
    pub fn remember(&self, access_key_id: &str, account: &str, now: Instant) {
        let (key, account) = (self.hasher.hash_one(access_key_id), self.hasher.hash_one(account));
        self.known_keys().insert(key, account, now);
    }

    fn known_keys(&self) -> MutexGuard<'_, KnownKeys> {
        // Nothing in there panics between two changes that belong together.
        self.known_keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.lane.give_back();
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("newcomers", &self.newcomers)
            .field("known", &self.known)
            .field("paces", &self.paces)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// Two of one account.
    const KEY: &str = "AKIAABCDEFGH2345WXYZ";
    const SAME_ACCOUNT: &str = "ASIAABCDEFGH2762WXYZ";
    const NEXT_ACCOUNT: &str = "AKIAABCDEFGHA345WXYZ";

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn free(gate: &Gate) -> (usize, usize) {
        let free = |lane: &Room<Slots>| lane.read(|slots, _| slots.free());
        (free(&gate.newcomers), free(&gate.known))
    }

    #[test]
    fn miri_strangers_hold_no_more_than_their_lane() {
        let (gate, now) = (Gate::new(2), Instant::now());
        gate.remember("AKIAKNOWN", "123456789012", now);
        let enter = |key, deadline| gate.enter(&gate.caller(key, now), deadline);
        let held = [enter("A", soon()), enter("B", soon())];
        assert!(held.iter().all(Result::is_ok));
        let in_5_ms = || Instant::now() + Duration::from_millis(5);
        assert_eq!(enter("C", in_5_ms()).err(), Some(Refused::QueueTimeout));
        assert!(enter("AKIAKNOWN", soon()).is_ok());
        drop(held);
        assert!(enter("C", soon()).is_ok());
        assert_eq!(free(&gate), (2, 2));
    }

    #[test]
    fn miri_a_key_decides_the_lane_only_while_it_is_known() {
        let (gate, now) = (Gate::default(), Instant::now());
        assert!(!gate.caller(KEY, now).is_known);
        gate.remember(KEY, "123456789012", now);
        assert!(gate.caller(KEY, now).is_known);
        assert!(!gate.caller(SAME_ACCOUNT, now).is_known);
        assert!(!gate.caller(KEY, now + known_keys::KNOWN_FOR).is_known);
    }

    #[test]
    fn miri_a_throttled_account_slows_down_no_other_caller() {
        let (gate, now) = (Gate::default(), Instant::now());
        for key in [KEY, SAME_ACCOUNT, NEXT_ACCOUNT] {
            gate.remember(key, "123456789012", now);
        }
        let deadline = now + Duration::from_secs(60);
        let enter = |caller: &Caller| gate.enter(caller, deadline).map(drop);
        let known = gate.caller(KEY, now);
        gate.throttled(&known, Some(Duration::from_secs(90)), now);
        assert_eq!(enter(&known), Err(Refused::Throttled));
        assert_eq!(enter(&gate.caller(SAME_ACCOUNT, now)), Err(Refused::Throttled));
        assert_eq!(enter(&gate.caller(NEXT_ACCOUNT, now)), Ok(()));
        // A stranger that only claims to be of that account has a pace of its own.
        let stranger = gate.caller(KEY, now + known_keys::KNOWN_FOR);
        assert_eq!(enter(&stranger), Ok(()));
        gate.throttled(&stranger, Some(Duration::from_secs(90)), now);
        assert_eq!(enter(&stranger), Err(Refused::Throttled));
        // Where the key does not show the account, each key has a pace of its own.
        let [a, b] = ["A", "B"].map(|key| gate.caller(key, now));
        gate.throttled(&a, Some(Duration::from_secs(90)), now);
        assert_eq!((enter(&a), enter(&b)), (Err(Refused::Throttled), Ok(())));
        assert!(Instant::now() < deadline, "the refusals come at once");
        assert_eq!(free(&gate), (LANE_WIDTH, LANE_WIDTH));
    }

    #[test]
    fn miri_a_panic_gives_its_permit_back() {
        let gate = Gate::new(1);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _permit = gate.enter(&gate.caller(KEY, Instant::now()), soon()).unwrap();
            assert_eq!(free(&gate), (0, 1));
            panic!("while a request is in flight");
        }));
        assert!(caught.is_err());
        assert_eq!(free(&gate), (1, 1));
    }

    #[test]
    fn never_more_requests_are_in_flight_than_the_lane_is_wide() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        const WIDTH: usize = 3;
        let (gate, in_flight, most) = (Gate::new(WIDTH), AtomicUsize::new(0), AtomicUsize::new(0));
        let stranger = gate.caller(KEY, Instant::now());
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let permit = gate.enter(&stranger, soon()).unwrap();
                        most.fetch_max(in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        in_flight.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert!(most.into_inner() <= WIDTH);
        assert_eq!(free(&gate), (WIDTH, WIDTH));
    }
}
