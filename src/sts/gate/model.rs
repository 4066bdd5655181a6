//! Rooms under a model checker: loom runs each model in every order of its threads' steps that has
//! at most a given number of preemptions.
//!
//! Loom has no timeouts. Here, one thread of a model sets the clock and wakes the threads whose
//! time has come, at any point that loom chooses, but never for a deadline of [`NEVER`]. So a
//! waiter whose wake-up is lost sleeps for ever: loom reports a deadlock, or too many branches.

use super::pace::Pace;
use super::room::queue::Supply;
use super::room::{Room, Slots, Threading};
use loom::sync::atomic::AtomicU64;
use loom::sync::{Condvar, Mutex, MutexGuard};
use loom::thread;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A deadline that does not come.
const NEVER: u64 = 1_000_000;

type Alarm = (Instant, Arc<Condvar>);

/// Threads of loom, and a clock of milliseconds that [`Model::pass_time`] sets.
#[derive(Clone)]
struct Modelled {
    /// Plants a defect, for a test that shows that models can fail.
    loses_wakes: bool,
    clock: Arc<AtomicU64>,
    /// Until when each thread sleeps. Loom need not see this lock, since it switches between
    /// threads only at steps of its own types.
    alarms: Arc<std::sync::Mutex<Vec<Alarm>>>,
}

impl Threading for Modelled {
    type Mutex<V> = Mutex<V>;
    type Guard<'a, V: 'a> = MutexGuard<'a, V>;
    type Signal = Arc<Condvar>;

    fn mutex<V>(&self, value: V) -> Mutex<V> {
        Mutex::new(value)
    }

    fn lock<'a, V>(&self, mutex: &'a Mutex<V>) -> MutexGuard<'a, V> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) -> Arc<Condvar> {
        Arc::new(Condvar::new())
    }

    fn sleep<'a, V>(&self, signal: &Arc<Condvar>, guard: Self::Guard<'a, V>, until: Instant) -> Self::Guard<'a, V> {
        if self.now() >= until {
            return guard;
        }
        self.alarms.lock().unwrap().push((until, Arc::clone(signal)));
        let guard = signal.wait(guard).unwrap_or_else(PoisonError::into_inner);
        self.alarms.lock().unwrap().retain(|(_, other)| !Arc::ptr_eq(other, signal));
        guard
    }

    fn wake(&self, signal: &Arc<Condvar>) {
        if !self.loses_wakes {
            signal.notify_one();
        }
    }

    fn now(&self) -> Instant {
        at(self.clock.load(Ordering::SeqCst))
    }
}

fn at(ms: u64) -> Instant {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    *BEGUN.get_or_init(Instant::now) + Duration::from_millis(ms)
}

/// A room, and the threads that use it.
struct Model<S> {
    room: Arc<Room<S, Modelled>>,
    threading: Modelled,
    holders: Arc<AtomicUsize>,
    running: Arc<loom::sync::atomic::AtomicUsize>,
}

impl<S: Supply + Send + Sync + 'static> Model<S> {
    fn new(supply: S) -> Self {
        Self::with(supply, false)
    }

    fn with(supply: S, loses_wakes: bool) -> Self {
        let threading = Modelled { loses_wakes, clock: Arc::new(AtomicU64::new(0)), alarms: Arc::default() };
        let room = Arc::new(Room::with_threading(supply, threading.clone()));
        Self { room, threading, holders: Arc::default(), running: Arc::default() }
    }

    fn spawn<R: 'static>(&self, act: impl FnOnce(&Self) -> R + 'static) -> thread::JoinHandle<R> {
        let Self { room, threading, holders, running } = self;
        running.fetch_add(1, Ordering::SeqCst);
        let model = Self {
            room: Arc::clone(room),
            threading: threading.clone(),
            holders: Arc::clone(holders),
            running: Arc::clone(running),
        };
        thread::spawn(move || {
            let result = act(&model);
            model.running.fetch_sub(1, Ordering::SeqCst);
            result
        })
    }

    /// Lets time pass, from one deadline or moment to the next, while other threads run.
    fn pass_time(&self) {
        while self.running.load(Ordering::SeqCst) > 0 {
            let next = self.threading.alarms.lock().unwrap().iter().map(|alarm| alarm.0).min();
            if let Some(next) = next.filter(|next| *next < at(NEVER)) {
                let ms = next.duration_since(at(0)).as_millis() as u64;
                self.threading.clock.fetch_max(ms, Ordering::SeqCst);
                // The lock keeps threads from falling asleep meanwhile.
                self.room.read(|_, _| {
                    let due = self.threading.alarms.lock().unwrap().clone();
                    due.iter().filter(|alarm| alarm.0 <= next).for_each(|alarm| alarm.1.notify_one());
                });
            }
            thread::yield_now();
        }
    }
}

