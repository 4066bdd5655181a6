//! When STS throttles an account, its logins go one after another instead of all asking again at once.
//!
//! STS limits the requests of an account (AWS, "IAM and AWS STS quotas": 600 in a second for each account and region),
//! and charges them to the caller's account, not to the server's. So the pace is kept for each account of callers apart:
//! who exhausts an account of their own slows down nobody else. Until STS has throttled it there is no pace for an
//! account, and nobody waits. Whose account it is, is what the client claims; so those whose key STS has confirmed lately have
//! a pace of their own, and who only claims to be of their account does not stand before them.
//!
//! The pace is found as TCP finds its own: it falls by a part when STS throttles, and rises slowly while STS answers. Who
//! waits goes by deadline, the earliest first, so that a request that was throttled comes before later ones. Who would wait
//! beyond its deadline is told so at once.

use super::admission::Claim;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Requests in a second with which a pace begins: somewhat under what STS documents.
const FIRST_RATE: f64 = 500.0;

/// The slowest pace: some request must find out that STS answers again.
const LEAST_RATE: f64 = 1.0;

/// What is left of a rate when STS throttles it.
const CUT: f64 = 0.7;

/// The part of what STS answered in the last while that a cut does not go below.
const PROVEN: f64 = 0.95;

/// How much each answer adds to the rate: at full use 3 percent in a second.
const RISE: f64 = 0.03;

/// Throttled answers within this time are one and the same news.
const CUT_INTERVAL: Duration = Duration::from_millis(250);

/// An account that was not throttled for so long has no pace any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// Accounts that can have a pace at once. A further one is asked about without, until another is forgotten.
const MAX_ACCOUNTS: usize = 256;

/// The login cannot be served before its deadline.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLate;

/// The paces of all accounts that are throttled now.
#[derive(Debug, Default)]
pub struct Pacing {
    /// How many there are, so that nobody takes the lock while there are none.
    count: AtomicUsize,
    accounts: Mutex<HashMap<u64, Arc<Queue>>>,
    hasher: RandomState,
}

impl Pacing {
    /// Waits until a request for the client that claims this may be sent.
    ///
    /// # Errors
    /// When that is not to be expected before the deadline.
    pub fn wait(&self, claim: Claim<'_>, deadline: Instant) -> Result<(), TooLate> {
        match self.queue_of(claim) {
            Some(queue) => queue.wait(deadline),
            None => Ok(()),
        }
    }

    /// STS has confirmed a client of this account.
    pub fn answered(&self, claim: Claim<'_>) {
        if let Some(queue) = self.queue_of(claim) {
            queue.lock().pace.answered();
        }
    }

    /// STS has throttled a request of this account, and may have said how long to wait.
    pub fn throttled(&self, claim: Claim<'_>, retry_after: Option<Duration>) {
        let now = Instant::now();
        let account = self.account_of(claim);
        let queue = {
            let mut accounts = lock(&self.accounts);
            if !accounts.contains_key(&account) && accounts.len() >= MAX_ACCOUNTS {
                accounts.retain(|_, queue| !queue.is_over(now));
            }
            let room = accounts.len() < MAX_ACCOUNTS;
            let queue = match accounts.get(&account) {
                Some(queue) => Arc::clone(queue),
                None if room => Arc::clone(accounts.entry(account).or_insert_with(|| Arc::new(Queue::new(now)))),
                None => return,
            };
            self.count.store(accounts.len(), Ordering::Relaxed);
            queue
        };
        queue.throttled(now, retry_after);
    }

    fn account_of(&self, claim: Claim<'_>) -> u64 {
        match account(claim.access_key_id) {
            Some(account) => self.hasher.hash_one((claim.is_confirmed, account)),
            None => self.hasher.hash_one((claim.is_confirmed, claim.access_key_id)),
        }
    }

    fn queue_of(&self, claim: Claim<'_>) -> Option<Arc<Queue>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let account = self.account_of(claim);
        let mut accounts = lock(&self.accounts);
        if accounts.get(&account)?.is_over(Instant::now()) {
            accounts.remove(&account);
            self.count.store(accounts.len(), Ordering::Relaxed);
        }
        accounts.get(&account).map(Arc::clone)
    }
}

