//! Counts, times and traces every call, as the caller sees it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::Instrument;

use super::meter::{ByOperation, Counter, Histogram};
use crate::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Identity, ListOptions,
    ManagedCoordinate, Operation, Page, Read, Result, SecretPersistence, Write, Written,
};

/// A store whose calls are counted, timed and traced. The module's documentation lists the metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    inner: Arc<dyn SecretPersistence>,
    store: Arc<str>,
    meters: ByOperation<Meters>,
}

/// What is told of every call of one operation.
#[derive(Debug)]
struct Meters {
    calls: Counter,
    duration: Histogram,
    succeeded: Counter,
}

impl Metrics {
    pub(super) fn new(inner: Arc<dyn SecretPersistence>, store: Arc<str>) -> Self {
        let meters = ByOperation::new(|operation| Meters {
            calls: Counter::of("secrets_calls_total", &store, operation),
            duration: Histogram::of("secrets_call_duration_seconds", &store, operation),
            succeeded: outcomes(&store, operation, OK),
        });
        Self {
            inner,
            store,
            meters,
        }
    }

    async fn call<T>(
        &self,
        operation: Operation,
        entries: usize,
        call: impl Future<Output = T>,
        outcomes: impl FnOnce(&T) -> Outcomes,
    ) -> T {
        let span = tracing::debug_span!(
            "secrets",
            store = &*self.store,
            operation = operation.as_str(),
            entries
        );
        let mut watch = Watch {
            store: &self.store,
            meters: self.meters.of(operation),
            operation,
            entries,
            started: Instant::now(),
            ended: false,
        };
        async {
            let answer = call.await;
            watch.end(&outcomes(&answer));
            answer
        }
        .instrument(span)
        .await
    }
}

/// A running call. If it is dropped before its end, it was cancelled.
struct Watch<'a> {
    store: &'a Arc<str>,
    meters: &'a Meters,
    operation: Operation,
    entries: usize,
    started: Instant,
    ended: bool,
}

impl Watch<'_> {
    fn end(&mut self, ended: &Outcomes) {
        self.ended = true;
        let took = self.started.elapsed();
        self.meters.calls.add(1);
        self.meters.duration.record(took);
        if ended.succeeded > 0 {
            self.meters.succeeded.add(ended.succeeded);
        }
        for (outcome, count) in &ended.others {
            outcomes(self.store, self.operation, outcome).add(*count);
        }
        tracing::debug!(
            took_us = took.as_micros(),
            failed = ended.others.iter().map(|(_, count)| count).sum::<u64>(),
            outcome = ended.others.first().map_or(OK, |(outcome, _)| outcome),
            "done"
        );
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.end(&Outcomes {
                succeeded: 0,
                others: vec![("cancelled", self.entries as u64)],
            });
        }
    }
}

const OK: &str = "ok";

/// How many entries ended how.
#[derive(Default)]
struct Outcomes {
    succeeded: u64,
    /// By the kind of the error, in the order in which the kinds came; there are never many.
    others: Vec<(&'static str, u64)>,
}

impl Outcomes {
    fn of<T>(result: &Result<T>) -> Self {
        Self::among(std::slice::from_ref(result))
    }

