//! How many questions to STS may be under way at once, and who waits for a turn.
//!
//! A stranger can make a question with a signature that means nothing: only STS can tell. So that strangers cannot hold
//! every place, there are two lanes of the same width. Callers with an access key id whose login has succeeded lately
//! share one; everybody else, honest newcomers included, shares the other. In each lane turns are given by
//! deadline, the earliest first, and a caller whose deadline comes before its turn gives up.
//!
//! An access key id is no secret, so that the lane is all that depends on it: never a verdict.

use super::known_keys::KnownKeys;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Questions under way at once in each lane. At 20 ms a question it lets 3,200 of them through in a second; STS takes 600
/// of an account.
pub const LANE_WIDTH: usize = 64;

/// The bound on questions that all logins of a process share.
pub struct Admission {
    newcomers: Lane,
    confirmed: Lane,
    known: Mutex<KnownKeys>,
    hasher: RandomState,
}

/// An access key id that a client claims, as what it decides: whom to wait with.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The id.
    pub access_key_id: &'a str,
    /// Whether a login with it has succeeded lately.
    pub is_confirmed: bool,
}

/// A turn. The next in the lane has it when it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    lane: &'a Lane,
}

impl Default for Admission {
    fn default() -> Self {
        Self::new(LANE_WIDTH)
    }
}

impl Admission {
    /// Lets this many questions be under way at once in each of the two lanes.
    pub(crate) fn new(width: usize) -> Self {
        Self {
            newcomers: Lane::new(width),
            confirmed: Lane::new(width),
            known: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Looks up what is known of the access key id that a client claims.
    pub fn claim<'a>(&self, access_key_id: &'a str) -> Claim<'a> {
        let key = self.hasher.hash_one(access_key_id);
        Claim { access_key_id, is_confirmed: self.known().contains(key, Instant::now()) }
    }

    /// Waits for a turn to ask STS, at most until the deadline.
    ///
    /// None when the deadline has passed.
    pub fn enter(&self, claim: Claim<'_>, deadline: Instant) -> Option<Turn<'_>> {
        let lane = if claim.is_confirmed { &self.confirmed } else { &self.newcomers };
        lane.enter(deadline)
    }

    /// Remembers an access key id whose login has succeeded, and the account that STS has named for it.
    pub fn remember(&self, access_key_id: &str, account: &str) {
        let (key, account) = (self.hasher.hash_one(access_key_id), self.hasher.hash_one(account));
        self.known().insert(key, account, Instant::now());
    }

    fn known(&self) -> MutexGuard<'_, KnownKeys> {
        // Nothing in there panics between two changes that belong together.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("newcomers", &self.newcomers)
            .field("confirmed", &self.confirmed)
            .finish_non_exhaustive()
    }
}

/// A number of places, and a queue for them.
#[derive(Debug)]
struct Lane {
    state: Mutex<LaneState>,
}

#[derive(Debug)]
struct LaneState {
    free: usize,
    /// Who waits, by deadline and then by arrival. Who is given a turn is taken out and woken.
    waiting: BTreeMap<(Instant, u64), Arc<Condvar>>,
    arrivals: u64,
}

impl Lane {
    fn new(width: usize) -> Self {
        Self { state: Mutex::new(LaneState { free: width, waiting: BTreeMap::new(), arrivals: 0 }) }
    }

    fn lock(&self) -> MutexGuard<'_, LaneState> {
        // Nothing in here panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, deadline: Instant) -> Option<Turn<'_>> {
        let mut state = self.lock();
        if state.free > 0 {
            state.free -= 1;
            return Some(Turn { lane: self });
        }
        let me = (deadline, state.arrivals);
        state.arrivals += 1;
        let woken = Arc::new(Condvar::new());
        state.waiting.insert(me, Arc::clone(&woken));
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if state.waiting.remove(&me).is_some() {
                    return None;
                }
                // The turn came at the last moment: it is handed on.
                drop(state);
                drop(Turn { lane: self });
                return None;
            }
            if !state.waiting.contains_key(&me) {
                return Some(Turn { lane: self });
            }
            (state, _) = woken.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn leave(&self) {
        let mut state = self.lock();
        match state.waiting.pop_first() {
            // The place is the next one's; nobody else can take it in between.
            Some((_, next)) => next.notify_one(),
            None => state.free += 1,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.lane.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn free(lane: &Lane) -> usize {
        lane.lock().free
    }

    #[test]
    fn miri_strangers_hold_no_more_than_their_lane() {
        let admission = Admission::new(2);
        admission.remember("AKIAKNOWN", "123456789012");
        let held = [admission.enter(admission.claim("A"), soon()), admission.enter(admission.claim("B"), soon())];
        assert!(held.iter().all(Option::is_some));
        assert!(admission.enter(admission.claim("C"), Instant::now() + Duration::from_millis(5)).is_none());
        assert!(admission.enter(admission.claim("AKIAKNOWN"), Instant::now() + Duration::from_millis(5)).is_some());
        drop(held);
        assert!(admission.enter(admission.claim("C"), soon()).is_some());
        assert_eq!((free(&admission.newcomers), free(&admission.confirmed)), (2, 2));
    }

    #[test]
    fn miri_a_turn_goes_to_the_earliest_deadline() {
        let lane = Lane::new(1);
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let held = lane.enter(soon()).unwrap();
            // Each waits before the next one comes; the later they come, the earlier their deadline.
            for number in 0..4_u32 {
                let (lane, order) = (&lane, &order);
                scope.spawn(move || {
                    let turn = lane.enter(soon() - Duration::from_secs(u64::from(number))).unwrap();
                    order.lock().unwrap().push(number);
                    drop(turn);
                });
                while lane.lock().waiting.len() <= number as usize {
                    thread::yield_now();
                }
            }
            drop(held);
        });
        assert_eq!(order.into_inner().unwrap(), [3, 2, 1, 0]);
        assert_eq!(free(&lane), 1);
    }

    #[test]
    fn miri_nobody_gets_a_turn_after_the_deadline_and_no_place_is_lost() {
        let lane = Lane::new(1);
        let held = lane.enter(soon()).unwrap();
        assert!(lane.enter(Instant::now()).is_none());
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| drop(lane.enter(Instant::now() + Duration::from_millis(2))));
            }
            thread::sleep(Duration::from_millis(2));
            drop(held);
        });
        assert_eq!((free(&lane), lane.lock().waiting.len()), (1, 0));
    }

    #[test]
    fn miri_a_panic_gives_its_turn_back() {
        let lane = Lane::new(1);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = lane.enter(soon());
            panic!("in the middle of a question");
        }));
        assert!(caught.is_err());
        assert_eq!(free(&lane), 1);
    }

    #[test]
    fn never_more_are_under_way_than_the_lane_is_wide() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        const WIDTH: usize = 3;
        let (lane, under_way, most) = (Lane::new(WIDTH), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let turn = lane.enter(soon()).unwrap();
                        most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        under_way.fetch_sub(1, Ordering::SeqCst);
                        drop(turn);
                    }
                });
            }
        });
        assert!(most.into_inner() <= WIDTH);
        assert_eq!(free(&lane), WIDTH);
    }
}
