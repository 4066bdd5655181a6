//! Metrics for the server's `serverStatus`: counted without a lock, so no login ever waits for
//! them. Counters and histograms only grow and are never reset; gauges show the current number.

use crate::denial::{Cause, Kind};
use bson::raw::{CStr, RawDocumentBuf, cstr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The metrics since the process started.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Conversations that were started.
    pub started: Counter,
    /// Conversations in which STS confirmed the client.
    pub confirmed: Counter,
    /// Confirmed conversations for which the server did not report a login.
    pub not_reported: Counter,
    /// Denials, by cause.
    pub denied: Denials,
    /// Requests to STS, including those that could not be sent.
    pub sts_requests: Counter,
    /// Requests that repeated an earlier one of the same login.
    pub sts_retries: Counter,
    /// Throttling responses of STS.
    pub sts_throttled: Counter,
    /// Responses of STS, by status class: 2xx, 3xx, 4xx and 5xx.
    pub sts_answers: [Counter; 4],
    /// How often new logins changed to another STS host.
    pub fallback_switches: Counter,
    /// TLS connections to STS that were made.
    pub connections_opened: Counter,
    /// Requests on a connection that had carried an earlier one.
    pub connections_reused: Counter,
    /// Open TLS connections to STS, including idle ones.
    pub connections_open: Gauge,
    /// Requests to STS without a response yet.
    pub sts_in_flight: Gauge,
    /// Logins that wait for a free STS request slot.
    pub sts_queued: Gauge,
    /// The time logins spent in the plugin, without the time between the client's messages.
    pub login_latency: Histogram,
    /// The time from a request to the end of its response, including a new connection if one was
    /// made.
    pub sts_latency: Histogram,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicI64);

impl Counter {
    /// Counts one more.
    pub fn add(&self) {
        self.add_many(1);
    }

    fn add_many(&self, amount: i64) {
        // Relaxed, since no other memory depends on the count.
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The current number of something.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Counts one more until the returned guard is dropped.
    pub fn hold(&self) -> GaugeGuard<'_> {
        self.enter();
        GaugeGuard(self)
    }

    /// Counts one more. Each call needs a call of [`Gauge::leave`].
    pub fn enter(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one less.
    pub fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The current number.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keeps one counted in a gauge until it is dropped.
#[derive(Debug)]
pub struct GaugeGuard<'a>(&'a Gauge);

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Denials, by cause.
#[derive(Debug, Default)]
pub struct Denials([Counter; Cause::ALL.len()]);

impl Denials {
    /// Counts one denial of this cause.
    pub fn add(&self, cause: Cause) {
        self.0[cause as usize].add();
    }

    /// The number of denials of this cause.
    pub fn of_cause(&self, cause: Cause) -> i64 {
        self.0[cause as usize].get()
    }

    /// The number of denials of this kind.
    pub fn of_kind(&self, kind: Kind) -> i64 {
        Cause::ALL.iter().filter(|(cause, _)| cause.kind() == kind).map(|(cause, _)| self.of_cause(*cause)).sum()
    }
}

/// The upper bounds of a histogram's buckets, in milliseconds, with their names in serverStatus.
/// The last is the maximum of awsStsTimeoutMS; longer durations are only in the count.
const BUCKETS: [(u64, &CStr); 15] = [
    (1, cstr!("atMost1ms")),
    (2, cstr!("atMost2ms")),
    (5, cstr!("atMost5ms")),
    (10, cstr!("atMost10ms")),
    (20, cstr!("atMost20ms")),
    (50, cstr!("atMost50ms")),
    (100, cstr!("atMost100ms")),
    (200, cstr!("atMost200ms")),
    (500, cstr!("atMost500ms")),
    (1_000, cstr!("atMost1s")),
    (2_000, cstr!("atMost2s")),
    (5_000, cstr!("atMost5s")),
    (10_000, cstr!("atMost10s")),
    (30_000, cstr!("atMost30s")),
    (60_000, cstr!("atMost60s")),
];

/// The distribution of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The counts of each bucket alone, not cumulative. The last is for durations above all bounds.
    buckets: [Counter; BUCKETS.len() + 1],
    total_micros: Counter,
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&self, took: Duration) {
        let bucket = BUCKETS.partition_point(|(bound, _)| Duration::from_millis(*bound) < took);
        self.buckets[bucket].add();
        self.total_micros.add_many(i64::try_from(took.as_micros()).unwrap_or(i64::MAX));
    }

    /// `{count, totalMicros, atMost1ms, ...}`; the buckets are cumulative, as in Prometheus.
    fn to_bson(&self) -> RawDocumentBuf {
        let mut sum = 0;
        let cumulative: Vec<i64> = self
            .buckets
            .iter()
            .map(|bucket| {
                sum += bucket.get();
                sum
            })
            .collect();
        let mut document = RawDocumentBuf::new();
        document.append(cstr!("count"), sum);
        document.append(cstr!("totalMicros"), self.total_micros.get());
        for ((_, name), count) in BUCKETS.iter().zip(cumulative) {
            document.append(*name, count);
        }
        document
    }
}

