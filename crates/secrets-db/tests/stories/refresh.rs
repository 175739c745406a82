//! Tokens that may be used once: processes that are killed and suspended at every step of a refresh.
//!
//! `REFRESH_EXPIRIES=10000` sets how many tokens expire on each database before
//! `no_grant_is_lost_in_a_crowd_that_dies` ends.

mod points;
mod provider;
mod rows;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use secret_persistence_core::connector::{
    ActingSecrets, ConnectorOptions, ConnectorSecrets, ConnectorSpec, Place as At, PlacedValues,
    Refresh, RefreshError, RefreshRows, Refreshed, pointers,
};
use secret_persistence_core::settings::StoreUrl;
use secret_persistence_core::{Actor, Scope, Stores};
use secret_persistence_db::{Config, Database, RowTable, SETTINGS, SqliteRefreshRows};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Place, Raw, secret};
use points::{Points, StoppingRows, StoppingStore};
use provider::{Provider, ask, lost};

const PROCESSES: usize = 8;

/// Long enough that a busy machine does not suspend a process for longer.
const EXCHANGE: Duration = Duration::from_secs(8);
const WRITE: Duration = Duration::from_secs(2);

/// After this time, nothing is in flight.
const DEADLINE: Duration = Duration::from_secs(2);

type Exchanged = Result<PlacedValues, String>;

fn places() -> [At; 2] {
    let credentials = At::root().child("credentials");
    [
        credentials.child("refresh_token"),
        credentials.child("access_token"),
    ]
}

fn scope() -> Scope {
    Scope::workspace(Uuid::from_u128(9))
}

/// What a process needs, from its environment or its parent.
struct World {
    rows: Arc<dyn RefreshRows>,
    secrets: ActingSecrets,
    store: Database,
    port: u16,
}

impl World {
    async fn open(url: &str, variable: &dyn Fn(&str) -> Option<String>, points: Points) -> Self {
        let parsed = StoreUrl::parse(url).unwrap();
        let settings = SETTINGS.from_url(&parsed, &variable).unwrap();
        let store = Database::connect(Config::from_settings(&settings).unwrap());
        let store = store.await.unwrap();
        let table = RowTable::new("connectors".parse().unwrap());
        let rows: Arc<dyn RefreshRows> =
            match url.split('?').next().unwrap().strip_prefix("sqlite://") {
                Some(path) => Arc::new(
                    SqliteRefreshRows::open(path.as_ref(), &table)
                        .await
                        .unwrap(),
                ),
                #[cfg(feature = "postgres")]
                None => {
                    use secret_persistence_db::{PostgresOptions, PostgresRefreshRows};
                    let options = PostgresOptions::from_settings(&settings).unwrap();
                    let rows = PostgresRefreshRows::connect(&options, &table).await;
                    Arc::new(rows.unwrap())
                }
                #[cfg(not(feature = "postgres"))]
                None => panic!("the feature `postgres` is off"),
            };
        let stopping = StoppingStore(Arc::new(store.clone()), points.clone());
        let options = ConnectorOptions::default().with_deadline(DEADLINE);
        let port = variable("CHILD_PORT").map_or(0, |port| port.parse().unwrap());
        Self {
            rows: Arc::new(StoppingRows(rows, points)),
            secrets: ConnectorSecrets::new(Stores::new(Arc::new(stopping)), options)
                .acting_as(&Actor::new("test")),
            store,
            port,
        }
    }

    async fn row(&self, id: &str) -> Value {
        self.find(id).await.unwrap()
    }

    async fn find(&self, id: &str) -> Option<Value> {
        let (_, text) = self.rows.read(id).await.unwrap()?;
        let mut parser = serde_json::Deserializer::from_str(&text);
        parser.disable_recursion_limit();
        Some(serde::Deserialize::deserialize(&mut parser).unwrap())
    }

    async fn refresh(
        &self,
        id: &str,
        seen: &Value,
        points: Points,
    ) -> Result<Refreshed, RefreshError<String>> {
        let refresh = Refresh::new(id, &scope(), seen, places())
            .unwrap()
            .with_exchange(EXCHANGE)
            .with_write(WRITE)
            .with_patience(Duration::from_millis(100));
        let (port, id) = (self.port, id.to_owned());
        let exchange = move |old| exchange(port, id, old, points);
        self.secrets.refresh(&self.rows, &refresh, exchange).await
    }
}

