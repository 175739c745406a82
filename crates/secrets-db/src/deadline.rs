//! A limit of time that also holds against a server that never stops sending.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{Either, select};
use secret_persistence_core::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::instrument::{Instrument as _, WithSubscriber as _};

use crate::error::{POSTGRES, from_sqlx};

/// Runs the request on a thread of its own, and waits for it this long.
///
/// The driver reads for as long as the server sends and does not yield meanwhile, so a timer around the
/// request would never be looked at: a server that sends without end would hang the caller's thread. It
/// hangs this one, until it stops sending. The driver also panics on messages that are shorter than
/// their type, which must not end the caller's task.
pub(crate) async fn within<T: Send + 'static>(
    wait: Duration,
    request: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let (sender, answer) = oneshot::channel();
    let request = AssertUnwindSafe(request)
        .catch_unwind()
        .in_current_span()
        .with_current_subscriber();
    let runtime = Handle::current();
    let run = move || {
        let mut sender = sender;
        let answered = runtime.block_on(async {
            match select(pin!(sender.closed()), pin!(request)).await {
                // The caller waits no longer.
                Either::Left(_) => None,
                Either::Right((answer, _)) => Some(answer),
            }
        });
        if let Some(answer) = answered {
            let _ = sender.send(answer);
        }
    };
    thread::Builder::new()
        .name("secret-postgres".to_owned())
        .spawn(run)
        .map_err(|_| {
            Error::new(ErrorKind::Unavailable, "no thread can be started")
                .with_hint("raise the limit of processes and threads of this user or container")
        })?;
    match tokio::time::timeout(wait, answer).await {
        Ok(Ok(Ok(answer))) => answer,
        Ok(Ok(Err(_)) | Err(_)) => {
            let malformed = sqlx::Error::Protocol("a malformed message".into());
            Err(from_sqlx("postgres", POSTGRES, &malformed))
        }
        Err(_) => Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "the server did not respond within {} seconds",
                wait.as_secs()
            ),
        )
        .with_hint("check host and port, that the server is running, and the network")),
    }
}