impl Model<Slots> {
    /// Holds a slot for a while, if one is granted before the deadline. Returns whether one was.
    fn use_slot(&self, deadline: u64, slots: usize) -> bool {
        let is_granted = self.room.enter(at(deadline)).is_ok();
        if is_granted {
            let holders = self.holders.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(holders <= slots, "{holders} hold {slots} slots");
            thread::yield_now();
            self.holders.fetch_sub(1, Ordering::SeqCst);
            self.room.give_back();
        }
        is_granted
    }

    fn assert_all_free(&self, slots: usize) {
        self.room.read(|supply, waiting| assert_eq!((supply.free(), waiting), (slots, 0)));
    }
}

/// Runs the model in all orders with at most this many preemptions, which are switches away from a
/// thread that could go on.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut loom = loom::model::Builder::new();
    loom.preemption_bound = Some(preemptions);
    loom.check(model);
}

#[test]
fn every_waiter_gets_the_slot_and_one_holds_it_at_a_time() {
    check(3, || {
        let model = Model::new(Slots::new(1));
        let waiters = [(); 2].map(|()| model.spawn(|model| model.use_slot(NEVER, 1)));
        assert!(model.use_slot(NEVER, 1));
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
        model.assert_all_free(1);
    });
}

#[test]
fn two_slots_serve_three_waiters_and_two_hold_them_at_a_time() {
    check(3, || {
        let model = Model::new(Slots::new(2));
        let waiters = [(); 2].map(|()| model.spawn(|model| model.use_slot(NEVER, 2)));
        assert!(model.use_slot(NEVER, 2));
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
        model.assert_all_free(2);
    });
}

#[test]
fn a_waiter_that_times_out_takes_no_slot_with_it() {
    check(1, || {
        let model = Model::new(Slots::new(1));
        assert_eq!(model.room.enter(at(NEVER)), Ok(()));
        let served = [(); 2].map(|()| model.spawn(|model| model.use_slot(NEVER, 1)));
        let hurried = model.spawn(|model| model.use_slot(1, 1));
        model.room.give_back();
        model.pass_time();
        assert!(served.into_iter().all(|waiter| waiter.join().unwrap()));
        hurried.join().unwrap();
        model.assert_all_free(1);
    });
}

fn throttled_pace() -> Pace {
    let mut pace = Pace::new(at(0));
    pace.throttled(at(0), Some(Duration::from_millis(1)));
    pace
}

#[test]
fn every_request_of_a_paced_account_is_sent_in_time_or_refused() {
    check(2, || {
        let model = Model::new(throttled_pace());
        let served = model.spawn(|model| model.room.enter(at(NEVER)));
        let hurried = model.spawn(|model| {
            let result = model.room.enter(at(3));
            assert!(result.is_err() || model.threading.now() >= at(1));
        });
        model.pass_time();
        assert_eq!(served.join().unwrap(), Ok(()));
        hurried.join().unwrap();
        model.room.read(|_, waiting| assert_eq!(waiting, 0));
    });
}

#[test]
fn throttling_ends_the_wait_of_those_that_it_makes_too_late() {
    check(2, || {
        let model = Model::new(throttled_pace());
        let waiters = [(); 2].map(|()| model.spawn(|model| model.room.enter(at(NEVER))));
        // One more request can be sent in time, and no second one.
        model.room.change(at(0), |pace| pace.throttled(at(0), Some(Duration::from_millis(NEVER - 1))));
        model.pass_time();
        waiters.into_iter().for_each(|waiter| drop(waiter.join().unwrap()));
        model.room.read(|_, waiting| assert_eq!(waiting, 0));
    });
}

/// A planted defect: wake-ups are lost.
#[test]
#[should_panic(expected = "deadlock")]
fn a_lost_wake_up_is_seen() {
    check(2, || {
        let model = Model::with(Slots::new(1), true);
        let waiter = model.spawn(|model| model.use_slot(NEVER, 1));
        model.use_slot(NEVER, 1);
        waiter.join().unwrap();
    });
}

/// A planted defect: a slot is not given back.
#[test]
#[should_panic(expected = "deadlock")]
fn a_lost_slot_is_seen() {
    check(2, || {
        let model = Model::new(Slots::new(1));
        let waiter = model.spawn(|model| model.use_slot(NEVER, 1));
        assert_eq!(model.room.enter(at(NEVER)), Ok(()));
        waiter.join().unwrap();
    });
}

/// A planted defect: there is a slot too many.
#[test]
#[should_panic(expected = "2 hold 1 slots")]
fn a_slot_too_many_is_seen() {
    check(2, || {
        let model = Model::new(Slots::new(2));
        let waiter = model.spawn(|model| model.use_slot(NEVER, 1));
        model.use_slot(NEVER, 1);
        waiter.join().unwrap();
    });
}
