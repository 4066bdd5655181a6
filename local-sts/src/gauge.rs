//! How many requests are under way.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts those who are in, and remembers the most there ever were.
#[derive(Default)]
pub(crate) struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Gauge {
    /// Counts one more until what is returned is dropped.
    pub(crate) fn enter(&self) -> Inside<'_> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Inside(self)
    }

    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// Begins anew with those who are in now.
    pub(crate) fn forget_most(&self) {
        self.most.store(self.now(), Ordering::SeqCst);
    }
}

pub(crate) struct Inside<'a>(&'a Gauge);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}
