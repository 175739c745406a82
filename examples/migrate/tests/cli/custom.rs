//! The tool as a library, with a backend that it does not know.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

use secret_persistence::{
    CustomBackend, Environment, KeyTable, Memory, SecretPersistence, Setting,
};
use secret_persistence_core::{
    ManagedCoordinate, Owner, SecretPersistenceExt as _, SecretValue, Write,
};

use crate::lab::{Lab, expect_exactly};

const TABLE: KeyTable = KeyTable::new(
    &["acme"],
    &[Setting::new("token", "the token")
        .with_env(&["ACME_TOKEN"])
        .secret()],
    |_, _| Ok(()),
);

/// A store in this process with these secrets, and the backend that opens it.
async fn acme(secrets: &BTreeMap<ManagedCoordinate, String>) -> (Arc<Memory>, CustomBackend) {
    let store = Arc::new(Memory::new().with_owner(Owner::parse("lab").unwrap()));
    for (name, value) in secrets {
        let value = SecretValue::new(value.clone());
        store.write(Write::new(name.clone(), value)).await.unwrap();
    }
    let opened = Arc::clone(&store);
    let backend = CustomBackend::new(TABLE, move |settings, owner| {
        let token = settings.secret("token").unwrap();
        assert_eq!(token.expose(), "the-token-of-from");
        assert_eq!(owner.unwrap().to_string(), "lab");
        let store: Arc<dyn SecretPersistence> = Arc::clone(&opened) as _;
        async move { Ok(store) }
    });
    (store, backend.unwrap())
}

/// Runs the tool in this process.
async fn run(arguments: Vec<String>, environment: &Environment) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().map(OsString::from).collect();
    let environment = environment.clone();
    // It starts a runtime, which a thread of this one must not.
    tokio::task::spawn_blocking(move || secret_migrate::run(arguments, &environment))
        .await
        .unwrap()
}

#[tokio::test]
async fn secrets_move_out_of_a_store_that_only_the_caller_knows() {
    let lab = Lab::with(4, 2).await;
    let (store, backend) = acme(&lab.secrets).await;
    let folder = lab.folder().to_str().unwrap();
    let (to, journal, configurations) = (
        format!("sqlite:{folder}/target.db?mode=encrypted"),
        format!("{folder}/journal.db"),
        lab.table().replace("sqlite:", &format!("sqlite:{folder}/")),
    );
    let ring = format!("{folder}/ring");
    let environment = Environment::from_iter([
        ("SECRETS_OWNER", "lab"),
        ("TO_SECRETS_KEYRING_FILE", ring.as_str()),
        ("FROM_ACME_TOKEN", "the-token-of-from"),
    ]);
    let moves = |command: &'static str, more: &[&'static str]| {
        let mut arguments = vec![
            "secret-migrate",
            command,
            "--from",
            "acme://north",
            "--to",
            &to,
        ];
        arguments.extend(["--journal", &journal, "--configs", &configurations]);
        arguments.extend(["--lag", "1s"]);
        arguments.extend(more);
        arguments.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    // The tool alone does not know the scheme.
    assert_eq!(run(moves("copy", &[]), &environment).await, 2);

    let environment = environment.with_backend(backend);
    assert_eq!(run(moves("copy", &[]), &environment).await, 0);
    lab.expect_moved().await;
    expect_exactly(&*store, &lab.secrets).await;
    assert_eq!(run(moves("verify", &[]), &environment).await, 0);
    let all = ["--all-references"];
    assert_eq!(run(moves("retire", &all), &environment).await, 0);
    assert!(store.is_empty());
    lab.expect_moved().await;
}
