//! Name resolution for the STS client, bounded in time and in threads.
//!
//! The system's resolver (getaddrinfo) has no timeout, so each look-up runs on its own thread.
//! Callers share one look-up and reuse its addresses for a while, and only a hung look-up is
//! started again. So a hung resolver cannot pile up threads, and logins over kept connections cause
//! no look-ups.

use super::errors::is_local;
use super::tls::mark_new_connection;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Error, Timeout};

/// How long addresses are used without another look-up. AWS changes those of its endpoints within a
/// minute.
const FRESH_FOR: Duration = Duration::from_secs(30);

/// How long addresses are used while another look-up runs: DNS may be down while STS is not.
const STALE_OK_FOR: Duration = Duration::from_secs(600);

/// A look-up that takes longer is considered hung, and another one is started.
const HUNG_AFTER: Duration = Duration::from_secs(60);

/// The maximum number of look-ups that run at the same time; all but one of them are hung.
const MAX_LOOKUPS: usize = 4;

/// The maximum number of addresses of one look-up: the HTTP library has no room for more.
const MAX_ADDRESSES: usize = 16;

/// Resolves one name, whatever the URL of the request is, as curl's connect-to does. Clones share
/// their look-ups.
#[derive(Clone)]
pub struct FixedTarget {
    host_and_port: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    lookups: Mutex<Lookups>,
    completed: Condvar,
}

/// The look-ups of one name: those that run, and what the others found.
#[derive(Default)]
struct Lookups {
    running: usize,
    /// When the latest one started.
    started_at: Option<Instant>,
    /// How many are complete, so that waiters notice another one.
    completed: u64,
    /// The result of the latest one that is complete.
    latest: Option<io::Result<Vec<SocketAddr>>>,
    /// The latest addresses, and since when they are known.
    known: Option<(Instant, Vec<SocketAddr>)>,
}

impl Lookups {
    /// The latest addresses, if they are younger than this.
    fn younger_than(&self, age: Duration, now: Instant) -> Option<Vec<SocketAddr>> {
        let (since, addresses) = self.known.as_ref()?;
        (now.saturating_duration_since(*since) < age).then(|| addresses.clone())
    }

    /// Whether another look-up has to be started.
    fn need_another(&self, now: Instant) -> bool {
        let is_hung = |started: Instant| now.saturating_duration_since(started) >= HUNG_AFTER;
        self.running == 0 || (self.started_at.is_none_or(is_hung) && self.running < MAX_LOOKUPS)
    }

    fn start(&mut self, now: Instant) {
        self.running += 1;
        self.started_at = Some(now);
    }

    fn complete(&mut self, result: io::Result<Vec<SocketAddr>>, now: Instant) {
        self.running -= 1;
        self.completed += 1;
        if let Ok(addresses) = &result
            && !addresses.is_empty()
        {
            self.known = Some((now, addresses.clone()));
        }
        self.latest = Some(result);
    }
}

impl FixedTarget {
    /// Takes `host:port`, an IPv6 address in brackets. Nothing is looked up yet.
    pub fn new(host_and_port: String) -> Self {
        Self { host_and_port, shared: Arc::default() }
    }

    /// Returns the addresses. Waits for a look-up, at most for the timeout, if none are known.
    fn addresses(&self, now: Instant, timeout: Duration) -> Result<Vec<SocketAddr>, Failure> {
        if let Ok(address) = self.host_and_port.parse() {
            return Ok(vec![address]);
        }
        let mut lookups = self.shared.lock();
        if let Some(addresses) = lookups.younger_than(FRESH_FOR, now) {
            return Ok(addresses);
        }
        if lookups.need_another(now) {
            self.spawn_lookup().map_err(Failure::Local)?;
            lookups.start(now);
        }
        if let Some(addresses) = lookups.younger_than(STALE_OK_FOR, now) {
            return Ok(addresses);
        }
        let completed = lookups.completed;
        let is_waiting = |lookups: &mut Lookups| lookups.completed == completed;
        let waited = self.shared.completed.wait_timeout_while(lookups, timeout, is_waiting);
        let (lookups, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        match &lookups.latest {
            _ if waited.timed_out() => Err(Failure::TimedOut),
            Some(Ok(addresses)) if !addresses.is_empty() => Ok(addresses.clone()),
            Some(Err(error)) if is_local(error) => Err(Failure::Local(copy_of(error))),
            _ => Err(Failure::NotFound),
        }
    }

    /// Starts a look-up on a thread of its own. The caller holds the lock, so the look-up cannot
    /// complete before it is counted.
    fn spawn_lookup(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let name = self.host_and_port.clone();
        thread::Builder::new().name("awsStsResolver".to_owned()).spawn(move || {
            let result = name.to_socket_addrs().map(|found| found.take(MAX_ADDRESSES).collect());
            let result = result.map_err(|error| lack_of_resources().unwrap_or(error));
            shared.lock().complete(result, Instant::now());
            shared.completed.notify_all();
        })?;
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Lookups> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The resource that this machine lacks for name resolution, if any. glibc hides it: without a free
/// file descriptor it reports that the name was not found.
fn lack_of_resources() -> Option<io::Error> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).err().filter(is_local)
}

/// A copy of an error, since all waiters share the error of one look-up.
fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// Why there are no addresses.
#[derive(Debug)]
enum Failure {
    NotFound,
    TimedOut,
    /// This machine lacks a resource.
    Local(io::Error),
}

impl Resolver for FixedTarget {
    fn resolve(&self, _: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.addresses(Instant::now(), *timeout.after).map_err(|failure| {
            // Kept connections are not to blame for this failure.
            mark_new_connection();
            match failure {
                Failure::NotFound => Error::HostNotFound,
                Failure::TimedOut => Error::Timeout(Timeout::Resolve),
                Failure::Local(error) => Error::Io(error),
            }
        })?;
        let mut addresses = self.empty();
        for address in found {
            addresses.push(address);
        }
        Ok(addresses)
    }
}

impl fmt::Debug for FixedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FixedTarget").field(&self.host_and_port).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any look-up takes.
    const ENOUGH: Duration = Duration::from_secs(20);

