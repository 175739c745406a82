//! Ctrl-C and SIGTERM: the first signal stops the run between two steps, the second ends the
//! process.

use secret_persistence_migrate::Cancellation;

use crate::console::remark;
use crate::status::Status;

/// Watches for signals, and prints how to continue afterwards.
pub(crate) fn watch() -> Cancellation {
    let cancellation = Cancellation::new();
    let asked = cancellation.clone();
    tokio::spawn(async move {
        signal().await;
        asked.cancel();
        remark(
            "stopping after the running requests; press Ctrl-C again to stop immediately (this loses nothing either)",
        );
        signal().await;
        std::process::exit(Status::Interrupted as i32);
    });
    cancellation
}

/// Stops a run when standard input ends.
pub(crate) fn at_end_of_input(cancellation: Cancellation) {
    std::thread::spawn(move || {
        // Nothing is sent; a pipe that breaks has ended too.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        cancellation.cancel();
    });
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};

    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        // Without a handler, the signal's default action ends the process.
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

#[cfg(not(unix))]
async fn signal() {
    let _ = tokio::signal::ctrl_c().await;
}
