//! Turns: how many requests run at once, and how many bodies may arrive meanwhile.
//!
//! A request whose body is still arriving does not run. Otherwise, slow bodies of one caller would
//! keep everybody else waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::Extensions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::CallerName;

/// The turns of all requests.
#[derive(Debug)]
pub(crate) struct Turns {
    running: Arc<Semaphore>,
    arriving: Mutex<Arriving>,
    bodies_per_caller: usize,
}

/// The bodies that are arriving.
#[derive(Debug, Default)]
struct Arriving {
    all: usize,
    by_caller: BTreeMap<String, usize>,
}

/// As many bodies are arriving as may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full {
    pub(super) limit: usize,
}

impl Turns {
    /// So many requests run at once, and as many bodies arrive (one more if the number is odd).
    pub(crate) fn new(concurrency: usize) -> Self {
        Self {
            running: Arc::new(Semaphore::new(concurrency)),
            arriving: Mutex::default(),
            // At least one, where only one request runs.
            bodies_per_caller: concurrency.div_ceil(2),
        }
    }

    /// The turn of a request, `None` if as many run as may.
    pub(super) fn take(self: &Arc<Self>) -> Option<Turn> {
        let permit = Arc::clone(&self.running).try_acquire_owned().ok()?;
        Some(Turn(Arc::new(Held {
            turns: Arc::clone(self),
            permit: Mutex::new(Some(permit)),
        })))
    }

    fn admit(self: &Arc<Self>, caller: &str) -> Result<ArrivingBody, Full> {
        let mut arriving = self.arriving();
        let (each, all) = (self.bodies_per_caller, self.bodies_per_caller * 2);
        let ours = arriving.by_caller.get(caller).copied().unwrap_or_default();
        if ours >= each {
            return Err(Full { limit: each });
        }
        if arriving.all >= all {
            return Err(Full { limit: all });
        }
        arriving.all += 1;
        arriving.by_caller.insert(caller.to_owned(), ours + 1);
        Ok(ArrivingBody {
            turns: Arc::clone(self),
            caller: caller.to_owned(),
        })
    }

    fn arriving(&self) -> std::sync::MutexGuard<'_, Arriving> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that counts as arriving until this is dropped.
struct ArrivingBody {
    turns: Arc<Turns>,
    caller: String,
}

impl Drop for ArrivingBody {
    fn drop(&mut self) {
        let mut arriving = self.turns.arriving();
        arriving.all -= 1;
        if let Some(ours) = arriving.by_caller.get_mut(&self.caller) {
            *ours -= 1;
            if *ours == 0 {
                arriving.by_caller.remove(&self.caller);
            }
        }
    }
}

/// The turn of a request, among its extensions. It ends when every clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct Turn(Arc<Held>);

#[derive(Debug)]
struct Held {
    turns: Arc<Turns>,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Turn {
    fn set(&self, permit: Option<OwnedSemaphorePermit>) {
        let mut held = self.0.permit.lock().unwrap_or_else(PoisonError::into_inner);
        *held = permit;
    }
}

/// Reads the body of a request, whose turn passes to others meanwhile. Afterwards it waits for
/// another one: a body that has arrived is not refused.
pub(super) async fn while_arriving<T>(
    extensions: &Extensions,
    body: impl Future<Output = T>,
) -> Result<T, Full> {
    let Some(turn) = extensions.get::<Turn>() else {
        // Only health routes run without a turn.
        return Ok(body.await);
    };
    let turns = &turn.0.turns;
    let caller = extensions.get::<CallerName>().and_then(CallerName::get);
    let arriving = turns.admit(caller.unwrap_or_default())?;
    turn.set(None);
    let read = body.await;
    // It never fails, because nobody closes the semaphore.
    turn.set(Arc::clone(&turns.running).acquire_owned().await.ok());
    drop(arriving);
    Ok(read)
}
