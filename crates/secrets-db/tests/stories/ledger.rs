//! The read ledger: what is done to it is found, and nothing is handed out without its line.

mod history;
mod killed;
mod prune;
mod tampering;

use std::collections::HashSet;
use std::sync::Arc;

use secret_persistence_core::connector::{ConnectorOptions, ConnectorSecrets, ProblemKind};
use secret_persistence_core::settings::StoreUrl;
use secret_persistence_core::{
    Actor, AuditEvent, AuditMode, AuditSink, Coordinate, ErrorKind, Memory, Operation, Stores,
    Timestamp,
};
use secret_persistence_db::{
    KeyRing, LEDGER_SETTINGS, Ledger, LedgerConfig, LedgerLine, LedgerQuery, LedgerReader, Verified,
};
use serde_json::json;
use sqlx::Connection as _;

use crate::support::{Folder, Place, Raw, managed, ring, secret};

/// A ledger of each kind, for one test.
struct Home {
    url: String,
    variables: Vec<(&'static str, String)>,
    ring: KeyRing,
    /// The folder of a ledger of files.
    folder: Option<Folder>,
    place: Option<Place>,
}

impl Home {
    async fn all(test: &str) -> Vec<Self> {
        let ring = ring();
        let mut homes: Vec<Self> = Place::all(test)
            .await
            .into_iter()
            .map(|place| {
                let (url, variables) = match &place {
                    Place::Sqlite(folder) => {
                        (format!("sqlite://{}", folder.file().display()), Vec::new())
                    }
                    #[cfg(feature = "postgres")]
                    Place::Postgres(home) => home.address(),
                };
                Self {
                    url,
                    variables,
                    ring: ring.clone(),
                    folder: None,
                    place: Some(place),
                }
            })
            .collect();
        let folder = Folder::new();
        homes.push(Self {
            url: format!("file://{}/ledger", folder.path().display()),
            variables: Vec::new(),
            ring,
            folder: Some(folder),
            place: None,
        });
        homes
    }

    fn config(&self) -> LedgerConfig {
        self.config_with(&self.ring, "")
    }

    fn config_with(&self, ring: &KeyRing, query: &str) -> LedgerConfig {
        let url = StoreUrl::parse(&format!("{}{query}", self.url)).unwrap();
        let text = ring.to_text();
        let variable = |name: &str| match name {
            "SECRETS_KEYRING" => Some(text.expose().to_owned()),
            _ => self
                .variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.clone()),
        };
        let settings = LEDGER_SETTINGS.from_url(&url, &variable).unwrap();
        LedgerConfig::from_settings(&settings).unwrap()
    }

    fn ledger(&self) -> Ledger {
        Ledger::new(self.config()).unwrap()
    }

    async fn reader(&self) -> LedgerReader {
        LedgerReader::open(&self.config()).await.unwrap()
    }

    async fn verify(&self) -> Verified {
        self.reader().await.verify(&[]).await.unwrap()
    }

    /// Another client of the database; `None` for files.
    async fn raw(&self) -> Option<Raw> {
        match &self.place {
            Some(place) => Some(place.raw().await),
            None => None,
        }
    }

    async fn lines(&self) -> Vec<LedgerLine> {
        self.search(&LedgerQuery::default()).await
    }

    async fn search(&self, query: &LedgerQuery) -> Vec<LedgerLine> {
        let mut found = Vec::new();
        self.reader()
            .await
            .search(query, &mut |line, genuine| {
                assert!(genuine, "{line:?}");
                found.push(line);
            })
            .await
            .unwrap();
        found
    }
}