    fn among<T>(results: &[Result<T>]) -> Self {
        let mut outcomes = Self::default();
        for result in results {
            let Err(error) = result else {
                outcomes.succeeded += 1;
                continue;
            };
            let kind = error.kind().as_str();
            match outcomes.others.iter_mut().find(|(other, _)| *other == kind) {
                Some((_, count)) => *count += 1,
                None => outcomes.others.push((kind, 1)),
            }
        }
        outcomes
    }
}

fn outcomes(store: &Arc<str>, operation: Operation, outcome: &'static str) -> Counter {
    let labels = [
        ("store", Arc::clone(store).into()),
        ("operation", operation.as_str().into()),
        ("outcome", outcome.into()),
    ];
    Counter::new("secrets_outcomes_total", labels)
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::show(f, "metrics", &self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretPersistence for Metrics {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        let call = self.inner.read_batch(coordinates);
        self.call(Operation::Read, coordinates.len(), call, |results| {
            Outcomes::among(results)
        })
        .await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let call = self.inner.write_batch(writes);
        self.call(Operation::Write, writes.len(), call, |results| {
            Outcomes::among(results)
        })
        .await
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let call = self.inner.delete_batch(coordinates, options);
        self.call(Operation::Delete, coordinates.len(), call, |results| {
            Outcomes::among(results)
        })
        .await
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let call = self.inner.restore(coordinate);
        self.call(Operation::Restore, 1, call, Outcomes::of).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let call = self.inner.list_page(options, after);
        self.call(Operation::List, 1, call, Outcomes::of).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        let call = self.inner.describe(coordinate);
        self.call(Operation::Describe, 1, call, Outcomes::of).await
    }

    async fn identity(&self) -> Result<Identity> {
        self.call(Operation::Identity, 1, self.inner.identity(), Outcomes::of)
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::conformance::{self, Options};
    use crate::layer::probe::{Fault, Probe, coordinate, holding, write};
    use crate::layer::recorder::{Recorder, recorded};
    use crate::{ErrorKind, SecretPersistenceExt};

    #[tokio::test(start_paused = true)]
    async fn every_promise_holds() {
        let store: Arc<dyn SecretPersistence> =
            Arc::new(Metrics::new(Arc::new(Probe::slow()), "probe".into()));
        let report = conformance::run(&store, &Options::default()).await;
        report.assert_passed();
    }

    #[test]
    fn calls_outcomes_and_durations_are_counted() {
        let recorder = Recorder::default();
        recorded(&recorder, async {
            let probe = Arc::new(Probe::slow());
            let store = Metrics::new(Arc::clone(&probe) as _, "probe".into());
            store.write(write(1)).await.unwrap();
            let names = [coordinate(1).into(), coordinate(2).into()];
            store.read_batch(&names).await;
            probe.fails_with(ErrorKind::PermissionDenied);
            store.identity().await.unwrap_err();
            probe.on_every_request(|_, _| Fault::Hang);
            let read = store.read_batch(&names);
            tokio::time::timeout(Duration::from_secs(1), read)
                .await
                .unwrap_err();
        });
        let store = "store=probe";
        for (name, labels, count) in [
            ("secrets_calls_total", "operation=write", 1),
            ("secrets_calls_total", "operation=read", 2),
            ("secrets_call_duration_seconds", "operation=read", 2),
            ("secrets_outcomes_total", "operation=write,outcome=ok", 1),
            ("secrets_outcomes_total", "operation=read,outcome=ok", 1),
            (
                "secrets_outcomes_total",
                "operation=read,outcome=not_found",
                1,
            ),
            (
                "secrets_outcomes_total",
                "operation=read,outcome=cancelled",
                2,
            ),
            (
                "secrets_outcomes_total",
                "operation=identity,outcome=permission_denied",
                1,
            ),
        ] {
            let key = format!("{name}{{{store},{labels}}}");
            assert_eq!(recorder.count(&key), count, "{key} in {recorder:?}");
        }
        assert!(!format!("{recorder:?}").contains("value 1"));
    }

    #[test]
    fn a_batch_raises_each_counter_once_however_many_entries_it_has() {
        let recorder = Recorder::default();
        recorded(&recorder, async {
            let probe = holding(Probe::new(), 60).await;
            let store = Metrics::new(probe, "probe".into());
            let names: Vec<Coordinate> = (0..100).map(|n| coordinate(n).into()).collect();
            store.read_batch(&names).await;
        });
        let read = "store=probe,operation=read";
        for (outcome, count) in [("ok", 60), ("not_found", 40)] {
            let key = format!("secrets_outcomes_total{{{read},outcome={outcome}}}");
            assert_eq!(recorder.count(&key), count, "{recorder:?}");
        }
        // The call, its duration, and two outcomes.
        assert_eq!(recorder.times(), 4, "{recorder:?}");
    }

    #[test]
    fn every_operation_is_counted_under_its_name() {
        let recorder = Recorder::default();
        recorded(&recorder, async {
            let store = Metrics::new(Arc::new(Probe::new()), "probe".into());
            store.write(write(1)).await.unwrap();
            store.read(&coordinate(1).into()).await.unwrap();
            store.describe(&coordinate(1)).await.unwrap();
            store
                .delete(&coordinate(1), &DeleteOptions::default())
                .await
                .unwrap();
            store.restore(&coordinate(1)).await.unwrap();
            store.identity().await.unwrap();
            let page = store.list_page(&ListOptions::default(), None).await;
            page.unwrap();
        });
        for operation in [
            Operation::Delete,
            Operation::Describe,
            Operation::Identity,
            Operation::List,
            Operation::Read,
            Operation::Restore,
            Operation::Write,
        ] {
            let key = format!("secrets_calls_total{{store=probe,operation={operation}}}");
            assert_eq!(recorder.count(&key), 1, "{key} in {recorder:?}");
        }
    }

    /// Keeps the names and fields of spans and events, as text.
    #[derive(Clone, Debug, Default)]
    struct Heard(Arc<std::sync::Mutex<Vec<String>>>);

    impl tracing::field::Visit for Heard {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
            self.0.lock().unwrap().push(format!("{field}={value:?}"));
        }
    }

    impl tracing::Subscriber for Heard {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, attributes: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            attributes.record(&mut self.clone());
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            event.record(&mut self.clone());
        }

        fn enter(&self, _: &tracing::span::Id) {
            self.0.lock().unwrap().push("entered".to_owned());
        }

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[tokio::test]
    async fn a_call_is_a_span_and_its_end_an_event() {
        let heard = Heard::default();
        let _guard = tracing::subscriber::set_default(heard.clone());
        let store = Metrics::new(Arc::new(Probe::new()), "probe".into());
        store.write(write(1)).await.unwrap();
        store
            .read_batch(&[1, 2, 3].map(|n| coordinate(n).into()))
            .await;
        let heard = heard.0.lock().unwrap();
        for said in [
            "store=\"probe\"",
            "operation=\"read\"",
            "entries=3",
            "entered",
            "failed=2",
            "outcome=\"not_found\"",
            "outcome=\"ok\"",
        ] {
            assert!(
                heard.iter().any(|other| other == said),
                "{said} in {heard:?}"
            );
        }
        assert!(!format!("{heard:?}").contains("value 1"));
    }
}
