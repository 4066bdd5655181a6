//! Many logins that wait for a free STS request slot, or for the pace of a throttled account.

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};
use std::{process, ptr, thread};

use crate::pace::Pace;
use crate::report::{Limit, Report, Series};
use crate::room::{Room, Slots, TooLate};

const METHOD: &str = "\
What logins wait in before their request to STS, without server and STS: as many threads as waiters wait for one of \
64 slots. *Served*: the time from when the slots are given back until all waiters have had one, divided by their \
number. *Throttled*: how long a throttled response takes to slow down its account, whose waiters all wait on. The \
alternative wakes all waiters whenever a slot is given back; it is not measured with 20,000 waiters, where it would \
take minutes if the cost of each grows with their number.";

/// As many as a lane of the plugin has.
const SLOTS: usize = 64;
const FEW: usize = 200;
const MANY: usize = 20_000;
const REPETITIONS: usize = 5;
const THROTTLED_RESPONSES: u32 = 100;
/// Measurements of few waiters in each repetition; one alone would be too short.
const ROUNDS_OF_FEW: usize = 10;
/// Each waiter is a thread, and uses little of this.
const STACK: usize = 64 * 1024;
/// Later than the end of any measurement.
const FAR: Duration = Duration::from_secs(3600);

pub fn run(report: &mut Report) {
    let room = || Room::new(Slots::new(SLOTS));
    let (mut few, mut many, mut alternative) = (Measured::default(), Measured::default(), Series::default());
    for _ in 0..REPETITIONS {
        let rounds = (0..ROUNDS_OF_FEW).map(|_| serve(&room(), FEW)).collect::<Series>();
        few.served.add(rounds.median());
        few.throttled.add(throttle(FEW));
        many.served.add(serve(&room(), MANY));
        many.throttled.add(throttle(MANY));
        let rounds = (0..ROUNDS_OF_FEW).map(|_| serve(&OneCondvar::new(), FEW)).collect::<Series>();
        alternative.add(rounds.median());
    }

    report.part("Waiting", METHOD);
    let row = |name: &str, waiters: &str, served: &Series, throttled: Option<&Series>| {
        let throttled = throttled.map(|throttled| throttled.show(2)).unwrap_or_default();
        [name.to_owned(), waiters.to_owned(), served.show(1), throttled]
    };
    report.table(
        ["Waiting room", "Waiters", "served, µs", "throttled, µs"],
        &[
            row("plugin", "200", &few.served, Some(&few.throttled)),
            row("plugin", "20,000", &many.served, Some(&many.throttled)),
            row("all are woken", "200", &alternative, None),
        ],
    );
    let ratio = many.served.ratio_to(&few.served);
    report.goal("Waiting: time to serve one of 20,000, relative to one of 200", ratio, 2, Limit::AtMost(2.0), "");
    let ratio = many.throttled.ratio_to(&few.throttled);
    report.goal("Waiting: throttled with 20,000 waiters, relative to 200", ratio, 2, Limit::AtMost(4.0), "");
}

#[derive(Default)]
struct Measured {
    served: Series,
    throttled: Series,
}

/// What threads wait in for a slot.
trait WaitingRoom: Sync {
    /// Calls `hold` while it holds a slot.
    fn with_slot(&self, hold: impl FnOnce());

    /// How many wait for a slot.
    fn waiting(&self) -> usize;
}

impl WaitingRoom for Room<Slots> {
    fn with_slot(&self, hold: impl FnOnce()) {
        self.enter(Instant::now() + FAR).expect("a slot");
        hold();
        self.give_back();
    }

    fn waiting(&self) -> usize {
        self.read(|_, waiting| waiting)
    }
}

/// The alternative: waiters by deadline, and all of them wait for the same condition variable.
struct OneCondvar {
    /// How many slots are free, and who waits.
    state: Mutex<(usize, BTreeSet<(Instant, usize)>)>,
    changed: Condvar,
    arrivals: AtomicUsize,
}

impl OneCondvar {
    fn new() -> Self {
        let state = Mutex::new((SLOTS, BTreeSet::new()));
        Self { state, changed: Condvar::new(), arrivals: AtomicUsize::new(0) }
    }
}

impl WaitingRoom for OneCondvar {
    fn with_slot(&self, hold: impl FnOnce()) {
        let me = (Instant::now() + FAR, self.arrivals.fetch_add(1, Ordering::Relaxed));
        let mut state = self.state.lock().expect("the lock");
        state.1.insert(me);
        while state.0 == 0 || state.1.first() != Some(&me) {
            state = self.changed.wait(state).expect("the lock");
        }
        state.1.remove(&me);
        state.0 -= 1;
        drop(state);
        // There may be a slot for the next one, too.
        self.changed.notify_all();
        hold();
        self.state.lock().expect("the lock").0 += 1;
        self.changed.notify_all();
    }

