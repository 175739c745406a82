//! Counters and histograms whose keys are made once, so that counting a call allocates nothing.

use std::fmt;
use std::sync::Arc;

use metrics::{Key, Label, Level, Metadata, SharedString, with_recorder};

use crate::Operation;

static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// A counter with all its labels.
pub(crate) struct Counter(Key);

impl Counter {
    pub(crate) fn new<const N: usize>(
        name: &'static str,
        labels: [(&'static str, SharedString); N],
    ) -> Self {
        Self(key(name, labels))
    }

    /// One that counts operations of a store.
    pub(crate) fn of(name: &'static str, store: &Arc<str>, operation: Operation) -> Self {
        Self(key(name, operation_labels(store, operation)))
    }

    pub(crate) fn add(&self, number: u64) {
        // The recorder is asked each time: a program may install it after it has opened its stores.
        with_recorder(|recorder| {
            recorder
                .register_counter(&self.0, &METADATA)
                .increment(number);
        });
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A histogram with all its labels.
pub(crate) struct Histogram(Key);

impl Histogram {
    /// One that measures operations of a store.
    pub(crate) fn of(name: &'static str, store: &Arc<str>, operation: Operation) -> Self {
        Self(key(name, operation_labels(store, operation)))
    }

    pub(crate) fn record(&self, value: impl metrics::IntoF64) {
        with_recorder(|recorder| {
            recorder
                .register_histogram(&self.0, &METADATA)
                .record(value);
        });
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of something for each operation.
#[derive(Debug)]
pub(crate) struct ByOperation<T>([T; OPERATIONS.len()]);

/// In the order of the variants.
const OPERATIONS: [Operation; 8] = [
    Operation::Delete,
    Operation::Describe,
    Operation::Identity,
    Operation::List,
    Operation::Open,
    Operation::Read,
    Operation::Restore,
    Operation::Write,
];

impl<T> ByOperation<T> {
    pub(crate) fn new(make: impl FnMut(Operation) -> T) -> Self {
        Self(OPERATIONS.map(make))
    }

    pub(crate) fn of(&self, operation: Operation) -> &T {
        &self.0[operation as usize]
    }
}

fn operation_labels(store: &Arc<str>, operation: Operation) -> [(&'static str, SharedString); 2] {
    [
        ("store", Arc::clone(store).into()),
        ("operation", operation.as_str().into()),
    ]
}

fn key<const N: usize>(name: &'static str, labels: [(&'static str, SharedString); N]) -> Key {
    let labels = labels.map(|(name, value)| Label::new(name, value));
    Key::from_parts(name, labels.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_its_own() {
        let own = ByOperation::new(|operation| operation);
        for operation in OPERATIONS {
            assert_eq!(*own.of(operation), operation);
        }
    }
}
