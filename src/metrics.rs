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
    /// Requests that were sent to STS, or tried to.
    pub sts_requests: Counter,
    /// Those of them that asked the same once more.
    pub sts_retries: Counter,
    /// Answers of STS that it limits the account's requests.
    pub sts_throttled: Counter,
    /// How often new logins were told another STS host.
    pub fallback_switches: Counter,
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
    /// The section of `serverStatus`: the version, the STS host that new logins are told, and the counters, as
    /// `{version, stsHost, logins: {started, confirmed, denied: {malformedMessage, refusedBySts,
    /// accountNotAllowed, stsUnavailable, internal}}, sts: {requests, retries, throttled, fallbackSwitches}}`.
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
        let mut sts = RawDocumentBuf::new();
        sts.append(cstr!("requests"), self.sts_requests.get());
        sts.append(cstr!("retries"), self.sts_retries.get());
        sts.append(cstr!("throttled"), self.sts_throttled.get());
        sts.append(cstr!("fallbackSwitches"), self.fallback_switches.get());
        section.append(cstr!("sts"), sts);
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn miri_the_section_shows_what_was_counted() {
        let metrics = Metrics::default();
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
            "sts": { "requests": 0_i64, "retries": 0_i64, "throttled": 0_i64, "fallbackSwitches": 0_i64 },
        };
        assert_eq!(metrics.to_bson("sts.amazonaws.com"), expected);
    }
}
