//! The store that the layers are tried on: in memory, with a log of every request and faults on order.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Error, ErrorKind, Identity,
    ListOptions, ManagedCoordinate, Memory, Operation, Page, Read, Result, SecretPersistence,
    SecretPersistenceExt, SecretValue, Write, Written,
};

/// What a request meets.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is refused.
    Fail(Error),
    /// It is never answered.
    Hang,
    /// It is done, and the answer is lost.
    Lose(Error),
    /// Nothing.
    None,
    /// The answer to a batch leaves it out.
    Omit,
    /// It takes its time before it takes effect, or until it is answered.
    Slow { before: Duration, after: Duration },
}

type Faults = Box<dyn FnMut(Operation, &str) -> Fault + Send>;

/// A store in memory that notes every request and fails as told.
pub(crate) struct Probe {
    pub(crate) memory: Memory,
    latency: Duration,
    faults: Mutex<Option<Faults>>,
    requests: Mutex<Vec<Request>>,
}

/// One request, as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) names: Vec<String>,
    pub(crate) at: Instant,
}

impl Probe {
    pub(crate) fn new() -> Self {
        Self::over(Memory::new())
    }

    pub(crate) fn over(memory: Memory) -> Self {
        Self {
            memory,
            latency: Duration::ZERO,
            faults: Mutex::default(),
            requests: Mutex::default(),
        }
    }

    /// One whose answers take time, before and after they take effect.
    pub(crate) fn slow() -> Self {
        Self::new().with_latency(Duration::from_millis(5))
    }

    pub(crate) fn with_latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Decides about every entry of every request, by operation and name.
    pub(crate) fn on_every_request(
        &self,
        faults: impl FnMut(Operation, &str) -> Fault + Send + 'static,
    ) {
        *self.faults.lock().unwrap() = Some(Box::new(faults));
    }

    /// Every request meets this error from now on.
    pub(crate) fn fails_with(&self, kind: ErrorKind) {
        self.on_every_request(move |_, _| Fault::Fail(Error::new(kind, "as told")));
    }

    pub(crate) fn recovers(&self) {
        *self.faults.lock().unwrap() = None;
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, operation: Operation) -> usize {
        self.requests()
            .iter()
            .filter(|request| request.operation == operation)
            .count()
    }

    pub(crate) fn forget_requests(&self) {
        self.requests.lock().unwrap().clear();
    }

    /// Notes a request and says what each of its entries meets; waits if one hangs.
    async fn arrive(&self, operation: Operation, names: &[&str]) -> Vec<Fault> {
        self.requests.lock().unwrap().push(Request {
            operation,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            at: Instant::now(),
        });
        let faults: Vec<Fault> = match &mut *self.faults.lock().unwrap() {
            None => vec![Fault::None; names.len()],
            Some(faults) => names.iter().map(|name| faults(operation, name)).collect(),
        };
        self.pause().await;
        if faults.iter().any(|fault| matches!(fault, Fault::Hang)) {
            std::future::pending::<()>().await;
        }
        for fault in &faults {
            if let Fault::Slow { before, .. } = fault {
                tokio::time::sleep(*before).await;
            }
        }
        faults
    }

    /// The way back of an answer.
    async fn answer(&self, faults: &[Fault]) {
        self.pause().await;
        for fault in faults {
            if let Fault::Slow { after, .. } = fault {
                tokio::time::sleep(*after).await;
            }
        }
    }

    async fn pause(&self) {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
    }

    /// What is done about one entry.
    fn decide<T>(fault: Fault, act: impl FnOnce() -> Result<T>) -> Result<T> {
        match fault {
            Fault::Fail(error) => Err(error),
            Fault::Lose(error) => act().and(Err(error)),
            Fault::Hang | Fault::None | Fault::Omit | Fault::Slow { .. } => act(),
        }
    }

    async fn one<T>(
        &self,
        operation: Operation,
        name: &str,
        act: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let fault = self.arrive(operation, &[name]).await.remove(0);
        let result = match fault.clone() {
            Fault::Fail(error) => return Err(error),
            Fault::Lose(error) => act.await.and(Err(error)),
            Fault::Hang | Fault::None | Fault::Omit | Fault::Slow { .. } => act.await,
        };
        self.answer(&[fault]).await;
        result
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("probe")
    }
}

#[async_trait]
impl SecretPersistence for Probe {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        let names: Vec<&str> = coordinates.iter().map(Coordinate::as_str).collect();
        let faults = self.arrive(Operation::Read, &names).await;
        // What was there when the request took effect is answered later.
        let reads = self.memory.read_batch(coordinates).await;
        self.answer(&faults).await;
        faults
            .into_iter()
            .zip(reads)
            .filter(|(fault, _)| !matches!(fault, Fault::Omit))
            .map(|(fault, read)| Self::decide(fault, || read.map(of_its_own)))
            .collect()
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let names: Vec<&str> = writes
            .iter()
            .map(|write| write.coordinate.as_str())
            .collect();
        let faults = self.arrive(Operation::Write, &names).await;
        let mut results = Vec::new();
        for (fault, write) in faults.iter().cloned().zip(writes) {
            results.push(match fault {
                Fault::Fail(error) => Err(error),
                Fault::Lose(error) => {
                    self.memory.write_batch(std::slice::from_ref(write)).await;
                    Err(error)
                }
                Fault::Hang | Fault::None | Fault::Omit | Fault::Slow { .. } => {
                    let mut results = self.memory.write_batch(std::slice::from_ref(write)).await;
                    results.remove(0)
                }
            });
        }
        self.answer(&faults).await;
        results
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let names: Vec<&str> = coordinates.iter().map(ManagedCoordinate::as_str).collect();
        let faults = self.arrive(Operation::Delete, &names).await;
        let mut results = Vec::new();
        for (fault, coordinate) in faults.iter().cloned().zip(coordinates) {
            let delete = self.memory.delete(coordinate, options);
            results.push(match fault {
                Fault::Fail(error) => Err(error),
                Fault::Lose(error) => delete.await.and(Err(error)),
                Fault::Hang | Fault::None | Fault::Omit | Fault::Slow { .. } => delete.await,
            });
        }
        self.answer(&faults).await;
        results
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let act = self.memory.restore(coordinate);
        self.one(Operation::Restore, coordinate.as_str(), act).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let act = self.memory.list_page(options, after);
        self.one(Operation::List, &options.prefix, act).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        let act = self.memory.describe(coordinate);
        self.one(Operation::Describe, coordinate.as_str(), act)
            .await
    }

    async fn identity(&self) -> Result<Identity> {
        self.one(Operation::Identity, "", self.memory.identity())
            .await
    }
}

/// A copy in an allocation of its own, as a server's answer is.
fn of_its_own(read: Read) -> Read {
    let copy = SecretValue::new(read.value.expose().to_owned());
    Read::new(copy).with_expires(read.expires)
}

/// The `n`th name of the layers' tests.
pub(crate) fn coordinate(n: usize) -> ManagedCoordinate {
    ManagedCoordinate::parse(&format!("airbyte_workspace_probe_secret_{n}_v1")).unwrap()
}

/// The `n`th name with its value.
pub(crate) fn write(n: usize) -> Write {
    Write::new(coordinate(n), SecretValue::new(format!("value {n}")))
}

/// A probe with names 0 to `count`, with an empty log.
pub(crate) async fn holding(probe: Probe, count: usize) -> Arc<Probe> {
    for n in 0..count {
        let write = write(n);
        probe.memory.write_batch(&[write]).await.remove(0).unwrap();
    }
    Arc::new(probe)
}