/// The number of the account that an access key id is of, in keys of today's form: the 40 bits after the first of what
/// follows the prefix of four (AKIA, ASIA), in base 32 (RFC 4648, section 6).
///
/// AWS does not document that. Nothing but the pace depends on it; where there is no such number, each key has a pace of
/// its own.
fn account(access_key_id: &str) -> Option<u64> {
    const LEAST_LENGTH: usize = 16;
    let encoded = access_key_id.get(4..13).filter(|_| access_key_id.len() >= LEAST_LENGTH)?;
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here panics between two changes that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those who wait for one account's next moment.
#[derive(Debug)]
struct Queue {
    state: Mutex<QueueState>,
}

#[derive(Debug)]
struct QueueState {
    pace: Pace,
    /// By deadline and then by arrival. The first waits for the moment, the others to be the first.
    waiting: BTreeMap<(Instant, u64), Arc<Condvar>>,
    arrivals: u64,
}

impl Queue {
    fn new(now: Instant) -> Self {
        Self { state: Mutex::new(QueueState { pace: Pace::new(now), waiting: BTreeMap::new(), arrivals: 0 }) }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        lock(&self.state)
    }

    fn is_over(&self, now: Instant) -> bool {
        let state = self.lock();
        state.waiting.is_empty() && state.pace.is_over(now)
    }

    /// Slows down, and lets those who wait see for themselves whether they still have the time.
    fn throttled(&self, now: Instant, retry_after: Option<Duration>) {
        let mut state = self.lock();
        if state.pace.throttled(now, retry_after) {
            state.waiting.values().for_each(|waiting| waiting.notify_one());
        }
    }

    fn wait(&self, deadline: Instant) -> Result<(), TooLate> {
        let mut state = self.lock();
        let me = (deadline, state.arrivals);
        state.arrivals += 1;
        let woken = Arc::new(Condvar::new());
        state.waiting.insert(me, Arc::clone(&woken));
        let result = loop {
            let now = Instant::now();
            if now >= deadline {
                break Err(TooLate);
            }
            let ahead = state.waiting.range(..me).count();
            if state.pace.moment(now, ahead) >= deadline {
                // The pace has changed since.
                break Err(TooLate);
            }
            let until = if ahead == 0 {
                let moment = state.pace.moment(now, 0);
                if moment <= now {
                    state.pace.take(now);
                    break Ok(());
                }
                moment.min(deadline)
            } else {
                deadline
            };
            (state, _) = woken.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner);
        };
        state.waiting.remove(&me);
        if let Some((_, first)) = state.waiting.first_key_value() {
            first.notify_one();
        }
        result
    }
}

