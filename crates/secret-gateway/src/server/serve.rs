//! Listens, and shuts down gracefully.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum_server::Handle;
use hyper_util::rt::TokioTimer;

use super::router::router;
use super::tls;
use crate::gateway::Gateway;
use crate::{connector, health};

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// The largest head of a request.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// The interval of the healer.
const HEAL_EVERY: Duration = Duration::from_secs(10);

/// The gateway cannot listen, with the cause.
#[derive(Debug)]
pub struct ServeError {
    doing: &'static str,
    source: io::Error,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.doing)
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Serves until `stop` is ready. Then accepts no more connections, lets requests continue for the
/// configured time, and waits for the work that they began.
///
/// # Errors
/// If it cannot listen, or its certificate cannot be used.
pub async fn serve(
    gateway: Gateway,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let failed = |doing| move |source| ServeError { doing, source };
    listener
        .set_nonblocking(true)
        .map_err(failed("cannot listen at the address"))?;
    let settings = gateway.settings().clone();
    let handle: Handle<SocketAddr> = Handle::new();
    let stopping = handle.clone();
    tokio::spawn(async move {
        stop.await;
        tracing::info!(target: "secret_gateway", "stopping: no more connections, running requests continue");
        stopping.graceful_shutdown(Some(settings.shutdown));
    });
    health::probe(&gateway).await;
    let background = tokio::spawn(background(gateway.clone()));
    let service = router(gateway.clone()).into_make_service();
    let mut server = axum_server::from_tcp(listener)
        .map_err(failed("cannot listen at the address"))?
        .handle(handle)
        .http1_only();
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    let served = match &settings.tls {
        None => server.serve(service).await,
        Some(tls) => {
            let config = tls::config(tls).map_err(failed("the TLS certificate cannot be used"))?;
            server
                .acceptor(tls::Acceptor::new(config))
                .serve(service)
                .await
        }
    };
    background.abort();
    // A change whose caller is gone still has its record.
    let _ = tokio::time::timeout(settings.shutdown, gateway.finish()).await;
    served.map_err(failed("the server ended"))
}

/// Probes the stores, heals, and limits the memory of metrics.
async fn background(gateway: Gateway) {
    let probing = async {
        loop {
            tokio::time::sleep(health::PROBE_EVERY).await;
            health::probe(&gateway).await;
        }
    };
    let healing = async {
        loop {
            if let Err(error) = connector::heal(&gateway).await {
                tracing::warn!(target: "secret_gateway", %error, "healing failed and will be retried");
            }
            if let Some(metrics) = gateway.metrics() {
                metrics.run_upkeep();
            }
            tokio::time::sleep(HEAL_EVERY).await;
        }
    };
    futures::join!(probing, healing);
}
