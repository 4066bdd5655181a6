//! The STS hosts: awsStsHost, and those of awsStsFallbackHosts, with the connections of each.
//!
//! [`Health`] says when to check them and [`Failover`] which one to use; this is where both change
//! together, under one lock, and where changes are logged.

use super::client::Client;
use super::endpoint::{Endpoint, StsHost};
use super::failover::{CheckResult, Failover};
use super::health::{CheckReason, Health, Outage, Outcome};
use super::route::HostConfig;
use crate::events::{Event, Events};
use crate::metrics::Metrics;
use once_cell::sync::OnceCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

/// One STS host, with the client that keeps its connections.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    /// Made when it is first needed.
    pub(super) client: OnceCell<Client>,
}

impl Host {
    /// The name that clients sign for.
    pub fn name(&self) -> &StsHost {
        &self.config.name
    }

    /// The address to connect to instead.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.config.endpoint.as_ref()
    }
}

/// The hosts, the preferred one first.
#[derive(Debug)]
pub struct Hosts {
    all: Vec<Arc<Host>>,
    failover: Failover,
    health: Mutex<Health>,
    /// Others are in force now: what happens to these changes and logs nothing.
    retired: AtomicBool,
}

/// Ends the running check when it is dropped, also by a panic.
#[derive(Debug)]
pub struct RunningCheck<'a>(&'a Hosts);

impl Drop for RunningCheck<'_> {
    fn drop(&mut self) {
        self.0.lock().end_check(Instant::now());
    }
}