/// How fast one account's requests may follow each other.
#[derive(Debug)]
struct Pace {
    /// Requests in a second.
    rate: f64,
    /// The earliest moment of the next request.
    next: Instant,
    throttled: Instant,
    cut: Option<Instant>,
    /// Answers since the latest cut.
    answers: u32,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { rate: FIRST_RATE, next: now, throttled: now, cut: None, answers: 0 }
    }

    /// When the request would be sent that has so many before it.
    fn moment(&self, now: Instant, ahead: usize) -> Instant {
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        // A day is later than any deadline.
        let wait = Duration::try_from_secs_f64(f64::from(ahead) / self.rate).unwrap_or(Duration::MAX);
        self.next.max(now) + wait.min(Duration::from_secs(86_400))
    }

    fn take(&mut self, now: Instant) {
        self.next = self.next.max(now) + Duration::from_secs_f64(1.0 / self.rate);
    }

    fn answered(&mut self) {
        self.answers = self.answers.saturating_add(1);
        self.rate += RISE;
    }

    /// Returns whether requests have to wait for longer than before.
    fn throttled(&mut self, now: Instant, retry_after: Option<Duration>) -> bool {
        let before = (self.rate, self.next);
        self.throttled = now;
        let since = self.cut.map(|cut| now.saturating_duration_since(cut));
        match since {
            None => (self.cut, self.answers) = (Some(now), 0),
            Some(since) if since >= CUT_INTERVAL => {
                let proven = f64::from(self.answers) / since.as_secs_f64() * PROVEN;
                self.rate = proven.clamp(self.rate * CUT, self.rate).max(LEAST_RATE);
                (self.cut, self.answers) = (Some(now), 0);
            }
            Some(_) => {}
        }
        if let Some(wait) = retry_after {
            self.next = self.next.max(now + wait);
        }
        before != (self.rate, self.next)
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.throttled) >= FORGOTTEN_AFTER && self.next <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const KEY: Claim<'_> = claim("AKIAABCDEFGH2345WXYZ");

    const fn claim(access_key_id: &str) -> Claim<'_> {
        Claim { access_key_id, is_confirmed: true }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn miri_an_account_is_paced_only_when_it_was_throttled_and_by_itself() {
        let pacing = Pacing::default();
        assert_eq!(pacing.wait(KEY, Instant::now() + Duration::from_secs(1)), Ok(()));
        pacing.throttled(KEY, Some(Duration::from_secs(5)));
        let deadline = Instant::now() + Duration::from_secs(1);
        assert_eq!(pacing.wait(KEY, deadline), Err(TooLate));
        assert_eq!(pacing.wait(claim("ASIAABCDEFGH2762WXYZ"), deadline), Err(TooLate), "of the same account");
        assert_eq!(pacing.wait(claim("AKIAABCDEFGHA345WXYZ"), deadline), Ok(()), "of the account beside it");
        // Who only claims to be of that account stands elsewhere.
        let stranger = Claim { is_confirmed: false, ..KEY };
        assert_eq!(pacing.wait(stranger, deadline), Ok(()));
        pacing.throttled(stranger, Some(Duration::from_secs(5)));
        assert_eq!(pacing.wait(stranger, deadline), Err(TooLate));
        // Who cannot be served fails at once, not at the deadline.
        assert!(Instant::now() < deadline);
    }

    #[test]
    fn miri_the_rate_falls_when_throttled_and_rises_when_answered() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut pace = Pace::new(begun);
        pace.throttled(at(0), None);
        assert_eq!(pace.rate, FIRST_RATE);
        // All at once: one piece of news.
        pace.throttled(at(10), None);
        assert_eq!(pace.rate, FIRST_RATE);
        pace.throttled(at(300), None);
        assert_eq!(pace.rate, FIRST_RATE * CUT);
        // 100 answers in a second: the rate does not fall below 95.
        for cut in 1..8 {
            for _ in 0..100 {
                pace.answered();
            }
            pace.throttled(at(300 + 1000 * cut), None);
        }
        assert!((94.0..=104.0).contains(&pace.rate), "{}", pace.rate);
        for _ in 0..1000 {
            pace.answered();
        }
        assert!(pace.rate > 120.0, "{}", pace.rate);
        for cut in 0..100 {
            pace.throttled(at(10_000 + 1000 * cut), None);
        }
        assert_eq!(pace.rate, LEAST_RATE);
        assert!(!pace.is_over(at(109_000)));
        assert!(pace.is_over(at(109_000) + FORGOTTEN_AFTER));
    }

    #[test]
    fn miri_an_account_s_number_is_read_from_its_keys() {
        // A key from a published example, whose account is known.
        assert_eq!(account("ASIAQNZGKIQY56JQ7WML"), Some(29_608_264_753));
        for none in ["", "AKIA", "AKIAEXAMPLE", "AKIA1BCDEFGH2345WXYZ", "akiaabcdefgh2345wxyz", "AKIAÄÄÄÄÄÄÄÄÄÄ"]
        {
            assert_eq!(account(none), None, "{none}");
        }
    }

    #[test]
    fn who_waits_is_told_when_the_pace_falls_below_its_time() {
        let queue = Queue::new(Instant::now());
        queue.throttled(Instant::now(), Some(Duration::from_secs(1)));
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..3).map(|_| scope.spawn(|| queue.wait(soon()))).collect();
            while queue.lock().waiting.len() < 3 {
                thread::yield_now();
            }
            let begun = Instant::now();
            queue.throttled(begun, Some(Duration::from_secs(60)));
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), Err(TooLate));
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
        });
        assert!(queue.lock().waiting.is_empty());
    }

    #[test]
    fn miri_a_moment_far_off_is_no_overflow() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.rate = f64::MIN_POSITIVE;
        assert!(pace.moment(now, usize::MAX) > now + Duration::from_secs(3600));
    }

    #[test]
    fn the_earliest_deadline_goes_first() {
        let queue = Queue::new(Instant::now());
        queue.throttled(Instant::now(), Some(Duration::from_millis(200)));
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for number in 0..5_u32 {
                let (queue, order) = (&queue, &order);
                scope.spawn(move || {
                    queue.wait(soon() - Duration::from_secs(u64::from(number))).unwrap();
                    lock(order).push(number);
                });
                while queue.lock().waiting.len() <= number as usize {
                    thread::yield_now();
                }
            }
        });
        assert_eq!(order.into_inner().unwrap(), [4, 3, 2, 1, 0]);
        assert!(queue.lock().waiting.is_empty());
    }

    #[test]
    fn miri_there_are_only_so_many_paces() {
        let pacing = Pacing::default();
        for number in 0..2 * MAX_ACCOUNTS {
            pacing.throttled(claim(&format!("no key id {number}")), None);
        }
        assert_eq!(pacing.count.load(Ordering::Relaxed), MAX_ACCOUNTS);
    }
}
