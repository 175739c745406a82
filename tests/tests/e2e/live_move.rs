//! A stock installation moves from plain Postgres to AWS to Vault while its processes write. They
//! use gateways as if they were Vault, and do not notice the move.
//!
//! Each step takes a few seconds; `LIVE_MOVE_SECONDS=60` extends it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fs::File,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use e2e::{Absent, Client, LocalStack, Postgres, VaultServer, available};
use futures::TryStreamExt as _;
use secret_persistence_core::{Coordinate, ListOptions, SecretPersistenceExt as _};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::{net::TcpListener, task::spawn_blocking, time::sleep};
use url::Url;
use uuid::Uuid;

use crate::{
    program::Program,
    stores::{account, vault},
};

const PROCESSES: usize = 3;
const REPLICAS: usize = 2;
const MOUNT: &str = "secret";

/// How long the installation runs after each step.
fn pause() -> Duration {
    let told = env::var("LIVE_MOVE_SECONDS").ok();
    Duration::from_secs(told.map_or(3, |text| text.parse().expect("a number of seconds")))
}

/// Replicas of the gateway behind one address. One of them is down at times.
struct Gateways {
    file: PathBuf,
    folder: tempfile::TempDir,
    variables: BTreeMap<&'static str, String>,
    address: String,
    replicas: [Replica; REPLICAS],
    /// Allows only one replica to stop at a time.
    stopping: tokio::sync::Mutex<()>,
    kills: AtomicUsize,
}

#[derive(Default)]
struct Replica {
    /// The URL of its store.
    store: Mutex<String>,
    port: AtomicU16,
    child: Mutex<Option<Child>>,
}

