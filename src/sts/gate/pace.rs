//! How fast the requests of a throttled account may follow each other.
//!
//! STS limits the requests of an account (AWS, "IAM and AWS STS quotas": 600 in a second for each
//! account and region), and charges them to the caller's account, not to the server's. So each
//! account of callers has a pace of its own: exhausting one slows down no other. Until STS has
//! throttled it, an account has no pace, and none of its callers waits.
//!
//! A caller's account is what the client claims. So known callers have a pace of their own, which
//! newcomers that only claim to be of their account cannot use up.
//!
//! The pace is found as TCP finds its own: it falls by a part when STS throttles, and rises slowly
//! while STS confirms.

use super::room::queue::Supply;
use super::room::{Room, TooLate};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Requests in a second with which a pace begins: somewhat less than STS documents.
const INITIAL_RATE: f64 = 500.0;

/// The slowest pace: some request must find out that STS answers again.
const MIN_RATE: f64 = 1.0;

/// What remains of a rate when STS throttles it.
const CUT: f64 = 0.7;

/// A cut does not go below this part of the rate that STS has confirmed since the cut before.
const PROVEN: f64 = 0.95;

/// How much each confirmed request adds to the rate: at full use 3 percent in a second.
const RISE: f64 = 0.03;

/// Throttled requests within this time count as one.
const CUT_INTERVAL: Duration = Duration::from_millis(250);

/// An account that STS has not throttled for this long has no pace any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// Accounts that can have a pace at once. A further one has none until another is forgotten.
const MAX_ACCOUNTS: usize = 256;

/// The paces of all accounts that are throttled now, by keyed hashes of the accounts.
#[derive(Debug, Default)]
pub struct Paces {
    /// How many there are, so that nobody takes the lock while there are none.
    count: AtomicUsize,
    rooms: Mutex<HashMap<u64, Arc<Room<Pace>>>>,
}

impl Paces {
    /// Blocks until a request of this account may be sent.
    ///
    /// # Errors
    /// When that is not before the deadline: at once, if that is clear at once.
    pub fn enter(&self, account: u64, deadline: Instant) -> Result<(), TooLate> {
        self.room(account, Instant::now()).map_or(Ok(()), |room| room.enter(deadline))
    }

    /// STS has confirmed a caller of this account.
    pub fn confirmed(&self, account: u64, now: Instant) {
        if let Some(room) = self.room(account, now) {
            room.change(now, Pace::confirmed);
        }
    }

    /// STS has throttled a request of this account, and may have said how long to wait.
    pub fn throttled(&self, account: u64, retry_after: Option<Duration>, now: Instant) {
        let room = {
            let mut rooms = self.lock();
            if !rooms.contains_key(&account) && rooms.len() >= MAX_ACCOUNTS {
                rooms.retain(|_, room| !is_over(room, now));
            }
            let is_full = rooms.len() >= MAX_ACCOUNTS;
            let room = match rooms.get(&account) {
                Some(room) => Arc::clone(room),
                None if is_full => return,
                None => Arc::clone(rooms.entry(account).or_insert_with(|| Arc::new(Room::new(Pace::new(now))))),
            };
            self.count.store(rooms.len(), Ordering::Relaxed);
            room
        };
        room.change(now, |pace| pace.throttled(now, retry_after));
    }

    fn room(&self, account: u64, now: Instant) -> Option<Arc<Room<Pace>>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut rooms = self.lock();
        if is_over(rooms.get(&account)?, now) {
            rooms.remove(&account);
            self.count.store(rooms.len(), Ordering::Relaxed);
        }
        rooms.get(&account).map(Arc::clone)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Room<Pace>>>> {
        // Nothing in here panics between two changes that belong together.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_over(room: &Room<Pace>, now: Instant) -> bool {
    room.read(|pace, waiting| waiting == 0 && pace.is_over(now))
}

/// The number of the account that an access key id is of, in keys of today's form: the 40 bits
/// after the first of what follows the prefix of four (AKIA, ASIA), in base 32 (RFC 4648, section
/// 6).
///
/// AWS does not document that. Only the pace depends on it; where there is no such number, each key
/// has a pace of its own.
pub fn account_number(access_key_id: &str) -> Option<u64> {
    const MIN_LENGTH: usize = 16;
    let encoded = access_key_id.get(4..13).filter(|_| access_key_id.len() >= MIN_LENGTH)?;
    let bits = encoded.bytes().try_fold(0_u64, |bits, byte| {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        Some(bits << 5 | u64::from(value))
    })?;
    // 45 bits: the first, 40 of the account, and 4 of what follows.
    Some(bits >> 4 & ((1 << 40) - 1))
}

/// The pace of one account: a supply of moments at which a request may be sent.
#[derive(Debug)]
pub struct Pace {
    /// Requests in a second.
    rate: f64,
    /// The earliest moment of the next request.
    next: Instant,
    throttled: Instant,
    cut: Option<Instant>,
    /// Requests that STS has confirmed since the latest cut.
    confirmed: u32,
}

impl Supply for Pace {
    fn take(&mut self, now: Instant) -> bool {
        let is_time = self.next <= now;
        if is_time {
            self.next = now + Duration::from_secs_f64(1.0 / self.rate);
        }
        is_time
    }

