//! Metrics for the server's `serverStatus`: counted without a lock, so no login ever waits for
//! them. Counters and histograms only grow and are never reset; gauges show the current number.

use crate::denial::{Cause, Kind};
use bson::raw::{CStr, RawDocumentBuf, cstr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Defines [`Metrics`]: each row is a field, its type and its place in the section of
/// `serverStatus`, whose documents [`Metrics::append_to`] writes in the order of the rows. Rows of
/// one document stand together.
macro_rules! metrics {
    ($($(#[$attribute:meta])* $field:ident: $type:ty => $($place:literal).+;)+) => {
        /// The metrics since the process started.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[$attribute])* pub $field: $type,)+
        }

        impl Metrics {
            /// Appends every number to the section of `serverStatus`; docs/monitoring.md describes
            /// them.
            pub fn append_to(&self, section: &mut RawDocumentBuf) {
                let mut writer = Writer::new(section);
                $(writer.append(&[$(cstr!($place)),+], &self.$field);)+
                writer.close(0);
            }
        }
    };
}

metrics! {
    /// Conversations that were started.
    started: Counter => "logins"."started";
    /// Conversations in which STS confirmed the client.
    confirmed: Counter => "logins"."confirmed";
    /// Confirmed conversations for which the server did not report a login.
    not_reported: Counter => "logins"."notReported";
    /// Denials, by kind and by cause.
    denied: Denials => "logins"."denied";
    /// Requests to STS, including those that could not be sent.
    sts_requests: Counter => "sts"."requests";
    /// Requests that repeated an earlier one of the same login.
    sts_retries: Counter => "sts"."retries";
    /// Throttling responses of STS.
    sts_throttled: Counter => "sts"."throttled";
    /// Failovers to another STS host for new logins.
    fallback_switches: Counter => "sts"."fallbackSwitches";
    /// Responses of STS, by status class.
    sts_answers: StatusClasses => "sts"."answers";
    /// TLS connections to STS that were made.
    connections_opened: Counter => "sts"."connections"."opened";
    /// Requests on a connection that had carried an earlier one.
    connections_reused: Counter => "sts"."connections"."reused";
    /// Open TLS connections to STS, including idle ones.
    connections_open: Gauge => "sts"."connections"."open";
    /// Requests to STS without a response yet.
    sts_in_flight: Gauge => "sts"."inFlight";
    /// Logins that wait for a free STS request slot.
    sts_queued: Gauge => "sts"."queued";
    /// The time logins spent in the plugin, without the time between the client's messages.
    login_latency: Histogram => "latency"."logins";
    /// The time from a request to the end of its response, including a new connection if one was
    /// made.
    sts_latency: Histogram => "latency"."sts";
}

/// What a row of the metrics appends to its document.
trait Measure {
    fn append_to(&self, document: &mut RawDocumentBuf, name: &CStr);
}

/// Writes nested documents in one pass: opens and closes them as the places of the values need it.
struct Writer<'a> {
    section: &'a mut RawDocumentBuf,
    /// The documents that are open, each inside the one before it.
    open: Vec<(&'static CStr, RawDocumentBuf)>,
}

impl<'a> Writer<'a> {
    fn new(section: &'a mut RawDocumentBuf) -> Self {
        Self { section, open: Vec::new() }
    }

    fn append(&mut self, place: &[&'static CStr], value: &impl Measure) {
        let Some((name, documents)) = place.split_last() else { return };
        let shared = self.open.iter().zip(documents).take_while(|((open, _), wanted)| open == *wanted).count();
        self.close(shared);
        self.open.extend(documents[shared..].iter().map(|name| (*name, RawDocumentBuf::new())));
        value.append_to(self.innermost(), name);
    }

    /// Closes documents until so many are open.
    fn close(&mut self, depth: usize) {
        while self.open.len() > depth
            && let Some((name, document)) = self.open.pop()
        {
            self.innermost().append(name, document);
        }
    }

    fn innermost(&mut self) -> &mut RawDocumentBuf {
        self.open.last_mut().map_or(&mut *self.section, |(_, document)| document)
    }
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

impl Measure for Counter {
    fn append_to(&self, document: &mut RawDocumentBuf, name: &CStr) {
        document.append(name, self.get());
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

impl Measure for Gauge {
    fn append_to(&self, document: &mut RawDocumentBuf, name: &CStr) {
        document.append(name, self.get());
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

impl Measure for Denials {
    /// The denials by kind under the name, and beside it those by cause as `reasons`.
    fn append_to(&self, document: &mut RawDocumentBuf, name: &CStr) {
        let mut kinds = RawDocumentBuf::new();
        for (kind, name) in Kind::ALL {
            kinds.append(name, self.of_kind(kind));
        }
        let mut reasons = RawDocumentBuf::new();
        for (cause, name) in Cause::ALL {
            reasons.append(name, self.of_cause(cause));
        }
        document.append(name, kinds);
        document.append(cstr!("reasons"), reasons);
    }
}

/// Responses of STS by status class: 2xx, 3xx, 4xx and 5xx.
#[derive(Debug, Default)]
pub struct StatusClasses([Counter; 4]);

impl StatusClasses {
    /// Counts a response with this status.
    pub fn add(&self, status: u16) {
        // 1xx never gets here; statuses of 600 and above count as 5xx.
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        self.0[class].add();
    }
}

impl Measure for StatusClasses {
    fn append_to(&self, document: &mut RawDocumentBuf, name: &CStr) {
        let mut classes = RawDocumentBuf::new();
        let names = [cstr!("status2xx"), cstr!("status3xx"), cstr!("status4xx"), cstr!("status5xx")];
        for (name, count) in names.into_iter().zip(&self.0) {
            classes.append(name, count.get());
        }
        document.append(name, classes);
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
}

impl Measure for Histogram {
    /// `{count, totalMicros, atMost1ms, ...}`; the buckets are cumulative, as in Prometheus.
    fn append_to(&self, document: &mut RawDocumentBuf, name: &CStr) {
        let mut sum = 0;
        let cumulative = self.buckets.each_ref().map(|bucket| {
            sum += bucket.get();
            sum
        });
        let mut histogram = RawDocumentBuf::new();
        histogram.append(cstr!("count"), sum);
        histogram.append(cstr!("totalMicros"), self.total_micros.get());
        for ((_, name), count) in BUCKETS.iter().zip(cumulative) {
            histogram.append(*name, count);
        }
        document.append(name, histogram);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::Document;
    use bson::raw::RawDocument;
    use std::collections::BTreeSet;

    fn shown(metrics: &Metrics) -> Document {
        let mut section = RawDocumentBuf::new();
        metrics.append_to(&mut section);
        Document::try_from(section).unwrap()
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
        let mut document = RawDocumentBuf::new();
        histogram.append_to(&mut document, cstr!("latency"));
        let shown = Document::try_from(document).unwrap();
        let shown = shown.get_document("latency").unwrap();
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
            metrics.sts_answers.add(status);
        }
        assert_eq!(metrics.sts_answers.0.each_ref().map(Counter::get), [2, 1, 1, 2]);
    }
    #[test]
    fn miri_rows_of_one_document_stand_together() {
        fn assert_names_are_unique(document: &RawDocument) {
            let mut names = BTreeSet::new();
            for (name, value) in document.iter().map(Result::unwrap) {
                assert!(names.insert(name.as_str().to_owned()), "{name:?} is there twice");
                if let Some(inner) = value.as_document() {
                    assert_names_are_unique(inner);
                }
            }
        }
        let mut section = RawDocumentBuf::new();
        Metrics::default().append_to(&mut section);
        assert_names_are_unique(&section);
        let section = Document::try_from(section).unwrap();
        let names: Vec<_> = section.keys().collect();
        assert_eq!(names, ["logins", "sts", "latency"]);
        assert!(section.get_document("sts").unwrap().get_document("connections").unwrap().contains_key("reused"));
    }
}
