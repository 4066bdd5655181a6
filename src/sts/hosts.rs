//! The STS hosts that new logins can get: awsStsHost, and those of awsStsFallbackHosts while it is unreachable.
//!
//! A client signs for the host that it got, so that a login keeps its host to the end. Attempts of logins decide
//! nothing, since a client chooses part of their bytes: after some in a row that did not reach the current host,
//! [`Reach`] of a constant request decides. If the host is unreachable, new logins get the first other one that answers
//! this request; if none does, an outage begins. While another host than awsStsHost is current, and in an outage,
//! awsStsHost is checked now and then, and used again when it answers.
//!
//! Checks run one at a time, on a thread that ends with them, and start only when a login begins or an attempt ends.

use super::client::{Client, Reach};
use super::endpoint::{Endpoint, StsHost};
use crate::denial::Denial;
use crate::events::{Event, Events};
use crate::process::Process;
use once_cell::sync::OnceCell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Attempts in a row that do not reach the current host before it is checked.
const SUSPECT_ATTEMPTS: u32 = 3;

/// The shortest time between two checks for suspect attempts, so that clients cannot cause more of them.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often awsStsHost is checked while another host is current, and every host in an outage.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(5);

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

/// Since when no host is reachable. It belongs to the process, so that its end is logged whatever ended it: hosts live
/// only until a parameter changes.
#[derive(Debug, Default)]
pub struct Outage(Mutex<Option<Instant>>);

impl Outage {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_on(&self) -> bool {
        self.lock().is_some()
    }

    fn begin(&self, hosts: impl FnOnce() -> String, events: &Events) {
        let mut since = self.lock();
        if since.is_none() {
            *since = Some(Instant::now());
            events.push(Event::OutageBegan { hosts: hosts() });
        }
    }

    fn end(&self, host: &Host, events: &Events) {
        if let Some(since) = self.lock().take() {
            let host = host.name.as_str().to_owned();
            events.push(Event::OutageEnded { host, seconds: since.elapsed().as_secs() });
        }
    }
}

/// The hosts, the first of them the one that is preferred.
#[derive(Debug)]
pub struct Hosts {
    all: Vec<Arc<Host>>,
    /// The index of the current host, and since when, in milliseconds of the epoch: to be read without a lock.
    current: AtomicUsize,
    current_since: AtomicI64,
    health: Mutex<Health>,
    /// Others are in force now: what happens to these changes and logs nothing.
    retired: AtomicBool,
}

/// What is known of the current host.
#[derive(Debug, Default)]
struct Health {
    /// Attempts in a row that did not reach it.
    suspect_attempts: u32,
    /// When the latest check ended, or the current host changed.
    checked: Option<Instant>,
    is_checking: bool,
}

/// Why a check runs, which decides what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// The current host is suspected.
    Suspicion,
    /// The preferred host may be reachable again.
    Recovery,
}