async fn exchange(port: u16, id: String, old: PlacedValues, points: Points) -> Exchanged {
    points.pass("before exchange");
    let token = old[0].1.expose().to_owned();
    let line = format!("use {id} {token} {}", std::process::id());
    let answer = tokio::task::spawn_blocking(move || ask(port, &line));
    let answer = answer.await.unwrap();
    points.pass("after exchange");
    let Some((refresh, access)) = answer.split_once(' ') else {
        return Err(answer);
    };
    let [first, second] = places();
    Ok(vec![(second, secret(access)), (first, secret(refresh))])
}

/// The program that the tests below start as a separate process. It does nothing on its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the other tests of this file"]
async fn child() {
    let variable = |name: &str| std::env::var(name).ok();
    let job = variable("CHILD_JOB").expect("started by another test");
    let url = variable("CHILD_URL").unwrap();
    if let Some((row, stop_at)) = job.split_once('@') {
        let points = Points::new(stop_at.parse().unwrap());
        let world = World::open(&url, &variable, Points::new(usize::MAX)).await;
        let seen = world.row(row).await;
        let world = World::open(&url, &variable, points.clone()).await;
        let outcome = world.refresh(row, &seen, points).await;
        let shown = outcome.map(|refreshed| refreshed.ours);
        println!("progress done {shown:?}");
        return;
    }
    // A worker: uses the connectors in turn, and refreshes where a token has expired.
    let points = Points::new(usize::MAX);
    let world = World::open(&url, &variable, points.clone()).await;
    println!("progress started");
    let mut at = std::process::id() as usize;
    loop {
        let grants = ask(world.port, "grants");
        let grants: Vec<&str> = grants.split_whitespace().collect();
        at += 7;
        let id = grants[at % grants.len()];
        // The provider knows a login before its row is saved.
        let Some(seen) = world.find(id).await else {
            continue;
        };
        // The row may have moved on, and its secrets with it.
        let Ok(full) = world.secrets.hydrate(seen.clone()).await else {
            continue;
        };
        let access = full["credentials"]["access_token"].as_str().unwrap();
        if ask(world.port, &format!("check {id} {access}")) == "valid" {
            continue;
        }
        match world.refresh(id, &seen, points.clone()).await {
            Ok(_) | Err(RefreshError::Busy | RefreshError::Exchange(_)) => {}
            Err(error) => println!("progress failed {error}"),
        }
    }
}

fn start(job: &str, url: &str, variables: &[(&str, String)], port: u16) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["refresh::child", "--exact", "--ignored", "--nocapture"])
        .env("CHILD_JOB", job)
        .env("CHILD_URL", url)
        .env("CHILD_PORT", port.to_string())
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A database with connectors of the provider.
struct Scene {
    place: Place,
    raw: Raw,
    url: String,
    variables: Vec<(&'static str, String)>,
    provider: Provider,
    world: World,
}

impl Scene {
    async fn new(place: Place, uses: u64) -> Self {
        let raw = place.raw().await;
        raw.run(
            "CREATE TABLE connectors (id TEXT PRIMARY KEY, configuration TEXT NOT NULL, \
             revision BIGINT NOT NULL)",
        )
        .await
        .unwrap();
        let (mut url, variables) = match &place {
            Place::Sqlite(folder) => (format!("sqlite://{}", folder.file().display()), Vec::new()),
            #[cfg(feature = "postgres")]
            Place::Postgres(home) => home.address(),
        };
        // The table of secrets is made here, so that no child has to.
        let provider = Provider::start(uses);
        let mut all = variables.clone();
        all.push(("CHILD_PORT", provider.port.to_string()));
        let variable = |name: &str| {
            let found = all.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.clone())
        };
        url.push_str("?mode=plain&create=true");
        let world = World::open(&url, &variable, Points::new(usize::MAX)).await;
        Self {
            place,
            raw,
            url,
            variables,
            provider,
            world,
        }
    }

    /// A person logs in: a new connector.
    async fn log_in(&self, id: &str) {
        let (refresh, access) = self.provider.log_in(id);
        let spec = json!({"type": "object", "properties": {"credentials": {
            "type": "object",
            "properties": {
                "refresh_token": {"type": "string", "airbyte_secret": true},
                "access_token": {"type": "string", "airbyte_secret": true},
            },
        }}});
        let spec = ConnectorSpec::compile(&spec).unwrap();
        let config = json!({"host": "api", "credentials": {
            "refresh_token": refresh, "access_token": access,
        }});
        let scope = scope();
        let staged = self.world.secrets.stage_create(&spec, &scope, config);
        let staged = staged.await.unwrap();
        let row = staged.config().to_string();
        self.raw
            .run(&format!(
                "INSERT INTO connectors VALUES ('{id}', '{row}', 1)"
            ))
            .await
            .unwrap();
        let _cleanup = staged.commit().await.unwrap();
    }

