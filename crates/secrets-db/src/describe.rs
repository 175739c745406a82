//! Describes names: calls that wait at the same moment share one statement.
//!
//! A call asks by itself if no other does. Those that come meanwhile wait for a task, which takes all that
//! wait, asks once, and goes on while there are more. The task depends on no caller: one that is not polled
//! or gives up keeps nobody waiting. It belongs to the runtime of the call that started it, which may
//! end, so that the next call starts another one.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::{Either, select};
use parking_lot::Mutex;
use secret_persistence_core::{Error, ErrorKind, Result};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::Head;

/// Maximum names per statement.
const MOST_NAMES: usize = 1_000;

/// How long the statement of others may take, beyond the wait for a connection, before a caller asks by
/// itself. A statement takes milliseconds; one over a dead connection, a quarter of an hour.
const PATIENCE: Duration = Duration::from_secs(5);

/// The part of a client that describes. Errors lack operation, store and coordinate.
#[async_trait]
pub(crate) trait Describe: Send + Sync {
    /// The rows that these names have, in any order. A name may occur twice, and a row with it. A row of
    /// another name, which is the same to the database, counts as none.
    async fn describe(&self, names: &[&str]) -> Result<Vec<Described>>;
}

/// The name of a row, and its columns. A damaged column affects only its own row.
pub(crate) type Described = (String, Result<Head>);

type Answer = Result<Option<Head>>;

pub(crate) struct Describer {
    client: Arc<dyn Describe>,
    /// How long a caller waits for the statement of others.
    patience: Duration,
    /// The permit of the one caller that asks by itself.
    alone: Semaphore,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(String, oneshot::Sender<Answer>)>,
    /// The task that asks for those who wait. It removes itself when nobody does; a runtime that ends
    /// leaves it here.
    task: Option<JoinHandle<()>>,
}

impl Describer {
    /// `connect_timeout` is how long the client waits for a connection: its error is that of all who wait.
    pub(crate) fn new(client: Arc<dyn Describe>, connect_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            client,
            patience: connect_timeout + PATIENCE,
            alone: Semaphore::new(1),
            queue: Mutex::default(),
        })
    }

    pub(crate) async fn describe(self: &Arc<Self>, name: &str) -> Answer {
        match self.join(name) {
            Turn::Alone(_permit) => self.ask(name).await,
            Turn::Together(answer) => match timeout(self.patience, answer).await {
                Ok(Ok(answer)) => answer,
                // The statement hangs, or the runtime of the task does not go on.
                Ok(Err(_)) | Err(_) => self.ask(name).await,
            },
        }
    }

    fn join(self: &Arc<Self>, name: &str) -> Turn<'_> {
        let mut queue = self.queue.lock();
        let has_task = queue.task.as_ref().is_some_and(|task| !task.is_finished());
        if !has_task && let Ok(permit) = self.alone.try_acquire() {
            return Turn::Alone(permit);
        }
        let (sender, answer) = oneshot::channel();
        queue.waiting.push_back((name.to_owned(), sender));
        if !has_task {
            queue.task = Some(tokio::spawn(Arc::clone(self).serve()));
        }
        Turn::Together(answer)
    }

    async fn ask(&self, name: &str) -> Answer {
        let rows = self.client.describe(&[name]).await?;
        let row = rows.into_iter().find(|(found, _)| found == name);
        row.map(|(_, head)| head).transpose()
    }

    /// The task.
    async fn serve(self: Arc<Self>) {
        loop {
            let (names, mut callers): (Vec<_>, Vec<_>) = self.take().into_iter().unzip();
            if names.is_empty() {
                return;
            }
            let asked: Vec<&str> = names.iter().map(String::as_str).collect();
            let rows = {
                // A driver that panics must not take the others' answers with it.
                let rows = AssertUnwindSafe(self.client.describe(&asked)).catch_unwind();
                let all_left = async {
                    for caller in &mut callers {
                        caller.closed().await;
                    }
                };
                match select(pin!(rows), pin!(all_left)).await {
                    Either::Left((rows, _)) => rows.unwrap_or_else(|_| Err(panicked())),
                    // Nobody waits for a statement that may hang.
                    Either::Right(_) => continue,
                }
            };
            let rows = rows.map(|rows| rows.into_iter().collect::<HashMap<_, _>>());
            for (name, caller) in names.iter().zip(callers) {
                let answer = match &rows {
                    Ok(rows) => rows.get(name).cloned().transpose(),
                    Err(error) => Err(error.clone()),
                };
                // A caller that was cancelled does not wait any more.
                let _ = caller.send(answer);
            }
        }
    }

    /// Those of the next statement. If there are none, the task is over: nobody can wait for it from here on.
    fn take(&self) -> Vec<(String, oneshot::Sender<Answer>)> {
        let mut queue = self.queue.lock();
        queue.waiting.retain(|(_, caller)| !caller.is_closed());
        let most = queue.waiting.len().min(MOST_NAMES);
        if most == 0 {
            queue.task = None;
        }
        queue.waiting.drain(..most).collect()
    }
}

/// How a caller gets its answer.
enum Turn<'d> {
    /// It asks by itself, and others wait for the task meanwhile.
    Alone(SemaphorePermit<'d>),
    /// The task sends it.
    Together(oneshot::Receiver<Answer>),
}

fn panicked() -> Error {
    Error::new(
        ErrorKind::Unexpected,
        "the database driver panicked while it described secrets",
    )
    .with_hint("the message of the panic is on the standard error of the process")
}

#[cfg(test)]
mod tests;