    fn waiting(&self) -> usize {
        self.state.lock().expect("the lock").1.len()
    }
}

/// Returns the microseconds that each of the waiters takes to be served.
fn serve(room: &impl WaitingRoom, waiters: usize) -> f64 {
    let served = AtomicUsize::new(0);
    let (holding, all_hold) = mpsc::channel();
    let (all_served, end) = mpsc::channel();
    let wait = || {
        room.with_slot(|| ());
        if served.fetch_add(1, Ordering::SeqCst) + 1 == waiters {
            all_served.send(Instant::now()).expect("the main thread");
        }
    };
    thread::scope(|scope| {
        // Each holds a slot until its channel closes.
        let slots: Vec<mpsc::Sender<()>> = (0..SLOTS)
            .map(|_| {
                let (slot, closed) = mpsc::channel::<()>();
                let holding = holding.clone();
                let hold = move || {
                    holding.send(()).expect("the main thread");
                    let _ = closed.recv();
                };
                scope.spawn(move || room.with_slot(hold));
                slot
            })
            .collect();
        all_hold.iter().take(SLOTS).for_each(drop);
        with_threads(waiters, &wait, || {
            wait_for(waiters, || room.waiting());
            let begun = Instant::now();
            drop(slots);
            end.recv().expect("the last waiter").duration_since(begun).as_secs_f64() * 1e6 / waiters as f64
        })
    })
}

/// Returns the microseconds that a throttled response takes while this many wait.
fn throttle(waiters: usize) -> f64 {
    let room = Room::new(Pace::new(Instant::now()));
    let throttled = |retry_after| {
        let now = Instant::now();
        room.change(now, |pace| pace.throttled(now, Some(retry_after)));
    };
    throttled(FAR / 4);
    let wait = || assert_eq!(room.enter(Instant::now() + FAR), Err(TooLate));
    with_threads(waiters, &wait, || {
        wait_for(waiters, || room.read(|_, waiting| waiting));
        let begun = Instant::now();
        for response in 1..=THROTTLED_RESPONSES {
            throttled(FAR / 4 + Duration::from_secs(response.into()));
        }
        let took = begun.elapsed();
        // Nobody can be served any more.
        throttled(2 * FAR);
        took.as_secs_f64() * 1e6 / f64::from(THROTTLED_RESPONSES)
    })
}

/// Runs `run` on this many threads, and `meanwhile` on this one.
///
/// They are not threads of Rust's standard library, which maps memory for a signal handler for
/// each: with 20,000 of them a process would exceed the default limit of mappings.
fn with_threads<R>(count: usize, run: &(dyn Fn() + Sync), meanwhile: impl FnOnce() -> R) -> R {
    extern "C" fn start(run: *mut c_void) -> *mut c_void {
        // SAFETY: points to `run` below, which lives until all threads have been joined.
        let run = unsafe { &*run.cast::<&(dyn Fn() + Sync)>() };
        run();
        ptr::null_mut()
    }

    let at_panic = AbortAtPanic;
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: initialises the attributes, which nobody else has.
    let set_up = unsafe {
        libc::pthread_attr_init(attributes.as_mut_ptr()) == 0
            && libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK) == 0
    };
    assert!(set_up, "attributes of threads");
    let threads: Vec<libc::pthread_t> = (0..count)
        .map(|_| {
            let mut thread = 0;
            let argument = ptr::from_ref(&run).cast_mut().cast();
            // SAFETY: the attributes are initialised; `run` can be called by any thread, and lives
            // until they are joined.
            let error = unsafe { libc::pthread_create(&mut thread, attributes.as_ptr(), start, argument) };
            assert_eq!(error, 0, "a thread for each waiter");
            thread
        })
        .collect();
    let result = meanwhile();
    for thread in threads {
        // SAFETY: made above, and joined once.
        assert_eq!(unsafe { libc::pthread_join(thread, ptr::null_mut()) }, 0, "a thread that ends");
    }
    drop(at_panic);
    result
}

/// Keeps threads from using values that a panic would drop.
struct AbortAtPanic;

impl Drop for AbortAtPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            process::abort();
        }
    }
}

/// Waits until this many wait, and are asleep.
fn wait_for(count: usize, waiting: impl Fn() -> usize) {
    while waiting() < count {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(100));
}