impl Drop for Gateways {
    fn drop(&mut self) {
        for replica in &self.replicas {
            if let Some(mut child) = replica.child.lock().unwrap().take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

impl Gateways {
    async fn start(variables: BTreeMap<&'static str, String>, store: &str) -> Option<Arc<Self>> {
        let own = env::current_exe().unwrap();
        let built = own.ancestors().nth(2).unwrap().join("secret-gateway");
        let file = available(if built.is_file() {
            Ok(built)
        } else {
            Err(Absent::Missing {
                server: "secret-gateway",
                remedy: "run `cargo build -p secret-gateway`".into(),
            })
        })?;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateways = Arc::new(Self {
            file,
            folder: tempfile::tempdir().unwrap(),
            variables,
            address: format!("http://{}", listener.local_addr().unwrap()),
            replicas: Default::default(),
            stopping: tokio::sync::Mutex::default(),
            kills: AtomicUsize::new(0),
        });
        tokio::spawn(balance(listener, Arc::downgrade(&gateways)));
        let all = ["change", "hydrate", "kv-read", "kv-write", "operate"];
        let token = gateways.run("token", &all).await;
        std::fs::write(gateways.folder.path().join("token"), token.trim()).unwrap();
        gateways.roll(store).await;
        Some(gateways)
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("token")).unwrap()
    }

    fn command(&self, replica: usize) -> Command {
        let folder = self.folder.path();
        let mut command = Command::new(&self.file);
        command
            .env_clear()
            .envs(&self.variables)
            .env(
                "SECRET_GATEWAY_DATA_FOLDER",
                folder.join(replica.to_string()),
            )
            .env("SECRET_GATEWAY_TOKENS_FILE", folder.join("tokens.json"))
            .env("SECRET_GATEWAY_KEY_FILE", folder.join("gateway.key"))
            .env("SECRET_GATEWAY_LISTEN", "127.0.0.1:0")
            .env("SECRET_GATEWAY_SHUTDOWN_SECONDS", "20");
        command
    }

    async fn run(&self, name: &str, roles: &[&str]) -> String {
        let mut command = self.command(0);
        command.args(["token", "create", "--name", name]);
        for role in roles {
            command.args(["--role", role]);
        }
        let output = spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a replica with its store.
    async fn launch(&self, replica: usize) {
        let log = self.folder.path().join(format!("log-{replica}"));
        let mut command = self.command(replica);
        let store = self.replicas[replica].store.lock().unwrap().clone();
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        command
            .env("SECRET_GATEWAY_STORE", store)
            .stdout(Stdio::piped())
            .stderr(file);
        let (child, line) = spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let line = lines.next();
            std::thread::spawn(move || lines.for_each(drop));
            (child, line)
        })
        .await
        .unwrap();
        let Some(Ok(line)) = line else {
            panic!(
                "it does not start: {}",
                std::fs::read_to_string(log).unwrap()
            );
        };
        let port = line.rsplit(':').next().unwrap().parse().unwrap();
        *self.replicas[replica].child.lock().unwrap() = Some(child);
        self.replicas[replica].port.store(port, Ordering::SeqCst);
    }

    /// Stops a replica with SIGTERM or SIGKILL.
    async fn stop(&self, replica: usize, signal: &str) {
        let child = self.replicas[replica].child.lock().unwrap().take();
        let Some(mut child) = child else { return };
        let pid = child.id().to_string();
        let signalled = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(signalled.unwrap().success());
        spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    }

    /// Restarts one replica after the other, each with another store.
    async fn roll(&self, store: &str) {
        for replica in 0..REPLICAS {
            let _alone = self.stopping.lock().await;
            *self.replicas[replica].store.lock().unwrap() = store.to_owned();
            self.stop(replica, "TERM").await;
            self.launch(replica).await;
        }
    }

    /// Kills a replica now and then, and restarts it with the same store.
    async fn kill_until(self: Arc<Self>, closing: Arc<AtomicBool>) {
        for round in 0.. {
            sleep(pause() / 2).await;
            if closing.load(Ordering::Relaxed) {
                return;
            }
            let _alone = self.stopping.lock().await;
            self.stop(round % REPLICAS, "KILL").await;
            self.launch(round % REPLICAS).await;
            self.kills.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Forwards each connection to a running replica.
async fn balance(listener: TcpListener, gateways: std::sync::Weak<Gateways>) {
    for turn in 0.. {
        let Ok((mut client, _)) = listener.accept().await else {
            return;
        };
        let Some(gateways) = gateways.upgrade() else {
            return;
        };
        tokio::spawn(async move {
            for next in 0..REPLICAS {
                let replica = &gateways.replicas[(turn + next) % REPLICAS];
                let port = replica.port.load(Ordering::SeqCst);
                let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
                if let Ok(mut server) = server {
                    drop(gateways);
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
            }
        });
    }
}

/// The responses that a platform's processes received.
#[derive(Default)]
struct Told {
    written: BTreeMap<String, String>,
    deleting: BTreeSet<String>,
    wrong: Vec<String>,
    ended: usize,
    reads: usize,
    repeated: usize,
}

impl Told {
    fn hear(&mut self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        match word().as_str() {
            "written" => {
                self.written.insert(word(), word());
            }
            "deleting" => {
                self.deleting.insert(word());
            }
            "deleted" => (),
            "ended" => {
                self.ended += 1;
                self.reads += word().parse::<usize>().unwrap();
                self.repeated += word().parse::<usize>().unwrap();
            }
            _ => self.wrong.push(line.to_owned()),
        }
    }

    /// The secrets that must exist.
    fn live(&self) -> BTreeMap<String, String> {
        let written = self.written.iter();
        written
            .filter(|(name, _)| !self.deleting.contains(*name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

/// Processes that write with the Java driver, each in a separate workspace.
struct Platform {
    told: Arc<Mutex<Told>>,
    processes: Vec<(Child, Option<ChildStdin>)>,
}

impl Drop for Platform {
    fn drop(&mut self) {
        for (child, _) in &mut self.processes {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Platform {
    fn start(gateways: &Gateways) -> Option<Self> {
        let told: Arc<Mutex<Told>> = Arc::default();
        let mut processes = Vec::new();
        for process in 1..=PROCESSES {
            let mut java = Client::Java.command()?;
            let mut child = java
                .arg(Client::Java.story("Platform.java"))
                .arg(format!("{MOUNT}/"))
                .arg(workspace(process).to_string())
                .env("VAULT_ADDR", &gateways.address)
                .env("VAULT_TOKEN", gateways.token())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let hears = Arc::clone(&told);
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    hears.lock().unwrap().hear(&line);
                }
            });
            let input = child.stdin.take();
            processes.push((child, input));
        }
        Some(Self { told, processes })
    }

    /// Runs until every process has written more.
    async fn go_on(&self) {
        let counts = || -> Vec<usize> {
            let told = self.told.lock().unwrap();
            let of = |process| {
                let workspace = workspace(process).to_string();
                told.written
                    .keys()
                    .filter(|name| name.contains(&workspace))
                    .count()
            };
            (1..=PROCESSES).map(of).collect()
        };
        let before = counts();
        sleep(pause()).await;
        for _ in 0..600 {
            if counts()
                .iter()
                .zip(&before)
                .all(|(now, before)| *now >= before + 3)
            {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("the platform is stuck at {:?}", counts());
    }

    /// Stops the processes, and waits for their output.
    async fn end(&mut self) {
        for (_, input) in &mut self.processes {
            drop(input.take());
        }
        for _ in 0..1200 {
            if self.told.lock().unwrap().ended == PROCESSES {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("the platform does not end");
    }
}

fn workspace(process: usize) -> Uuid {
    Uuid::from_u128(process as u128)
}

/// Requests full configurations repeatedly, and counts the responses.
async fn hydrate_until(
    gateways: Arc<Gateways>,
    told: Arc<Mutex<Told>>,
    closing: Arc<AtomicBool>,
) -> usize {
    let client = reqwest::Client::new();
    let (url, token) = (
        format!("{}/api/v1/hydrate", gateways.address),
        gateways.token(),
    );
    drop(gateways);
    let mut answered = 0;
    while !closing.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(50)).await;
        let mut live = told.lock().unwrap().live();
        while live.len() > 20 {
            live.pop_first();
        }
        let pointers: Vec<Value> = live
            .keys()
            .map(|name| json!({"password": {"_secret": name}}))
            .collect();
        let sent = client
            .post(&url)
            .bearer_auth(&token)
            .json(&json!({"configurations": pointers}));
        // A replica was killed: retry.
        let Ok(answer) = sent.send().await else {
            continue;
        };
        let retried = matches!(answer.status().as_u16(), 429 | 503);
        let Ok(body) = answer.json::<Value>().await else {
            continue;
        };
        if retried {
            continue;
        }
        let answers = body["configurations"]
            .as_array()
            .unwrap_or_else(|| panic!("{body}"));
        for (answer, (name, value)) in answers.iter().zip(&live) {
            let problem = &answer["problem"];
            let is_deleted = || told.lock().unwrap().deleting.contains(name);
            if matches!(problem["status"].as_u64(), Some(429 | 503)) || is_deleted() {
                continue;
            }
            assert_eq!(
                answer["configuration"]["password"],
                value.as_str(),
                "{answer}"
            );
            answered += 1;
        }
    }
    answered
}

/// Keeps the platform's table of configurations, as a platform would: the row of a secret is there
/// while the secret is.
async fn keep_rows(database: Url, told: Arc<Mutex<Told>>, closing: Arc<AtomicBool>) {
    let mut connection = PgConnection::connect(database.as_str()).await.unwrap();
    let table = "CREATE TABLE actor (id text PRIMARY KEY, workspace_id uuid NOT NULL, configuration jsonb NOT NULL)";
    sqlx::query(table).execute(&mut connection).await.unwrap();
    let mut kept: BTreeSet<String> = BTreeSet::new();
    while !closing.load(Ordering::Relaxed) {
        let live: BTreeSet<String> = told.lock().unwrap().live().into_keys().collect();
        let gone: Vec<String> = kept.difference(&live).cloned().collect();
        let new: Vec<String> = live.difference(&kept).cloned().collect();
        let delete = sqlx::query("DELETE FROM actor WHERE id = ANY($1)").bind(&gone);
        delete.execute(&mut connection).await.unwrap();
        let insert = "INSERT INTO actor SELECT name, split_part(name, '_', 3)::uuid, \
                      jsonb_build_object('password', jsonb_build_object('_secret', name)) \
                      FROM unnest($1::text[]) AS name";
        let insert = sqlx::query(insert).bind(&new);
        insert.execute(&mut connection).await.unwrap();
        kept = live;
        sleep(Duration::from_millis(10)).await;
    }
}

/// The operator's tool, with the platform's table.
struct Tool {
    program: Program,
    /// The URL of the table.
    rows: String,
    told: Arc<Mutex<Told>>,
}

impl Tool {
    /// Runs a command, again if a secret is deleted while the command looks at it.
    async fn run(&self, command: &str, from: &str, to: &str, journal: &str) -> Value {
        let mut arguments = vec![command, "--from", from, "--to", to];
        arguments.extend(["--configs", &self.rows, "--journal", journal]);
        if command != "rollback" {
            // A row that was deleted meanwhile, and a secret whose row is about to be saved.
            arguments.extend(["--missing", "skip", "--orphaned", "copy"]);
        }
        let mut ends = Vec::new();
        for _ in 0..10 {
            let ended = self.program.run(&arguments).await;
            if ended.status == 0 {
                return ended.expect(0);
            }
            let status = ended.status;
            // A rollback also stops, with 1, if a secret that it deletes disappears from the other store
            // meanwhile: a replica would look like that.
            let is_refused = command == "rollback" && status == 3;
            let report = ended.expect(if is_refused { 3 } else { 1 });
            let failures = report["failures"]
                .as_array()
                .unwrap_or_else(|| panic!("{report}"));
            ends.push(format!("{status}, {}: {failures:?}", report["stopped"]));
            let told = self.told.lock().unwrap();
            for failure in failures {
                let name = failure["coordinate"].as_str().unwrap();
                assert!(told.deleting.contains(name), "{name} is lost: {report}");
            }
        }
        panic!("{command} never ended with 0: {ends:#?}");
    }

    /// Copies until nothing is left to copy, and verifies it.
    async fn copy(&self, from: &str, to: &str, journal: &str) {
        self.run("copy", from, to, journal).await;
        self.run("copy", from, to, journal).await;
        let verify = self.run("verify", from, to, journal).await;
        assert!(
            verify["tally"]["hydrated"].as_u64().unwrap() > 0,
            "{verify}"
        );
    }
}

/// The URL of a store that is mirrored to another.
fn mirrored(store: &str, mirror: &str) -> String {
    let mut url = Url::parse(store).unwrap();
    url.query_pairs_mut().append_pair("mirror", mirror);
    url.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_installation_moves_while_it_writes() {
    let Some(postgres) = Postgres::start_or_env().await else {
        return;
    };
    let Some(localstack) = LocalStack::start_or_env().await else {
        return;
    };
    let Some(server) = VaultServer::start_or_env().await else {
        return;
    };
    let Some(mut program) = Program::found() else {
        return;
    };

    let database = format!("live_move_{}", Uuid::new_v4().simple());
    let mut administrator = PgConnection::connect(postgres.url()).await.unwrap();
    let made = sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {database}")));
    made.execute(&mut administrator).await.unwrap();
    let mut outbox = Url::parse(postgres.url()).unwrap();
    outbox.set_path(&database);
    let mount = server.mount_kv(2).await;
    let token = server.create_token(&["root"], "2h").await;
    let (account, password) = (account(), outbox.password().unwrap_or_default().to_owned());
    let shared = [
        ("AWS_SECRET_MANAGER_ACCESS_KEY_ID", account.as_str()),
        ("AWS_SECRET_MANAGER_SECRET_ACCESS_KEY", "none"),
        ("DATABASE_PASSWORD", &password),
        ("DATABASE_USER", outbox.username()),
        ("VAULT_AUTH_TOKEN", &token),
    ];
    for (name, value) in shared {
        program.set(name, value);
    }
    let mut variables: BTreeMap<_, _> = shared.map(|(name, value)| (name, value.to_owned())).into();
    variables.insert("SECRETS_OWNER", "stories".to_owned());
    variables.insert("SECRET_GATEWAY_OUTBOX_URL", outbox.to_string());

    let (host, port) = (outbox.host_str().unwrap(), outbox.port().unwrap_or(5432));
    let plain = format!("postgres://{host}:{port}/{database}?mode=plain");
    let aws = format!("aws://us-east-1?endpoint-url={}", localstack.url());
    let address = server.address().strip_prefix("http://").unwrap();
    let last = format!("vault://{address}/{mount}/airbyte/?tls=off");

    // Stock: plain rows in Postgres. For the platform, only Vault's address has changed.
    let Some(gateways) = Gateways::start(variables, &plain).await else {
        return;
    };
    let Some(mut platform) = Platform::start(&gateways) else {
        return;
    };
    let told = Arc::clone(&platform.told);
    let closing: Arc<AtomicBool> = Arc::default();
    let rows = keep_rows(outbox.clone(), Arc::clone(&told), Arc::clone(&closing));
    let rows = tokio::spawn(rows);
    let columns = "table=actor&id=id&configuration=configuration&base_id=workspace_id";
    let tool = Tool {
        program,
        rows: format!("postgres://{host}:{port}/{database}?{columns}"),
        told: Arc::clone(&told),
    };
    platform.go_on().await;
    let killer = tokio::spawn(Arc::clone(&gateways).kill_until(Arc::clone(&closing)));
    let hydrating = hydrate_until(
        Arc::clone(&gateways),
        Arc::clone(&told),
        Arc::clone(&closing),
    );
    let hydrating = tokio::spawn(hydrating);

    // Enable the mirror, copy, verify, switch.
    gateways.roll(&mirrored(&plain, &aws)).await;
    tool.copy(&plain, &aws, "journal-first.db").await;
    platform.go_on().await;
    gateways.roll(&mirrored(&aws, &plain)).await;
    platform.go_on().await;
    // All the way back: Postgres contains everything that was written meanwhile.
    gateways.roll(&mirrored(&plain, &aws)).await;
    gateways.roll(&plain).await;
    platform.go_on().await;
    tool.run("rollback", &plain, &aws, "journal-first.db").await;
    // And forward again, permanently.
    gateways.roll(&mirrored(&plain, &aws)).await;
    tool.copy(&plain, &aws, "journal-second.db").await;
    gateways.roll(&mirrored(&aws, &plain)).await;
    platform.go_on().await;
    gateways.roll(&aws).await;
    platform.go_on().await;
    // On to Vault.
    gateways.roll(&mirrored(&aws, &last)).await;
    tool.copy(&aws, &last, "journal-third.db").await;
    gateways.roll(&mirrored(&last, &aws)).await;
    platform.go_on().await;
    gateways.roll(&last).await;
    platform.go_on().await;

    platform.end().await;
    // Time for the last rows. What the last store has besides them, plan lists.
    sleep(Duration::from_secs(1)).await;
    let plan = tool.run("plan", &last, &aws, "journal-left.db").await;
    let orphaned = plan["findings"]["orphaned"]["count"].as_u64().unwrap_or(0);
    closing.store(true, Ordering::Relaxed);
    killer.await.unwrap();
    rows.await.unwrap();
    let hydrated = hydrating.await.unwrap();
    let kills = gateways.kills.load(Ordering::Relaxed);
    let (live, summary) = {
        let told = told.lock().unwrap();
        assert_eq!(told.wrong, Vec::<String>::new());
        let summary = format!(
            "{} written, {} deleted, {} reads, {} requests repeated, {hydrated} hydrated, {kills} kills",
            told.written.len(),
            told.deleting.len(),
            told.reads,
            told.repeated,
        );
        assert!(kills > 3 && hydrated > 100 && told.reads > 100, "{summary}");
        (told.live(), summary)
    };

    // The last store contains every value that was reported to a writer as written, and a secret that
    // was deleted only if plan says so.
    let store = vault(server.address(), &mount, &token).await;
    let listed: Vec<String> = store
        .list(&ListOptions::default())
        .map_ok(|entry| entry.coordinate.as_str().to_owned())
        .try_collect()
        .await
        .unwrap();
    let left: Vec<&String> = listed
        .iter()
        .filter(|name| !live.contains_key(*name))
        .collect();
    assert_eq!(orphaned, left.len() as u64, "{left:#?}, {plan}");
    let deleting = told.lock().unwrap().deleting.clone();
    assert!(
        left.iter().all(|name| deleting.contains(*name)),
        "{left:#?}"
    );
    let names: Vec<Coordinate> = live
        .keys()
        .map(|name| Coordinate::parse(name).unwrap())
        .collect();
    let reads = store.read_many(&names).await;
    for ((name, value), read) in live.iter().zip(reads) {
        let read = read.unwrap_or_else(|error| panic!("{name}: {error}; {summary}"));
        assert_eq!(read.value.expose(), value, "{name}");
    }
    let mut report = std::io::stderr();
    let _ = std::io::Write::write_all(&mut report, format!("live move: {summary}\n").as_bytes());

    drop(gateways);
    let dropped = sqlx::query(AssertSqlSafe(format!(
        "DROP DATABASE {database} WITH (FORCE)"
    )));
    dropped.execute(&mut administrator).await.unwrap();
}
