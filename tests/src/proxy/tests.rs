use std::{convert::Infallible, sync::atomic::AtomicUsize, time::Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request as HttpRequest, Response, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;

use super::*;

/// A server that returns each request, and counts.
struct Echo {
    url: String,
    requests: Arc<AtomicUsize>,
}

impl Echo {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let counter = Arc::clone(&counter);
                let service = service_fn(move |request| echo(request, Arc::clone(&counter)));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn echo(
    request: HttpRequest<Incoming>,
    counter: Arc<AtomicUsize>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    counter.fetch_add(1, Ordering::Relaxed);
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let said = format!("{} {} ", head.method, head.uri.path_and_query().unwrap());
    let response = Response::builder()
        .status(if head.uri.path() == "/missing" {
            404
        } else {
            200
        })
        .header(
            "x-echo",
            head.headers
                .get("x-test")
                .cloned()
                .unwrap_or_else(|| "none".parse().unwrap()),
        )
        .body(Full::new([said.as_bytes(), &body].concat().into()));
    Ok(response.unwrap())
}

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap()
}

async fn pair() -> (Echo, FaultProxy) {
    let echo = Echo::start().await;
    let proxy = FaultProxy::builder(&*echo.url).start().unwrap();
    (echo, proxy)
}

async fn get(proxy: &FaultProxy, path: &str) -> reqwest::Result<String> {
    client()
        .get(format!("{}{path}", proxy.url()))
        .send()
        .await?
        .text()
        .await
}

#[tokio::test]
async fn requests_and_answers_pass_unchanged() {
    let (_echo, proxy) = pair().await;
    let answer = client()
        .post(format!("{}/a%2Fb/c?d=%20e", proxy.url()))
        .header("x-test", "kept")
        .body("a body")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["x-echo"], "kept");
    assert_eq!(answer.text().await.unwrap(), "POST /a%2Fb/c?d=%20e a body");

    let answer = client()
        .get(format!("{}/missing", proxy.url()))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 404);
}

#[tokio::test]
async fn requests_are_recorded_with_their_headers_and_counted() {
    let (_echo, proxy) = pair().await;
    let request = client()
        .post(format!("{}/a", proxy.url()))
        .header("x-vault-token", "hidden");
    request.body("secret").send().await.unwrap();
    get(&proxy, "/b").await.unwrap();
    get(&proxy, "/b?page=2").await.unwrap();

    assert_eq!(
        proxy.counts(),
        [("GET /b".into(), 2), ("POST /a".into(), 1)]
    );
    assert_eq!((proxy.count("GET *"), proxy.total()), (2, 3));
    let requests = proxy.requests();
    assert_eq!(requests[0].headers["x-vault-token"], "hidden");
    assert_eq!(requests[0].body, "secret");
    assert_eq!(requests[0].status.unwrap(), 200);
    let shown = format!("{requests:?}");
    assert!(shown.contains("x-vault-token"), "{shown}");
    assert!(
        !shown.contains("hidden") && !shown.contains("secret"),
        "{shown}"
    );

    proxy.reset();
    assert_eq!((proxy.total(), proxy.connections()), (0, 0));
}

#[tokio::test]
async fn one_client_keeps_its_connection() {
    let (_echo, proxy) = pair().await;
    let client = client();
    for _ in 0..5 {
        client
            .get(proxy.url())
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
    }
    assert_eq!((proxy.total(), proxy.connections()), (5, 1));
}

#[tokio::test]
async fn the_delay_holds_requests_back_side_by_side() {
    const DELAY: Duration = Duration::from_millis(100);
    let echo = Echo::start().await;
    let proxy = FaultProxy::builder(&*echo.url)
        .with_delay(DELAY)
        .start()
        .unwrap();
    let start = Instant::now();
    let requests: Vec<_> = (0..8)
        .map(|_| tokio::spawn(client().get(proxy.url()).send()))
        .collect();
    for request in requests {
        request.await.unwrap().unwrap();
    }
    assert!(start.elapsed() >= DELAY);
    assert!(proxy.in_flight_maximum() > 1, "one after the other");
    proxy.set_delay(Duration::ZERO);
    proxy.reset();
    get(&proxy, "/").await.unwrap();
    assert_eq!(proxy.in_flight_maximum(), 1);
}

#[tokio::test]
async fn every_third_request_is_throttled() {
    let (echo, proxy) = pair().await;
    proxy.inject(Rule::new(Fault::Respond(Answer::vault_throttling(7))).every(3));
    let mut statuses = Vec::new();
    for _ in 0..6 {
        let answer = client().get(proxy.url()).send().await.unwrap();
        if answer.status() == 429 {
            assert_eq!(answer.headers()["retry-after"], "7");
        }
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 200, 200, 429]);
    assert_eq!((echo.requests(), proxy.total()), (4, 6));
    proxy.heal();
    for _ in 0..3 {
        assert_eq!(
            client().get(proxy.url()).send().await.unwrap().status(),
            200
        );
    }
}

