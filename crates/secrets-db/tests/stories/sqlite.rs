//! Faults that only a file has.

use std::os::unix::fs::PermissionsExt as _;

use secret_persistence_core::{
    Coordinate, ErrorKind, SecretPersistence, SecretPersistenceExt, Written,
};
use secret_persistence_db::{Database, Mode};

use crate::support::{Folder, LEGACY, Place, Setup, managed, ring, secret, write};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_its_log_and_its_index_are_private() {
    let folder = Folder::new();
    let store = Database::connect(folder.config().build().unwrap())
        .await
        .unwrap();
    store.write(write(1, "value")).await.unwrap();
    let mut files = 0;
    for entry in folder.path().read_dir().unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        files += 1;
    }
    assert_eq!(files, 3);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_many_statements_says_of_each_row_what_became_of_it() {
    for is_encrypted in [false, true] {
        let folder = Folder::new();
        let mut setup = folder.config();
        if is_encrypted {
            setup = setup.keyring(&ring());
        }
        let store = Database::connect(setup.build().unwrap()).await.unwrap();
        assert_eq!(store.capabilities().write_batch, 1_000);
        // Neither a whole number of statements, nor all new.
        let first: Vec<_> = (0..250).map(|number| write(number, "value")).collect();
        let results = store.write_batch(&first).await;
        assert!(
            results
                .iter()
                .all(|result| matches!(result, Ok(Written::Created)))
        );
        let second: Vec<_> = (200..630)
            .map(|number| write(number, if number == 249 { "other" } else { "value" }))
            .collect();
        for (write, result) in second.iter().zip(store.write_batch(&second).await) {
            let number = write.coordinate.clone();
            match result {
                Ok(Written::AlreadySame) => assert!((200..249).any(|n| managed(n) == number)),
                Ok(Written::Created) => assert!((250..630).any(|n| managed(n) == number)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
                    assert_eq!(number, managed(249));
                }
            }
        }
        let raw = folder.raw().await;
        assert_eq!(raw.number("SELECT count(*) FROM secrets").await, 630);
        raw.close().await;
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_file_is_said() {
    let folder = Folder::new();
    let open = async |create: bool| {
        let config = folder
            .config()
            .set("create", create.to_string())
            .set("connect-timeout", "1")
            .build()
            .unwrap();
        Database::connect(config).await
    };
    // Missing, with and without permission to create it.
    let error = open(false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(!folder.file().exists());
    // With another layout.
    std::fs::write(
        folder.file(),
        "this is a text and no database, as anybody can see. ".repeat(100),
    )
    .unwrap();
    let error = open(true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(
        error.to_string().contains("not an SQLite database"),
        "{error}"
    );
    std::fs::remove_file(folder.file()).unwrap();
    // A database without the table.
    let raw = folder.raw().await;
    raw.run("CREATE TABLE something (else_ TEXT)")
        .await
        .unwrap();
    let error = open(false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.hint().unwrap().contains("CREATE TABLE"), "{error}");
    // A table of something else.
    raw.run("CREATE TABLE secrets (id TEXT PRIMARY KEY, payload TEXT)")
        .await
        .unwrap();
    let error = open(true).await.unwrap_err();
    assert!(error.to_string().contains("`coordinate`"), "{error}");
    raw.run("DROP TABLE secrets; CREATE TABLE secrets (coordinate TEXT, payload TEXT)")
        .await
        .unwrap();
    let store = open(true).await.unwrap();
    let error = store.write(write(1, "value")).await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Unavailable, "{error}");
    store.close().await;
    // Locked by another process for longer than the timeout.
    raw.run("DROP TABLE secrets").await.unwrap();
    raw.run(LEGACY).await.unwrap();
    let store = open(true).await.unwrap();
    raw.run("BEGIN IMMEDIATE").await.unwrap();
    let error = store.write(write(1, "value")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.is_retryable());
    raw.run("ROLLBACK").await.unwrap();
    store.write(write(1, "value")).await.unwrap();
    store.close().await;
    raw.close().await;
    // A missing folder.
    let config = Setup::of_url("sqlite:///nowhere/at/all.db")
        .build()
        .unwrap();
    let error = Database::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("/nowhere/at/all.db"), "{error}");
}

/// A damaged file is detected: it neither crashes nor counts as missing secrets.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_integrity() {
    let place = Place::Sqlite(Folder::new());
    let folder = place.folder();
    let store = place.open(Mode::Plain, None).await.unwrap();
    for number in 0..50 {
        store
            .write(write(number, &"x".repeat(2_000)))
            .await
            .unwrap();
    }
    store.close().await;
    let mut bytes = std::fs::read(folder.file()).unwrap();
    let from = bytes.len() / 4;
    let to = bytes.len() - 4096;
    bytes[from..to].fill(0xa5);
    std::fs::write(folder.file(), bytes).unwrap();
    let names: Vec<_> = (0..50).map(|number| managed(number).into()).collect();
    match place.open(Mode::Plain, None).await {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Integrity, "{error}"),
        Ok(store) => {
            let results = store.read_batch(&names).await;
            assert!(results.iter().all(|result| match result {
                Ok(read) => read.value == secret(&"x".repeat(2_000)),
                Err(error) => error.kind() == ErrorKind::Integrity,
            }));
            assert!(results.iter().any(Result::is_err));
            store.close().await;
        }
    }
}

