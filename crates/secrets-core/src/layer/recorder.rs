//! A `metrics` recorder that the layers' tests can read.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit,
};

/// Counts what counters were raised by, and how often histograms were told something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    times: Arc<AtomicU64>,
}

impl Recorder {
    /// How often anything was told to it.
    pub(crate) fn times(&self) -> u64 {
        self.times.load(Ordering::Relaxed)
    }

    /// The count of `name{label=value,…}`.
    pub(crate) fn count(&self, key: &str) -> u64 {
        self.counts.lock().unwrap().get(key).copied().unwrap_or(0)
    }

    fn handle(&self, key: &Key) -> Arc<Handle> {
        let labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        Arc::new(Handle {
            key: format!("{}{{{}}}", key.name(), labels.join(",")),
            counts: Arc::clone(&self.counts),
            times: Arc::clone(&self.times),
        })
    }
}

/// Runs a future in virtual time, its metrics going to the recorder.
pub(crate) fn recorded<T>(recorder: &Recorder, future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(recorder, || runtime.block_on(future))
}

struct Handle {
    key: String,
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    times: Arc<AtomicU64>,
}

impl Handle {
    fn add(&self, count: u64) {
        self.times.fetch_add(1, Ordering::Relaxed);
        *self
            .counts
            .lock()
            .unwrap()
            .entry(self.key.clone())
            .or_default() += count;
    }
}

impl CounterFn for Handle {
    fn increment(&self, value: u64) {
        self.add(value);
    }

    fn absolute(&self, _: u64) {}
}

impl HistogramFn for Handle {
    fn record(&self, _: f64) {
        self.add(1);
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.handle(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.handle(key))
    }
}
