//! What the remote stores add to the requests that have to be made anyway.
//!
//! `cargo bench -p e2e --bench remote` prints, for LocalStack and for Vault, directly and with 20 ms before each
//! request, the medians of interleaved repetitions: ours, the same with the bare SDK or a bare HTTP client, and the
//! ratio. `tests/e2e/round_trips.rs` asserts the numbers of requests, which are printed too.

// A bench prints, and may stop at whatever goes wrong.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region};
use e2e::{FaultProxy, LocalStack, VaultServer, proxy::aws_operation};
use futures::{StreamExt as _, future::join_all, stream};
use secrets_aws::{AccessKey, AwsSecretsManager};
use secrets_core::{
    ManagedCoordinate, SecretPersistence, SecretPersistenceExt as _, SecretValue, Stores, Write,
    connector::{ActingSecrets, Actor, ConnectorOptions, ConnectorSecrets},
    settings::Settings,
};
use secrets_vault::{SETTINGS, Vault, VaultConfig};
use serde_json::{Map, Value, json};

const DELAY: Duration = Duration::from_millis(20);
const SECRETS: usize = 100;
const POOL: usize = 32;
const WRITERS: usize = 16;

/// Enough for medians on a machine that does other things too; the loop over single reads takes seconds each time.
const REPETITIONS: usize = 31;
const WRITE_REPETITIONS: usize = 7;
const LOOP_REPETITIONS: usize = 3;

const REGION: &str = "eu-central-1";

fn main() {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            println!("store      delay  what                       ours ms   bare ms  ratio target requests in flight connections");
            if let Some(server) = LocalStack::start_or_env().await {
                for delay in [Duration::ZERO, DELAY] {
                    let target = |server: &str| Target::new(server, delay);
                    let (ours, bare) = (target(server.url()), target(server.url()));
                    let names = measure("LocalStack", delay, &ours, &Sdk::new(&ours.url), &Sdk::new(&bare.url)).await;
                    Sdk::new(server.url()).remove(&names).await;
                }
            }
            if let Some(server) = VaultServer::start_or_env().await {
                for delay in [Duration::ZERO, DELAY] {
                    let mount = server.mount_kv(2).await;
                    let target = || Target::new(server.address(), delay);
                    let (ours, bare) = (target(), target());
                    let at = |target: &Target| Http::new(&target.url, server.root_token(), &mount);
                    measure("Vault", delay, &ours, &at(&ours), &at(&bare)).await;
                    let path = format!("sys/mounts/{mount}");
                    server.request("DELETE", &path, None).await.expect("unmount");
                }
            }
        });
}

/// A server, or the delay in front of it.
struct Target {
    url: String,
    proxy: Option<FaultProxy>,
}

impl Target {
    fn new(server: &str, delay: Duration) -> Self {
        let proxy = (!delay.is_zero()).then(|| {
            let proxy = FaultProxy::builder(server).with_operations(aws_operation);
            proxy.with_delay(delay).start().unwrap()
        });
        let url = proxy
            .as_ref()
            .map_or_else(|| server.to_owned(), FaultProxy::url);
        Self { url, proxy }
    }

    fn reset(&self) {
        if let Some(proxy) = &self.proxy {
            proxy.reset();
        }
    }

    /// Requests, the most at once, connections opened; by what was done since the reset.
    fn counts(&self) -> [String; 3] {
        self.proxy.as_ref().map_or_else(Default::default, |proxy| {
            [
                proxy.total(),
                proxy.in_flight_maximum(),
                proxy.connections(),
            ]
            .map(|count| count.to_string())
        })
    }
}

/// What somebody writes without us.
trait Bare {
    /// Our store at the same address; what connecting costs is in it.
    async fn ours(&self) -> Arc<dyn SecretPersistence>;

    /// The same client as after a start, without any connection.
    fn anew(&self) -> Self;

    /// Reads different names in the fastest way that the server has.
    async fn read(&self, names: &[ManagedCoordinate]);

    async fn read_one(&self, name: &ManagedCoordinate);

    async fn write_one(&self, name: &ManagedCoordinate);
}

