//! Faults of the service: rate limits, errors, delays, and incomplete responses.
//!
//! [`DelayProxy`](crate::DelayProxy) has those of the network, and
//! [`StsResponse`](crate::StsResponse) has responses that STS would never send. All can be
//! combined.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::StsError;

/// How many requests an account may make: a token bucket for each account, as [AWS] limits the
/// rates of IAM and STS.
///
/// A request with a right signature takes a token from its signer's account; others take none. A
/// request over the limit takes no token either, and gets status 400, `Throttling` and "Rate
/// exceeded", as from STS. AWS's own limit is [600 per second] for each account and region.
///
/// ```
/// # use local_sts::{LocalSts, RateLimit};
/// # let sts = LocalSts::builder().start()?;
/// sts.set_rate_limit(RateLimit::per_second(600.0));
/// sts.set_rate_limit(RateLimit::per_second(0.5).burst(10).retry_after(2));
/// sts.set_rate_limit(None);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// [AWS]: https://aws.amazon.com/blogs/security/optimize-aws-iam-resources-at-scale-part-2/
/// [600 per second]: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    per_second: f64,
    burst: u32,
    retry_after: Option<u64>,
}

impl RateLimit {
    /// Allows so many requests per second, and as many at once, at least one.
    ///
    /// # Panics
    /// When it is negative or not a number.
    pub fn per_second(rate: f64) -> Self {
        assert!(rate >= 0.0, "a rate is zero or more");
        // The cast saturates, and so many requests are as good as no limit.
        Self { per_second: rate, burst: (rate as u32).max(1), retry_after: None }
    }

    /// Allows so many requests at once, after a pause: the size of the bucket, which begins full.
    #[must_use]
    pub fn burst(self, requests: u32) -> Self {
        Self { burst: requests, ..self }
    }

    /// Adds `Retry-After` with so many seconds to the errors. STS is not known to send it. Not
    /// added by default.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

/// An error of the service itself, with status, code and message of STS's [common errors].
///
/// [common errors]: https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceError {
    /// 500 `InternalFailure`.
    InternalFailure,
    /// 503 `ServiceUnavailable`.
    ServiceUnavailable,
    /// 429 `TooManyRequestsException`: the other error for an exceeded rate that AWS's SDKs know.
    /// STS is not known to use it.
    TooManyRequests,
    /// 400 `Throttling`, as by [`RateLimit`], but for every account.
    Throttling,
}

impl ServiceError {
    fn error(self) -> StsError {
        match self {
            Self::InternalFailure => StsError::new(
                500,
                "InternalFailure",
                "The request processing has failed because of an unknown error, exception or failure.",
            ),
            Self::ServiceUnavailable => StsError::new(
                503,
                "ServiceUnavailable",
                "The request has failed due to a temporary failure of the server.",
            ),
            Self::TooManyRequests => StsError::new(429, "TooManyRequestsException", "Too Many Requests"),
            Self::Throttling => StsError::new(400, "Throttling", "Rate exceeded"),
        }
    }
}

/// Which requests fail by a [`ServiceError`], regardless of their signer and of
/// [`StsResponse`](crate::StsResponse).
///
/// ```
/// # use local_sts::{Failures, LocalSts, ServiceError};
/// # let sts = LocalSts::builder().start()?;
/// sts.set_failures(Failures::next(2, ServiceError::InternalFailure));
/// sts.set_failures(Failures::every(10, ServiceError::ServiceUnavailable).retry_after(1));
/// sts.set_failures(None);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    which: Which,
    error: ServiceError,
    retry_after: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    All,
    Next(usize),
    Every(usize),
}

impl Failures {
    /// All requests fail until it is switched off.
    pub fn all(error: ServiceError) -> Self {
        Self { which: Which::All, error, retry_after: None }
    }

    /// The next `count` requests fail.
    pub fn next(count: usize, error: ServiceError) -> Self {
        Self { which: Which::Next(count), error, retry_after: None }
    }

    /// Every `n`th request from now on fails; the first `n - 1` do not. None fails if `n` is zero.
    pub fn every(n: usize, error: ServiceError) -> Self {
        Self { which: Which::Every(n), error, retry_after: None }
    }

    /// Adds `Retry-After` with so many seconds to these errors. Not added by default.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

/// The faults that are set.
#[derive(Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
    changed: Condvar,
    throttled: AtomicUsize,
    failed: AtomicUsize,
}

#[derive(Default)]
struct State {
    limit: Option<RateLimit>,
    buckets: HashMap<String, Bucket>,
    failures: Option<Failures>,
    /// Requests since the failures were set.
    since_failures: usize,
    delay: Duration,
    cut: Option<usize>,
    drip: Option<Duration>,
    stopping: bool,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// Takes a token, if there is one; returns whether there was.
    fn take(&mut self, limit: &RateLimit, now: Instant) -> bool {
        let new = now.saturating_duration_since(self.filled).as_secs_f64() * limit.per_second;
        self.tokens = (self.tokens + new).min(f64::from(limit.burst));
        self.filled = now;
        let available = self.tokens >= 1.0;
        if available {
            self.tokens -= 1.0;
        }
        available
    }
}

