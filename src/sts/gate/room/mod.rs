//! A waiting room: threads block in it until what they wait for is theirs, or until it is clear
//! that they cannot have it before their deadline.
//!
//! [`queue`] decides; this file locks, sleeps and wakes. Each waiter is woken by itself, and only
//! when its own wait ends or when it is the one that has to wake for the next unit.

pub mod queue;

use queue::{Outcome, Queue, Supply};
use std::fmt;
use std::ops::DerefMut;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// The wait cannot end before its deadline.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLate;

/// What blocks and wakes threads, and their clock. Tests replace it by that of a model checker.
pub trait Threading {
    /// A lock around a value.
    type Mutex<V>;
    /// The value while it is locked.
    type Guard<'a, V: 'a>: DerefMut<Target = V>;
    /// What one thread sleeps on.
    type Signal;

    /// Makes a lock.
    fn mutex<V>(&self, value: V) -> Self::Mutex<V>;

    /// Locks.
    fn lock<'a, V>(&self, mutex: &'a Self::Mutex<V>) -> Self::Guard<'a, V>;

    /// Makes a signal.
    fn signal(&self) -> Self::Signal;

    /// Unlocks and sleeps until the signal is raised or the time has come, then locks again. It may
    /// return earlier.
    fn sleep<'a, V>(&self, signal: &Self::Signal, guard: Self::Guard<'a, V>, until: Instant) -> Self::Guard<'a, V>;

    /// Wakes the thread that sleeps on the signal, if one does.
    fn wake(&self, signal: &Self::Signal);

    /// The time.
    fn now(&self) -> Instant;
}

/// The threads of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemThreading;

impl Threading for SystemThreading {
    type Mutex<V> = Mutex<V>;
    type Guard<'a, V: 'a> = MutexGuard<'a, V>;
    type Signal = Condvar;

    fn mutex<V>(&self, value: V) -> Mutex<V> {
        Mutex::new(value)
    }

    fn lock<'a, V>(&self, mutex: &'a Mutex<V>) -> MutexGuard<'a, V> {
        // Nothing in here panics between two changes that belong together.
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) -> Condvar {
        Condvar::new()
    }

    fn sleep<'a, V>(&self, signal: &Condvar, guard: Self::Guard<'a, V>, until: Instant) -> Self::Guard<'a, V> {
        let timeout = until.saturating_duration_since(self.now());
        signal.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0
    }

    fn wake(&self, signal: &Condvar) {
        signal.notify_one();
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// A queue of threads for the units of a supply.
pub struct Room<S, T: Threading = SystemThreading> {
    queue: T::Mutex<WaiterQueue<S, T>>,
    threading: T,
}

type WaiterQueue<S, T> = Queue<S, Arc<Waiter<<T as Threading>::Signal>>>;

/// A thread in the room.
struct Waiter<G> {
    signal: G,
    /// Written under the room's lock, before the thread is woken.
    ended: OnceLock<Outcome>,
}

impl<S: Supply> Room<S> {
    /// An empty room.
    pub fn new(supply: S) -> Self {
        Self::with_threading(supply, SystemThreading)
    }
}

impl<S: Supply, T: Threading> Room<S, T> {
    /// An empty room for threads of this kind.
    pub fn with_threading(supply: S, threading: T) -> Self {
        Self { queue: threading.mutex(Queue::new(supply)), threading }
    }

    /// Blocks until a unit of the supply is the caller's.
    ///
    /// # Errors
    /// When that cannot be before the deadline: at once, if that is clear at once.
    pub fn enter(&self, deadline: Instant) -> Result<(), TooLate> {
        let me = Arc::new(Waiter { signal: self.threading.signal(), ended: OnceLock::new() });
        let mut queue = self.lock();
        let ticket = queue.enter(deadline, Arc::clone(&me));
        loop {
            let now = self.threading.now();
            let in_time = now < deadline;
            if !in_time && me.ended.get() == Some(&Outcome::Granted) {
                // It was granted in time, but the thread ran too late: the next may have it.
                queue.supply_mut().give_back();
            }
            let woken = settle(&mut queue, now);
            let outcome = if in_time { me.ended.get().copied() } else { Some(Outcome::Refused) };
            if woken.is_empty() && outcome.is_none() {
                let until = queue.sleeps_until(ticket, now);
                queue = self.threading.sleep(&me.signal, queue, until);
                continue;
            }
            drop(queue);
            self.wake(&woken);
            match outcome {
                Some(Outcome::Granted) => return Ok(()),
                Some(Outcome::Refused) => return Err(TooLate),
                None => queue = self.lock(),
            }
        }
    }

    /// Gives back a unit that [`enter`](Self::enter) has granted.
    pub fn give_back(&self) {
        self.change(self.threading.now(), S::give_back);
    }

    /// Changes the supply, and wakes the waiters whose wait ends by that.
    pub fn change(&self, now: Instant, change: impl FnOnce(&mut S)) {
        let mut queue = self.lock();
        change(queue.supply_mut());
        let woken = settle(&mut queue, now);
        drop(queue);
        self.wake(&woken);
    }

    /// Reads the supply, and how many wait for it.
    pub fn read<R>(&self, read: impl FnOnce(&S, usize) -> R) -> R {
        let queue = self.lock();
        read(queue.supply(), queue.len())
    }

    fn lock(&self) -> T::Guard<'_, WaiterQueue<S, T>> {
        self.threading.lock(&self.queue)
    }

    /// The room is not locked meanwhile, so that nobody wakes only to wait for the lock.
    fn wake(&self, woken: &[Arc<Waiter<T::Signal>>]) {
        for waiter in woken {
            self.threading.wake(&waiter.signal);
        }
    }
}

/// Ends the waits that end now, and returns the waiters to wake.
fn settle<S: Supply, G>(queue: &mut Queue<S, Arc<Waiter<G>>>, now: Instant) -> Vec<Arc<Waiter<G>>> {
    let end = |(waiter, ended): (Arc<Waiter<G>>, Option<Outcome>)| {
        if let Some(outcome) = ended {
            // A waiter is taken out of the queue when its wait ends, so this is the only time.
            let _ = waiter.ended.set(outcome);
        }
        waiter
    };
    queue.settle(now).into_iter().map(end).collect()
}

impl<S: Supply + fmt::Debug, T: Threading> fmt::Debug for Room<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read(|supply, waiting| {
            f.debug_struct("Room").field("supply", supply).field("waiting", &waiting).finish_non_exhaustive()
        })
    }
}

/// A number of slots, each of which one caller can hold at a time.
#[derive(Debug)]
pub struct Slots {
    free: usize,
}

impl Slots {
    /// This many slots, all free.
    pub fn new(count: usize) -> Self {
        Self { free: count }
    }

    /// How many are free.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.free
    }
}

impl Supply for Slots {
    fn take(&mut self, _now: Instant) -> bool {
        let is_free = self.free > 0;
        self.free -= usize::from(is_free);
        is_free
    }

    fn give_back(&mut self) {
        self.free += 1;
    }

    fn available_at(&self, _now: Instant, _ahead: usize) -> Option<Instant> {
        None
    }
}