    fn start(&self, job: &str) -> Child {
        start(job, &self.url, &self.variables, self.provider.port)
    }

    /// The time of every lease is over.
    async fn let_leases_expire(&self) {
        let sql = "UPDATE secret_refreshes SET expires = 0";
        self.raw.run(sql).await.unwrap();
    }

    /// Uses a connector as a worker would, until it works or its grant is lost.
    async fn works(&self, id: &str) -> bool {
        for _ in 0..4 {
            let seen = self.world.row(id).await;
            let full = self.world.secrets.hydrate(seen.clone()).await.unwrap();
            let access = full["credentials"]["access_token"].as_str().unwrap();
            if ask(self.provider.port, &format!("check {id} {access}")) == "valid" {
                let refresh = full["credentials"]["refresh_token"].as_str().unwrap();
                assert_eq!(refresh, self.provider.grant(id).current, "{id}");
                return true;
            }
            let points = Points::new(usize::MAX);
            match self.world.refresh(id, &seen, points).await {
                Ok(_) => {}
                Err(RefreshError::Exchange(answer)) => {
                    assert_eq!(answer, "revoked");
                    return false;
                }
                Err(error) => panic!("{id}: {error}"),
            }
        }
        panic!("{id}: refreshed, and still expired");
    }

    /// Heals until nothing is left to do. Then the store has what the rows point to, and no more.
    async fn nothing_is_left(&self) {
        self.let_leases_expire().await;
        // The first round ends what is open, the second deletes what may have been in flight.
        let _healed = self.world.secrets.heal_refreshes(&self.world.rows).await;
        tokio::time::sleep(DEADLINE + Duration::from_secs(1)).await;
        let healed = self.world.secrets.heal_refreshes(&self.world.rows).await;
        let healed = healed.unwrap();
        assert!(healed.failed.is_empty() && healed.open.is_empty());
        assert!(healed.unreadable.is_empty());
        for (rows, table) in [
            (0, "secret_refresh_outbox"),
            (0, "secret_refreshes WHERE record IS NOT NULL"),
        ] {
            let count = format!("SELECT count(*) FROM {table}");
            assert_eq!(self.raw.number(&count).await, rows, "{table}");
        }
        let mut named = HashSet::new();
        for (id, _) in self.provider.grants() {
            for (_, pointer) in pointers(&self.world.row(&id).await).unwrap() {
                named.insert(pointer.coordinate.unwrap().to_string());
            }
        }
        let stored = self.raw.number("SELECT count(*) FROM secrets").await;
        assert_eq!(stored, named.len() as i64, "secrets that no row has");
    }

    async fn close(self) {
        self.world.store.close().await;
        self.raw.close().await;
        drop(self.place);
    }
}