/// The error that a request fails by, and the seconds in `Retry-After`.
pub(crate) type Fault = (StsError, Option<u64>);

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_rate_limit(&self, limit: Option<RateLimit>) {
        let mut state = self.state();
        state.limit = limit;
        state.buckets.clear();
    }

    pub(crate) fn throttled_count(&self) -> usize {
        self.throttled.load(Ordering::SeqCst)
    }

    pub(crate) fn set_failures(&self, failures: Option<Failures>) {
        let mut state = self.state();
        state.failures = failures;
        state.since_failures = 0;
    }

    pub(crate) fn failure_count(&self) -> usize {
        self.failed.load(Ordering::SeqCst)
    }

    pub(crate) fn set_delay(&self, delay: Duration) {
        self.state().delay = delay;
        self.changed.notify_all();
    }

    pub(crate) fn set_cut(&self, after: Option<usize>) {
        self.state().cut = after;
    }

    pub(crate) fn set_drip(&self, every: Option<Duration>) {
        self.state().drip = every;
    }

    /// Waits for as long as the server is to work on a request, even if that is changed meanwhile.
    pub(crate) fn delay(&self) {
        self.wait(|state| state.delay);
    }

    /// Waits for this long; returns false at once if the server stops.
    fn pause(&self, time: Duration) -> bool {
        self.wait(|_| time)
    }

    /// Waits until the time has passed that `time` returns now, or after a later change.
    fn wait(&self, time: impl Fn(&State) -> Duration) -> bool {
        let start = Instant::now();
        let mut state = self.state();
        loop {
            let left = time(&state).saturating_sub(start.elapsed());
            if state.stopping || left.is_zero() {
                return !state.stopping;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends all waiting, until [`resume`](Self::resume).
    pub(crate) fn stop(&self) {
        self.state().stopping = true;
        self.changed.notify_all();
    }

    pub(crate) fn resume(&self) {
        self.state().stopping = false;
    }

    /// Counts a request; returns its error if it is to fail.
    pub(crate) fn failure(&self) -> Option<Fault> {
        let mut state = self.state();
        let failures = state.failures?;
        state.since_failures += 1;
        let fails = match failures.which {
            Which::All => true,
            Which::Next(count) => state.since_failures <= count,
            Which::Every(n) => n > 0 && state.since_failures.is_multiple_of(n),
        };
        if !fails {
            return None;
        }
        self.failed.fetch_add(1, Ordering::SeqCst);
        Some((failures.error.error(), failures.retry_after))
    }

    /// Takes a token from the account's bucket; returns the error if there is none.
    pub(crate) fn charge(&self, account: &str, now: Instant) -> Option<Fault> {
        let mut state = self.state();
        let limit = state.limit?;
        if !state.buckets.contains_key(account) {
            let full = Bucket { tokens: f64::from(limit.burst), filled: now };
            state.buckets.insert(account.to_owned(), full);
        }
        if state.buckets.get_mut(account).is_none_or(|bucket| bucket.take(&limit, now)) {
            return None;
        }
        self.throttled.fetch_add(1, Ordering::SeqCst);
        Some((ServiceError::Throttling.error(), limit.retry_after))
    }

    /// Passes a response to `write`, cut or byte by byte if that is set; returns whether all of it
    /// was passed.
    pub(crate) fn write<E>(&self, response: &[u8], mut write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<bool, E> {
        let (cut, drip) = {
            let state = self.state();
            (state.cut, state.drip)
        };
        let part = &response[..cut.unwrap_or(usize::MAX).min(response.len())];
        match drip {
            None => write(part)?,
            Some(every) => {
                for byte in part.chunks(1) {
                    write(byte)?;
                    if !self.pause(every) {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(part.len() == response.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_begins_full_and_fills_at_its_rate() {
        let faults = Faults::default();
        faults.state().limit = Some(RateLimit::per_second(10.0).burst(3).retry_after(7));
        let start = Instant::now();
        let allowed = |account: &str, millis: u64, requests: usize| {
            let now = start + Duration::from_millis(millis);
            (0..requests).filter(|_| faults.charge(account, now).is_none()).count()
        };
        assert_eq!(allowed("1", 0, 5), 3);
        assert_eq!(allowed("2", 0, 1), 1, "another account has its own");
        assert_eq!(allowed("1", 99, 1), 0);
        assert_eq!(allowed("1", 205, 5), 2, "what is refused costs nothing");
        assert_eq!(allowed("1", 60_000, 5), 3, "it holds no more than the burst");
        let (error, retry_after) = faults.charge("1", start + Duration::from_secs(60)).unwrap();
        assert_eq!((error.status, error.code, retry_after), (400, "Throttling", Some(7)));
        assert_eq!(faults.throttled.load(Ordering::SeqCst), 9);
    }

    #[test]
    fn a_limit_of_zero_allows_the_burst_only() {
        let faults = Faults::default();
        faults.state().limit = Some(RateLimit::per_second(0.0));
        let later = Instant::now() + Duration::from_secs(1_000_000);
        assert!(faults.charge("1", Instant::now()).is_none());
        assert!(faults.charge("1", later).is_some());
    }

    #[test]
    fn exactly_the_configured_requests_fail() {
        let error = ServiceError::InternalFailure;
        for (failures, expected) in [
            (Failures::all(error), "xxxxxx"),
            (Failures::next(2, error), "xx...."),
            (Failures::every(3, error), "..x..x"),
            (Failures::every(1, error), "xxxxxx"),
            (Failures::every(0, error), "......"),
        ] {
            let faults = Faults::default();
            faults.state().failures = Some(failures);
            let seen: String = (0..6).map(|_| if faults.failure().is_some() { 'x' } else { '.' }).collect();
            assert_eq!(seen, expected, "{failures:?}");
        }
    }

    #[test]
    fn a_stop_ends_a_pause() {
        let faults = Faults::default();
        std::thread::scope(|scope| {
            let pause = scope.spawn(|| faults.pause(Duration::from_secs(3600)));
            faults.stop();
            assert!(!pause.join().unwrap());
        });
    }
}
