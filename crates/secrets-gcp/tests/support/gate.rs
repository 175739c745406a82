//! A scripted server, for responses that the stand-in never sends.

use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// One request, as received.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Method and path, such as `GET /v1/projects/…`.
    pub(crate) line: String,
    pub(crate) body: Value,
    pub(crate) authorization: String,
}

/// A response: status, headers, body.
#[derive(Clone, Debug)]
pub(crate) struct Answer(
    pub(crate) u16,
    pub(crate) Vec<(&'static str, String)>,
    pub(crate) String,
);

impl Answer {
    pub(crate) fn ok(body: &Value) -> Self {
        Self(200, Vec::new(), body.to_string())
    }

    /// An error of the service. Its message must not be repeated.
    pub(crate) fn error(http: u16, status: &str, reason: Option<&str>) -> Self {
        let details: Vec<Value> = reason
            .iter()
            .map(|reason| {
                json!({
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": reason,
                    "domain": "googleapis.com",
                    "metadata": { "service": "secretmanager.googleapis.com" },
                })
            })
            .collect();
        let body = json!({ "error": {
            "code": http,
            "message": "the message of the body: a canary",
            "status": status,
            "details": details,
        } });
        Self(http, Vec::new(), body.to_string())
    }
}

type Rule = Arc<dyn Fn(&Seen) -> Answer + Send + Sync>;

/// A running gate. It ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Gate {
    pub(crate) async fn open(rule: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
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
                    let service = service_fn(|request| serve(request, &seen, &rule));
                    // An error here is a client that disconnected.
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
}

async fn serve(
    request: Request<Incoming>,
    seen: &Mutex<Vec<Seen>>,
    rule: &Rule,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let arrived = Seen {
        line: format!("{} {}", head.method, head.uri),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        authorization: head
            .headers
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default(),
    };
    let Answer(status, headers, text) = rule(&arrived);
    seen.lock().unwrap().push(arrived);
    let mut response = Response::builder()
        .status(status)
        .header("content-type", "application/json; charset=UTF-8");
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(text)).unwrap())
}
