//! The path of a request through the proxy.

use std::{
    convert::Infallible,
    future, io,
    path::Path,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, Response, Uri,
    body::Incoming,
    header::{self, HeaderName},
    http::request,
    server::conn::http1,
    service::service_fn,
};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Notify,
    time::sleep,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, pem::PemObject as _},
    },
};

use super::{
    Answer, Fault, Rule,
    body::AnswerBody,
    read_pem,
    record::{self, Place, Record},
};

/// Names the operation of a request.
pub(super) type Operations = dyn Fn(&request::Parts) -> String + Send + Sync;

type Upstream = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// State that all connections of one proxy share.
pub(super) struct Shared {
    pub(super) arrivals: Notify,
    pub(super) delay_nanos: AtomicU64,
    pub(super) record: Mutex<Record>,
    pub(super) rules: Mutex<Vec<Rule>>,
    pub(super) upstream: RwLock<String>,
    client: Upstream,
    operations: Arc<Operations>,
}

impl Shared {
    pub(super) fn new(upstream: String, client: Upstream, operations: Arc<Operations>) -> Self {
        Self {
            arrivals: Notify::new(),
            delay_nanos: AtomicU64::new(0),
            record: Mutex::default(),
            rules: Mutex::default(),
            upstream: RwLock::new(upstream),
            client,
            operations,
        }
    }
}

/// Serves connections until the runtime ends.
pub(super) async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    shared: Arc<Shared>,
) {
    loop {
        // A client that disconnects before it is accepted does not matter.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // Otherwise the kernel delays small responses, and latencies are wrong.
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            shared.record.lock().expect("no holder panics").connections += 1;
            match acceptor {
                None => connection(stream, shared).await,
                Some(acceptor) => {
                    // A client that does not trust the certificate ends here and reports it.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        connection(stream, shared).await;
                    }
                }
            }
        });
    }
}

/// The client for the server. It trusts only the given authority.
pub(super) fn client(ca_file: Option<&Path>) -> io::Result<Upstream> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = ca_file {
        for certificate in CertificateDer::pem_slice_iter(&read_pem(file)?) {
            roots
                .add(certificate.map_err(io::Error::other)?)
                .map_err(io::Error::other)?;
        }
    }
    // The provider is explicit, because rustls only chooses one if no other crate adds a second.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    shared: Arc<Shared>,
) {
    let service = service_fn(move |request| serve(request, Arc::clone(&shared)));
    // Fails whenever a rule or a client cuts the connection.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// An error closes the connection without a response.
async fn serve(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> io::Result<Response<AnswerBody>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let operation = (shared.operations)(&head);
    let fault = meet(&shared, &operation);
    let arrived = Arrived::new(&shared, operation, &head, &body);
    shared.arrivals.notify_waiters();

    sleep(Duration::from_nanos(
        shared.delay_nanos.load(Ordering::Relaxed),
    ))
    .await;
    let answer = match fault {
        None => pass_on(&shared, &head, body).await?,
        Some(Fault::CutAfterWork) => {
            pass_on(&shared, &head, body).await?;
            return Err(cut());
        }
        Some(Fault::CutBeforeWork) => return Err(cut()),
        Some(Fault::Delay(delay)) => {
            sleep(delay).await;
            pass_on(&shared, &head, body).await?
        }
        Some(Fault::HalfAnswer) => {
            let answer = pass_on(&shared, &head, body).await?;
            arrived.answered(answer.status);
            return Ok(response(&answer, AnswerBody::half(&answer.body)));
        }
        Some(Fault::HangAfterWork) => {
            pass_on(&shared, &head, body).await?;
            never().await
        }
        Some(Fault::HangBeforeWork) => never().await,
        Some(Fault::Respond(answer)) => answer,
    };
    arrived.answered(answer.status);
    Ok(response(&answer, AnswerBody::whole(answer.body.clone())))
}

fn meet(shared: &Shared, operation: &str) -> Option<Fault> {
    let mut rules = shared.rules.lock().expect("no holder panics");
    rules.iter_mut().find_map(|rule| rule.meet(operation))
}

/// Lasts until the client gives up, which drops the future.
async fn never<T>() -> T {
    match future::pending::<Infallible>().await {}
}

fn cut() -> io::Error {
    io::Error::other("the connection ends here by order of a rule")
}

/// Forwards the request. If the server is unreachable or disconnects, the client's connection is
/// closed too.
async fn pass_on(shared: &Shared, head: &request::Parts, body: Bytes) -> io::Result<Answer> {
    let upstream = shared.upstream.read().expect("no holder panics").clone();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri: Uri = format!("{upstream}{path}")
        .parse()
        .map_err(io::Error::other)?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = end_to_end(&head.headers);

    let answer = shared
        .client
        .request(request)
        .await
        .map_err(io::Error::other)?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Answer {
        status: head.status,
        headers: end_to_end(&head.headers),
        body,
    })
}

/// Headers without those that apply to one connection only.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    const HOP_BY_HOP: [HeaderName; 6] = [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    let mut headers = headers.clone();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers
}

fn response(answer: &Answer, body: AnswerBody) -> Response<AnswerBody> {
    let announced = body.announced();
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers.clone();
    // The response to HEAD has the length of a missing body.
    if announced > 0 {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, announced.into());
    }
    response
}

/// A request in progress, until it is dropped.
struct Arrived<'a> {
    shared: &'a Shared,
    place: Place,
}

impl<'a> Arrived<'a> {
    fn new(shared: &'a Shared, operation: String, head: &request::Parts, body: &Bytes) -> Self {
        let request = record::Request {
            operation,
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: head.headers.clone(),
            body: body.clone(),
            at: std::time::Instant::now(),
            status: None,
        };
        let place = shared
            .record
            .lock()
            .expect("no holder panics")
            .arrive(request);
        Self { shared, place }
    }

    fn answered(&self, status: hyper::StatusCode) {
        self.shared
            .record
            .lock()
            .expect("no holder panics")
            .answer(self.place, status);
    }
}

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        if let Ok(mut record) = self.shared.record.lock() {
            record.in_flight -= 1;
        }
    }
}
