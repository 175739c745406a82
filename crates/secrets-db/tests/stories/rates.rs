//! Quotas that several processes share, in a real Postgres.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use secret_persistence_core::layer::{ClassLimit, Layers, LimitOptions, Stack};
use secret_persistence_core::rates::{Draw, SharedRates, Slice};
use secret_persistence_core::{
    Coordinate, ErrorKind, Memory, SecretPersistence, SecretPersistenceExt, SecretValue,
    conformance,
};
use secret_persistence_db::{PostgresOptions, PostgresRates};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::managed;
use crate::support::postgres::{Home, server};

const SECOND: Duration = Duration::from_secs(1);

/// What a process of its own would have.
fn process(home: &Home) -> PostgresRates {
    let (url, variables) = home.address();
    let [(_, user), (_, password)] = &variables[..] else {
        panic!("{variables:?}")
    };
    as_role(&url, user, password)
}

fn as_role(url: &str, user: &str, password: &str) -> PostgresRates {
    let address = url.strip_prefix("postgres://").unwrap();
    let url = SecretValue::new(format!("postgres://{user}:{password}@{address}"));
    PostgresRates::new(&PostgresOptions::from_url(&url).unwrap())
}

/// A way to the server that can be blocked: nothing gets through, and no connection ends.
struct Way {
    url: String,
    /// The first connection that is not blocked.
    from: watch::Sender<usize>,
    made: Arc<AtomicUsize>,
}

impl Way {
    async fn to(url: &str) -> Self {
        let url = url::Url::parse(url).unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (from, gate) = watch::channel(0);
        let made = Arc::<AtomicUsize>::default();
        let makes = Arc::clone(&made);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = makes.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(&server).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pump(from_client, to_server, gate.clone(), number));
                tokio::spawn(pump(from_server, to_client, gate.clone(), number));
            }
        });
        let url = format!("postgres://127.0.0.1:{port}{}", url.path());
        Self { url, from, made }
    }

    fn open(&self, is_open: bool) {
        self.from
            .send(if is_open { 0 } else { usize::MAX })
            .unwrap();
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    /// Blocks the connections that there are, as a failover does to another host. New ones are good.
    fn block_present(&self) {
        self.from.send(self.made()).unwrap();
    }
}

/// One that is never given up, as a migration has it: on a slow machine it would use its own share.
#[derive(Debug)]
struct Waiting(PostgresRates);

