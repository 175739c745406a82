//! Bodies that arrive slowly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use futures::channel::mpsc;
use secret_gateway::{Grant, Role, TokenFile};
use secret_persistence::SecretValue;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use crate::program::Program;
use crate::world::{Answer, World, kv_path, written};

/// More than the gateway may run at once.
const SLOW: u128 = 300;

/// One caller that sends bodies which do not end could stop all syncs of a platform for as long as it
/// likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_of_one_caller_keep_no_other_caller_waiting() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("data")).unwrap();
    let tokens = TokenFile::new(folder.path().join("data").join("tokens.json"));
    let token = |name: &str| tokens.create(&Grant::new(name, Role::ALL)).unwrap();
    let (slow, other) = (token("slow"), token("other"));
    let gateway = Program::start(folder.path(), &[]);
    let address = gateway.base.replace("http://", "");

    let began = Instant::now();
    let mut answers = Vec::new();
    for index in 0..SLOW {
        let path = if index % 2 == 0 {
            "/api/v1/hydrate".to_owned()
        } else {
            kv_path(1, index)
        };
        let begun = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nX-Vault-Token: {}\r\n\
             Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{",
            slow.expose()
        );
        let mut connection = TcpStream::connect(&address).await.unwrap();
        connection.write_all(begun.as_bytes()).await.unwrap();
        answers.push(tokio::spawn(async move {
            let mut text = Vec::new();
            // The gateway closes the connection after its answer: the body did not end.
            let _ = connection.read_to_end(&mut text).await;
            String::from_utf8(text).unwrap()
        }));
    }

    let client = reqwest::Client::new();
    let send = |token: &SecretValue, path: String, body: Option<Value>| {
        let url = format!("{}{path}", gateway.base);
        let request = match body {
            None => client.get(url),
            Some(body) => client.post(url).body(body.to_string()),
        };
        let request = request
            .header("x-vault-token", token.expose())
            .header("content-type", "application/json");
        async move { request.send().await.unwrap().status().as_u16() }
    };
    let mut rounds = 0;
    while began.elapsed() < Duration::from_secs(5) {
        let secret = kv_path(2, rounds);
        assert_eq!(send(&other, secret.clone(), written("x")).await, 200);
        assert_eq!(send(&other, secret.clone(), None).await, 200);
        let empty = Some(json!({"configurations": []}));
        assert_eq!(send(&other, "/api/v1/hydrate".to_owned(), empty).await, 200);
        // What has no body is not kept from the slow caller either.
        assert_eq!(send(&slow, secret, None).await, 200);
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(rounds > 10, "{rounds}");

    let (mut late, mut refused) = (0, 0);
    for (index, answer) in answers.into_iter().enumerate() {
        let answer = tokio::time::timeout(Duration::from_secs(20), answer);
        let answer = answer.await.expect("a slow body ends").unwrap();
        let kind = match answer.split_whitespace().nth(1) {
            Some("408") => {
                late += 1;
                "body_too_slow"
            }
            Some("503") => {
                refused += 1;
                "busy"
            }
            _ => panic!("{answer}"),
        };
        let shown = if index % 2 == 0 {
            format!("\"kind\":\"{kind}\"")
        } else {
            format!("link: <urn:secret-gateway:problem:{kind}>; rel=\"type\"")
        };
        assert!(answer.contains(&shown), "{answer}");
    }
    // Half of the bodies that may arrive at once are one caller's at most.
    assert_eq!((late, refused), (128, 172));
    assert!(began.elapsed() < Duration::from_secs(20));
}

type Chunks = mpsc::UnboundedSender<std::io::Result<Bytes>>;

/// Begins a hydrate whose body ends when the sender is dropped.
fn begin(world: &Arc<World>, token: &SecretValue) -> (Chunks, JoinHandle<Answer>) {
    let (sender, chunks) = mpsc::unbounded();
    let begun = Bytes::from_static(b"{\"configurations\"");
    sender.unbounded_send(Ok(begun)).unwrap();
    let request = Request::post("/api/v1/hydrate")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("x-vault-token", token.expose())
        .body(Body::from_stream(chunks))
        .unwrap();
    let router = world.router.clone();
    let answer = async move { Answer::of(router.oneshot(request).await.unwrap()).await };
    (sender, tokio::spawn(answer))
}

fn end(chunks: &Chunks) {
    chunks
        .unbounded_send(Ok(Bytes::from_static(b": []}")))
        .unwrap();
    chunks.close_channel();
}

/// Lets every request that can go on do so.
async fn settled() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn bodies_that_arrive_have_a_limit_of_their_own_and_one_caller_has_half_of_it() {
    let world = Arc::new(World::with(&[("concurrency", "4")]).await);
    let token = |name: &str| world.token(Grant::new(name, Role::ALL));
    let (first, second, third) = (token("first"), token("second"), token("third"));
    let bodies = [
        begin(&world, &first),
        begin(&world, &first),
        begin(&world, &second),
    ];
    settled().await;
    let (_, refused) = begin(&world, &first);
    let refused = refused.await.unwrap();
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.expect_kind(503, "busy")["limit"], 2);

    let last = begin(&world, &second);
    settled().await;
    let (_, refused) = begin(&world, &third);
    let refused = refused.await.unwrap().expect_kind(503, "busy");
    assert_eq!(refused["limit"], 4);
    // None of them runs.
    let stores = world.call("GET", "/api/v1/stores", None).await;
    stores.expect(200);

    // A caller that is gone, and a body that has arrived, make room.
    last.1.abort();
    assert!(last.1.await.unwrap_err().is_cancelled());
    let (chunks, answer) = begin(&world, &third);
    end(&chunks);
    answer.await.unwrap().expect(200);
    for (chunks, answer) in bodies {
        end(&chunks);
        answer.await.unwrap().expect(200);
        let (chunks, answer) = begin(&world, &first);
        end(&chunks);
        answer.await.unwrap().expect(200);
    }
}

/// A body that has arrived is not thrown away because others came first.
#[tokio::test]
async fn a_request_whose_body_has_arrived_waits_for_its_turn() {
    let world = Arc::new(World::with(&[("concurrency", "1")]).await);
    let token = world.token(Grant::new("token", Role::ALL));
    let (chunks, waiting) = begin(&world, &token);
    settled().await;
    world.store.hang();
    let ours = Arc::clone(&world);
    let path = kv_path(1, 1);
    let write = tokio::spawn(async move { ours.call("POST", &path, written("x")).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    end(&chunks);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished() && !write.is_finished());
    world.store.mend();
    write.await.unwrap().expect(200);
    waiting.await.unwrap().expect(200);
}
