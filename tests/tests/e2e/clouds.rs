//! The demo's connectors and two thousand secrets more go round SQLite, Google, Azure and SQLite by the tool itself. It is
//! killed again and again, between services that throttle, break off and do not list what they hold.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use e2e::{
    azure::{self, Azure},
    google::{self, Google, When},
};
use secrets_core::{ManagedCoordinate, SecretPersistence as _};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    fleet::{Fleet, names},
    ring::{Saved, demo},
    stores::{calls, sqlite},
    tool::program,
};

/// With four secrets each.
const CONFIGURATIONS: usize = 500;

/// Longer than the story.
const LAG: Duration = Duration::from_secs(3600);

/// Two services, the tool, and a folder to run it in.
struct Clouds {
    program: PathBuf,
    folder: tempfile::TempDir,
    google: Google,
    azure: Azure,
}

impl Clouds {
    async fn new() -> Option<Self> {
        Some(Self {
            program: program()?,
            folder: tempfile::tempdir().unwrap(),
            google: Google::start(google::Options::default()).await.unwrap(),
            azure: Azure::start(azure::Options::default()).await.unwrap(),
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn google_url(&self) -> String {
        let (project, endpoint) = (self.google.project(), self.google.endpoint());
        format!("gcp://{project}?endpoint-url={endpoint}")
    }

    fn azure_url(&self) -> String {
        format!(
            "azure://localhost:{}?authority-host={}&ca-file={}&verify-challenge=false",
            self.azure.address().port(),
            self.azure.authority_host(),
            self.azure.ca_file().display(),
        )
    }

    /// Listings show nothing of what happens in the story, and `latest` nothing for a while. Now and then a request is
    /// one too many, or done without an answer.
    fn trouble(&self) {
        self.google.switches(|switches| {
            switches.list_lag = LAG;
            switches.latest_lag = Duration::from_secs(2);
            switches.throttle_every = Some(9);
            for _ in 0..5 {
                switches.cut("CreateSecret", When::AfterWork);
                switches.cut("AddSecretVersion", When::AfterWork);
            }
        });
        self.azure.switches(|switches| {
            switches.list_lag = LAG;
            switches.throttle_every = Some(9);
            switches.drop_after_work = 5;
        });
    }

    /// Requests to both services, answered or not.
    fn requests(&self) -> usize {
        self.google.requests().len() + self.azure.requests().len()
    }

    /// The tool, with nothing of this process's environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .arg("--json")
            .current_dir(self.folder.path())
            .env_clear()
            .env("SECRETS_OWNER", "stories")
            .env(
                "SECRET_STORE_GCP_CREDENTIALS",
                self.google.service_account_json(),
            )
            .env("AB_AZURE_KEY_VAULT_TENANT_ID", self.azure.tenant_id())
            .env("AB_AZURE_KEY_VAULT_CLIENT_ID", self.azure.client_id())
            .env(
                "AB_AZURE_KEY_VAULT_CLIENT_SECRET",
                self.azure.client_secret(),
            )
            .stdin(Stdio::null());
        command
    }

    /// Runs the tool to its end, which must be a good one. The tally of its report.
    fn run(&self, arguments: &[&str]) -> Value {
        let output = self.command(arguments).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{arguments:?}: {}: {shown}\n{said}",
            output.status
        );
        for secret in [self.azure.client_secret(), "PRIVATE KEY"] {
            assert!(!shown.contains(secret) && !said.contains(secret));
        }
        let report: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(report["failed"], 0, "{report}");
        report["tally"].clone()
    }

    /// Kills the tool at its n-th operation of a store or journal, before or after it.
    fn kill_at_point(&self, arguments: &[&str], point: u64) {
        let mut child = self
            .command(arguments)
            .env("MIGRATE_TEST_STOP_AT", point.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let mut lines = said.lines().map(Result::unwrap);
        let stopped = lines.any(|line| line.starts_with("stopped at point"));
        assert!(stopped, "{arguments:?} was over before point {point}");
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Kills the tool when so many more requests have arrived, in the middle of whatever it does.
    fn kill_after(&self, arguments: &[&str], requests: usize) {
        let enough = self.requests() + requests;
        let mut child = self
            .command(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let patience = Instant::now() + Duration::from_secs(60);
        while self.requests() < enough {
            assert!(Instant::now() < patience, "{arguments:?} asks for nothing");
            assert_eq!(child.try_wait().unwrap(), None, "{arguments:?} was over");
            thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_between_clouds_in_trouble() {
    let Some(clouds) = Clouds::new().await else {
        return;
    };
    let first = sqlite(&clouds.file("first.db")).await;
    let connectors = demo(&first).await;
    let demos = names(&first).await;
    let fleet = Fleet::new(CONFIGURATIONS);
    fleet.save_in(&first).await;
    // The tool makes a table only where it is told to.
    let last = sqlite(&clouds.file("last.db")).await;
    write_configurations(&clouds.file("configs.jsonl"), &connectors, &fleet);
    let expected: Vec<ManagedCoordinate> = names(&first).await;
    let secrets = expected.len();
    assert_eq!(secrets, demos.len() + 4 * CONFIGURATIONS);
    let configurations = connectors.len() + CONFIGURATIONS;

    clouds.trouble();
    let (google_url, azure_url) = (clouds.google_url(), clouds.azure_url());
    let stations = ["sqlite:first.db", &google_url, &azure_url, "sqlite:last.db"];
    for (leg, route) in stations.windows(2).enumerate() {
        let journal = format!("leg-{leg}.db");
        let step = |command| {
            [
                command,
                "--from",
                route[0],
                "--to",
                route[1],
                "--configs",
                "configs.jsonl",
                "--journal",
                &journal,
            ]
        };
        let started = Instant::now();
        // At a point of its own, then whenever it happens to be, then at a point again.
        clouds.kill_at_point(&step("copy"), random(500, 3000));
        clouds.kill_after(&step("copy"), 400);
        clouds.kill_at_point(&step("copy"), random(500, 3000));
        clouds.run(&step("copy"));
        clouds.kill_at_point(&step("verify"), random(500, 3000));
        let verify = clouds.run(&step("verify"));
        assert_eq!(verify["verified"], secrets, "{route:?}: {verify}");
        assert_eq!(verify["hydrated"], configurations, "{route:?}: {verify}");
        assert_eq!(verify["lost"], 0, "{route:?}: {verify}");
        let delta = clouds.run(&step("copy"));
        assert_eq!(delta["written"], 0, "{route:?}: a delta has nothing to do");
        println!("leg {leg}: {:?}", started.elapsed());
    }

    // Every value is where it was, and at the end of the ring; each name once in each store.
    for store in [&first, &last] {
        assert_eq!(names(store).await, expected, "{store}");
        for saved in &connectors {
            let full = calls(store).hydrate(saved.configuration.clone()).await;
            assert!(*full.unwrap() == saved.full, "{} differs", saved.name);
        }
        for (saved, full) in fleet.rows() {
            let hydrated = calls(store).hydrate(saved).await.unwrap();
            assert!(*hydrated == full, "{} differs", full["host"]);
        }
    }
    expect_once_in_google(&clouds.google, &expected);
    expect_once_in_azure(&clouds.azure, &expected).await;
}

/// Configurations as JSON lines.
fn write_configurations(file: &Path, connectors: &[Saved], fleet: &Fleet) {
    let demos = connectors
        .iter()
        .map(|saved| (saved.name.clone(), saved.configuration.clone()));
    let others = fleet
        .rows()
        .enumerate()
        .map(|(row, (saved, _))| (format!("connector-{row:04}"), saved));
    let lines: String = demos
        .chain(others)
        .map(|(id, configuration)| {
            let base = "00000000-0000-0000-0000-000000000001";
            let line = json!({"id": id, "baseId": base, "configuration": configuration});
            format!("{line}\n")
        })
        .collect();
    fs::write(file, lines).unwrap();
}

/// Ends the test unless the service holds these names and no others, each with a single version.
fn expect_once_in_google(google: &Google, expected: &[ManagedCoordinate]) {
    let held = google.secrets();
    let ids: BTreeSet<_> = held
        .iter()
        .map(|name| name.rsplit('/').next().unwrap().to_owned())
        .collect();
    let expected: BTreeSet<_> = expected.iter().map(ToString::to_string).collect();
    assert_eq!(ids, expected);
    assert_eq!(held.len(), expected.len());
    for name in held {
        assert_eq!(google.versions(&name), [(1, "ENABLED".to_owned())], "{name}");
    }
}

/// Somewhere from the one to the other, another place in each run; where, is in the name of whatever fails.
fn random(from: u64, to: u64) -> u64 {
    let [low, ..] = Uuid::new_v4().into_bytes();
    from + (to - from) * u64::from(low) / 256
}
