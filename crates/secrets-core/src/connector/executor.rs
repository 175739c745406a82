//! Runs long walks on other threads.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::oneshot;

use super::error::{ConnectorError, Problem, ProblemKind};
use super::place::Place;

/// The number of values from which a walk counts as long: about a tenth of a millisecond.
const LONG: usize = 1_000;

/// The number of text bytes from which a walk counts as long.
const LONG_TEXTS: usize = 64 << 10;

/// Runs long walks where they do not block other tasks.
///
/// Connector calls walk over configurations between their requests, on the thread that polls them.
/// Most walks take microseconds, but a walk over a large configuration, or with a specification
/// that has patterns, may take a tenth of a second, and an asynchronous runtime has few threads.
/// The calls pass such walks to this executor. Synchronous functions
/// ([`ConnectorSpec::compile`](super::ConnectorSpec::compile),
/// [`mask`](super::ConnectorSpec::mask), [`scrub`](super::scrub)) run on the caller's thread.
///
/// ```
/// use secret_persistence_core::connector::{ConnectorOptions, Executor};
///
/// let options = ConnectorOptions::default().with_long_walks(Executor::new(|walk| {
///     tokio::task::spawn_blocking(walk);
/// }));
/// ```
#[derive(Clone)]
pub struct Executor(Arc<Run>);

type Run = dyn Fn(Walk) + Send + Sync;

/// A walk, to be run once and to completion.
pub type Walk = Box<dyn FnOnce() + Send>;

impl Executor {
    /// Creates an executor from a function that starts a walk and returns immediately.
    pub fn new(run: impl Fn(Walk) + Send + Sync + 'static) -> Self {
        Self(Arc::new(run))
    }

    /// Runs work and waits for it.
    ///
    /// # Errors
    /// `WalkDropped` if the walk was never run; otherwise the walk's own error.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ConnectorError> + Send + 'static,
    ) -> Result<T, ConnectorError> {
        let (done, result) = oneshot::channel();
        // The caller may have been dropped; then nobody needs the result.
        (self.0)(Box::new(move || drop(done.send(work()))));
        result.await.unwrap_or_else(|_| {
            Err(Problem::new(
                Place::root(),
                ProblemKind::WalkDropped,
                "the executor dropped the walk over the configuration without running it",
            )
            .into())
        })
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Executor")
    }
}

/// Whether a walk over a configuration may take long. Stops looking as soon as this is known.
pub(super) fn is_long(config: &Value) -> bool {
    let (mut values, mut texts) = (0, 0);
    let mut open = vec![config];
    while let Some(value) = open.pop() {
        values += 1;
        match value {
            Value::String(text) => texts += text.len(),
            Value::Array(items) => {
                if items.len() > LONG {
                    return true;
                }
                open.extend(items);
            }
            Value::Object(members) => {
                if members.len() > LONG {
                    return true;
                }
                for (name, member) in members {
                    texts += name.len();
                    open.push(member);
                }
            }
            _ => {}
        }
        if values > LONG || texts > LONG_TEXTS {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::thread;

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_walk_runs_where_it_is_told_and_its_result_comes_back() {
        let here = thread::current().id();
        let executor = Executor::new(|walk| drop(thread::spawn(walk)));
        let there = executor.run(|| Ok(thread::current().id())).await.unwrap();
        assert_ne!(here, there);
    }

    #[tokio::test]
    async fn a_walk_that_nobody_runs_is_an_error() {
        let error = Executor::new(drop).run(|| Ok(())).await.unwrap_err();
        assert_eq!(error.problems()[0].kind(), ProblemKind::WalkDropped);
    }

    #[test]
    fn long_is_what_has_many_values_or_long_texts() {
        assert!(!is_long(&json!({"host": "db", "list": [1, 2, 3]})));
        assert!(is_long(&json!(vec![0; 2_000])));
        assert!(is_long(&json!({"a": [vec![0; 600], vec![0; 600]]})));
        assert!(is_long(&json!({"a": "x".repeat(100_000)})));
        assert!(is_long(&json!({"x".repeat(100_000): 1})));
    }
}