/// Measures one store at one delay; all names that were written.
async fn measure<B: Bare>(
    store: &'static str,
    delay: Duration,
    target: &Target,
    at_ours: &B,
    bare: &B,
) -> Vec<ManagedCoordinate> {
    let rows = Rows {
        store,
        delay,
        target,
    };
    let names = names(SECRETS);
    write(&names, |name| bare.write_one(name)).await;

    let one = configuration(&names[..1], 1);
    rows.row(
        ("first call after start", REPETITIONS, None),
        async || {
            timed(async {
                acting(at_ours.ours().await)
                    .hydrate(one.clone())
                    .await
                    .unwrap()
            })
            .await
        },
        async || timed(async { bare.anew().read_one(&names[0]).await }).await,
    )
    .await;

    let ours = at_ours.ours().await;
    let secrets = acting(Arc::clone(&ours));
    for count in [1, 10, 20, SECRETS] {
        let names = &names[..count];
        let saved = configuration(names, 1);
        rows.row(
            (&format!("hydrate {count}"), REPETITIONS, Some(1.15)),
            async || {
                let saved = saved.clone();
                timed(async { secrets.hydrate(saved).await.unwrap() }).await
            },
            async || timed(bare.read(names)).await,
        )
        .await;
    }
    let same = configuration(&names[..1], SECRETS);
    rows.row(
        ("hydrate 1, asked 100 ×", REPETITIONS, Some(1.15)),
        async || {
            let saved = same.clone();
            timed(async { secrets.hydrate(saved).await.unwrap() }).await
        },
        async || timed(bare.read_one(&names[0])).await,
    )
    .await;
    let saved = configuration(&names, 1);
    rows.row(
        ("hydrate 100, loop", LOOP_REPETITIONS, None),
        async || {
            let saved = saved.clone();
            timed(async { secrets.hydrate(saved).await.unwrap() }).await
        },
        async || {
            timed(async {
                for name in &names {
                    bare.read_one(name).await;
                }
            })
            .await
        },
    )
    .await;

    let written = Mutex::new(names);
    let fresh = || {
        let names = self::names(SECRETS);
        written.lock().unwrap().extend_from_slice(&names);
        names
    };
    rows.row(
        ("write 100, 16 at once", WRITE_REPETITIONS, Some(1.3)),
        async || {
            let names = fresh();
            let write_one = async |name: &ManagedCoordinate| {
                let value = SecretValue::new(value(name));
                ours.write(Write::new(name.clone(), value)).await.unwrap();
            };
            timed(write(&names, write_one)).await
        },
        async || {
            let names = fresh();
            timed(write(&names, |name| bare.write_one(name))).await
        },
    )
    .await;
    written.into_inner().unwrap()
}

/// The lines of one store at one delay.
struct Rows<'a> {
    store: &'static str,
    delay: Duration,
    target: &'a Target,
}

impl Rows<'_> {
    /// Measures, and prints the medians and what one more run of ours asks of the server.
    async fn row(
        &self,
        (what, repetitions, limit): (&str, usize, Option<f64>),
        ours: impl AsyncFn() -> Duration,
        bare: impl AsyncFn() -> Duration,
    ) {
        // Opens connections.
        ours().await;
        bare().await;
        let mut times = [Vec::new(), Vec::new()];
        for repetition in 0..repetitions {
            // Whoever comes second may find it warmer: they take turns.
            if repetition % 2 == 0 {
                times[0].push(ours().await);
                times[1].push(bare().await);
            } else {
                times[1].push(bare().await);
                times[0].push(ours().await);
            }
        }
        let [mine, theirs] = times.map(|times| median(times).as_secs_f64() * 1e3);
        self.target.reset();
        ours().await;
        let [requests, in_flight, connections] = self.target.counts();
        println!(
            "{:<10} {:>5}  {what:<24} {mine:>9.2} {theirs:>9.2} {:>6.2} {:>6} {requests:>8} {in_flight:>9} {connections:>11}",
            self.store,
            self.delay.as_millis(),
            mine / theirs,
            limit.map_or_else(String::new, |limit| format!("{limit:.2}")),
        );
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// How long it takes, up to the answer: not until the answer is wiped.
async fn timed<T>(work: impl Future<Output = T>) -> Duration {
    let started = Instant::now();
    let answer = work.await;
    let elapsed = started.elapsed();
    drop(answer);
    elapsed
}

fn names(count: usize) -> Vec<ManagedCoordinate> {
    let run = uuid::Uuid::new_v4();
    let name = |at| format!("airbyte_workspace_{run}_secret_{at}_v1");
    (0..count)
        .map(|at| ManagedCoordinate::parse(&name(at)).unwrap())
        .collect()
}

fn value(name: &ManagedCoordinate) -> String {
    format!("the value of {name}")
}

/// A configuration that points to each name so many times.
fn configuration(names: &[ManagedCoordinate], times: usize) -> Value {
    let pointers = names
        .iter()
        .flat_map(|name| std::iter::repeat_n(name, times));
    let fields = pointers.enumerate();
    let fields: Map<String, Value> = fields
        .map(|(at, name)| (format!("field{at}"), json!({"_secret": name.as_str()})))
        .collect();
    fields.into()
}

fn acting(store: Arc<dyn SecretPersistence>) -> ActingSecrets {
    let secrets = ConnectorSecrets::new(Stores::new(store), ConnectorOptions::default());
    secrets.acting_as(&Actor::new("bench"))
}

async fn write<'a, F: Future<Output = ()>>(
    names: &'a [ManagedCoordinate],
    write_one: impl Fn(&'a ManagedCoordinate) -> F,
) {
    stream::iter(names)
        .for_each_concurrent(WRITERS, write_one)
        .await;
}

/// The AWS SDK as it comes.
struct Sdk {
    client: aws_sdk_secretsmanager::Client,
    url: String,
}

impl Sdk {
    fn new(url: &str) -> Self {
        let config = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "bench"))
            .endpoint_url(url);
        Self {
            client: aws_sdk_secretsmanager::Client::from_conf(config.build()),
            url: url.to_owned(),
        }
    }

    async fn remove(&self, names: &[ManagedCoordinate]) {
        let remove = async |name: &ManagedCoordinate| {
            let request = self.client.delete_secret().secret_id(name.as_str());
            request
                .force_delete_without_recovery(true)
                .send()
                .await
                .unwrap();
        };
        write(names, remove).await;
    }
}

