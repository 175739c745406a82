//! No value is handed out without its line, whenever the process dies.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use secret_persistence_core::connector::{ConnectorOptions, ConnectorSecrets};
use secret_persistence_core::settings::StoreUrl;
use secret_persistence_core::{Actor, AuditMode, Memory, Stores};
use secret_persistence_db::{LEDGER_SETTINGS, Ledger, LedgerConfig};
use serde_json::json;

use super::Home;
use crate::support::{managed, secret};

const SECRETS: usize = 20;

/// The program that the test starts as a separate process. It does nothing on its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the other test of this file"]
async fn child() {
    let variable = |name: &str| std::env::var(name).ok();
    let url = variable("CHILD_URL").expect("started by another test");
    let settings = LEDGER_SETTINGS.from_url(&StoreUrl::parse(&url).unwrap(), &variable);
    let config = LedgerConfig::from_settings(&settings.unwrap()).unwrap();
    let store = Memory::new();
    for number in 0..SECRETS {
        store.insert(managed(number).as_str(), secret(&format!("value {number}")));
    }
    let stores = Stores::new(Arc::new(store))
        .with_audit(Arc::new(Ledger::new(config).unwrap()), AuditMode::Required);
    let secrets = ConnectorSecrets::new(stores, ConnectorOptions::default());
    let workers = (0..8).map(|worker| {
        let secrets = secrets.clone();
        tokio::spawn(async move {
            for call in 0.. {
                let request = format!("{}-{worker}-{call}", std::process::id());
                let secrets = secrets
                    .acting_as(&Actor::new("child"))
                    .for_request(&*request);
                let (one, two) = (call % SECRETS, (call + worker + 1) % SECRETS);
                let saved =
                    json!([{"_secret": managed(one).as_str()}, {"_secret": managed(two).as_str()}]);
                let full = secrets.hydrate(saved).await.unwrap();
                assert_eq!(full[0], format!("value {one}"));
                // It has been handed out now.
                let mut output = std::io::stdout().lock();
                writeln!(
                    output,
                    "handed out {request} {one}\nhanded out {request} {two}"
                )
                .unwrap();
                output.flush().unwrap();
            }
        })
    });
    futures::future::join_all(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_is_handed_out_without_its_line() {
    for home in Home::all("no_value_is_handed_out").await {
        let mut handed_out: HashSet<(String, String)> = HashSet::new();
        for kill in 1..=4_usize {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "ledger::killed::child",
                    "--exact",
                    "--ignored",
                    "--nocapture",
                ])
                .env("CHILD_URL", &home.url)
                .env("SECRETS_KEYRING", home.ring.to_text().expose())
                .envs(home.variables.iter().map(|(name, value)| (name, value)))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut seen = 0;
            // What is in the pipe when it is killed was handed out too.
            let output = BufReader::new(child.stdout.take().unwrap());
            for line in output.lines().map_while(Result::ok) {
                let Some((_, said)) = line.split_once("handed out ") else {
                    continue;
                };
                // The last line may be cut off.
                if let Some((request, number)) = said.split_once(' ')
                    && let Ok(number) = number.parse()
                {
                    handed_out.insert((request.to_owned(), managed(number).to_string()));
                }
                seen += 1;
                if seen == kill * 37 {
                    child.kill().unwrap();
                }
            }
            assert!(!child.wait().unwrap().success());
            assert!(seen >= kill * 37, "the child ended by itself");
        }
        let lines: HashSet<(String, String)> = home
            .lines()
            .await
            .into_iter()
            .map(|line| {
                (
                    line.request.unwrap().to_string(),
                    line.coordinate.unwrap().to_string(),
                )
            })
            .collect();
        let without: Vec<_> = handed_out.difference(&lines).collect();
        assert!(without.is_empty(), "{without:?}");
        let verified = home.verify().await;
        assert!(verified.is_intact(), "{verified:?}");
        assert_eq!(verified.chains, 4);
    }
}
