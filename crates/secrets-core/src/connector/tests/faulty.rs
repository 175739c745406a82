//! A store that fails, dawdles and keeps a log as a test wants.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Error, ErrorKind, Identity,
    ListOptions, ManagedCoordinate, Memory, OpenStore, Operation, Page, Read, Recovery, Result,
    SecretPersistence, SecretPersistenceExt, StorageId, Write, Written,
};

type Fault = Box<dyn Fn(&Call) -> Option<ErrorKind> + Send + Sync>;

/// One operation on one coordinate, as the store was asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) operation: Operation,
    pub(super) coordinate: String,
    /// Of deletes.
    pub(super) recovery: Option<Recovery>,
}

pub(super) struct Faulty {
    pub(super) memory: Memory,
    delay: Mutex<Duration>,
    fault: Mutex<Option<Fault>>,
    calls: Mutex<Vec<Call>>,
    requests: AtomicUsize,
}

impl Faulty {
    pub(super) fn new(memory: Memory) -> Self {
        Self {
            memory,
            delay: Mutex::default(),
            fault: Mutex::default(),
            calls: Mutex::default(),
            requests: AtomicUsize::new(0),
        }
    }

    /// Every request takes this long.
    pub(super) fn with_delay(self, delay: Duration) -> Self {
        self.delay(delay);
        self
    }

    /// Every request takes this long, from now on.
    pub(super) fn delay(&self, delay: Duration) {
        *self.delay.lock().unwrap() = delay;
    }

    /// Fails what this picks, from now on. A write that fails so has been done nevertheless: its
    /// outcome is unknown.
    pub(super) fn fail(&self, fault: impl Fn(&Call) -> Option<ErrorKind> + Send + Sync + 'static) {
        *self.fault.lock().unwrap() = Some(Box::new(fault));
    }

    /// Fails every call of an operation.
    pub(super) fn fail_all(&self, operation: Operation, kind: ErrorKind) {
        self.fail(move |call| (call.operation == operation).then_some(kind));
    }

    /// What the store was asked for, of one operation.
    pub(super) fn calls(&self, operation: Operation) -> Vec<Call> {
        let calls = self.log().clone();
        calls
            .into_iter()
            .filter(|call| call.operation == operation)
            .collect()
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn log(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap()
    }

    async fn request(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let delay = *self.delay.lock().unwrap();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    fn call(
        &self,
        operation: Operation,
        coordinate: &str,
        recovery: Option<Recovery>,
    ) -> Result<()> {
        let call = Call {
            operation,
            coordinate: coordinate.to_owned(),
            recovery,
        };
        let kind = self
            .fault
            .lock()
            .unwrap()
            .as_ref()
            .and_then(|fault| fault(&call));
        self.log().push(call);
        match kind {
            None => Ok(()),
            Some(kind) => Err(Error::new(kind, "a fault of the test")
                .with_operation(operation)
                .with_coordinate(coordinate)
                .with_store("faulty")),
        }
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl SecretPersistence for Faulty {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        self.request().await;
        let reads = self.memory.read_batch(coordinates).await;
        coordinates
            .iter()
            .zip(reads)
            .map(|(coordinate, read)| {
                self.call(Operation::Read, coordinate.as_str(), None)?;
                read
            })
            .collect()
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        self.request().await;
        let results = self.memory.write_batch(writes).await;
        writes
            .iter()
            .zip(results)
            .map(|(write, result)| {
                self.call(Operation::Write, write.coordinate.as_str(), None)?;
                result
            })
            .collect()
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        self.request().await;
        let mut results = Vec::new();
        for coordinate in coordinates {
            let name = coordinate.as_str();
            let call = self.call(Operation::Delete, name, Some(options.recovery));
            results.push(match call {
                Ok(()) => self.memory.delete(coordinate, options).await,
                Err(error) => Err(error),
            });
        }
        results
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        self.memory.restore(coordinate).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        self.request().await;
        self.call(Operation::List, "", None)?;
        self.memory.list_page(options, after).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.request().await;
        self.call(Operation::Describe, coordinate.as_str(), None)?;
        self.memory.describe(coordinate).await
    }

    async fn identity(&self) -> Result<Identity> {
        self.memory.identity().await
    }
}

/// Opens one store after the other, and the last one forever, whatever the id.
pub(super) struct Rotated {
    stores: Vec<Arc<Faulty>>,
    opened: AtomicUsize,
}

impl Rotated {
    pub(super) fn new(stores: Vec<Arc<Faulty>>) -> Arc<Self> {
        Arc::new(Self {
            stores,
            opened: AtomicUsize::new(0),
        })
    }

    pub(super) fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl OpenStore for Rotated {
    async fn open(&self, _: &StorageId) -> Result<Option<Arc<dyn SecretPersistence>>> {
        let at = self.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Some(self.stores[at.min(self.stores.len() - 1)].clone()))
    }
}

pub(super) fn faulty() -> Arc<Faulty> {
    Arc::new(Faulty::new(Memory::new()))
}