/// The steps in which the provider's answer exists only in the process: if it dies there, or is
/// suspended until its lease is over, the grant is lost. The first write is that of the probe.
fn is_window(point: &str, killed: bool, new_token: bool) -> bool {
    match point {
        // The request will be sent by a process that is not the holder any more.
        "before exchange" => !killed,
        "after exchange" => true,
        "before secret written" => new_token,
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_refresh_survives_being_killed_and_suspended_at_every_step() {
    for place in Place::all("a_refresh_survives_being_killed").await {
        let scene = Scene::new(place, u64::MAX).await;
        for killed in [true, false] {
            let (mut points, mut in_window, mut written) = (0, 0, 0);
            for stop_at in 0.. {
                let id = format!("{}-{stop_at}", if killed { "killed" } else { "suspended" });
                scene.log_in(&id).await;
                scene.provider.expire(&id);
                let mut child = scene.start(&format!("{id}@{stop_at}"));
                let mut output = BufReader::new(child.stdout.take().unwrap())
                    .lines()
                    .map_while(Result::ok)
                    .filter_map(|line| Some(line.split_once("progress ")?.1.to_owned()));
                let point = output.next().unwrap_or_default();
                if point.starts_with("done") {
                    child.wait().unwrap();
                    assert_eq!(point, "done Ok(true)");
                    break;
                }
                if killed {
                    child.kill().unwrap();
                } else if point == "after renew" {
                    // Only time tells the process that its lease, which it has just renewed, is over.
                    tokio::time::sleep(WRITE).await;
                }
                scene.let_leases_expire().await;
                let works = scene.works(&id).await;
                // If it was suspended, it continues, and finds that its lease is over.
                drop(child.stdin.take());
                let ended = output.next();
                child.wait().unwrap();
                let ended = ended.is_some_and(|ended| ended.starts_with("done"));
                assert_eq!(ended, !killed, "{point}");
                points += 1;
                written += usize::from(point == "before secret written");
                let window = is_window(&point, killed, written == 2);
                in_window += usize::from(window);
                let grant = scene.provider.grant(&id);
                assert_eq!(grant.revoked, window, "{point}, killed: {killed}");
                assert!(works || window, "{point}, killed: {killed}");
                if !window {
                    assert!(scene.works(&id).await, "{point}, killed: {killed}");
                }
            }
            println!("killed: {killed}: {points} points, {in_window} of them in the window");
            assert!(points >= 25, "only {points} points: steps are missing");
            // Two when killed; one more when suspended: before the request.
            assert_eq!(in_window, if killed { 2 } else { 3 });
        }
        scene.nothing_is_left().await;
        scene.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_grant_is_lost_in_a_crowd_that_dies() {
    let wanted: u64 = std::env::var("REFRESH_EXPIRIES").map_or(600, |text| text.parse().unwrap());
    for place in Place::all("no_grant_is_lost_in_a_crowd").await {
        let scene = Scene::new(place, 2).await;
        let mut logins = 0;
        for _ in 0..32 {
            scene.log_in(&format!("grant-{logins}")).await;
            logins += 1;
        }
        let mut crowd: Vec<Child> = Vec::new();
        let mut killed: HashSet<u32> = HashSet::new();
        let mut explained: HashSet<String> = HashSet::new();
        let started = Instant::now();
        let mut at = 0_usize;
        loop {
            while crowd.len() < PROCESSES {
                crowd.push(scene.start("worker"));
            }
            tokio::time::sleep(Duration::from_millis(150 + 37 * (at as u64 % 7))).await;
            let mut victim = crowd.remove(at * 5 % PROCESSES);
            at += 1;
            // A worker never ends on its own.
            assert!(victim.try_wait().unwrap().is_none(), "a worker has failed");
            victim.kill().unwrap();
            victim.wait().unwrap();
            killed.insert(victim.id());
            for (id, process, got) in lost(&scene.provider, &explained) {
                in_the_window(&scene, &killed, &id, process, &got).await;
                explained.insert(id);
                scene.log_in(&format!("grant-{logins}")).await;
                logins += 1;
            }
            let grants = scene.provider.grants();
            let expiries: u64 = grants.iter().map(|(_, grant)| grant.expiries).sum();
            if expiries >= wanted {
                break;
            }
            assert!(
                started.elapsed() < Duration::from_secs(120 + wanted),
                "it stands still"
            );
        }
        for mut child in crowd {
            child.kill().unwrap();
            child.wait().unwrap();
            killed.insert(child.id());
        }
        // What they left behind is found by the records.
        scene.let_leases_expire().await;
        let mut alive = 0;
        for (id, grant) in scene.provider.grants() {
            if !grant.revoked && scene.works(&id).await {
                alive += 1;
            }
        }
        for (id, process, got) in lost(&scene.provider, &explained) {
            in_the_window(&scene, &killed, &id, process, &got).await;
        }
        let grants = scene.provider.grants();
        let expiries: u64 = grants.iter().map(|(_, grant)| grant.expiries).sum();
        let calls: usize = grants.iter().map(|(_, grant)| grant.used.len()).sum();
        let lost = grants.iter().filter(|(_, grant)| grant.revoked).count();
        // A process was killed when it had written the new token, and not yet the access token.
        let needless: Vec<u32> = grants
            .iter()
            .flat_map(|(_, grant)| grant.needless.clone())
            .collect();
        println!(
            "{expiries} expiries, {calls} exchanges, {} processes killed, {lost} grants lost in \
             the window, {} exchanges for an access token that was lost, {alive} alive, {:?}",
            killed.len(),
            needless.len(),
            started.elapsed(),
        );
        let alive_holder = needless.iter().find(|process| !killed.contains(process));
        assert_eq!(alive_holder, None, "an expiry was exchanged twice");
        assert!((calls - needless.len()) as u64 <= expiries);
        assert!(calls as u64 * 2 >= wanted, "the crowd hardly refreshed");
        scene.nothing_is_left().await;
        scene.close().await;
    }
}

/// A lost grant is one whose holder was killed before it had written what it got.
async fn in_the_window(scene: &Scene, killed: &HashSet<u32>, id: &str, process: u32, got: &str) {
    assert!(
        killed.contains(&process),
        "{id}: nobody was killed, and a token was used twice"
    );
    let written = format!("SELECT count(*) FROM secrets WHERE payload = '{got}'");
    assert_eq!(
        scene.raw.number(&written).await,
        0,
        "{id}: the new token was written, and lost"
    );
}
