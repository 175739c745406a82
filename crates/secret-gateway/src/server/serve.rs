//! Listens, and ends what it began.

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

/// How often the healer looks.
const HEAL_EVERY: Duration = Duration::from_secs(10);

/// Why the gateway does not listen.
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

/// Serves until `stop` is ready, then takes no more connections, lets requests end for as long as the
/// settings say, and waits for the work that they began.
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
        .map_err(failed("the address cannot be listened at"))?;
    let settings = gateway.settings().clone();
    let handle: Handle<SocketAddr> = Handle::new();
    let stopping = handle.clone();
    tokio::spawn(async move {
        stop.await;
        tracing::info!(target: "secret_gateway", "stopping: no more connections, requests under way go on");
        stopping.graceful_shutdown(Some(settings.shutdown));
    });
    health::probe(&gateway).await;
    let background = tokio::spawn(background(gateway.clone()));
    let service = router(gateway.clone()).into_make_service();
    let mut server = axum_server::from_tcp(listener)
        .map_err(failed("the address cannot be listened at"))?
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
    // A staging whose caller is gone is still one that its record tells of.
    let _ = tokio::time::timeout(settings.shutdown, gateway.finish()).await;
    served.map_err(failed("the server ended"))
}

/// Probes, heals, and keeps the metrics bounded.
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
                tracing::warn!(target: "secret_gateway", %error, "healing failed and is tried again");
            }
            if let Some(metrics) = gateway.metrics() {
                metrics.run_upkeep();
            }
            tokio::time::sleep(HEAL_EVERY).await;
        }
    };
    futures::join!(probing, healing);
}