    /// A moment that nobody used has passed.
    fn give_back(&mut self) {}

    fn available_at(&self, now: Instant, ahead: usize) -> Option<Instant> {
        // Later than any deadline.
        const DAY: Duration = Duration::from_secs(86_400);
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        let wait = Duration::try_from_secs_f64(f64::from(ahead) / self.rate).unwrap_or(DAY);
        Some(self.next.max(now) + wait.min(DAY))
    }
}

impl Pace {
    /// The first pace of an account.
    pub fn new(now: Instant) -> Self {
        Self { rate: INITIAL_RATE, next: now, throttled: now, cut: None, confirmed: 0 }
    }

    fn confirmed(&mut self) {
        self.confirmed = self.confirmed.saturating_add(1);
        self.rate += RISE;
    }

    /// STS has throttled a request, and may have said how long to wait.
    pub fn throttled(&mut self, now: Instant, retry_after: Option<Duration>) {
        self.throttled = now;
        let since = self.cut.map(|cut| now.saturating_duration_since(cut));
        match since {
            None => (self.cut, self.confirmed) = (Some(now), 0),
            Some(since) if since >= CUT_INTERVAL => {
                let proven = f64::from(self.confirmed) / since.as_secs_f64() * PROVEN;
                self.rate = proven.clamp(self.rate * CUT, self.rate).max(MIN_RATE);
                (self.cut, self.confirmed) = (Some(now), 0);
            }
            Some(_) => {}
        }
        if let Some(wait) = retry_after {
            self.next = self.next.max(now + wait);
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.throttled) >= FORGOTTEN_AFTER && self.next <= now
    }
}

#[cfg(test)]
mod tests {
    use super::super::room::queue::{Outcome, Queue};
    use super::*;

    const ACCOUNT: u64 = 1;
    const OTHER_ACCOUNT: u64 = 2;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn miri_an_account_is_paced_only_when_it_was_throttled_and_by_itself() {
        let (paces, now) = (Paces::default(), Instant::now());
        let deadline = now + Duration::from_secs(60);
        assert_eq!(paces.enter(ACCOUNT, deadline), Ok(()));
        paces.throttled(ACCOUNT, Some(Duration::from_secs(90)), now);
        assert_eq!(paces.enter(ACCOUNT, deadline), Err(TooLate));
        assert_eq!(paces.enter(OTHER_ACCOUNT, deadline), Ok(()));
        // The refusal comes at once, not at the deadline.
        assert!(Instant::now() < deadline);
    }

    #[test]
    fn miri_a_pace_is_forgotten_when_the_account_is_not_throttled_any_more() {
        let (paces, now) = (Paces::default(), Instant::now());
        paces.throttled(ACCOUNT, None, now);
        paces.throttled(OTHER_ACCOUNT, Some(FORGOTTEN_AFTER + ms(1)), now);
        assert!(paces.room(ACCOUNT, now + FORGOTTEN_AFTER - ms(1)).is_some());
        assert!(paces.room(ACCOUNT, now + FORGOTTEN_AFTER).is_none());
        assert!(paces.room(OTHER_ACCOUNT, now + FORGOTTEN_AFTER).is_some());
        assert_eq!(paces.lock().len(), 1);
    }

    #[test]
    fn miri_the_rate_falls_when_throttled_and_rises_when_confirmed() {
        let begun = Instant::now();
        let at = |after| begun + ms(after);
        let mut pace = Pace::new(begun);
        pace.throttled(at(0), None);
        assert_eq!(pace.rate, INITIAL_RATE);
        // All at once: they count as one.
        pace.throttled(at(10), None);
        assert_eq!(pace.rate, INITIAL_RATE);
        pace.throttled(at(300), None);
        assert_eq!(pace.rate, INITIAL_RATE * CUT);
        // 100 confirmed requests in a second: the rate does not fall below 95.
        for cut in 1..8 {
            for _ in 0..100 {
                pace.confirmed();
            }
            pace.throttled(at(300 + 1000 * cut), None);
        }
        assert!((94.0..=104.0).contains(&pace.rate), "{}", pace.rate);
        for _ in 0..1000 {
            pace.confirmed();
        }
        assert!(pace.rate > 120.0, "{}", pace.rate);
        for cut in 0..100 {
            pace.throttled(at(10_000 + 1000 * cut), None);
        }
        assert_eq!(pace.rate, MIN_RATE);
        assert!(!pace.is_over(at(109_000)));
        assert!(pace.is_over(at(109_000) + FORGOTTEN_AFTER));
    }

