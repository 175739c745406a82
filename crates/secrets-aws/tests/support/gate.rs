//! A proxy for AWS: records every request, answers some of them, and forwards the others.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

/// One request, as received.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `GetSecretValue`, or `sts:AssumeRole` for requests to STS.
    pub(crate) action: String,
    /// Method and path, for services with paths: `GET /latest/meta-data`.
    pub(crate) line: String,
    /// The query.
    pub(crate) query: String,
    /// The JSON body, or the form fields of STS.
    pub(crate) body: Value,
    pub(crate) headers: HeaderMap,
}

impl Seen {
    /// The name or ARN in the request.
    pub(crate) fn secret(&self) -> Option<&str> {
        self.body["SecretId"]
            .as_str()
            .or_else(|| self.body["Name"].as_str())
    }

    /// The access key id that signed it.
    pub(crate) fn signer(&self) -> String {
        let header = self.headers["authorization"].to_str().unwrap();
        let (_, rest) = header.split_once("Credential=").unwrap();
        rest.split('/').next().unwrap().to_owned()
    }
}

/// The action of the gate for a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Responds with this status, these headers and this body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// Forwards it, and closes the connection instead of responding.
    DropAnswer,
    /// Never responds.
    Hang,
    /// Forwards it.
    Pass,
}

impl Act {
    pub(crate) fn ok(body: Value) -> Self {
        Self::Answer(200, Vec::new(), body.to_string())
    }

    /// An error in the JSON protocol. Its message must not be repeated.
    pub(crate) fn error(code: &str) -> Self {
        Self::status(400, code)
    }

    pub(crate) fn status(status: u16, code: &str) -> Self {
        let body = json!({ "__type": code, "Message": "the message of the body: a canary" });
        Self::Answer(status, Vec::new(), body.to_string())
    }
}

type Rule = Arc<dyn Fn(&Seen) -> Act + Send + Sync>;

/// A running gate. It ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Gate {
    /// Listens on a free port. Forwards requests to `upstream`, like `http://host:port`.
    pub(crate) async fn open(
        upstream: Option<&str>,
        rule: impl Fn(&Seen) -> Act + Send + Sync + 'static,
    ) -> Self {
        let upstream: Option<SocketAddr> = upstream.map(|url| {
            let address = url.trim_start_matches("http://").trim_end_matches('/');
            address.replace("localhost", "127.0.0.1").parse().unwrap()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gate = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            seen: Arc::default(),
        };
        let (seen, rule): (_, Rule) = (Arc::clone(&gate.seen), Arc::new(rule));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, rule) = (Arc::clone(&seen), Arc::clone(&rule));
                tokio::spawn(async move {
                    let service = service_fn(|request| serve(request, &seen, &rule, upstream));
                    // An error here is a connection that the test closed on purpose.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        gate
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The actions of all requests so far, which are forgotten.
    pub(crate) fn take_actions(&self) -> Vec<String> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.into_iter().map(|seen| seen.action).collect()
    }
}

async fn serve(
    request: Request<Incoming>,
    seen: &Mutex<Vec<Seen>>,
    rule: &Rule,
    upstream: Option<SocketAddr>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let arrived = Seen {
        action: action(&head.headers, &body),
        line: format!("{} {}", head.method, head.uri.path()),
        query: head.uri.query().unwrap_or_default().to_owned(),
        body: serde_json::from_slice(&body).unwrap_or_else(|_| form(&body)),
        headers: head.headers.clone(),
    };
    let act = rule(&arrived);
    seen.lock().unwrap().push(arrived);
    match act {
        Act::Answer(status, headers, text) => {
            let mut response = Response::builder()
                .status(status)
                .header("content-type", "application/x-amz-json-1.1")
                .header("x-amzn-requestid", "7a62c49f-0000-1111-2222-333333333333");
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(Full::from(text)).unwrap())
        }
        Act::Hang => {
            std::future::pending::<Infallible>().await;
            unreachable!()
        }
        Act::Pass | Act::DropAnswer => {
            let upstream = upstream.expect("a rule passes, and there is nowhere to pass to");
            let stream = TcpStream::connect(upstream).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let request = Request::from_parts(head, Full::new(body));
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            if matches!(act, Act::DropAnswer) {
                // hyper closes the connection of a service that fails.
                return Err(some_error().await);
            }
            let mut response = Response::new(Full::new(body));
            *response.status_mut() = head.status;
            for (name, value) in &head.headers {
                if name != "transfer-encoding" && name != "content-length" {
                    response
                        .headers_mut()
                        .insert(name, HeaderValue::clone(value));
                }
            }
            Ok(response)
        }
    }
}

/// Some error of hyper. It has no public constructor, so a broken connection creates it.
async fn some_error() -> hyper::Error {
    let (ours, theirs) = tokio::io::duplex(64);
    drop(theirs);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(ours))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
        .send_request(Request::new(Full::default()))
        .await
        .unwrap_err()
}

fn action(headers: &HeaderMap, body: &[u8]) -> String {
    match headers.get("x-amz-target") {
        Some(target) => {
            let target = target.to_str().unwrap();
            target.rsplit('.').next().unwrap().to_owned()
        }
        None => format!("sts:{}", form(body)["Action"].as_str().unwrap_or("unknown")),
    }
}

fn form(body: &[u8]) -> Value {
    std::str::from_utf8(body)
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), Value::from(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
