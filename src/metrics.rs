//! Counters for the server's `serverStatus`: cheap to count, monotonic, never reset.

use bson::raw::{RawDocumentBuf, cstr};
use std::sync::atomic::{AtomicI64, Ordering};

/// How logins went since the process began.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Conversations that were begun.
    pub started: Counter,
    /// Conversations in which STS confirmed the client.
    pub confirmed: Counter,
    /// Denials because the client's message was wrong.
    pub denied_malformed: Counter,
    /// Denials because STS said no.
    pub denied_by_sts: Counter,
    /// Denials because the account is not on the operator's list.
    pub denied_account: Counter,
    /// Denials because STS could not be asked in time.
    pub denied_sts_unavailable: Counter,
    /// Denials because the plugin could not go on.
    pub denied_internal: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicI64);

impl Counter {
    /// Counts one more.
    pub fn add(&self) {
        // No other memory is published by it, so that no order is needed.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// The counters of a process that has counted nothing.
    pub const fn new() -> Self {
        const fn zero() -> Counter {
            Counter(AtomicI64::new(0))
        }
        Self {
            started: zero(),
            confirmed: zero(),
            denied_malformed: zero(),
            denied_by_sts: zero(),
            denied_account: zero(),
            denied_sts_unavailable: zero(),
            denied_internal: zero(),
        }
    }

    /// The section of `serverStatus`: the version, the STS host in force and the counters, as
    /// `{version, stsHost, logins: {started, confirmed, denied: {malformedMessage, refusedBySts,
    /// accountNotAllowed, stsUnavailable, internal}}}`.
    pub fn to_bson(&self, sts_host: &str) -> RawDocumentBuf {
        let mut denied = RawDocumentBuf::new();
        denied.append(cstr!("malformedMessage"), self.denied_malformed.get());
        denied.append(cstr!("refusedBySts"), self.denied_by_sts.get());
        denied.append(cstr!("accountNotAllowed"), self.denied_account.get());
        denied.append(cstr!("stsUnavailable"), self.denied_sts_unavailable.get());
        denied.append(cstr!("internal"), self.denied_internal.get());
        let mut logins = RawDocumentBuf::new();
        logins.append(cstr!("started"), self.started.get());
        logins.append(cstr!("confirmed"), self.confirmed.get());
        logins.append(cstr!("denied"), denied);
        let mut section = RawDocumentBuf::new();
        section.append(cstr!("version"), env!("CARGO_PKG_VERSION"));
        section.append(cstr!("stsHost"), sts_host);
        section.append(cstr!("logins"), logins);
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn miri_the_section_shows_what_was_counted() {
        let metrics = Metrics::new();
        metrics.started.add();
        metrics.started.add();
        metrics.denied_by_sts.add();
        let expected = rawdoc! {
            "version": env!("CARGO_PKG_VERSION"),
            "stsHost": "sts.amazonaws.com",
            "logins": {
                "started": 2_i64,
                "confirmed": 0_i64,
                "denied": {
                    "malformedMessage": 0_i64, "refusedBySts": 1_i64, "accountNotAllowed": 0_i64,
                    "stsUnavailable": 0_i64, "internal": 0_i64,
                },
            },
        };
        assert_eq!(metrics.to_bson("sts.amazonaws.com"), expected);
    }
}