impl Hosts {
    /// Takes the preferred host and those that replace it while it is unreachable.
    pub fn new(first: Host, others: Vec<Host>) -> Self {
        Self {
            all: std::iter::once(first).chain(others).map(Arc::new).collect(),
            current: AtomicUsize::new(0),
            current_since: AtomicI64::new(epoch_millis()),
            health: Mutex::default(),
            retired: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        // Nothing in here panics between two changes that belong together.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// The host of new logins.
    pub fn current(&self) -> &Arc<Host> {
        &self.all[self.current_index()]
    }

    fn current_index(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Since when it is that host, or since when these hosts are in force.
    pub fn current_since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.current_since.load(Ordering::Relaxed).unsigned_abs())
    }

    /// Records what an attempt says of its host, and checks the current host when it is suspected.
    ///
    /// `check` sends the constant request to a host; it runs on a thread of its own.
    pub fn record_attempt(
        self: &Arc<Self>,
        host: &Arc<Host>,
        reach: Reach,
        process: &Arc<Process>,
        check: impl Fn(&Host) -> Reach + Send + 'static,
    ) {
        let mut health = self.lock();
        // Logins that began before a change say nothing about the current host.
        if self.are_retired() || reach == Reach::Unknown || !Arc::ptr_eq(host, self.current()) {
            return;
        }
        if reach == Reach::Reached {
            health.suspect_attempts = 0;
            process.outage.end(host, &process.events);
            return;
        }
        health.suspect_attempts = health.suspect_attempts.saturating_add(1);
        if health.suspect_attempts >= SUSPECT_ATTEMPTS && !process.outage.is_on() {
            self.start_check(health, Check::Suspicion, process, check);
        }
    }

    /// Checks, if it is time to, whether the preferred host or, in an outage, any host is reachable again.
    pub fn check_recovery(self: &Arc<Self>, process: &Arc<Process>, check: impl Fn(&Host) -> Reach + Send + 'static) {
        if self.current_index() != 0 || process.outage.is_on() {
            self.start_check(self.lock(), Check::Recovery, process, check);
        }
    }

    fn start_check(
        self: &Arc<Self>,
        mut health: MutexGuard<'_, Health>,
        why: Check,
        process: &Arc<Process>,
        check: impl Fn(&Host) -> Reach + Send + 'static,
    ) {
        let interval = match why {
            Check::Suspicion => CHECK_INTERVAL,
            Check::Recovery => RECOVERY_INTERVAL,
        };
        let is_due = health.checked.is_none_or(|checked| checked.elapsed() >= interval);
        if self.are_retired() || health.is_checking || !is_due {
            return;
        }
        health.is_checking = true;
        let (hosts, process) = (Arc::clone(self), Arc::clone(process));
        let spawned = thread::Builder::new().name("awsStsCheck".to_owned()).spawn(move || {
            let _running = Running(&hosts);
            hosts.run_check(why, &process, check);
        });
        if spawned.is_err() {
            health.is_checking = false;
        }
    }

    fn run_check(&self, why: Check, process: &Process, check: impl Fn(&Host) -> Reach) {
        // Only a check changes the current host, and there is one at a time.
        let current = self.current_index();
        if current != 0 {
            if check(self.first()) == Reach::Reached {
                return self.decide(0, process);
            }
            if why == Check::Recovery && !process.outage.is_on() {
                return;
            }
        }
        for index in (current..self.all.len()).chain(0..current) {
            // The first one has been checked above.
            if index == 0 && current != 0 {
                continue;
            }
            match check(&self.all[index]) {
                Reach::Reached => return self.decide(index, process),
                Reach::NotReached => {}
                // This machine lacks something: nothing was proven.
                Reach::Unknown => return,
            }
        }
        let _health = self.lock();
        if !self.are_retired() {
            let names = || self.all.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ");
            process.outage.begin(names, &process.events);
        }
    }

    /// A check has reached this host: new logins get it.
    fn decide(&self, reached: usize, process: &Process) {
        let mut health = self.lock();
        if self.are_retired() {
            return;
        }
        health.suspect_attempts = 0;
        let (before, host) = (self.current(), &self.all[reached]);
        process.outage.end(host, &process.events);
        if Arc::ptr_eq(before, host) {
            return;
        }
        let name = |host: &Host| host.name.as_str().to_owned();
        process.metrics.fallback_switches.add();
        process.events.push(Event::HostChanged { from: name(before), to: name(host), back: reached == 0 });
        self.current.store(reached, Ordering::Relaxed);
        self.current_since.store(epoch_millis(), Ordering::Relaxed);
    }
}

fn epoch_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Ends a check, also one that panics.
struct Running<'a>(&'a Hosts);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut health = self.0.lock();
        health.is_checking = false;
        health.checked = Some(Instant::now());
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

    /// Hosts of which some answer the constant request.
    struct World {
        hosts: Arc<Hosts>,
        process: Arc<Process>,
        up: Arc<Mutex<Vec<&'static str>>>,
        checks: Arc<AtomicUsize>,
    }

    impl World {
        fn new(names: &[&str]) -> Self {
            Self { hosts: hosts(names), process: Arc::default(), up: Arc::default(), checks: Arc::default() }
        }

        fn set_up(&self, up: &[&'static str]) {
            *self.up.lock().unwrap() = up.to_vec();
        }

        fn check(&self) -> impl Fn(&Host) -> Reach + Send + 'static {
            let (up, checks) = (Arc::clone(&self.up), Arc::clone(&self.checks));
            move |host| {
                checks.fetch_add(1, Ordering::SeqCst);
                let is_up = up.lock().unwrap().contains(&host.name().as_str());
                if is_up { Reach::Reached } else { Reach::NotReached }
            }
        }

        fn attempt(&self, host: &Arc<Host>, reach: Reach) {
            self.hosts.record_attempt(host, reach, &self.process, self.check());
            self.wait();
        }

        fn suspect(&self, times: u32) {
            for _ in 0..times {
                self.attempt(&Arc::clone(self.hosts.current()), Reach::NotReached);
            }
        }

        fn recover(&self) {
            self.hosts.check_recovery(&self.process, self.check());
            self.wait();
        }

        fn wait(&self) {
            while self.hosts.lock().is_checking {
                thread::yield_now();
            }
        }

        /// As if the latest check had been long ago.
        fn pass_time(&self) {
            self.hosts.lock().checked = None;
        }

        fn current(&self) -> &str {
            self.hosts.current().name().as_str()
        }

        fn events(&self) -> Vec<i32> {
            std::iter::from_fn(|| self.process.events.pop()).map(|event| event.log_id()).collect()
        }

        fn checks(&self) -> usize {
            self.checks.load(Ordering::SeqCst)
        }
    }

    const A: &str = "sts.a.com";
    const B: &str = "sts.b.com";
    const C: &str = "sts.c.com";

    #[test]
    fn miri_attempts_move_no_host_that_answers_the_constant_request() {
        let world = World::new(&[A, B]);
        world.set_up(&[A, B]);
        world.suspect(50 * SUSPECT_ATTEMPTS);
        assert_eq!((world.current(), world.events(), world.checks()), (A, vec![], 1), "one check in one interval");
        world.pass_time();
        world.suspect(SUSPECT_ATTEMPTS);
        assert_eq!((world.current(), world.events(), world.checks()), (A, vec![], 2));
    }

    #[test]
    fn miri_an_unreachable_host_is_left_after_suspect_attempts_in_a_row() {
        let world = World::new(&[A, B, C]);
        world.set_up(&[C]);
        world.suspect(SUSPECT_ATTEMPTS - 1);
        let first = Arc::clone(world.hosts.first());
        world.attempt(&first, Reach::Reached);
        world.suspect(SUSPECT_ATTEMPTS - 1);
        world.attempt(&first, Reach::Unknown);
        assert_eq!((world.current(), world.checks()), (A, 0));
        world.suspect(1);
        assert_eq!(
            (world.current(), world.events()),
            (C, vec![88_000_004]),
            "the one that does not answer is passed over"
        );
        // Late news of the first host.
        world.pass_time();
        for _ in 0..2 * SUSPECT_ATTEMPTS {
            world.attempt(&first, Reach::NotReached);
        }
        assert_eq!((world.current(), world.checks()), (C, 3));
        assert_eq!(world.process.metrics.fallback_switches.get(), 1);
    }

    #[test]
    fn miri_the_first_host_is_current_again_when_it_answers_the_constant_request() {
        let world = World::new(&[A, B]);
        world.set_up(&[B]);
        world.suspect(SUSPECT_ATTEMPTS);
        let checks = world.checks();
        world.recover();
        assert_eq!((world.current(), world.checks()), (B, checks), "it is too early");
        world.pass_time();
        world.recover();
        assert_eq!(
            (world.current(), world.checks()),
            (B, checks + 1),
            "it does not answer, and the current host is fine"
        );
        world.pass_time();
        world.set_up(&[A, B]);
        world.recover();
        assert_eq!((world.current(), world.events()), (A, vec![88_000_004, 88_000_005]));
    }

    #[test]
    fn miri_an_outage_of_all_hosts_begins_once_and_ends_once() {
        let world = World::new(&[A, B]);
        for _ in 0..5 {
            world.suspect(2 * SUSPECT_ATTEMPTS);
            world.pass_time();
            world.recover();
            world.pass_time();
        }
        let began = world.process.events.pop();
        assert_eq!(began, Some(Event::OutageBegan { hosts: format!("{A}, {B}") }));
        assert_eq!((world.current(), world.events()), (A, vec![]));
        world.set_up(&[B]);
        world.recover();
        assert_eq!((world.current(), world.events()), (B, vec![88_000_007, 88_000_004]));
    }

    #[test]
    fn miri_an_outage_that_a_parameter_has_ended_is_logged() {
        let world = World::new(&[A]);
        world.suspect(SUSPECT_ATTEMPTS);
        world.hosts.retire();
        let new = hosts(&[B]);
        new.record_attempt(new.first(), Reach::Reached, &world.process, |_| panic!("no check"));
        assert_eq!(world.events(), [88_000_006, 88_000_007]);
        world.attempt(&Arc::clone(world.hosts.first()), Reach::NotReached);
        assert_eq!(world.events(), [0_i32; 0], "others are in force");
    }

    #[test]
    fn a_check_that_lacks_resources_or_panics_proves_nothing() {
        let world = World::new(&[A, B]);
        for _ in 0..SUSPECT_ATTEMPTS {
            world.hosts.record_attempt(world.hosts.first(), Reach::NotReached, &world.process, |_| Reach::Unknown);
        }
        world.wait();
        world.pass_time();
        world.hosts.record_attempt(world.hosts.first(), Reach::NotReached, &world.process, |_| panic!("a defect"));
        world.wait();
        assert_eq!((world.current(), world.events()), (A, vec![]));
    }
}
