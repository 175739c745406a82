//! `ledger`: what auditors and operators run over a read ledger.

use std::sync::Arc;

use secret_persistence::connector::{ConnectorOptions, ConnectorSecrets};
use secret_persistence::database::{KeyRingFile, LEDGER_SETTINGS, Ledger, LedgerConfig};
use secret_persistence::{Actor, AuditMode, Memory, SecretValue, StoreUrl, Stores};
use serde_json::json;

use crate::lab::{Lab, Ran};

const NAME: &str = "airbyte_workspace_1_secret_2_v1";

/// A ledger in the file `ledger.db`, with the key ring `ledger-ring`.
pub(crate) struct Home<'a> {
    lab: &'a Lab,
    config: LedgerConfig,
}

impl<'a> Home<'a> {
    pub(crate) fn new(lab: &'a Lab) -> Self {
        Self::at(lab, "sqlite:ledger.db")
    }

    /// The same in another place of the lab: a scheme and a name.
    pub(crate) fn at(lab: &'a Lab, place: &str) -> Self {
        let ring = lab.file("ledger-ring");
        if !ring.exists() {
            KeyRingFile::create(&ring, "1".parse().unwrap()).unwrap();
        }
        let (scheme, name) = place.split_once(':').unwrap();
        let url = format!("{scheme}://{}", lab.file(name).display());
        let variable = |name: &str| {
            (name == "SECRETS_KEYRING_FILE").then(|| ring.to_str().unwrap().to_owned())
        };
        let settings = LEDGER_SETTINGS.from_url(&StoreUrl::parse(&url).unwrap(), &variable);
        Self {
            lab,
            config: LedgerConfig::from_settings(&settings.unwrap()).unwrap(),
        }
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::new(self.config.clone()).unwrap()
    }

    /// A process that hydrates this often.
    pub(crate) async fn record(&self, times: usize) {
        let store = Memory::new();
        store.insert(NAME, SecretValue::new("cänary".to_owned()));
        let ledger = Arc::new(self.ledger());
        let stores = Stores::new(Arc::new(store)).with_audit(ledger, AuditMode::Required);
        let secrets = ConnectorSecrets::new(stores, ConnectorOptions::default())
            .acting_as(&Actor::new("maria@example.com"));
        for number in 0..times {
            let secrets = secrets.clone().for_request(format!("request-{number}"));
            let saved = json!({"password": {"_secret": NAME}});
            assert_eq!(secrets.hydrate(saved).await.unwrap()["password"], "cänary");
        }
    }

    pub(crate) fn run(&self, command: &str, options: &[&str]) -> Ran {
        let arguments = [
            &["ledger", command, "--ledger", "sqlite:ledger.db"],
            options,
        ]
        .concat();
        let mut command = self.lab.command(&arguments);
        command.env("LEDGER_SECRETS_KEYRING_FILE", "ledger-ring");
        let ran = Ran::from(command.output().unwrap());
        ran.never_says("cänary")
    }

    pub(crate) async fn sql(&self, sql: &'static str) {
        let options =
            sqlx::sqlite::SqliteConnectOptions::new().filename(self.lab.file("ledger.db"));
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        sqlx::query(sql).execute(&pool).await.unwrap();
        pool.close().await;
    }
}

#[tokio::test]
async fn an_auditor_sees_who_read_what_and_what_was_done_to_the_ledger() {
    let lab = Lab::empty();
    let home = Home::new(&lab);
    home.record(3).await;
    home.run("verify", &[])
        .expect(0)
        .says("3 lines in 1 chains")
        .says("without a checkpoint");
    let found = home
        .run("query", &["--request", "request-1", "--json"])
        .expect(0)
        .json();
    let line = &found["lines"][0]["line"];
    for (member, value) in [
        ("actor", "maria@example.com"),
        ("operation", "read"),
        ("coordinate", NAME),
        ("outcome", "ok"),
        ("request", "request-1"),
    ] {
        assert_eq!(line[member], value, "{found}");
    }
    assert_eq!(line["places"], json!(["/password"]));
    assert_eq!(found["lines"].as_array().unwrap().len(), 1);
    home.run("query", &["--coordinate", NAME, "--operation", "read"])
        .expect(0)
        .says("maria@example.com read airbyte_workspace_1_secret_2_v1 /password ok request-2");

    home.run("checkpoint", &["--output", "checkpoint.json"])
        .expect(0);
    // It is not overwritten.
    home.run("checkpoint", &["--output", "checkpoint.json"])
        .expect(2);
    let with = ["--checkpoint", "checkpoint.json"];
    home.run("verify", &with).expect(0);

    home.sql("DELETE FROM secret_ledger WHERE sequence = 3")
        .await;
    home.run("verify", &[]).expect(0);
    home.run("verify", &with).expect(1).says("truncated line 3");
    home.sql("DELETE FROM secret_ledger WHERE sequence = 1")
        .await;
    let found = home.run("verify", &["--json"]).expect(1).json();
    assert_eq!(found["findings"][0]["kind"], "missing");
    home.run("prune", &["--keep", "1d"]).says("not intact");
    home.run("checkpoint", &[]).says("not intact");
}

#[tokio::test]
async fn a_ledger_is_pruned_and_still_verifies() {
    let lab = Lab::empty();
    let home = Home::new(&lab);
    home.record(2).await;
    home.run("prune", &["--keep", "1d"])
        .expect(0)
        .says("0 lines");
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let pruned = home
        .run("prune", &["--keep", "1s", "--json"])
        .expect(0)
        .json();
    assert_eq!(pruned["lines"], 2);
    let verified = home.run("verify", &["--json"]).expect(0).json();
    assert_eq!(
        (&verified["lines"], &verified["pruned"]),
        (&json!(0), &json!(2))
    );
}

#[test]
fn a_ledger_that_cannot_be_opened_is_named() {
    let lab = Lab::empty();
    let run = |url: &str| lab.run(&["ledger", "verify", "--ledger", url]);
    run("sqlite:nowhere.db").expect(2).says("KEYRING");
    run("ledger:nowhere").expect(2).says("--ledger");
    let home = Home::new(&lab);
    home.run("verify", &[]).expect(2).says("ledger.db");
    home.run("verify", &["--checkpoint", "missing.json"])
        .expect(2);
}