impl Metrics {
    /// The documents `{logins, sts, latency}` of the section in `serverStatus`; see
    /// docs/monitoring.md.
    pub fn to_bson(&self) -> RawDocumentBuf {
        let mut denied = RawDocumentBuf::new();
        for (kind, name) in Kind::ALL {
            denied.append(name, self.denied.of_kind(kind));
        }
        let mut reasons = RawDocumentBuf::new();
        for (cause, name) in Cause::ALL {
            reasons.append(name, self.denied.of_cause(cause));
        }
        let mut logins = RawDocumentBuf::new();
        logins.append(cstr!("started"), self.started.get());
        logins.append(cstr!("confirmed"), self.confirmed.get());
        logins.append(cstr!("notReported"), self.not_reported.get());
        logins.append(cstr!("denied"), denied);
        logins.append(cstr!("reasons"), reasons);

        let mut answers = RawDocumentBuf::new();
        let classes = [cstr!("status2xx"), cstr!("status3xx"), cstr!("status4xx"), cstr!("status5xx")];
        for (name, count) in classes.into_iter().zip(&self.sts_answers) {
            answers.append(name, count.get());
        }
        let mut connections = RawDocumentBuf::new();
        connections.append(cstr!("opened"), self.connections_opened.get());
        connections.append(cstr!("reused"), self.connections_reused.get());
        connections.append(cstr!("open"), self.connections_open.get());
        let mut sts = RawDocumentBuf::new();
        sts.append(cstr!("requests"), self.sts_requests.get());
        sts.append(cstr!("retries"), self.sts_retries.get());
        sts.append(cstr!("throttled"), self.sts_throttled.get());
        sts.append(cstr!("fallbackSwitches"), self.fallback_switches.get());
        sts.append(cstr!("answers"), answers);
        sts.append(cstr!("connections"), connections);
        sts.append(cstr!("inFlight"), self.sts_in_flight.get());
        sts.append(cstr!("queued"), self.sts_queued.get());

        let mut latency = RawDocumentBuf::new();
        latency.append(cstr!("logins"), self.login_latency.to_bson());
        latency.append(cstr!("sts"), self.sts_latency.to_bson());

        let mut section = RawDocumentBuf::new();
        section.append(cstr!("logins"), logins);
        section.append(cstr!("sts"), sts);
        section.append(cstr!("latency"), latency);
        section
    }

    /// Counts a response of STS by its status class.
    pub fn count_answer(&self, status: u16) {
        // 1xx never gets here; statuses of 600 and above count as 5xx.
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        self.sts_answers[class].add();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::Document;

    fn shown(metrics: &Metrics) -> Document {
        Document::try_from(metrics.to_bson()).unwrap()
    }

    #[test]
    fn miri_each_denial_is_counted_by_its_cause_and_by_its_kind() {
        for (cause, name) in Cause::ALL {
            let metrics = Metrics::default();
            metrics.denied.add(cause);
            let section = shown(&metrics);
            let logins = section.get_document("logins").unwrap();
            let ones = |group: &str| -> Vec<String> {
                let group = logins.get_document(group).unwrap();
                group.iter().filter(|(_, count)| count.as_i64() == Some(1)).map(|(name, _)| name.clone()).collect()
            };
            assert_eq!(ones("reasons"), [name.as_str()]);
            assert_eq!(ones("denied").len(), 1, "{name}");
        }
    }

    #[test]
    fn miri_buckets_of_a_histogram_are_cumulative() {
        let histogram = Histogram::default();
        for micros in [0, 1000, 1001, 59_999_999, 60_000_001] {
            histogram.add(Duration::from_micros(micros));
        }
        let shown = Document::try_from(histogram.to_bson()).unwrap();
        let count = |name: &str| shown.get_i64(name).unwrap();
        assert_eq!((count("count"), count("totalMicros")), (5, 120_002_001));
        assert_eq!((count("atMost1ms"), count("atMost2ms"), count("atMost30s"), count("atMost60s")), (2, 3, 3, 4));
    }

    #[test]
    fn miri_a_gauge_counts_each_guard_until_it_is_dropped() {
        let metrics = Metrics::default();
        let held = [metrics.sts_queued.hold(), metrics.sts_queued.hold()];
        assert_eq!(shown(&metrics).get_document("sts").unwrap().get_i64("queued").unwrap(), 2);
        drop(held);
        assert_eq!(metrics.sts_queued.get(), 0);
    }

    #[test]
    fn miri_responses_are_counted_by_status_class() {
        let metrics = Metrics::default();
        for status in [200, 204, 302, 403, 500, 999] {
            metrics.count_answer(status);
        }
        assert_eq!(metrics.sts_answers.each_ref().map(Counter::get), [2, 1, 1, 2]);
    }
}
