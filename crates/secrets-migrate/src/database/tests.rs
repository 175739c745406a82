//! Stores, configurations, references and journals reach a Postgres server in one way.

use secret_persistence_core::settings::{KeyTable, SettingMap, StoreUrl};
use secret_persistence_db::{Config, PostgresOptions};

use super::{SERVER, settings};
use crate::journal::SqlJournal;
use crate::sources::{self, ReferenceTable};
use crate::{Access, MigrateError, MigrateErrorKind};

/// What libpq has.
const SSLMODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

const STORE: KeyTable = secret_persistence_db::SETTINGS;

fn role(variable: &str) -> Option<String> {
    match variable {
        "DATABASE_USER" => Some("reader".into()),
        "DATABASE_PASSWORD" => Some("canary".into()),
        _ => None,
    }
}

fn url(text: &str) -> StoreUrl {
    StoreUrl::parse(text).expect("a URL of these tests")
}

/// How the driver would be told to connect, or why it would not be; the errors of settings and of
/// options count alike.
fn reached<E: std::fmt::Debug>(read: Result<SettingMap, E>) -> Result<PostgresOptions, String> {
    let settings = read.map_err(|error| format!("{error:?}"))?;
    PostgresOptions::from_settings(&settings).map_err(|error| error.message().to_owned())
}

#[test]
fn every_sslmode_means_the_same_to_store_configurations_references_and_journal() {
    let mut accepted = 0;
    for host in ["localhost", "127.0.0.1", "[::1]", "db.example", "10.0.0.1"] {
        for sslmode in SSLMODES.map(Some).into_iter().chain([None, Some("no")]) {
            let mode = sslmode.map_or(String::new(), |mode| format!("?sslmode={mode}"));
            let address = url(&format!("postgres://{host}:5433/d{mode}"));
            let store = reached(STORE.from_url(&address, &role));
            for (what, table) in [
                ("configurations", sources::SETTINGS),
                ("references", sources::references::SETTINGS),
                ("journal", SERVER),
            ] {
                let read = reached(settings(&address, table, &role));
                assert_eq!(read, store, "{what}: {address} {sslmode:?}");
            }
            // The store has no second opinion of its own.
            let opened = Config::from_settings(&STORE.from_url(&address, &role).unwrap());
            assert_eq!(opened.is_ok(), store.is_ok(), "{address} {sslmode:?}");
            accepted += usize::from(store.is_ok());
        }
    }
    // Three hosts take the six and none, two take the four that verify and none.
    assert_eq!(accepted, 3 * 7 + 2 * 5);
}

#[tokio::test]
async fn tls_is_not_switched_off_for_a_server_elsewhere() {
    for sslmode in ["disable", "allow"] {
        let place = format!("postgres://db.example/d?sslmode={sslmode}");
        let store = Config::from_settings(&STORE.from_url(&url(&place), &role).unwrap());
        let store = store.unwrap_err();
        let columns = "table=t&id=id&configuration=c";
        let source = format!("{place}&{columns}");
        let refused: [MigrateError; 3] = [
            sources::open(&source, &role, Access::Update)
                .await
                .map(drop)
                .unwrap_err(),
            ReferenceTable::open(&format!("{place}&table=t"), &role)
                .await
                .unwrap_err(),
            SqlJournal::open(&place, &role).await.unwrap_err(),
        ];
        for error in refused {
            assert!(error.message().contains("TLS"), "{error}");
            assert_eq!(error.message(), store.message());
            assert_eq!(error.hint(), store.hint());
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
    }
}

#[test]
fn the_settings_of_a_server_are_refused_beside_a_file() {
    for setting in SERVER.iter().filter(|setting| !setting.secret) {
        let address = url(&format!("sqlite:journal.db?{}=1", setting.name));
        let error = settings(&address, SERVER, &role).unwrap_err();
        assert_eq!(error.kind(), MigrateErrorKind::Settings);
        assert!(error.message().contains(setting.name), "{error}");
    }
    // The environment may be another database's.
    assert!(settings(&url("sqlite:journal.db"), SERVER, &role).is_ok());
}

#[tokio::test]
async fn an_unknown_host_is_called_so() {
    let place = "postgres://nosuch.invalid/d";
    let source = format!("{place}?table=t&id=id&configuration=c");
    let opened = sources::open(&source, &role, Access::ReadOnly).await;
    let journal = SqlJournal::open(place, &role).await;
    for (error, kind) in [
        (opened.map(drop).unwrap_err(), MigrateErrorKind::Unavailable),
        (journal.map(drop).unwrap_err(), MigrateErrorKind::Journal),
    ] {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("host unknown"), "{error}");
    }
}