#[async_trait::async_trait]
impl SharedRates for Waiting {
    async fn draw(&self, draw: &Draw) -> secret_persistence_core::Result<Slice> {
        loop {
            if let Ok(slice) = self.0.draw(draw).await {
                return Ok(slice);
            }
        }
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: watch::Receiver<usize>,
    number: usize,
) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let is_gone = gate.wait_for(|from| number >= *from).await.is_err();
        if is_gone || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

fn store(rates: impl SharedRates, per_second: f64, replicas: u32) -> Arc<dyn SecretPersistence> {
    let limit = ClassLimit {
        concurrency: 64,
        per_second,
    };
    let stack = Stack::over(Arc::new(Memory::new()))
        .with_limit(LimitOptions::default().with_read(limit))
        .with_shared_rates(Arc::new(rates), replicas);
    Layers::over(stack).build()
}

/// Calls as fast as it may; returns when the calls were made.
async fn load(store: &Arc<dyn SecretPersistence>, until: Instant) -> Vec<Instant> {
    let name = Coordinate::from(managed(1));
    let times = join_all((0..32).map(|_| async {
        let mut times = Vec::new();
        while Instant::now() < until {
            store.read(&name).await.unwrap_err();
            // Memory answers at once, so this is the moment of the request.
            times.push(Instant::now());
        }
        times
    }));
    times.await.concat()
}

fn most_in_a_second(times: &mut [Instant]) -> usize {
    times.sort();
    let within = |first: usize| times.partition_point(|at| *at < times[first] + SECOND) - first;
    (0..times.len()).map(within).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_every_promise() {
    let Some(server) = server("a_bucket_keeps_every_promise") else {
        return;
    };
    let home = server.home().await;
    let processes: Vec<PostgresRates> = (0..4).map(|_| process(&home)).collect();
    // All of them find no table.
    let draw = Draw::new("first", 1000.0, 1);
    for drawn in join_all(processes.iter().map(|process| process.draw(&draw))).await {
        drawn.unwrap();
    }
    conformance::shared_rates(&processes).await;
}

#[tokio::test]
async fn three_stores_together_never_exceed_the_quota() {
    let Some(server) = server("three_stores_together_never_exceed_the_quota") else {
        return;
    };
    let home = server.home().await;
    let stores = [(); 3].map(|()| store(process(&home), 200.0, 1));
    let until = Instant::now() + SECOND * 4;
    let mut times = join_all(stores.iter().map(|store| load(store, until)))
        .await
        .concat();
    let most = most_in_a_second(&mut times);
    assert!(most <= 200, "{most} in a second");
    // How much of it is used depends on the machine; the proof against real stores measures it.
    assert!(times.len() > 200, "{}", times.len());
}

#[tokio::test]
async fn without_the_database_requests_go_on() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let rates = as_role(&format!("postgres://{address}/none"), "u", "canary");
    let error = rates.draw(&Draw::new("any", 10.0, 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!format!("{error:?} {rates:?}").contains("canary"));
    let store = store(rates, 100.0, 4);
    let until = Instant::now() + SECOND * 2;
    let mut times = load(&store, until).await;
    let most = most_in_a_second(&mut times);
    // A quarter of the quota, and what was let through before it was known.
    assert!((25..=60).contains(&most), "{most} in a second");
}

#[tokio::test]
async fn a_database_that_hangs_is_given_up_and_used_again() {
    let Some(server) = server("a_database_that_hangs_is_given_up_and_used_again") else {
        return;
    };
    let home = server.home().await;
    let (url, variables) = home.address();
    let way = Way::to(&url).await;
    let rates = as_role(&way.url, &variables[0].1, &variables[1].1);
    let draw = Draw::new("bucket", 10.0, 1);
    rates.draw(&draw).await.unwrap();
    way.open(false);
    let began = Instant::now();
    let error = rates.draw(&draw).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(began.elapsed() >= SECOND, "{:?}", began.elapsed());
    way.open(true);
    while rates.draw(&draw).await.is_err() {}
}

#[tokio::test]
async fn connections_that_no_longer_answer_are_replaced() {
    let Some(server) = server("connections_that_no_longer_answer_are_replaced") else {
        return;
    };
    let home = server.home().await;
    let (url, variables) = home.address();
    let way = Way::to(&url).await;
    let rates = as_role(&way.url, &variables[0].1, &variables[1].1);
    let draw = Draw::new("bucket", 100.0, 1);
    let both = || async { futures::join!(rates.draw(&draw), rates.draw(&draw)) };
    while !matches!(both().await, (Ok(_), Ok(_))) {}
    let made = way.made();
    if rates.draw(&draw).await.is_ok() {
        assert_eq!(way.made(), made, "they are used again");
    }
    way.block_present();
    let (one, two) = both().await;
    assert!(one.is_err() && two.is_err(), "{one:?}, {two:?}");
    // Those are given up, not waited for.
    let drawn = async { while rates.draw(&draw).await.is_err() {} };
    tokio::time::timeout(SECOND * 30, drawn).await.unwrap();
}

#[tokio::test]
async fn a_session_that_the_server_has_ended_costs_no_draw() {
    let Some(server) = server("a_session_that_the_server_has_ended_costs_no_draw") else {
        return;
    };
    let home = server.home().await;
    let rates = process(&home);
    let draw = Draw::new("bucket", 100.0, 1);
    while rates.draw(&draw).await.is_err() {}
    home.raw
        .run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
             WHERE application_name = 'secret-rates' AND datname = current_database()",
        )
        .await
        .unwrap();
    if let Err(error) = rates.draw(&draw).await {
        // A slow machine.
        assert!(error.message().starts_with("no answer"), "{error}");
    }
}

/// The answers of one process's draws are held up now and then, for less than what it takes to be away.
#[tokio::test]
async fn a_database_that_answers_late_adds_nothing() {
    let Some(server) = server("a_database_that_answers_late_adds_nothing") else {
        return;
    };
    let home = server.home().await;
    let (url, variables) = home.address();
    let way = Way::to(&url).await;
    let late = as_role(&way.url, &variables[0].1, &variables[1].1);
    let stores = [Waiting(late), Waiting(process(&home))].map(|rates| store(rates, 100.0, 1));
    let until = Instant::now() + SECOND * 6;
    let blocks = async {
        while Instant::now() < until {
            for (is_open, time) in [(true, 450), (false, 350)] {
                way.open(is_open);
                tokio::time::sleep(Duration::from_millis(time)).await;
            }
        }
        way.open(true);
    };
    let loads = join_all(stores.iter().map(|store| load(store, until)));
    let (times, ()) = futures::join!(loads, blocks);
    let most = most_in_a_second(&mut times.concat());
    assert!(most <= 100, "{most} in a second");
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_stop_the_requests() {
    let Some(server) = server("a_clock_that_is_set_back_does_not_stop_the_requests") else {
        return;
    };
    let home = server.home().await;
    let rates = process(&home);
    let draw = Draw::new("bucket", 10.0, 1);
    rates.draw(&draw).await.unwrap();
    let hour = "3600000000000";
    home.raw
        .run(&format!(
            "UPDATE secret_rates SET asked = asked + {hour}, next = next + {hour}, since = since + {hour}"
        ))
        .await
        .unwrap();
    let slice = rates.draw(&draw).await.unwrap();
    let wait = slice.first - slice.now;
    assert!(wait <= draw.window(), "{wait:?}");
}

#[tokio::test]
async fn what_a_role_lacks_is_said() {
    let Some(server) = server("what_a_role_lacks_is_said") else {
        return;
    };
    let home = server.home().await;
    let (url, _) = home.address();
    let draw = Draw::new("bucket", 10.0, 1);
    // Without the table, and without the permission to create it.
    home.role("idle", "SELECT").await;
    let idle = as_role(&url, &format!("idle_{}", home.database), "role-password");
    let error = idle.draw(&draw).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    // The table is enough.
    process(&home).draw(&draw).await.unwrap();
    home.role("user", "SELECT, INSERT, UPDATE").await;
    let user = as_role(&url, &format!("user_{}", home.database), "role-password");
    user.draw(&draw).await.unwrap();
    user.draw(&Draw::new("another", 10.0, 1)).await.unwrap();
}
