//! Processes that are killed in the middle, and processes that write at the same time.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use secret_persistence_core::settings::StoreUrl;
use secret_persistence_core::{Coordinate, SecretPersistence, SecretPersistenceExt};
use secret_persistence_db::{
    Config, Database, EncryptOptions, KeyRing, Mode, RotateOptions, SETTINGS,
};

use crate::support::{LEGACY, Place, Raw, managed, ring, secret, write};

const ROWS: usize = 3_000;

/// The program that the tests below start as a separate process. It does nothing on its own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the other tests of this file"]
async fn child() {
    let variable = |name: &str| std::env::var(name).ok();
    let job = variable("CHILD_JOB").expect("started by another test");
    let url = StoreUrl::parse(&variable("CHILD_URL").unwrap()).unwrap();
    let settings = SETTINGS.from_url(&url, &variable).unwrap();
    let config = Config::from_settings(&settings).unwrap();
    let store = Database::connect(config).await.unwrap();
    let say = |progress: secret_persistence_db::Progress| println!("progress {}", progress.done);
    match job.as_str() {
        "encrypt" => {
            let options = EncryptOptions::default().with_nothing_else_reads(true);
            store.encrypt(&options, &say).await.unwrap();
        }
        "rotate" | "reencrypt" => {
            let options = RotateOptions::default().with_reencrypt(job == "reencrypt");
            store.rotate(&options, &say).await.unwrap();
        }
        numbers => {
            let (first, count) = numbers.split_once('+').unwrap();
            let first: usize = first.parse().unwrap();
            for number in first..first + count.parse::<usize>().unwrap() {
                store.write(write(number, "by a child")).await.unwrap();
            }
        }
    }
    store.close().await;
    println!("progress done");
}

fn start(job: &str, url: &str, ring: Option<&KeyRing>, variables: &[(&str, String)]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["killed::child", "--exact", "--ignored", "--nocapture"])
        .env("CHILD_JOB", job)
        .env("CHILD_URL", url)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped());
    if let Some(ring) = ring {
        command.env("SECRETS_KEYRING", ring.to_text().expose());
    }
    command.spawn().unwrap()
}

/// Waits for the k-th sign of progress, then kills it. Returns whether it was still running.
fn kill_at(mut child: Child, signs: usize) -> bool {
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut progress = output
        .lines()
        .map_while(Result::ok)
        .filter(|line| line.contains("progress "));
    let last = progress.by_ref().take(signs).last().unwrap_or_default();
    child.kill().unwrap();
    let status = child.wait().unwrap();
    !last.contains("done") && !status.success()
}

fn address(place: &Place) -> (String, Vec<(&'static str, String)>) {
    match place {
        Place::Sqlite(folder) => (format!("sqlite://{}", folder.file().display()), Vec::new()),
        #[cfg(feature = "postgres")]
        Place::Postgres(home) => home.address(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conversions_survive_being_killed_at_any_page() {
    for place in Place::all("conversions_survive_being_killed").await {
        let raw = place.raw().await;
        raw.run(LEGACY).await.unwrap();
        fill(&raw).await;
        Database::prepare(&place.config().build().unwrap())
            .await
            .unwrap();
        let first = ring();
        let mut second = first.clone();
        second.add("k2".parse().unwrap()).unwrap();
        second.activate(&"k2".parse().unwrap()).unwrap();
        let mut third = second.clone();
        third.add("k3".parse().unwrap()).unwrap();
        third.activate(&"k3".parse().unwrap()).unwrap();
        let (url, variables) = address(&place);
        let mut kills = 0;
        for (job, ring, finished) in [
            ("encrypt", &first, "payload IS NULL AND key_id = 'k1'"),
            ("rotate", &second, "payload IS NULL AND key_id = 'k2'"),
            ("reencrypt", &third, "payload IS NULL AND key_id = 'k3'"),
        ] {
            for signs in [1, 2, 3, 5] {
                kills += usize::from(kill_at(start(job, &url, Some(ring), &variables), signs));
                // Whatever it was doing, everything exists and can be decrypted.
                let store = place.open(Mode::Converting, Some(ring)).await.unwrap();
                all_there(&store).await;
                store.close().await;
            }
            let mut last = start(job, &url, Some(ring), &variables);
            assert!(last.wait().unwrap().success());
            let count = format!("SELECT count(*) FROM secrets WHERE {finished}");
            assert_eq!(raw.number(&count).await, ROWS as i64, "{job}");
        }
        assert!(
            kills >= 6,
            "only {kills} processes were killed while they worked"
        );
        let store = place.open(Mode::Encrypted, Some(&third)).await.unwrap();
        all_there(&store).await;
        for id in ["k1", "k2"] {
            store.retire_key(&id.parse().unwrap()).await.unwrap();
        }
        store.close().await;
    }
}

async fn fill(raw: &Raw) {
    for chunk in (0..ROWS).collect::<Vec<_>>().chunks(500) {
        let rows: Vec<String> = chunk
            .iter()
            .map(|number| format!("('{}', 'value {number}')", managed(*number)))
            .collect();
        let sql = format!(
            "INSERT INTO secrets (coordinate, payload) VALUES {}",
            rows.join(", ")
        );
        raw.run(&sql).await.unwrap();
    }
}

async fn all_there(store: &Database) {
    let names: Vec<Coordinate> = (0..ROWS).map(|number| managed(number).into()).collect();
    for (number, read) in store.read_many(&names).await.into_iter().enumerate() {
        assert_eq!(read.unwrap().value, secret(&format!("value {number}")));
    }
}

/// Two processes with sixteen tasks each write one SQLite file, which the first one creates.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_and_tasks_lose_nothing() {
    for place in Place::all("processes_and_tasks_lose_nothing").await {
        let (url, variables) = address(&place);
        let ring = ring();
        let mut children: Vec<Child> = ["10000+150", "20000+150"]
            .iter()
            .map(|job| start(job, &url, Some(&ring), &variables))
            .collect();
        let store = place.open(Mode::Encrypted, Some(&ring)).await.unwrap();
        let tasks: Vec<_> = (0..16)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    for number in 0..20 {
                        let write = write(task * 100 + number, "by a task");
                        store.write(write).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        for child in &mut children {
            assert!(child.wait().unwrap().success());
        }
        let all = (0..16)
            .flat_map(|task| (0..20).map(move |number| task * 100 + number))
            .chain(10_000..10_150)
            .chain(20_000..20_150);
        let names: Vec<Coordinate> = all.map(|number| managed(number).into()).collect();
        assert!(store.read_batch(&names).await.iter().all(Result::is_ok));
        let raw = place.raw().await;
        assert_eq!(raw.number("SELECT count(*) FROM secrets").await, 620);
        store.close().await;
    }
}