/// Bytes that are not text, numbers, and a blob instead of text: only that row fails.
#[tokio::test(flavor = "multi_thread")]
async fn one_odd_row_spoils_no_other() {
    let folder = Folder::new();
    let raw = folder.raw().await;
    raw.run(LEGACY).await.unwrap();
    raw.insert(managed(1).as_str(), "value").await;
    for (number, value) in [
        (2, "x'ff00'"),
        (3, "CAST(x'ff' AS TEXT)"),
        (4, "NULL"),
        (5, "5"),
    ] {
        let sql = format!(
            "INSERT INTO secrets VALUES ('{}', {value})",
            managed(number)
        );
        raw.run(&sql).await.unwrap();
    }
    let store = Database::connect(folder.config().build().unwrap())
        .await
        .unwrap();
    let names: Vec<_> = (1..=5).map(|number| managed(number).into()).collect();
    let kinds: Vec<_> = store
        .read_batch(&names)
        .await
        .into_iter()
        .map(|result| {
            result
                .map(|read| read.value.expose().to_owned())
                .map_err(|error| error.kind())
        })
        .collect();
    let integrity = || Err(ErrorKind::Integrity);
    assert_eq!(
        kinds,
        [
            Ok("value".to_owned()),
            integrity(),
            integrity(),
            integrity(),
            Ok("5".to_owned())
        ]
    );
    store.close().await;
}

/// A full disk: nothing is lost, the error names it, and the store continues when there is space.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said() {
    let folder = Folder::new();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&disk)
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        println!("SKIPPED a_full_disk_is_said: mounting a small disk is not permitted here");
        return;
    }
    let file = disk.join("secrets.db");
    let url = format!("sqlite://{}", file.display());
    let config = Setup::of_url(&url).build().unwrap();
    let store = Database::connect(config).await.unwrap();
    let mut kept = 0;
    let error = loop {
        match store.write(write(kept, &"x".repeat(30_000))).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    let names: Vec<_> = (0..kept).map(|number| managed(number).into()).collect();
    let intact = store.read_batch(&names).await.iter().all(Result::is_ok);
    store.close().await;
    let unmounted = std::process::Command::new("umount").arg(&disk).status();
    assert!(unmounted.unwrap().success());
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("disk is full"), "{error}");
    assert!(!error.is_retryable());
    assert!(kept > 3 && intact);
}

/// Another program may have created the file: in UTF-16, in which SQLite does not join bytes as they are, and with
/// names that are compared without case.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_another_encoding_and_collation_reads_the_same() {
    for is_encrypted in [false, true] {
        let folder = Folder::new();
        let raw = folder.raw().await;
        raw.run(
            "PRAGMA encoding = 'UTF-16'; \
             CREATE TABLE secrets (coordinate TEXT PRIMARY KEY COLLATE NOCASE, payload TEXT)",
        )
        .await
        .unwrap();
        assert_eq!(
            raw.number("SELECT encoding <> 'UTF-8' FROM pragma_encoding")
                .await,
            1
        );
        let mut setup = folder.config();
        Database::prepare(&setup.build().unwrap()).await.unwrap();
        if is_encrypted {
            setup = setup.keyring(&ring());
        }
        let store = Database::connect(setup.build().unwrap()).await.unwrap();
        // Of even and odd lengths.
        let values = ["", "v", "va", "vä"];
        for (number, value) in values.iter().enumerate() {
            let written = store
                .write(write(number, &format!("{value}{number}")))
                .await;
            assert_eq!(written.unwrap(), Written::Created);
        }
        for (number, value) in values.iter().enumerate() {
            let read = store.read(&managed(number).into()).await.unwrap();
            assert_eq!(read.value, secret(&format!("{value}{number}")));
        }
        raw.insert("Theirs", "value").await;
        let kind_of = async |name| {
            let read = store.read(&Coordinate::parse(name).unwrap()).await;
            read.err().map(|error| error.kind())
        };
        let found = is_encrypted.then_some(ErrorKind::Integrity);
        assert_eq!(kind_of("Theirs").await, found);
        assert_eq!(kind_of("theirs").await, Some(ErrorKind::NotFound));
        raw.close().await;
        store.close().await;
    }
}
