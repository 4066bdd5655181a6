//! The STS hosts that clients are told, one at a time: awsStsHost, and those of awsStsFallbackHosts in turn while it does
//! not answer.
//!
//! A client signs for the host it was told, so that a login keeps its host to the end. After some attempts in a row that
//! failed to reach the host in turn, new logins are told the next one. While another host stands in, awsStsHost is asked
//! now and then whether it answers, and taken back when it does. That is done when a login begins, on a thread that ends
//! with the answer: without logins there is nothing to find out.

use super::client::Client;
use super::endpoint::{Endpoint, StsHost};
use crate::denial::Denial;
use crate::events::Event;
use crate::process::Process;
use once_cell::sync::OnceCell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Attempts in a row that fail to reach a host before the next one has its turn.
const FAILURES: u32 = 3;

/// How long a host has its turn, at least.
const LEAST_STAY: Duration = Duration::from_secs(1);

/// How often awsStsHost is asked whether it answers while another host stands in for it.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// One STS host, where to connect for it, and the client that does.
#[derive(Debug)]
pub struct Host {
    name: StsHost,
    endpoint: Option<Endpoint>,
    client: OnceCell<Client>,
}

impl Host {
    /// A host whose client is not made yet.
    pub fn new(name: StsHost, endpoint: Option<Endpoint>) -> Self {
        Self { name, endpoint, client: OnceCell::new() }
    }

    /// The name that clients sign for.
    pub fn name(&self) -> &StsHost {
        &self.name
    }

    /// Where to connect instead.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// The client, made by this function the first time.
    ///
    /// # Errors
    /// Those of the function; it is tried again the next time then.
    pub fn client(&self, make: impl FnOnce() -> Result<Client, Denial>) -> Result<&Client, Denial> {
        self.client.get_or_try_init(make)
    }
}

/// The hosts, the first of them the one that is preferred.
#[derive(Debug)]
pub struct Hosts {
    all: Vec<Arc<Host>>,
    /// The turn's host, and since when, in milliseconds of the epoch: to be read without waiting for the turn.
    told: AtomicUsize,
    told_since: AtomicI64,
    turn: Mutex<Turn>,
    /// Others are in force now: what happens to these is not worth a word.
    retired: AtomicBool,
}

#[derive(Clone, Debug)]
struct Turn {
    index: usize,
    since: Instant,
    /// In a row, of the host whose turn it is.
    failures: u32,
    /// Since when it is not reached, once that is known.
    trouble: Option<Instant>,
    probed: Option<Instant>,
    probing: bool,
}