/// Hands out a value, fails to, and returns all that ledgers keep and show of it.
pub(crate) async fn everything_shown(value: &str, ring: &KeyRing) -> String {
    let mut shown = String::new();
    for mut home in Home::all("nothing_secret_shows").await {
        home.ring = ring.clone();
        let store = Memory::new();
        store.insert(managed(1).as_str(), secret(value));
        let ledger = home.ledger();
        shown += &format!("{ledger:?} {:?} ", home.config());
        let stores = Stores::new(Arc::new(store)).with_audit(Arc::new(ledger), AuditMode::Required);
        let secrets = ConnectorSecrets::new(stores, ConnectorOptions::default())
            .acting_as(&Actor::new("maria"));
        let saved = || json!({"a": {"_secret": managed(1).as_str()}});
        let full = secrets.hydrate(saved()).await.unwrap();
        assert_eq!(full["a"], value);
        break_down(&home).await;
        let error = secrets.hydrate(saved()).await.unwrap_err();
        shown += &format!("{full:?} {error} {error:?} ");
        repair(&home).await;
        let reader = home.reader().await;
        let checkpoint = reader.checkpoint(&[]).await.unwrap();
        let (verified, lines) = (home.verify().await, home.lines().await);
        assert_eq!(lines.len(), 1);
        shown += &format!("{reader:?} {verified:?} {lines:?} {checkpoint:?} ");
        shown += &checkpoint.to_text().unwrap();
        let file = match (&home.folder, &home.place) {
            (Some(folder), _) | (None, Some(Place::Sqlite(folder))) => folder,
            _ => continue,
        };
        let mut folders = vec![file.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => shown += &String::from_utf8_lossy(&std::fs::read(path).unwrap()),
                }
            }
        }
    }
    shown
}

fn event(number: usize) -> AuditEvent {
    let coordinate = Coordinate::Managed(managed(number));
    AuditEvent::new(Actor::new("maria"), Operation::Read, coordinate)
        .with_request(Some(format!("r-{number}").into()))
}