    fn address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 443))
    }

    #[test]
    fn addresses_need_no_lookup() {
        for (text, address) in [("127.0.0.1:443", "127.0.0.1:443"), ("[::1]:8443", "[::1]:8443")] {
            let target = FixedTarget::new(text.to_owned());
            let found = target.addresses(Instant::now(), Duration::ZERO);
            assert_eq!(found.ok(), Some(vec![address.parse().unwrap()]));
        }
    }

    #[test]
    fn concurrent_callers_share_one_lookup_and_later_ones_its_result() {
        let target = FixedTarget::new("localhost:443".to_owned());
        let now = Instant::now();
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| assert!(target.addresses(now, ENOUGH).is_ok()));
            }
        });
        assert!(target.addresses(now, Duration::ZERO).is_ok());
        assert_eq!(target.shared.lock().completed, 1);
    }

    #[test]
    fn a_name_that_was_not_found_is_looked_up_again() {
        let target = FixedTarget::new("no-such-name.invalid:443".to_owned());
        for completed in 1..3 {
            assert!(matches!(target.addresses(Instant::now(), ENOUGH), Err(Failure::NotFound)));
            assert_eq!(target.shared.lock().completed, completed);
        }
    }

    #[test]
    fn stale_addresses_are_used_for_a_while_when_lookups_fail() {
        let target = FixedTarget::new("no-such-name.invalid:443".to_owned());
        let now = Instant::now();
        {
            let mut lookups = target.shared.lock();
            lookups.start(now);
            lookups.complete(Ok(vec![address()]), now);
        }
        let fresh = target.addresses(now + FRESH_FOR - Duration::from_nanos(1), Duration::ZERO);
        assert_eq!(fresh.ok(), Some(vec![address()]));
        assert_eq!(target.shared.lock().started_at, Some(now), "looked up although the addresses were fresh");
        let stale = target.addresses(now + FRESH_FOR, Duration::ZERO);
        assert_eq!(stale.ok(), Some(vec![address()]));
        assert_eq!(target.shared.lock().started_at, Some(now + FRESH_FOR), "not looked up");
        assert!(matches!(target.addresses(now + STALE_OK_FOR, ENOUGH), Err(Failure::NotFound)));
    }

    #[test]
    fn a_caller_does_not_wait_longer_than_its_timeout() {
        let (target, now) = (FixedTarget::new("localhost:443".to_owned()), Instant::now());
        target.shared.lock().start(now);
        assert!(matches!(target.addresses(now, Duration::ZERO), Err(Failure::TimedOut)));
        assert_eq!(target.shared.lock().running, 1);
    }

    #[test]
    fn a_hung_lookup_is_started_again_but_only_so_often() {
        for (hung, is_found) in [(MAX_LOOKUPS - 1, true), (MAX_LOOKUPS, false)] {
            let (target, now) = (FixedTarget::new("localhost:443".to_owned()), Instant::now());
            (0..hung).for_each(|_| target.shared.lock().start(now));
            let early = target.addresses(now + HUNG_AFTER - Duration::from_nanos(1), Duration::ZERO);
            assert!(matches!(early, Err(Failure::TimedOut)));
            let timeout = if is_found { ENOUGH } else { Duration::ZERO };
            let found = target.addresses(now + HUNG_AFTER, timeout);
            assert_eq!(found.is_ok(), is_found, "{hung} hung: {found:?}");
        }
    }
}