impl Hosts {
    /// Takes the hosts, at least one. The first is preferred, and current.
    pub fn new(hosts: &[HostConfig]) -> Self {
        let host = |config: &HostConfig| Arc::new(Host { config: config.clone(), client: OnceCell::new() });
        Self {
            all: hosts.iter().map(host).collect(),
            failover: Failover::default(),
            health: Mutex::default(),
            retired: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        // Nothing in here panics between two changes that belong together.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other hosts are in force from now on.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn are_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// The preferred host.
    pub fn first(&self) -> &Arc<Host> {
        &self.all[0]
    }

    /// The host of new logins.
    pub fn current(&self) -> &Arc<Host> {
        &self.all[self.failover.current()]
    }

    /// Since when it is that one.
    pub fn current_since(&self) -> SystemTime {
        self.failover.since()
    }

    /// Records what an attempt of a login says of its host. Returns whether it started a check,
    /// which the caller must run then.
    pub fn record_outcome(
        &self,
        host: &Arc<Host>,
        outcome: Outcome,
        outage: &Outage,
        events: &Events,
        now: Instant,
    ) -> bool {
        let mut health = self.lock();
        // Logins that began before a change say nothing about the current host.
        if self.are_retired() || !Arc::ptr_eq(host, self.current()) {
            return false;
        }
        if outcome == Outcome::Reached {
            outage.end(host.name(), events, now);
        }
        health.record(outcome) && !outage.is_on() && health.start_check(CheckReason::Suspicion, now)
    }

    /// Starts a check if another host than the preferred one is current, or in an outage, and one
    /// is due. Returns whether it did; the caller must run it then.
    pub fn start_recovery_check(&self, outage: &Outage, now: Instant) -> bool {
        let is_needed = self.failover.current() != 0 || outage.is_on();
        is_needed && !self.are_retired() && self.lock().start_check(CheckReason::Recovery, now)
    }

    /// The check that was started, until it is dropped.
    pub fn running_check(&self) -> RunningCheck<'_> {
        RunningCheck(self)
    }

    /// Runs a check: `check` sends the constant request to a host.
    pub fn check(&self, reason: CheckReason, in_outage: bool, check: impl Fn(&Host) -> Outcome) -> CheckResult {
        self.failover.find_host(self.all.len(), reason, in_outage, |index| check(&self.all[index]))
    }

    /// Puts the result of a check in force.
    pub fn conclude(&self, result: CheckResult, outage: &Outage, events: &Events, metrics: &Metrics, now: Instant) {
        let mut health = self.lock();
        if self.are_retired() {
            return;
        }
        match result {
            CheckResult::Unchanged => {}
            CheckResult::NoneReached => outage.begin(self.all.iter().map(|host| host.name()), events, now),
            CheckResult::Use(index) => {
                health.reset();
                let (before, host) = (self.current(), &self.all[index]);
                outage.end(host.name(), events, now);
                if !Arc::ptr_eq(before, host) {
                    let name = |host: &Host| host.name().as_str().to_owned();
                    metrics.fallback_switches.add();
                    events.push(Event::HostChanged { from: name(before), to: name(host), back: index == 0 });
                    self.failover.switch_to(index);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::health::SUSPECT_ATTEMPTS;
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::time::Duration;

    fn hosts(names: &[&str]) -> Hosts {
        let config = |name: &&str| HostConfig { name: StsHost::parse(name).unwrap(), endpoint: None };
        Hosts::new(&names.iter().map(config).collect::<Vec<_>>())
    }

    /// Hosts of which some answer the constant request, and a clock.
    struct World {
        hosts: Hosts,
        outage: Outage,
        events: Events,
        metrics: Metrics,
        up: RefCell<Vec<&'static str>>,
        checks: Cell<usize>,
        now: Cell<Instant>,
    }

    impl World {
        fn new(names: &[&str]) -> Self {
            Self {
                hosts: hosts(names),
                outage: Outage::default(),
                events: Events::default(),
                metrics: Metrics::default(),
                up: RefCell::default(),
                checks: Cell::default(),
                now: Cell::new(Instant::now()),
            }
        }

        fn set_up(&self, up: &[&'static str]) {
            *self.up.borrow_mut() = up.to_vec();
        }

        fn check(&self, host: &Host) -> Outcome {
            self.checks.set(self.checks.get() + 1);
            if self.up.borrow().contains(&host.name().as_str()) { Outcome::Reached } else { Outcome::NotReached }
        }

        fn run(&self, reason: CheckReason, check: impl Fn(&Host) -> Outcome) {
            let result = self.hosts.check(reason, self.outage.is_on(), check);
            self.hosts.conclude(result, &self.outage, &self.events, &self.metrics, self.now.get());
            self.hosts.lock().end_check(self.now.get());
        }

        fn attempt(&self, host: &Arc<Host>, outcome: Outcome) {
            if self.hosts.record_outcome(host, outcome, &self.outage, &self.events, self.now.get()) {
                self.run(CheckReason::Suspicion, |host| self.check(host));
            }
        }

        fn suspect(&self, times: u32) {
            for _ in 0..times {
                self.attempt(&Arc::clone(self.hosts.current()), Outcome::NotReached);
            }
        }

        fn recover(&self) {
            if self.hosts.start_recovery_check(&self.outage, self.now.get()) {
                self.run(CheckReason::Recovery, |host| self.check(host));
            }
        }

        fn pass(&self, time: Duration) {
            self.now.set(self.now.get() + time);
        }

        fn current(&self) -> &str {
            self.hosts.current().name().as_str()
        }

        fn events(&self) -> Vec<i32> {
            std::iter::from_fn(|| self.events.pop()).map(|event| event.log_id()).collect()
        }

        fn checks(&self) -> usize {
            self.checks.get()
        }
    }

    const A: &str = "sts.a.com";
    const B: &str = "sts.b.com";
    const C: &str = "sts.c.com";

    /// Between two checks for suspect attempts, and between two others.
    const SUSPICION: Duration = Duration::from_secs(1);
    const RECOVERY: Duration = Duration::from_secs(5);
    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn miri_attempts_move_no_host_that_answers_the_constant_request() {
        let world = World::new(&[A, B]);
        world.set_up(&[A, B]);
        world.suspect(50 * SUSPECT_ATTEMPTS);
        assert_eq!((world.current(), world.events(), world.checks()), (A, vec![], 1), "one check in one interval");
        world.pass(SUSPICION - SHORT);
        world.suspect(SUSPECT_ATTEMPTS);
        assert_eq!(world.checks(), 1, "it is too early");
        world.pass(SHORT);
        world.suspect(SUSPECT_ATTEMPTS);
        assert_eq!((world.current(), world.events(), world.checks()), (A, vec![], 2));
    }

    #[test]
    fn miri_an_unreachable_host_is_left_after_suspect_attempts_in_a_row() {
        let world = World::new(&[A, B, C]);
        world.set_up(&[C]);
        world.suspect(SUSPECT_ATTEMPTS - 1);
        let first = Arc::clone(world.hosts.first());
        world.attempt(&first, Outcome::Reached);
        world.suspect(SUSPECT_ATTEMPTS - 1);
        world.attempt(&first, Outcome::Inconclusive);
        assert_eq!((world.current(), world.checks()), (A, 0));
        world.suspect(1);
        assert_eq!(
            (world.current(), world.events()),
            (C, vec![88_000_004]),
            "the one that does not answer is passed over"
        );
        // Late outcomes of the first host.
        world.pass(RECOVERY);
        for _ in 0..2 * SUSPECT_ATTEMPTS {
            world.attempt(&first, Outcome::NotReached);
        }
        assert_eq!((world.current(), world.checks()), (C, 3));
        assert_eq!(world.metrics.fallback_switches.get(), 1);
    }

    #[test]
    fn miri_the_first_host_is_current_again_when_it_answers_the_constant_request() {
        let world = World::new(&[A, B]);
        world.set_up(&[B]);
        world.suspect(SUSPECT_ATTEMPTS);
        let checks = world.checks();
        world.pass(RECOVERY - SHORT);
        world.recover();
        assert_eq!((world.current(), world.checks()), (B, checks), "it is too early");
        world.pass(SHORT);
        world.recover();
        assert_eq!(
            (world.current(), world.checks()),
            (B, checks + 1),
            "it does not answer, and the current host is fine"
        );
        world.pass(RECOVERY);
        world.set_up(&[A, B]);
        world.recover();
        assert_eq!((world.current(), world.events()), (A, vec![88_000_004, 88_000_005]));
    }

    #[test]
    fn miri_an_unreachable_fallback_host_is_replaced_by_the_next_one_of_the_list() {
        let world = World::new(&[A, B, C]);
        world.set_up(&[C]);
        world.suspect(SUSPECT_ATTEMPTS);
        world.pass(RECOVERY);
        world.set_up(&[B]);
        world.suspect(SUSPECT_ATTEMPTS);
        assert_eq!((world.current(), world.events()), (B, vec![88_000_004, 88_000_004]));
    }

    #[test]
    fn miri_an_outage_of_all_hosts_begins_once_and_ends_once() {
        let world = World::new(&[A, B]);
        for _ in 0..5 {
            world.suspect(2 * SUSPECT_ATTEMPTS);
            world.pass(RECOVERY);
            world.recover();
            world.pass(RECOVERY);
        }
        let began = world.events.pop();
        assert_eq!(began, Some(Event::OutageBegan { hosts: format!("{A}, {B}") }));
        assert_eq!((world.current(), world.events()), (A, vec![]));
        world.set_up(&[B]);
        world.recover();
        assert_eq!(world.events.pop(), Some(Event::OutageEnded { host: B.to_owned(), seconds: 50 }));
        assert_eq!((world.current(), world.events()), (B, vec![88_000_004]));
    }

    #[test]
    fn miri_an_outage_that_a_parameter_has_ended_is_logged() {
        let world = World::new(&[A]);
        world.suspect(SUSPECT_ATTEMPTS);
        world.hosts.retire();
        let new = hosts(&[B]);
        assert!(!new.record_outcome(new.first(), Outcome::Reached, &world.outage, &world.events, world.now.get()));
        assert_eq!(world.events(), [88_000_006, 88_000_007]);
        world.pass(RECOVERY);
        world.suspect(SUSPECT_ATTEMPTS);
        world.run(CheckReason::Suspicion, |host| world.check(host));
        assert_eq!(world.events(), [0_i32; 0], "others are in force");
    }

    #[test]
    fn miri_a_check_that_lacks_resources_proves_nothing() {
        let world = World::new(&[A, B]);
        world.run(CheckReason::Suspicion, |_| Outcome::Inconclusive);
        assert_eq!((world.current(), world.events()), (A, vec![]));
    }

    #[test]
    fn miri_a_check_that_panics_ends() {
        let world = World::new(&[A]);
        let later = Instant::now() + Duration::from_secs(3600);
        assert!(world.hosts.lock().start_check(CheckReason::Suspicion, world.now.get()));
        assert!(!world.hosts.lock().start_check(CheckReason::Suspicion, later), "one at a time");
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _running = world.hosts.running_check();
            panic!("a defect");
        }));
        assert!(caught.is_err());
        assert!(world.hosts.lock().start_check(CheckReason::Suspicion, later));
        assert_eq!((world.current(), world.events()), (A, vec![]));
    }
}