fn events(numbers: std::ops::Range<usize>) -> Vec<AuditEvent> {
    numbers.map(event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_writers_of_many_calls_leave_whole_chains() {
    for home in Home::all("several_writers").await {
        let ledgers = [home.ledger(), home.ledger()];
        let calls = (0..200).map(|call| {
            let ledger = ledgers[call % 2].clone();
            async move {
                ledger
                    .record(&events(call * 3..call * 3 + 3))
                    .await
                    .unwrap();
            }
        });
        futures::future::join_all(calls).await;
        let verified = home.verify().await;
        assert!(verified.is_intact(), "{verified:?}");
        assert_eq!((verified.lines, verified.chains), (600, 2));
        let lines = home.lines().await;
        let requests: HashSet<&str> = lines
            .iter()
            .filter_map(|line| line.request.as_deref())
            .collect();
        assert_eq!(requests.len(), 600);
    }
}

#[tokio::test]
async fn a_line_says_who_read_what_where_when_and_for_which_request() {
    for home in Home::all("a_line_says").await {
        let store = Memory::new();
        store.insert(managed(1).as_str(), secret("hunter2"));
        let stores =
            Stores::new(Arc::new(store)).with_audit(Arc::new(home.ledger()), AuditMode::Required);
        let before = Timestamp::now();
        let secrets = ConnectorSecrets::new(stores, ConnectorOptions::default())
            .acting_as(&Actor::new("maria"))
            .for_request("request-7");
        let pointer = |number| json!({"_secret": managed(number).as_str()});
        let saved = json!({"a": pointer(1), "b": {"c": [pointer(1)]}});
        assert_eq!(secrets.hydrate(saved).await.unwrap()["a"], "hunter2");
        secrets
            .hydrate(json!({"gone": pointer(2)}))
            .await
            .unwrap_err();

        let lines = home.lines().await;
        let text = format!("{lines:?}");
        assert!(!text.contains("hunter2"));
        let shown: Vec<_> = lines
            .iter()
            .map(|line| {
                assert!(line.at >= before);
                assert_eq!(line.actor.as_deref(), Some("maria"));
                assert_eq!(line.request.as_deref(), Some("request-7"));
                assert_eq!(line.operation.as_deref(), Some("read"));
                (
                    line.coordinate.as_deref().unwrap().to_owned(),
                    line.places
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(" "),
                    line.outcome.as_deref().unwrap().to_owned(),
                )
            })
            .collect();
        let line = |number, places: &str, outcome: &str| {
            (
                managed(number).to_string(),
                places.to_owned(),
                outcome.to_owned(),
            )
        };
        assert_eq!(
            shown,
            [line(1, "/a /b/c/0", "ok"), line(2, "/gone", "not_found")]
        );

        let one = LedgerQuery::default().with_coordinate(Some(managed(1).into()));
        assert_eq!(home.search(&one).await.len(), 1);
        let nobody = LedgerQuery::default().with_actor(Some("otto".to_owned()));
        assert_eq!(home.search(&nobody).await.len(), 0);
        let earlier = LedgerQuery::default().with_until(Some(before));
        assert_eq!(home.search(&earlier).await.len(), 0);
        let since = LedgerQuery::default()
            .with_since(Some(before))
            .with_request(Some("request-7".to_owned()))
            .with_operation(Some(Operation::Read));
        assert_eq!(home.search(&since).await.len(), 2);
    }
}

/// Makes every write fail until it is dropped with [`repair`].
async fn break_down(home: &Home) {
    match (&home.place, home.raw().await, &home.folder) {
        (Some(Place::Sqlite(_)), Some(raw), _) => raw
            .run(
                "CREATE TRIGGER no_room BEFORE INSERT ON secret_ledger \
                 BEGIN SELECT RAISE(ABORT, 'full'); END",
            )
            .await
            .map(drop)
            .unwrap(),
        (_, Some(raw), _) => raw
            .run("ALTER TABLE secret_ledger ADD CONSTRAINT full_up CHECK (false) NOT VALID")
            .await
            .map(drop)
            .unwrap(),
        // A file is in the place of the folder.
        (_, _, Some(folder)) => {
            std::fs::rename(folder.path().join("ledger"), folder.path().join("away")).unwrap();
            std::fs::write(folder.path().join("ledger"), "").unwrap();
        }
        _ => unreachable!(),
    }
}

async fn repair(home: &Home) {
    match (&home.place, home.raw().await, &home.folder) {
        (Some(Place::Sqlite(_)), Some(raw), _) => {
            raw.run("DROP TRIGGER no_room").await.map(drop).unwrap();
        }
        (_, Some(raw), _) => raw
            .run("ALTER TABLE secret_ledger DROP CONSTRAINT full_up")
            .await
            .map(drop)
            .unwrap(),
        (_, _, Some(folder)) => {
            std::fs::remove_file(folder.path().join("ledger")).unwrap();
            std::fs::rename(folder.path().join("away"), folder.path().join("ledger")).unwrap();
        }
        _ => unreachable!(),
    }
}

#[tokio::test]
async fn where_the_ledger_fails_nothing_is_handed_out_and_later_the_chains_are_whole() {
    for home in Home::all("where_the_ledger_fails").await {
        let store = Memory::new();
        store.insert(managed(1).as_str(), secret("cänary"));
        let store = Arc::new(store);
        let acting = |mode| {
            let stores = Stores::new(store.clone()).with_audit(Arc::new(home.ledger()), mode);
            let secrets = ConnectorSecrets::new(stores.clone(), ConnectorOptions::default());
            (stores, secrets.acting_as(&Actor::new("maria")))
        };
        let saved = || json!({"a": {"_secret": managed(1).as_str()}});
        let (_, required) = acting(AuditMode::Required);
        required.hydrate(saved()).await.unwrap();
        break_down(&home).await;
        let error = required.hydrate(saved()).await.unwrap_err();
        assert_eq!(error.problems()[0].kind(), ProblemKind::AuditFailed);
        let cause = error.problems()[0].error().unwrap();
        assert!(cause.store().unwrap().starts_with("ledger "), "{cause}");
        let many = required
            .hydrate_many(vec![saved(), saved()])
            .await
            .unwrap_err();
        assert_eq!(many.problems()[0].kind(), ProblemKind::AuditFailed);
        assert!(!format!("{error} {error:?} {many:?}").contains("cänary"));

        // Best effort goes on, and counts.
        let (stores, best_effort) = acting(AuditMode::BestEffort);
        best_effort.hydrate(saved()).await.unwrap();
        assert_eq!(stores.unaudited(), 1);

        repair(&home).await;
        required.hydrate(saved()).await.unwrap();
        let verified = home.verify().await;
        assert!(verified.is_intact(), "{verified:?}");
        // What failed is the end of a chain.
        assert_eq!((verified.lines, verified.chains), (2, 2));
    }
}

/// A program that starts with an existing ledger which it may not write would fail its first call.
#[tokio::test]
async fn a_ledger_that_exists_and_cannot_be_written_is_not_ready() {
    for home in Home::all("exists_and_cannot_be_written").await {
        let ledger = Ledger::new(home.config_with(&home.ring, "?timeout=1")).unwrap();
        ledger.ready().await.unwrap();
        assert_eq!(home.verify().await.chains, 0, "{}", home.url);
        match &home.place {
            Some(Place::Sqlite(folder)) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.file());
                let mut other = sqlx::SqliteConnection::connect_with(&options)
                    .await
                    .unwrap();
                let writing = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
                ledger.ready().await.unwrap_err();
                writing.rollback().await.unwrap();
                ledger.ready().await.unwrap();
            }
            #[cfg(feature = "postgres")]
            Some(Place::Postgres(_)) => {
                let raw = home.raw().await.unwrap();
                raw.run(
                    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET \
                     default_transaction_read_only = on', current_database()); END $$",
                )
                .await
                .unwrap();
                let new = home.ledger();
                let error = new.ready().await.unwrap_err();
                assert!(error.store().unwrap().starts_with("ledger "), "{error}");
            }
            // Nobody can create a file there, not even root.
            None if cfg!(target_os = "linux") => {
                let url = StoreUrl::parse("file:///proc").unwrap();
                let text = home.ring.to_text();
                let variable =
                    |name: &str| (name == "SECRETS_KEYRING").then(|| text.expose().to_owned());
                let settings = LEDGER_SETTINGS.from_url(&url, &variable).unwrap();
                let config = LedgerConfig::from_settings(&settings).unwrap();
                let error = Ledger::new(config).unwrap().ready().await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            }
            None => {}
        }
    }
}

