//! How many requests are in flight.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the requests in flight, and keeps their maximum.
#[derive(Default)]
pub(crate) struct InFlight {
    current: AtomicUsize,
    max: AtomicUsize,
}

impl InFlight {
    /// Counts one more until the returned guard is dropped.
    pub(crate) fn enter(&self) -> InFlightGuard<'_> {
        let current = self.current.fetch_add(1, Ordering::SeqCst) + 1;
        self.max.fetch_max(current, Ordering::SeqCst);
        InFlightGuard(self)
    }

    pub(crate) fn current(&self) -> usize {
        self.current.load(Ordering::SeqCst)
    }

    pub(crate) fn max(&self) -> usize {
        self.max.load(Ordering::SeqCst)
    }

    /// Sets the maximum to the current number.
    pub(crate) fn reset_max(&self) {
        self.max.store(self.current(), Ordering::SeqCst);
    }
}

pub(crate) struct InFlightGuard<'a>(&'a InFlight);

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.current.fetch_sub(1, Ordering::SeqCst);
    }
}