impl Bare for Sdk {
    async fn ours(&self) -> Arc<dyn SecretPersistence> {
        let key = || SecretValue::new("test".to_owned());
        let key = AccessKey::new(key(), key());
        let config = secrets_aws::Config::builder(REGION)
            .with_endpoint(&*self.url)
            .with_credentials(secrets_aws::Credentials::AccessKey(key));
        Arc::new(AwsSecretsManager::new(config.build().unwrap()))
    }

    fn anew(&self) -> Self {
        Self::new(&self.url)
    }

    async fn read(&self, names: &[ManagedCoordinate]) {
        if let [name] = names {
            return self.read_one(name).await;
        }
        let batches = names.chunks(20).map(|names| async move {
            let names = names.iter().map(|name| name.as_str().to_owned()).collect();
            let request = self.client.batch_get_secret_value();
            let answer = request
                .set_secret_id_list(Some(names))
                .send()
                .await
                .unwrap();
            answer.secret_values.unwrap().len()
        });
        let read: usize = join_all(batches).await.into_iter().sum();
        assert_eq!(read, names.len());
    }

    async fn read_one(&self, name: &ManagedCoordinate) {
        let answer = self
            .client
            .get_secret_value()
            .secret_id(name.as_str())
            .send()
            .await;
        assert!(answer.unwrap().secret_string.is_some());
    }

    async fn write_one(&self, name: &ManagedCoordinate) {
        let request = self.client.create_secret().name(name.as_str());
        request.secret_string(value(name)).send().await.unwrap();
    }
}

/// A pooled HTTP client, and Vault's answers as they come.
struct Http {
    client: reqwest::Client,
    url: String,
    token: String,
    mount: String,
}

impl Http {
    fn new(url: &str, token: &str, mount: &str) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .pool_max_idle_per_host(POOL)
            .tcp_nodelay(true);
        Self {
            client: client.build().unwrap(),
            url: url.to_owned(),
            token: token.to_owned(),
            mount: mount.to_owned(),
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) {
        let answer = request
            .header("x-vault-token", &self.token)
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success());
        answer.bytes().await.unwrap();
    }

    fn path(&self, name: &ManagedCoordinate) -> String {
        format!("{}/v1/{}/data/{name}", self.url, self.mount)
    }
}

impl Bare for Http {
    async fn ours(&self) -> Arc<dyn SecretPersistence> {
        let mut settings = Settings::new(SETTINGS);
        let prefix = format!("{}/", self.mount);
        for (name, value) in [
            ("address", &self.url),
            ("prefix", &prefix),
            ("token", &self.token),
        ] {
            settings.set(name, value).unwrap();
        }
        let config = VaultConfig::from_settings(&settings).unwrap();
        Arc::new(Vault::connect(config).await.unwrap())
    }

    fn anew(&self) -> Self {
        Self::new(&self.url, &self.token, &self.mount)
    }

    async fn read(&self, names: &[ManagedCoordinate]) {
        stream::iter(names)
            .for_each_concurrent(POOL, |name| self.read_one(name))
            .await;
    }

    async fn read_one(&self, name: &ManagedCoordinate) {
        self.send(self.client.get(self.path(name))).await;
    }

    async fn write_one(&self, name: &ManagedCoordinate) {
        let body = json!({"data": {"value": value(name)}, "options": {"cas": 0}});
        self.send(self.client.post(self.path(name)).json(&body))
            .await;
    }
}