#[tokio::test]
async fn a_key_that_was_rotated_still_verifies_and_a_missing_one_is_named() {
    for mut home in Home::all("a_key_that_was_rotated").await {
        home.ledger().record(&events(0..2)).await.unwrap();
        let mut both = home.ring.clone();
        let new = "k2".parse().unwrap();
        both.add("k2".parse().unwrap()).unwrap();
        both.activate(&new).unwrap();
        home.ring = both;
        home.ledger().record(&events(2..4)).await.unwrap();
        let verified = home.verify().await;
        assert!(verified.is_intact(), "{verified:?}");
        let keys: HashSet<String> = home
            .lines()
            .await
            .iter()
            .map(|line| line.key.to_string())
            .collect();
        assert_eq!(keys, HashSet::from(["k1".to_owned(), "k2".to_owned()]));

        let mut only = home.ring.clone();
        only.remove(&"k1".parse().unwrap()).unwrap();
        let reader = LedgerReader::open(&home.config_with(&only, ""))
            .await
            .unwrap();
        let verified = reader.verify(&[]).await.unwrap();
        assert_eq!(verified.found, 2);
        assert!(
            verified
                .findings
                .iter()
                .all(|finding| finding.kind.as_str() == "unknown_key")
        );
    }
}

#[tokio::test]
async fn without_a_key_ring_there_is_no_ledger() {
    let url = StoreUrl::parse("sqlite:///nowhere/ledger.db").unwrap();
    let settings = LEDGER_SETTINGS.from_url(&url, &|_| None).unwrap();
    let error = LedgerConfig::from_settings(&settings).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.hint().unwrap().contains("KEYRING"), "{error}");
}
