//! Failures that only a server has.

use std::time::Duration;

use secret_persistence_core::{ErrorKind, SecretPersistenceExt};
use secret_persistence_db::{Database, EncryptOptions, Mode};

use crate::support::postgres::{own_server, server};
use crate::support::{LEGACY, Setup, managed, ring, secret, write};

async fn refused(config: Setup) -> secret_persistence_core::Error {
    let error = Database::connect(config.set("connect-timeout", "5").build().unwrap())
        .await
        .unwrap_err();
    assert!(error.hint().is_some(), "{error}");
    assert!(error.store().is_some());
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_at_open_is_said() {
    let Some(server) = own_server("what_is_wrong_at_open_is_said") else {
        return;
    };
    let home = server.home().await;
    home.raw.run(LEGACY).await.unwrap();
    // Down.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let down = Setup::of_url(&format!("postgres://127.0.0.1:{closed}/x")).set("user", "u");
    let error = refused(down).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable());
    // A wrong password, an unknown role, an unknown database.
    let error = refused(home.config_as("postgres", "canary-password")).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(!format!("{error:?}").contains("canary"));
    let error = refused(home.config_as("nobody", "canary-password")).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    let nowhere = Setup::of_url(&format!("postgres://127.0.0.1:{}/nowhere", server.port()))
        .set("user", "postgres")
        .set("password", server.password());
    let error = refused(nowhere).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    // A missing table, with and without the setting and the permission to create it.
    let error = refused(home.config().set("table", "missing").set("create", "false")).await;
    assert!(error.hint().unwrap().contains("CREATE TABLE"), "{error}");
    let role = home.role("maker", "SELECT").await.set("table", "missing");
    let error = refused(role).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.hint().unwrap().contains("CREATE TABLE"), "{error}");
    let error = refused(
        home.config()
            .set("table", "nowhere.secrets")
            .set("create", "true"),
    )
    .await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    // The server has no free slot for this role.
    let role = home.role("limited", "SELECT").await;
    let name = format!("limited_{}", home.database);
    home.raw
        .run(&format!("ALTER ROLE {name} CONNECTION LIMIT 0"))
        .await
        .unwrap();
    let error = refused(role).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("slot"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_verified_in_full() {
    let Some(server) = own_server("certificates_are_verified_in_full") else {
        return;
    };
    let home = server.home().await;
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("authority.pem");
    std::fs::write(&trusted, &server.authority).unwrap();
    let secured = |host: &str| {
        home.config_at(host)
            .set("user", "postgres")
            .set("password", server.password())
            .set("sslmode", "verify-full")
    };
    let path = trusted.display().to_string();
    let store = Database::connect(
        secured("localhost")
            .set("ssl-root-cert", &path)
            .build()
            .unwrap(),
    )
    .await
    .unwrap();
    store.write(write(1, "value")).await.unwrap();
    store.close().await;
    // An unknown authority, and a certificate for another name.
    for untrusted in [
        secured("localhost"),
        secured("127.0.0.1").set("ssl-root-cert", &path),
    ] {
        let error = refused(untrusted).await;
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.hint().unwrap().contains("ssl-root-cert"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
    let missing = secured("localhost")
        .set("ssl-root-cert", "/nowhere.pem")
        .build();
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::InvalidConfig);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_logs_no_value_of_a_write_that_fails() {
    let Some(server) = server("the_server_logs_no_value_of_a_write_that_fails") else {
        return;
    };
    let home = server.home().await;
    // The server would log them, and the connection that inserts notes whether it still would.
    home.raw
        .run(&format!(
            "{LEGACY}; CREATE TABLE noted (setting TEXT); \
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 INSERT INTO noted VALUES (current_setting('log_parameter_max_length_on_error')); \
                 RETURN NEW; END $$; \
             CREATE TRIGGER note BEFORE INSERT ON secrets FOR EACH ROW EXECUTE FUNCTION note(); \
             ALTER DATABASE {} SET log_parameter_max_length_on_error = -1",
            home.database
        ))
        .await
        .unwrap();
    let store = Database::connect(home.config().build().unwrap())
        .await
        .unwrap();
    store.write(write(1, "canary")).await.unwrap();
    store.close().await;
    let noted = "SELECT count(*) FROM noted WHERE setting";
    assert_eq!(home.raw.number(&format!("{noted} = '0'")).await, 1);
    assert_eq!(home.raw.number(&format!("{noted} <> '0'")).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_missing_are_named() {
    let Some(server) = server("rights_that_are_missing_are_named") else {
        return;
    };
    let home = server.home().await;
    home.raw.run(LEGACY).await.unwrap();
    home.raw.insert(managed(1).as_str(), "value").await;
    let reader = home.role("reader", "SELECT").await.build().unwrap();
    let store = Database::connect(reader.clone()).await.unwrap();
    assert_eq!(
        store.read(&managed(1).into()).await.unwrap().value,
        secret("value")
    );
    let error = store.write(write(2, "canary")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.hint().unwrap().contains("grant"), "{error}");
    let error = Database::prepare(&reader).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    store.close().await;
    // A replica, or a server that is set read-only.
    let writer = home.role("frozen", "SELECT, INSERT, DELETE").await;
    let name = format!("frozen_{}", home.database);
    home.raw
        .run(&format!(
            "ALTER ROLE {name} SET default_transaction_read_only = on"
        ))
        .await
        .unwrap();
    let store = Database::connect(writer.build().unwrap()).await.unwrap();
    let error = store.write(write(2, "canary")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.is_retryable());
    assert!(error.hint().unwrap().contains("primary"), "{error}");
    store.close().await;
}

/// A trigger simulates the server's response to a full disk, or to a constraint.
#[tokio::test(flavor = "multi_thread")]
async fn failures_of_the_server_show_no_value() {
    let Some(server) = server("failures_of_the_server_show_no_value") else {
        return;
    };
    let home = server.home().await;
    home.raw
        .run(
            "CREATE TABLE secrets (coordinate TEXT PRIMARY KEY, payload TEXT CHECK (payload <> 'canary-check'));
             CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               RAISE EXCEPTION 'no room for %', NEW.payload USING ERRCODE = right(NEW.payload, 5), DETAIL = NEW.payload;
             END $$;
             CREATE TRIGGER fail BEFORE INSERT ON secrets FOR EACH ROW WHEN (NEW.payload LIKE 'canary!%') EXECUTE FUNCTION fail()",
        )
        .await
        .unwrap();
    let store = Database::connect(home.config().build().unwrap())
        .await
        .unwrap();
    for (value, kind, retryable) in [
        ("canary!53100", ErrorKind::Unavailable, false),
        ("canary!53200", ErrorKind::Unavailable, true),
        ("canary!40P01", ErrorKind::Conflict, true),
        ("canary!XX001", ErrorKind::Integrity, false),
        ("canary!P0001", ErrorKind::Unexpected, false),
        ("canary-check", ErrorKind::InvalidConfig, false),
    ] {
        let error = store.write(write(1, value)).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (kind, retryable),
            "{error}"
        );
        let mut shown = format!("{error} {error:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            shown += &format!(" {cause} {cause:?}");
            source = cause.source();
        }
        assert!(!shown.contains("canary"), "{shown}");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_and_a_lost_connection_are_told_apart() {
    let Some(server) = server("a_full_pool_and_a_lost_connection") else {
        return;
    };
    let home = server.home().await;
    home.raw.run(LEGACY).await.unwrap();
    home.raw.insert(managed(1).as_str(), "value").await;
    let config = home
        .config()
        .set("pool-size", "1")
        .set("connect-timeout", "1");
    let store = Database::connect(config.build().unwrap()).await.unwrap();
    // Another session locks the table: the first reader uses the only connection.
    let locker = home.raw.clone();
    let lock = tokio::spawn(async move {
        locker
            .run("BEGIN; LOCK TABLE secrets; SELECT pg_sleep(4); COMMIT")
            .await
            .unwrap();
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.read(&managed(1).into()).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let error = store.read(&managed(1).into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.hint().unwrap().contains("pool-size"), "{error}");
    lock.await.unwrap();
    assert_eq!(first.await.unwrap().unwrap().value, secret("value"));
    // The server closes our connection: one failure, then a new connection.
    let name = &home.database;
    home.raw
        .run(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = '{name}' AND application_name = 'secret-persistence-db'"
        ))
        .await
        .unwrap();
    if let Err(error) = store.read(&managed(1).into()).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.is_retryable());
    }
    assert_eq!(
        store.read(&managed(1).into()).await.unwrap().value,
        secret("value")
    );
    store.close().await;
}

/// A server whose encoding is not UTF-8 stores the values that it can, and all values if encrypted.
#[tokio::test(flavor = "multi_thread")]
async fn another_encoding_refuses_what_it_cannot_hold() {
    let Some(server) = server("another_encoding") else {
        return;
    };
    let home = server
        .home_with("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        .await;
    let plain = Database::connect(home.config().build().unwrap())
        .await
        .unwrap();
    plain.write(write(1, "pässword")).await.unwrap();
    assert_eq!(
        plain.read(&managed(1).into()).await.unwrap().value,
        secret("pässword")
    );
    let error = plain.write(write(2, "密码")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue, "{error}");
    plain.close().await;
    let config = home
        .config()
        .keyring(&ring())
        .mode(Mode::Encrypted)
        .build()
        .unwrap();
    let store = Database::connect(config).await.unwrap();
    store.write(write(2, "密码")).await.unwrap();
    assert_eq!(
        store.read(&managed(2).into()).await.unwrap().value,
        secret("密码")
    );
    store.close().await;
}

/// Only the owner can rewrite the table. For others, the result says that it was not done.
#[tokio::test(flavor = "multi_thread")]
async fn vacuum_full_is_offered_to_the_owner() {
    let Some(server) = server("vacuum_full_is_offered_to_the_owner") else {
        return;
    };
    let home = server.home().await;
    home.raw.run(LEGACY).await.unwrap();
    home.raw.insert(managed(1).as_str(), "value").await;
    Database::prepare(&home.config().build().unwrap())
        .await
        .unwrap();
    let role = home.role("tool", "SELECT, INSERT, UPDATE, DELETE").await;
    let ring = ring();
    let options = EncryptOptions::default()
        .with_nothing_else_reads(true)
        .with_rewrite(true);
    for (config, rewritten) in [(role, false), (home.config(), true)] {
        let config = config.keyring(&ring).mode(Mode::Encrypted).build().unwrap();
        let store = Database::connect(config).await.unwrap();
        let done = store.encrypt(&options, &|_| {}).await.unwrap();
        assert_eq!(done.rewritten, rewritten);
        assert!(
            done.out_of_reach
                .iter()
                .any(|place| place.contains("replicas"))
        );
        store.close().await;
    }
}
