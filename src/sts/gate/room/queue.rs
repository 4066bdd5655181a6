//! The order of waiters, and when each is granted or refused what it waits for.
//!
//! The queue knows no threads and no clock: every step takes the time as an argument, and returns
//! the waiters that must be woken.

use std::collections::BTreeMap;
use std::time::Instant;

/// What waiters wait for.
pub trait Supply {
    /// Takes one unit, if one is available.
    fn take(&mut self, now: Instant) -> bool;

    /// Takes back one unit.
    fn give_back(&mut self);

    /// When the waiter with this many ahead of it can take its unit; None if only units that are
    /// given back can serve it, at a time that nobody knows.
    fn available_at(&self, now: Instant, ahead: usize) -> Option<Instant>;
}

/// How the wait of a waiter ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has its unit.
    Granted,
    /// It cannot have one before its deadline.
    Refused,
}

/// A place in the queue. The earliest deadline is first; of equal ones, the earliest arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    deadline: Instant,
    arrival: u64,
}

/// Waiters, and what they wait for. `W` is what wakes a waiter.
///
/// Whether the queue is too long is decided at its ends, where it costs nothing to know how many
/// are ahead: a waiter is refused when it is the first or the last and cannot be served in time.
/// All logins have the same time, so a new one is the last, and a second attempt among the first.
#[derive(Debug)]
pub struct Queue<S, W> {
    supply: S,
    waiters: BTreeMap<Ticket, W>,
    arrivals: u64,
    /// The waiter that sleeps only until the next unit is available; all others until their
    /// deadline.
    watching: Option<Ticket>,
}

impl<S: Supply, W: Clone> Queue<S, W> {
    /// An empty queue.
    pub fn new(supply: S) -> Self {
        Self { supply, waiters: BTreeMap::new(), arrivals: 0, watching: None }
    }

    /// What the waiters wait for.
    pub fn supply(&self) -> &S {
        &self.supply
    }

    /// What the waiters wait for. [`settle`](Self::settle) must follow.
    pub fn supply_mut(&mut self) -> &mut S {
        &mut self.supply
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Adds a waiter that has to be served before the deadline. [`settle`](Self::settle) must
    /// follow.
    pub fn enter(&mut self, deadline: Instant, waiter: W) -> Ticket {
        let ticket = Ticket { deadline, arrival: self.arrivals };
        self.arrivals += 1;
        self.waiters.insert(ticket, waiter);
        ticket
    }

    /// Grants and refuses all that can be granted or refused now: nobody whose deadline has come
    /// waits on. Returns the waiters to wake: those whose wait has ended, and the one, with None,
    /// that has to ask anew until when to sleep.
    pub fn settle(&mut self, now: Instant) -> Vec<(W, Option<Outcome>)> {
        let mut wakes = Vec::new();
        while let Some(first) = self.waiters.first_entry() {
            let soonest = self.supply.available_at(now, 0).unwrap_or(now).max(now);
            let outcome = if soonest >= first.key().deadline {
                Outcome::Refused
            } else if self.supply.take(now) {
                Outcome::Granted
            } else {
                break;
            };
            wakes.push((first.remove(), Some(outcome)));
        }
        loop {
            let ahead = self.waiters.len().saturating_sub(1);
            let Some(last) = self.waiters.last_entry() else { break };
            if self.supply.available_at(now, ahead).is_none_or(|at| at < last.key().deadline) {
                break;
            }
            wakes.push((last.remove(), Some(Outcome::Refused)));
        }
        if let Some((ticket, waiter)) = self.waiters.first_key_value()
            && self.watching != Some(*ticket)
            && self.supply.available_at(now, 0).is_some()
        {
            self.watching = Some(*ticket);
            wakes.push((waiter.clone(), None));
        }
        wakes
    }

    /// Until when a waiter can sleep, unless it is woken.
    pub fn sleeps_until(&self, ticket: Ticket, now: Instant) -> Instant {
        let watched = self.supply.available_at(now, 0).filter(|_| self.watching == Some(ticket));
        watched.map_or(ticket.deadline, |at| at.min(ticket.deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Slots;
    use super::*;
    use std::time::Duration;

    const GRANTED: Option<Outcome> = Some(Outcome::Granted);
    const REFUSED: Option<Outcome> = Some(Outcome::Refused);

    #[test]
    fn miri_a_slot_goes_to_the_earliest_deadline_and_then_to_the_earliest_arrival() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut queue = Queue::new(Slots::new(2));
        for (waiter, deadline) in [("a", 9), ("b", 8), ("c", 7), ("d", 6), ("e", 7)] {
            queue.enter(at(deadline), waiter);
            let woken = queue.settle(now);
            assert_eq!(woken, if "ab".contains(waiter) { vec![(waiter, GRANTED)] } else { vec![] });
        }
        for next in ["d", "c", "e"] {
            queue.supply_mut().give_back();
            assert_eq!(queue.settle(at(1)), [(next, GRANTED)]);
            assert_eq!(queue.settle(at(1)), []);
        }
        for free in [1, 2] {
            queue.supply_mut().give_back();
            assert_eq!(queue.settle(at(1)), []);
            assert_eq!(queue.supply().free(), free);
        }
    }

    #[test]
    fn miri_a_waiter_leaves_at_its_deadline_and_no_slot_is_lost() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut queue = Queue::new(Slots::new(1));
        queue.enter(at(9), "a");
        assert_eq!(queue.settle(now), [("a", GRANTED)]);
        let b = queue.enter(at(1), "b");
        queue.enter(at(3), "c");
        queue.enter(at(3), "d");
        let e = queue.enter(at(2), "e");
        assert_eq!(queue.settle(now), []);
        assert_eq!([b, e].map(|ticket| queue.sleeps_until(ticket, now)), [at(1), at(2)]);

        assert_eq!(queue.settle(at(1)), [("b", REFUSED)]);
        // A slot that is given back passes over those whose deadline has come meanwhile.
        queue.supply_mut().give_back();
        assert_eq!(queue.settle(at(2)), [("e", REFUSED), ("c", GRANTED)]);
        queue.supply_mut().give_back();
        assert_eq!(queue.settle(at(3)), [("d", REFUSED)]);
        assert_eq!((queue.supply().free(), queue.len()), (1, 0));

        queue.enter(at(3), "f");
        assert_eq!(queue.settle(at(3)), [("f", REFUSED)], "a free slot is of no use after the deadline");
        assert_eq!(queue.supply().free(), 1);
    }
}
