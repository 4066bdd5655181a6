//! Name resolution for the STS client: bounded in time and in threads.
//!
//! The system's resolver (getaddrinfo) cannot be told to give up, so that it runs on a thread of its own. There is one
//! such thread at a time, and a few more only when one does not come back: whoever else needs the name waits for the same answer, and an answer serves for a
//! while, so that a hung resolver piles up nothing and a login over a kept connection asks nobody.

use super::errors::is_local;
use super::tls::note_connection;
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

/// How long an answer serves. AWS changes the addresses of its endpoints within a minute.
const SERVES: Duration = Duration::from_secs(30);

/// How long an answer serves while a later one is awaited: the name server may be down while STS is not.
const SERVES_MEANWHILE: Duration = Duration::from_secs(600);

/// Addresses that are taken of an answer: what the HTTP library has room for.
const MAX_ADDRESSES: usize = 16;

/// After this time another thread asks: one that never comes back must not be the last word.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);

/// Threads that may be asking at the same time, all but one of them given up.
const MAX_THREADS: usize = 4;

/// Resolves one name, whatever URL is asked for, as curl's connect-to does. Clones share their answers.
#[derive(Clone)]
pub struct FixedTarget {
    host_and_port: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Threads that are asking.
    asking: usize,
    /// When the latest of them began.
    asked: Option<Instant>,
    /// Counts the answers, so that those who wait know a new one.
    answers: u64,
    latest: Option<Result<Vec<SocketAddr>, io::Error>>,
    /// The latest answer that was one.
    good: Option<(Instant, Vec<SocketAddr>)>,
}

impl FixedTarget {
    /// Takes `host:port`, an IPv6 address in brackets. Nothing is looked up yet.
    pub fn new(host_and_port: String) -> Self {
        Self { host_and_port, shared: Arc::default() }
    }

    fn addresses(&self, timeout: Duration) -> Result<Vec<SocketAddr>, Failure> {
        if let Ok(address) = self.host_and_port.parse() {
            return Ok(vec![address]);
        }
        let until = Instant::now() + timeout;
        let mut state = self.shared.lock();
        let good = state.good.as_ref().map(|(at, addresses)| (at.elapsed(), addresses.clone()));
        if let Some((age, addresses)) = &good
            && *age < SERVES
        {
            return Ok(addresses.clone());
        }
        let given_up = state.asked.is_none_or(|asked| asked.elapsed() >= GIVEN_UP_AFTER);
        if state.asking == 0 || (given_up && state.asking < MAX_THREADS) {
            self.ask().map_err(Failure::Local)?;
            state.asking += 1;
            state.asked = Some(Instant::now());
        }
        if let Some((age, addresses)) = good
            && age < SERVES_MEANWHILE
        {
            return Ok(addresses);
        }
        let seen = state.answers;
        while state.answers == seen {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::TimedOut);
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match &state.latest {
            Some(Ok(addresses)) if !addresses.is_empty() => Ok(addresses.clone()),
            Some(Err(error)) if is_local(error) => Err(Failure::Local(for_one_more(error))),
            _ => Err(Failure::NotFound),
        }
    }

    /// Starts the thread that asks; the caller holds the lock, so that its answer cannot come before `asking` is set.
    fn ask(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let name = self.host_and_port.clone();
        thread::Builder::new().name("awsStsResolver".to_owned()).spawn(move || {
            let answer = name.to_socket_addrs().map(|found| found.take(MAX_ADDRESSES).collect());
            let mut state = shared.lock();
            state.asking -= 1;
            state.answers += 1;
            let answer: Result<Vec<SocketAddr>, _> =
                answer.map_err(|error: io::Error| lack_of_resources().unwrap_or(error));
            if let Ok(addresses) = &answer
                && !addresses.is_empty()
            {
                state.good = Some((Instant::now(), addresses.clone()));
            }
            state.latest = Some(answer);
            shared.changed.notify_all();
        })?;
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this machine lacks for a name resolution. glibc does not say: without a free file descriptor it reports that
/// the name was not found.
fn lack_of_resources() -> Option<io::Error> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).err().filter(is_local)
}

/// The same error, since all waiters get the one of the thread.
fn for_one_more(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

#[derive(Debug)]
enum Failure {
    NotFound,
    TimedOut,
    Local(io::Error),
}

impl Resolver for FixedTarget {
    fn resolve(&self, _: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.addresses(*timeout.after).map_err(|failure| {
            // It says nothing about the connections that are kept.
            note_connection();
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

    const ENOUGH: Duration = Duration::from_secs(20);

    #[test]
    fn addresses_need_no_look_up() {
        for (text, address) in [("127.0.0.1:443", "127.0.0.1:443"), ("[::1]:8443", "[::1]:8443")] {
            let target = FixedTarget::new(text.to_owned());
            assert_eq!(target.addresses(Duration::ZERO).ok(), Some(vec![address.parse().unwrap()]));
        }
    }

    #[test]
    fn many_who_ask_at_once_share_one_look_up_and_later_ones_its_answer() {
        let target = FixedTarget::new("localhost:443".to_owned());
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| assert!(target.addresses(ENOUGH).is_ok()));
            }
        });
        assert!(target.addresses(Duration::ZERO).is_ok());
        assert_eq!(target.shared.lock().answers, 1);
    }

    #[test]
    fn a_name_that_is_not_there_is_not_found_and_asked_for_again() {
        let target = FixedTarget::new("no-such-name.invalid:443".to_owned());
        for answers in 1..3 {
            assert!(matches!(target.addresses(ENOUGH), Err(Failure::NotFound)));
            assert_eq!(target.shared.lock().answers, answers);
        }
    }

    #[test]
    fn an_answer_serves_for_a_while_longer_when_nobody_answers() {
        let target = FixedTarget::new("no-such-name.invalid:443".to_owned());
        let address = SocketAddr::from(([127, 0, 0, 1], 443));
        let answered = |before: Duration| {
            let at = Instant::now().checked_sub(before).expect("the machine has run for ten minutes");
            target.shared.lock().good = Some((at, vec![address]));
        };
        answered(SERVES);
        assert_eq!(target.addresses(Duration::ZERO).ok(), Some(vec![address]));
        assert!(target.shared.lock().asked.is_some(), "nobody was asked");
        answered(SERVES_MEANWHILE);
        assert!(matches!(target.addresses(ENOUGH), Err(Failure::NotFound)));
    }

    #[test]
    fn whoever_cannot_wait_does_not() {
        let target = FixedTarget::new("localhost:443".to_owned());
        hang(&target, 1, Instant::now());
        assert!(matches!(target.addresses(Duration::from_millis(50)), Err(Failure::TimedOut)));
    }

    #[test]
    fn a_thread_that_never_comes_back_is_given_up_but_only_so_often() {
        let long_ago = Instant::now().checked_sub(GIVEN_UP_AFTER).expect("the machine has run for a minute");
        let target = FixedTarget::new("localhost:443".to_owned());
        hang(&target, MAX_THREADS - 1, long_ago);
        assert!(target.addresses(ENOUGH).is_ok());
        let target = FixedTarget::new("localhost:443".to_owned());
        hang(&target, MAX_THREADS, long_ago);
        assert!(matches!(target.addresses(Duration::from_millis(50)), Err(Failure::TimedOut)));
    }

    /// Makes it look as if threads were asking that never answer.
    fn hang(target: &FixedTarget, threads: usize, since: Instant) {
        let mut state = target.shared.lock();
        state.asking = threads;
        state.asked = Some(since);
    }
}
