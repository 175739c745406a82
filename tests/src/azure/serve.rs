//! The path of a request through the stand-in.

use std::{
    io,
    sync::{Arc, Mutex, RwLock},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, body::Incoming, header, http::request, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use super::{
    directory::Directory,
    entra, managed,
    record::Request as Recorded,
    reply::Reply,
    route::{Query, Route},
    switches::Switches,
    vault::{Call, Vault},
};

/// State that all connections of one stand-in share.
pub(super) struct Shared {
    /// The address of Entra ID in challenges.
    pub(super) authority_host: String,
    pub(super) directory: Directory,
    pub(super) record: Mutex<Vec<Recorded>>,
    pub(super) switches: RwLock<Switches>,
    pub(super) vault: Vault,
}

/// The port of a connection.
#[derive(Clone, Copy)]
pub(super) enum Port {
    /// Plain http, where a machine finds its managed identity.
    Metadata,
    /// The vault and Entra ID.
    Service,
}

/// Serves connections until the runtime ends, with TLS if there is an acceptor.
pub(super) async fn accept(
    listener: TcpListener,
    port: Port,
    acceptor: Option<TlsAcceptor>,
    shared: Arc<Shared>,
) {
    loop {
        // A client that disconnects before it is accepted does not matter.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // Otherwise the kernel delays small responses.
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            match acceptor {
                None => connection(stream, port, shared).await,
                Some(acceptor) => {
                    // A client that does not trust the certificate ends here and reports it.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        connection(stream, port, shared).await;
                    }
                }
            }
        });
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    port: Port,
    shared: Arc<Shared>,
) {
    let service = service_fn(move |request| serve(request, port, Arc::clone(&shared)));
    // Fails whenever a switch or a client cuts the connection.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// An error closes the connection without a response.
async fn serve(
    request: Request<Incoming>,
    port: Port,
    shared: Arc<Shared>,
) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let latency = shared.switches.read().expect("no holder panics").latency;
    sleep(latency).await;

    let (recorded, reply) = match port {
        Port::Metadata => metadata(&shared, &head),
        Port::Service => service(&shared, &head, &body),
    };
    let dropped = reply.status.is_success() && changes(&recorded) && shared.take_drop();
    shared
        .record
        .lock()
        .expect("no holder panics")
        .push(recorded);
    if dropped {
        return Err(io::Error::other(
            "the connection ends here by order of a switch",
        ));
    }
    Ok(reply.into_response())
}

fn metadata(shared: &Shared, head: &request::Parts) -> (Recorded, Reply) {
    let switches = shared.switches.read().expect("no holder panics").clone();
    let query = Query::parse(head.uri.query());
    let reply = managed::token(
        &shared.directory,
        &switches,
        &head.method,
        head.uri.path(),
        &query,
        &head.headers,
    );
    let recorded = Recorded {
        operation: "ManagedIdentityToken",
        name: None,
        authorized: false,
        status: reply.status,
    };
    (recorded, reply)
}

fn service(shared: &Shared, head: &request::Parts, body: &[u8]) -> (Recorded, Reply) {
    let switches = shared.switches.read().expect("no holder panics").clone();
    let query = Query::parse(head.uri.query());
    let route = Route::parse(&head.method, head.uri.path());
    let host = head
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    let operation = match &route {
        Route::Vault(operation) => Some(operation),
        Route::Token { .. } | Route::Unknown => None,
    };
    let reply = match &route {
        Route::Token { tenant } => entra::token(&shared.directory, &switches, tenant, body),
        Route::Unknown | Route::Vault(_) => shared.vault.serve(&Call {
            authority: &shared.authority_host,
            body,
            directory: &shared.directory,
            headers: &head.headers,
            host,
            operation,
            query: &query,
            switches: &switches,
        }),
    };
    let recorded = Recorded {
        operation: route.operation(),
        name: operation
            .and_then(|operation| operation.name())
            .map(str::to_owned),
        authorized: head.headers.contains_key(header::AUTHORIZATION),
        status: reply.status,
    };
    (recorded, reply)
}

/// Whether a lost response leaves the outcome unknown to its caller.
fn changes(recorded: &Recorded) -> bool {
    matches!(
        recorded.operation,
        "DeleteSecret"
            | "PurgeDeletedSecret"
            | "RecoverDeletedSecret"
            | "SetSecret"
            | "UpdateSecret"
    )
}

impl Shared {
    fn take_drop(&self) -> bool {
        let mut switches = self.switches.write().expect("no holder panics");
        let drop = switches.drop_after_work > 0;
        if drop {
            switches.drop_after_work -= 1;
        }
        drop
    }
}