#[tokio::test]
async fn answers_look_like_those_of_aws() {
    let echo = Echo::start().await;
    let proxy = FaultProxy::builder(&*echo.url)
        .with_operations(aws_operation)
        .start()
        .unwrap();
    let denied = Answer::aws_access_denied("secretsmanager:DeleteSecret");
    proxy.inject(Rule::new(Fault::Respond(denied)).on("DeleteSecret"));
    let ask = async |operation: &str| {
        let request = client().post(proxy.url());
        let target = format!("secretsmanager.{operation}");
        request
            .header("x-amz-target", target)
            .body("{}")
            .send()
            .await
            .unwrap()
    };
    assert_eq!(ask("GetSecretValue").await.status(), 200);
    let answer = ask("DeleteSecret").await;
    assert_eq!(answer.status(), 400);
    assert_eq!(
        answer.headers()["content-type"],
        "application/x-amz-json-1.1"
    );
    assert_eq!(answer.headers().get_all("content-type").iter().count(), 1);
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["__type"], "AccessDeniedException");
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .contains("secretsmanager:DeleteSecret")
    );
    assert_eq!(echo.requests(), 1);
}

/// reqwest does not retry: a cut connection is one error here.
#[tokio::test]
async fn a_cut_before_or_after_the_work() {
    for (fault, worked) in [(Fault::CutBeforeWork, 0), (Fault::CutAfterWork, 1)] {
        let (echo, proxy) = pair().await;
        proxy.inject(Rule::new(fault.clone()).times(1));
        let post = || client().post(proxy.url()).body("x").send();
        assert!(post().await.is_err(), "{fault:?}");
        assert_eq!(echo.requests(), worked, "{fault:?}");
        assert_eq!(proxy.requests()[0].status, None);
        assert_eq!(post().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn half_an_answer() {
    let (echo, proxy) = pair().await;
    proxy.inject(Rule::new(Fault::HalfAnswer));
    let mut answer = client()
        .get(format!("{}/abcdef", proxy.url()))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.content_length(), Some(12));
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "GET /a");
    assert!(answer.chunk().await.is_err());
    assert_eq!(echo.requests(), 1);
}

#[tokio::test]
async fn no_answer_before_or_after_the_work() {
    for (fault, worked) in [(Fault::HangBeforeWork, 0), (Fault::HangAfterWork, 1)] {
        let (echo, proxy) = pair().await;
        proxy.inject(Rule::new(fault.clone()));
        let patience = Duration::from_millis(300);
        let answer = client().get(proxy.url()).timeout(patience).send().await;
        assert!(answer.unwrap_err().is_timeout(), "{fault:?}");
        assert_eq!(echo.requests(), worked, "{fault:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_gone_breaks_the_connection_off() {
    let (_echo, proxy) = pair().await;
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let old = proxy.shared.upstream.read().unwrap().clone();
    proxy.set_upstream(format!("http://{nobody}/"));
    assert!(get(&proxy, "/a").await.is_err());
    proxy.set_upstream(old);
    assert_eq!(get(&proxy, "/a").await.unwrap(), "GET /a ");
}

#[tokio::test]
async fn tls_on_both_sides() {
    let (_echo, inner) = pair().await;
    let upstream = inner.shared.upstream.read().unwrap().clone();
    let inner = FaultProxy::builder(upstream).with_tls().start().unwrap();
    let outer = FaultProxy::builder(inner.url())
        .with_upstream_ca_file(inner.ca_file())
        .with_tls()
        .start()
        .unwrap();
    assert!(
        get(&outer, "/a").await.is_err(),
        "nobody trusts the authority unasked"
    );

    let authority = std::fs::read(outer.ca_file()).unwrap();
    let authority = reqwest::Certificate::from_pem(&authority).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([authority])
        .build()
        .unwrap();
    let answer = client
        .get(format!("{}/a", outer.url()))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.text().await.unwrap(), "GET /a ");
    assert_eq!((outer.total(), inner.total()), (1, 1));
}

#[tokio::test]
async fn a_test_may_wait_for_the_nth_request() {
    let (_echo, proxy) = pair().await;
    proxy.inject(Rule::new(Fault::HangBeforeWork).after(1));
    let client = client();
    let url = proxy.url();
    let asking = tokio::spawn(async move {
        for _ in 0..2 {
            let _ = client
                .get(&url)
                .timeout(Duration::from_secs(1))
                .send()
                .await;
        }
    });
    tokio::time::timeout(Duration::from_secs(5), proxy.reached("GET *", 2))
        .await
        .unwrap();
    assert!(!asking.is_finished(), "the second request is still waiting");
    asking.await.unwrap();
}