    #[test]
    fn miri_an_account_s_number_is_read_from_its_keys() {
        // A key from a published example, whose account is known.
        assert_eq!(account_number("ASIAQNZGKIQY56JQ7WML"), Some(29_608_264_753));
        for none in ["", "AKIA", "AKIAEXAMPLE", "AKIA1BCDEFGH2345WXYZ", "akiaabcdefgh2345wxyz", "AKIAÄÄÄÄÄÄÄÄÄÄ"]
        {
            assert_eq!(account_number(none), None, "{none}");
        }
    }

    /// A pace of 10 requests in a second.
    fn slow_queue(now: Instant) -> Queue<Pace, u32> {
        Queue::new(Pace { rate: 10.0, ..Pace::new(now) })
    }

    #[test]
    fn miri_requests_of_an_account_follow_each_other_by_deadline() {
        let begun = Instant::now();
        let at = |after| begun + ms(after);
        let mut queue = slow_queue(begun);
        queue.supply_mut().throttled(begun, Some(ms(200)));
        for number in 0..4 {
            queue.enter(at(5000 - u64::from(number)), number);
            assert_eq!(queue.settle(begun), [(number, None)], "the first has to watch the time");
        }
        assert_eq!(queue.settle(at(199)), []);
        for number in [3, 2, 1] {
            let moment = at(200 + 100 * (3 - u64::from(number)));
            assert_eq!(queue.settle(moment), [(number, Some(Outcome::Granted)), (number - 1, None)]);
            assert_eq!(queue.settle(moment + ms(99)), []);
        }
        assert_eq!(queue.settle(at(500)), [(0, Some(Outcome::Granted))]);
    }

    #[test]
    fn miri_a_request_that_cannot_be_sent_in_time_is_refused_at_once() {
        let begun = Instant::now();
        let mut queue = slow_queue(begun);
        // The first goes at once, the others 100 ms after each other.
        let mut refused = Vec::new();
        for number in 0..8 {
            queue.enter(begun + ms(350), number);
            refused.extend(queue.settle(begun).into_iter().filter(|wake| wake.1 == Some(Outcome::Refused)));
        }
        assert_eq!(refused, [4, 5, 6, 7].map(|number| (number, Some(Outcome::Refused))));
        assert_eq!(queue.len(), 3);
        // A second attempt, with less time, comes before new ones; the last has to give way.
        queue.enter(begun + ms(200), 8);
        assert_eq!(queue.settle(begun), [(3, Some(Outcome::Refused)), (8, None)]);
        queue.enter(begun + ms(100), 9);
        assert_eq!(queue.settle(begun), [(9, Some(Outcome::Refused))]);
    }

    #[test]
    fn miri_a_throttled_request_wakes_only_waiters_that_are_refused() {
        let begun = Instant::now();
        let at = |after| begun + ms(after);
        let mut queue = slow_queue(begun);
        queue.supply_mut().throttled(begun, Some(ms(1)));
        for number in 0..20_000 {
            // One for each 100 ms, as many as the pace allows.
            queue.enter(at(2500 + 100 * u64::from(number)), number);
        }
        assert_eq!(queue.settle(begun), [(0, None)]);
        queue.supply_mut().throttled(at(10), Some(ms(100)));
        assert_eq!(queue.settle(at(10)), []);
        // Only the first two have less than 2.6 seconds, and the others wait on.
        queue.supply_mut().throttled(at(20), Some(ms(2600)));
        let refused = Some(Outcome::Refused);
        assert_eq!(queue.settle(at(20)), [(0, refused), (1, refused), (2, None)]);
        // Half the rate: nobody far behind has enough time.
        queue.supply_mut().rate = 5.0;
        let woken = queue.settle(at(20));
        assert!(woken.iter().all(|wake| wake.1 == refused) && queue.len() < 3, "{} wait on", queue.len());
        queue.supply_mut().throttled(at(20), Some(Duration::from_secs(3600)));
        assert_eq!(queue.settle(at(20)).len() + woken.len(), 20_000 - 2);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn miri_a_moment_far_off_is_no_overflow() {
        let now = Instant::now();
        let pace = Pace { rate: f64::MIN_POSITIVE, ..Pace::new(now) };
        assert!(pace.available_at(now, usize::MAX).is_some_and(|at| at > now + Duration::from_secs(3600)));
    }

    #[test]
    fn miri_there_are_only_so_many_paces() {
        let (paces, now) = (Paces::default(), Instant::now());
        for account in 0..2 * MAX_ACCOUNTS as u64 {
            paces.throttled(account, None, now);
        }
        assert_eq!(paces.count.load(Ordering::Relaxed), MAX_ACCOUNTS);
        // When they are forgotten, there is room for others.
        paces.throttled(1 << 20, None, now + FORGOTTEN_AFTER);
        assert_eq!(paces.count.load(Ordering::Relaxed), 1);
    }
}