impl Hosts {
    /// Takes the preferred host and those that stand in for it.
    pub fn new(first: Host, others: Vec<Host>) -> Self {
        let all = std::iter::once(first).chain(others).map(Arc::new).collect();
        let turn = Turn { index: 0, since: Instant::now(), failures: 0, trouble: None, probed: None, probing: false };
        Self {
            all,
            told: AtomicUsize::new(0),
            told_since: AtomicI64::new(epoch_millis()),
            turn: Mutex::new(turn),
            retired: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turn> {
        // Nothing in here panics between two changes that belong together.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that others are in force from now on.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn are_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// The preferred host, awsStsHost.
    pub fn first(&self) -> &Arc<Host> {
        &self.all[0]
    }

    /// The host that new logins are told.
    pub fn current(&self) -> &Arc<Host> {
        &self.all[self.told.load(Ordering::Relaxed)]
    }

    /// Since when new logins are told that host, or since when these hosts are in force.
    pub fn current_since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.told_since.load(Ordering::Relaxed).unsigned_abs())
    }

    /// An attempt has reached this host, or has failed to.
    pub fn attempted(&self, host: &Arc<Host>, reached: bool, process: &Process) {
        let mut turn = self.lock();
        // Logins that began before a change say nothing about the host whose turn it is.
        if self.are_retired() || !Arc::ptr_eq(host, &self.all[turn.index]) {
            return;
        }
        let name = || host.name.as_str().to_owned();
        if reached {
            turn.failures = 0;
            if let Some(since) = turn.trouble.take() {
                process.events.push(Event::TroubleEnded { host: name(), seconds: since.elapsed().as_secs() });
            }
            return;
        }
        turn.failures = turn.failures.saturating_add(1);
        if turn.failures < FAILURES {
            return;
        }
        if self.all.len() > 1 {
            if turn.since.elapsed() >= LEAST_STAY {
                let next = (turn.index + 1) % self.all.len();
                self.change(&mut turn, next, false, process);
            }
        } else if turn.trouble.is_none() {
            turn.trouble = Some(Instant::now());
            process.events.push(Event::TroubleBegan { host: name() });
        }
    }

    fn change(&self, turn: &mut Turn, to: usize, back: bool, process: &Process) {
        let name = |index: usize| self.all[index].name.as_str().to_owned();
        process.metrics.fallback_switches.add();
        process.events.push(Event::HostChanged { from: name(turn.index), to: name(to), back });
        *turn = Turn {
            index: to,
            since: Instant::now(),
            failures: 0,
            trouble: None,
            probed: Some(Instant::now()),
            probing: turn.probing,
        };
        self.told.store(to, Ordering::Relaxed);
        self.told_since.store(epoch_millis(), Ordering::Relaxed);
    }

    /// Asks the preferred host, on a thread of its own, whether it answers again, if it is time to; takes it back if so.
    pub fn probe_if_due(
        self: &Arc<Self>,
        process: &Arc<Process>,
        answers: impl FnOnce(&Arc<Host>) -> bool + Send + 'static,
    ) {
        {
            let mut turn = self.lock();
            let due = turn.probed.is_none_or(|probed| probed.elapsed() >= PROBE_INTERVAL);
            if self.are_retired() || turn.index == 0 || turn.probing || !due {
                return;
            }
            turn.probing = true;
        }
        let (hosts, process) = (Arc::clone(self), Arc::clone(process));
        let spawned = thread::Builder::new().name("awsStsProbe".to_owned()).spawn(move || {
            let mut probe = Probe { hosts: &hosts, process: &process, answered: false };
            probe.answered = answers(hosts.first());
        });
        if spawned.is_err() {
            self.lock().probing = false;
        }
    }
}

fn epoch_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Ends a probe, also one that panics.
struct Probe<'a> {
    hosts: &'a Hosts,
    process: &'a Process,
    answered: bool,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        let mut turn = self.hosts.lock();
        turn.probing = false;
        turn.probed = Some(Instant::now());
        if self.answered && turn.index != 0 && !self.hosts.are_retired() {
            self.hosts.change(&mut turn, 0, true, self.process);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Arc<Hosts> {
        let mut hosts = names.iter().map(|name| Host::new(StsHost::parse(name).unwrap(), None));
        let first = hosts.next().unwrap();
        Arc::new(Hosts::new(first, hosts.collect()))
    }

    /// As if the host had had its turn for long.
    fn wait(hosts: &Hosts) {
        let mut turn = hosts.lock();
        turn.since = turn.since.checked_sub(LEAST_STAY).expect("the machine has run for a second");
    }

    fn current(hosts: &Hosts) -> &str {
        hosts.current().name().as_str()
    }

    #[test]
    fn miri_the_next_host_has_its_turn_after_failures_in_a_row() {
        let hosts = hosts(&["sts.a.com", "sts.b.com"]);
        let process = Process::default();
        let first = Arc::clone(hosts.first());
        for reached in [false, false, true, false, false] {
            hosts.attempted(&first, reached, &process);
        }
        hosts.attempted(&first, false, &process);
        assert_eq!(current(&hosts), "sts.a.com", "it has had its turn for less than a second");
        wait(&hosts);
        hosts.attempted(&first, false, &process);
        assert_eq!(current(&hosts), "sts.b.com");
        // Late news of the first host.
        for _ in 0..FAILURES {
            hosts.attempted(&first, false, &process);
        }
        assert_eq!(current(&hosts), "sts.b.com");
        let second = Arc::clone(hosts.current());
        wait(&hosts);
        for _ in 0..FAILURES {
            hosts.attempted(&second, false, &process);
        }
        assert_eq!(current(&hosts), "sts.a.com");
        // The first is next again, which is not to say that it answers.
        process.events.pop();
        assert!(matches!(process.events.pop(), Some(Event::HostChanged { back: false, .. })));
        hosts.retire();
        wait(&hosts);
        for _ in 0..FAILURES {
            hosts.attempted(&first, false, &process);
        }
        assert_eq!((current(&hosts), process.events.pop()), ("sts.a.com", None), "others are in force");
        assert_eq!(process.metrics.fallback_switches.get(), 2);
    }

    #[test]
    fn miri_a_host_without_others_keeps_its_turn() {
        let hosts = hosts(&["sts.a.com"]);
        let (process, first) = (Process::default(), Arc::clone(hosts.first()));
        for _ in 0..2 * FAILURES {
            hosts.attempted(&first, false, &process);
        }
        assert_eq!(current(&hosts), "sts.a.com");
    }

    #[test]
    fn miri_trouble_begins_once_and_ends_once() {
        let hosts = hosts(&["sts.a.com"]);
        let (process, host) = (Process::default(), "sts.a.com".to_owned());
        for reached in [true, false, false, true, false, false, false, false, false, true, true] {
            hosts.attempted(hosts.first(), reached, &process);
        }
        assert_eq!(process.events.pop(), Some(Event::TroubleBegan { host: host.clone() }));
        assert_eq!(process.events.pop(), Some(Event::TroubleEnded { host, seconds: 0 }));
        assert_eq!(process.events.pop(), None);
    }

    #[test]
    fn the_first_host_is_taken_back_when_it_answers() {
        let hosts = hosts(&["sts.a.com", "sts.b.com"]);
        let process = Arc::new(Process::default());
        let probe = |answered: bool| {
            hosts.lock().probed = None;
            hosts.probe_if_due(&process, move |_| {
                assert!(answered, "a panic is no answer");
                true
            });
            while hosts.lock().probing {
                thread::yield_now();
            }
        };
        let first = Arc::clone(hosts.first());
        wait(&hosts);
        for _ in 0..FAILURES {
            hosts.attempted(&first, false, &process);
        }
        hosts.probe_if_due(&process, |_| panic!("too early"));
        assert!(!hosts.lock().probing);
        probe(false);
        assert_eq!(current(&hosts), "sts.b.com");
        probe(true);
        assert_eq!(current(&hosts), "sts.a.com");
    }
}
