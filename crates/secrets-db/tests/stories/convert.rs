//! `encrypt` and `rotate` while the table is in use.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use secret_persistence_core::{
    Coordinate, DeleteOptions, ErrorKind, SecretPersistence, SecretPersistenceExt, Timestamp,
    Written,
};
use secret_persistence_db::{
    Conversion, Database, EncryptOptions, KeyRing, Mode, Progress, Range, RotateOptions,
};

use crate::support::{LEGACY, Place, contains, managed, ring, secret, write};

const ROWS: usize = 1_200;

fn stated() -> EncryptOptions {
    EncryptOptions::default().with_nothing_else_reads(true)
}

async fn legacy(place: &Place, rows: usize) {
    let raw = place.raw().await;
    raw.run(LEGACY).await.unwrap();
    for number in 0..rows {
        raw.insert(managed(number).as_str(), &format!("value {number}"))
            .await;
    }
    raw.insert("somebody/elses", "external").await;
    raw.insert("somebody/empty", "").await;
}

/// Every process has both keys before the second one becomes active.
fn before_and_after_activation() -> (KeyRing, KeyRing) {
    let mut known = ring();
    known.add("k2".parse().unwrap()).unwrap();
    let mut new = known.clone();
    new.activate(&"k2".parse().unwrap()).unwrap();
    known.activate(&"k1".parse().unwrap()).unwrap();
    (known, new)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_table_is_prepared_and_encrypted_in_place() {
    for place in Place::all("a_legacy_table_is_encrypted").await {
        legacy(&place, 1_203).await;
        let ring = ring();
        // Not without the columns, and not without the confirmation.
        let error = place.open(Mode::Encrypted, Some(&ring)).await.unwrap_err();
        assert!(error.hint().unwrap().contains("prepare"), "{error}");
        Database::prepare(&place.config().build().unwrap())
            .await
            .unwrap();
        let store = place.open(Mode::Encrypted, Some(&ring)).await.unwrap();
        let error = store
            .encrypt(&EncryptOptions::default(), &|_| {})
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let plain = place.open(Mode::Plain, None).await.unwrap();
        let error = plain.encrypt(&stated(), &|_| {}).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        plain.close().await;

        let seen = Mutex::new(Vec::new());
        let done = store
            .encrypt(&stated().with_rewrite(true), &|progress| {
                seen.lock().unwrap().push((progress.done, progress.total));
            })
            .await
            .unwrap();
        assert_eq!(
            (done.converted, done.damaged.len(), done.rewritten),
            (1_205, 0, true)
        );
        assert!(!done.out_of_reach.is_empty());
        let seen = seen.into_inner().unwrap();
        assert_eq!(
            (seen[0], seen[seen.len() - 1]),
            ((0, 1_205), (1_205, 1_205))
        );

        for (name, value) in [
            (managed(0).as_str(), "value 0"),
            (managed(1_202).as_str(), "value 1202"),
            ("somebody/elses", "external"),
            ("somebody/empty", ""),
        ] {
            let read = store.read(&Coordinate::parse(name).unwrap()).await.unwrap();
            assert_eq!(read.value, secret(value));
        }
        let again = store.encrypt(&stated(), &|_| {}).await.unwrap();
        assert_eq!(again.converted, 0);
        store.close().await;
    }
}

/// A row that is half plain and half encrypted is neither guessed nor lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_row_is_named_and_left() {
    for place in Place::all("a_half_row_is_named").await {
        legacy(&place, 3).await;
        Database::prepare(&place.config().build().unwrap())
            .await
            .unwrap();
        let raw = place.raw().await;
        raw.run("UPDATE secrets SET key_id = 'k1' WHERE payload = 'value 1'")
            .await
            .unwrap();
        let store = place.open(Mode::Encrypted, Some(&ring())).await.unwrap();
        let done = store.encrypt(&stated(), &|_| {}).await.unwrap();
        assert_eq!((done.converted, done.damaged.len()), (4, 1));
        let error = &done.damaged[0];
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert_eq!(error.coordinate(), Some(managed(1).as_str()));
        assert_eq!(
            raw.number("SELECT count(*) FROM secrets WHERE payload = 'value 1'")
                .await,
            1
        );
        store.close().await;
    }
}

/// Services continue in `mode=converting`: none of their writes and deletes is lost or undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn encrypting_and_rotating_disturb_nobody() {
    for place in Place::all("encrypting_and_rotating_disturb_nobody").await {
        legacy(&place, ROWS).await;
        Database::prepare(&place.config().build().unwrap())
            .await
            .unwrap();
        let (known, new) = before_and_after_activation();
        let service = place.open(Mode::Converting, Some(&known)).await.unwrap();
        let activated = place.open(Mode::Encrypted, Some(&new)).await.unwrap();
        let tool = place.open(Mode::Encrypted, Some(&known)).await.unwrap();
        let rotator = place.open(Mode::Encrypted, Some(&new)).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (restart, current) = tokio::sync::watch::channel(service.clone());
        // Each in a separate task, like services.
        let writer = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move {
                let mut number = 10_000;
                while !stop.load(Ordering::Relaxed) {
                    let service = current.borrow().clone();
                    let written = service.write(write(number, "new")).await.unwrap();
                    assert_eq!(written, Written::Created);
                    number += 1;
                }
                number
            }
        });
        let deleter = tokio::spawn({
            let service = service.clone();
            async move {
                for number in (0..ROWS).step_by(7) {
                    let options = DeleteOptions::default();
                    service.delete(&managed(number), &options).await.unwrap();
                }
            }
        });
        let reader = tokio::spawn({
            let (service, stop) = (service.clone(), Arc::clone(&stop));
            async move {
                let kept = (0..ROWS).filter(|number| number % 7 != 0);
                let names: Vec<Coordinate> = kept.map(|number| managed(number).into()).collect();
                while !stop.load(Ordering::Relaxed) {
                    for (result, name) in service.read_batch(&names).await.into_iter().zip(&names) {
                        let read = result.unwrap_or_else(|error| panic!("{name}: {error}"));
                        assert!(read.value.expose().starts_with("value "));
                    }
                }
            }
        });
        tool.encrypt(&stated(), &|_| {}).await.unwrap();
        // The key is active everywhere before the rotation.
        restart.send(activated.clone()).unwrap();
        let rotated = rotator
            .rotate(&RotateOptions::default(), &|_| {})
            .await
            .unwrap();
        assert!(rotated.damaged.is_empty());
        let reencrypt = RotateOptions::default().with_reencrypt(true);
        let rotated = rotator.rotate(&reencrypt, &|_| {}).await.unwrap();
        assert!(rotated.damaged.is_empty() && rotated.rotated > ROWS as u64 / 2);
        stop.store(true, Ordering::Relaxed);
        let end = writer.await.unwrap();
        deleter.await.unwrap();
        reader.await.unwrap();

        rotator
            .rotate(&RotateOptions::default(), &|_| {})
            .await
            .unwrap();
        for number in 0..ROWS {
            let read = rotator.read(&managed(number).into()).await;
            match read {
                Ok(read) => assert_eq!(read.value, secret(&format!("value {number}"))),
                Err(error) => assert_eq!((number % 7, error.kind()), (0, ErrorKind::NotFound)),
            }
        }
        let names: Vec<Coordinate> = (10_000..end).map(|n| managed(n).into()).collect();
        for result in rotator.read_many(&names).await {
            assert_eq!(result.unwrap().value, secret("new"));
        }
        let raw = place.raw().await;
        let others = "SELECT count(*) FROM secrets WHERE key_id <> 'k2' OR payload IS NOT NULL";
        assert_eq!(raw.number(others).await, 0);
        for store in [service, activated, tool, rotator] {
            store.close().await;
        }
    }
}

/// With a process that still writes under the old key there is no end, and the error says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_says_that_the_key_is_not_active_everywhere() {
    for place in Place::all("the_key_is_not_active_everywhere").await {
        Database::prepare(&place.config().build().unwrap())
            .await
            .unwrap();
        let (known, new) = before_and_after_activation();
        let forgotten = place.open(Mode::Encrypted, Some(&known)).await.unwrap();
        let rotator = place.open(Mode::Encrypted, Some(&new)).await.unwrap();
        forgotten.write(write(1, "value")).await.unwrap();
        // After each page it writes the row again, so that each pass finds it under the old key.
        let again = |progress: Progress| {
            if progress.done > 0 {
                tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(async {
                        let options = DeleteOptions::default();
                        forgotten.delete(&managed(1), &options).await.unwrap();
                        forgotten.write(write(1, "value")).await.unwrap();
                    });
                });
            }
        };
        let error = rotator
            .rotate(&RotateOptions::default(), &again)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.hint().unwrap().contains("activate"), "{error:?}");
        let read = rotator.read(&managed(1).into()).await.unwrap();
        assert_eq!(read.value, secret("value"));
        for store in [forgotten, rotator] {
            store.close().await;
        }
    }
}

/// Rotation keeps data keys, which is not sufficient for a leaked ring.
#[tokio::test(flavor = "multi_thread")]
async fn reencrypting_makes_new_data_keys_also_for_rows_that_were_rotated_before() {
    for place in Place::all("reencrypting_makes_new_data_keys").await {
        let mut ring = ring();
        let store = place.open(Mode::Encrypted, Some(&ring)).await.unwrap();
        for number in 0..5 {
            store.write(write(number, "value")).await.unwrap();
        }
        store.close().await;
        ring.add("k2".parse().unwrap()).unwrap();
        ring.activate(&"k2".parse().unwrap()).unwrap();
        let store = place.open(Mode::Encrypted, Some(&ring)).await.unwrap();
        let raw = place.raw().await;
        raw.run("CREATE TABLE was AS SELECT * FROM secrets")
            .await
            .unwrap();
        let same = "SELECT count(*) FROM secrets JOIN was USING (coordinate) \
                    WHERE secrets.ciphertext = was.ciphertext";
        let rotated = store
            .rotate(&RotateOptions::default(), &|_| {})
            .await
            .unwrap();
        assert_eq!((rotated.rotated, raw.number(same).await), (5, 5));
        let reencrypt = RotateOptions::default().with_reencrypt(true);
        let rotated = store.rotate(&reencrypt, &|_| {}).await.unwrap();
        assert_eq!((rotated.rotated, raw.number(same).await), (5, 0));
        for number in 0..5 {
            let read = store.read(&managed(number).into()).await.unwrap();
            assert_eq!(read.value, secret("value"));
        }
        // Its cursor is gone: the next run starts over.
        assert_eq!(store.rotate(&reencrypt, &|_| {}).await.unwrap().rotated, 5);
        store.close().await;
    }
}

/// What was done before an interruption is not repeated the next day, and is later: nobody knows any more why it
/// was done.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_reencryption_goes_on_for_a_day() {
    for place in Place::all("an_interrupted_reencryption").await {
        let store = place.open(Mode::Encrypted, Some(&ring())).await.unwrap();
        let writes: Vec<_> = (0..ROWS).map(|number| write(number, "value")).collect();
        for written in store.write_many(&writes).await {
            written.unwrap();
        }
        let raw = place.raw().await;
        let reencrypt = RotateOptions::default().with_reencrypt(true);
        for is_old in [false, true] {
            let told = tokio::sync::Notify::new();
            let tell = |progress: Progress| {
                if progress.done > 500 {
                    told.notify_one();
                }
            };
            tokio::select! {
                biased;
                () = told.notified() => {}
                rotated = store.rotate(&reencrypt, &tell) => panic!("it ended: {rotated:?}"),
            }
            if is_old {
                let now = Timestamp::now().unix_seconds().to_string();
                // The time begins a line. Years go by.
                let old = match &place {
                    Place::Sqlite(_) => format!(
                        "CAST(replace(CAST(value AS TEXT), char(10) || '{0}', char(10) || '1000') AS BLOB)",
                        &now[..4]
                    ),
                    #[cfg(feature = "postgres")]
                    Place::Postgres(_) => format!(
                        "convert_to(replace(convert_from(value, 'UTF8'), chr(10) || '{0}', chr(10) || '1000'), \
                         'UTF8')",
                        &now[..4]
                    ),
                };
                let sql = format!("UPDATE secrets_meta SET value = {old} WHERE name = 'reencrypt'");
                assert_eq!(raw.run(&sql).await.unwrap(), 1);
            }
            let rotated = store.rotate(&reencrypt, &|_| {}).await.unwrap().rotated;
            assert_eq!(rotated == ROWS as u64, is_old, "{rotated}");
        }
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_names_rows_that_do_not_open_and_goes_on() {
    for place in Place::all("rotate_names_rows").await {
        let mut ring = ring();
        let store = place.open(Mode::Encrypted, Some(&ring)).await.unwrap();
        for number in 0..4 {
            store.write(write(number, "value")).await.unwrap();
        }
        store.close().await;
        let raw = place.raw().await;
        raw.run("UPDATE secrets SET expires = 5 WHERE coordinate LIKE '%000002_v1'")
            .await
            .unwrap();
        ring.add("k2".parse().unwrap()).unwrap();
        ring.activate(&"k2".parse().unwrap()).unwrap();
        let store = place.open(Mode::Encrypted, Some(&ring)).await.unwrap();
        for reencrypt in [false, true] {
            let options = RotateOptions::default().with_reencrypt(reencrypt);
            let rotated = store.rotate(&options, &|_| {}).await.unwrap();
            assert_eq!((rotated.rotated, rotated.damaged.len()), (3, 1));
            assert_eq!(rotated.damaged[0].coordinate(), Some(managed(2).as_str()));
        }
        // The damaged row prevents retiring its key, because it may be restored some day.
        let error = store.retire_key(&"k1".parse().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("1 rows"), "{error}");
        store.close().await;
    }
}

/// All ranges of at most so many rows.
async fn ranges(conversion: &Conversion, rows: usize) -> Vec<(Range, u64)> {
    let mut ranges: Vec<(Range, u64)> = Vec::new();
    loop {
        let after = ranges.last().and_then(|(range, _)| range.upto.clone());
        match conversion
            .range_after(after.as_deref(), rows)
            .await
            .unwrap()
        {
            None => return ranges,
            Some(range) => ranges.push(range),
        }
    }
}

/// Converts a range, and returns how many rows of it this did.
async fn whole(conversion: &Conversion, range: &Range) -> u64 {
    let (mut converted, mut left) = (0, Some(range.clone()));
    while let Some(range) = left {
        let step = conversion.convert(&range).await.unwrap();
        assert!(step.damaged.is_empty() && step.lost.is_empty(), "{step:?}");
        converted += step.converted;
        left = step.rest;
    }
    converted
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_have_every_row_once_whoever_converts_them() {
    for place in Place::all("ranges_have_every_row_once").await {
        legacy(&place, ROWS).await;
        let raw = place.raw().await;
        // Languages sort these elsewhere than their bytes do.
        for name in ["Airbyte_x", "_airbyte", "äirbyte", "airbyte-Z"] {
            raw.insert(name, "external").await;
        }
        Database::prepare(&place.config().build().unwrap())
            .await
            .unwrap();
        let store = place.open(Mode::Encrypted, Some(&ring())).await.unwrap();
        let conversion = store.encryption(&stated()).await.unwrap();
        let all = ROWS as u64 + 6;
        // Each has more than one step.
        let ranges = ranges(&conversion, 600).await;
        let counts: Vec<u64> = ranges.iter().map(|(_, rows)| *rows).collect();
        assert_eq!(counts, [600, 600, all - 1200]);
        assert_eq!(whole(&conversion, &ranges[1].0).await, 600);
        let plain = "SELECT count(*) FROM secrets WHERE payload IS NOT NULL";
        assert_eq!(raw.number(plain).await.unsigned_abs(), all - 600);
        for (at, (range, rows)) in ranges.iter().enumerate() {
            let (one, other) = tokio::join!(whole(&conversion, range), whole(&conversion, range));
            let left = if at == 1 { 0 } else { *rows };
            assert_eq!(one + other, left, "range {at}");
        }
        assert_eq!(raw.number(plain).await, 0);

        // What is written meanwhile is found, wherever it is.
        for name in ["0", "airbyte_workspace_1_secret_000007_v9", "zz"] {
            raw.insert(name, "late").await;
        }
        let late = conversion.convert_late(&Range::default()).await.unwrap();
        assert_eq!((late.converted, late.is_settled), (3, false));
        let late = conversion.convert_late(&Range::default()).await.unwrap();
        assert_eq!((late.converted, late.is_settled), (0, true));
        assert!(
            !conversion
                .end(&|| ())
                .await
                .unwrap()
                .out_of_reach
                .is_empty()
        );
        let read = store.read(&managed(7).into()).await.unwrap();
        assert_eq!(read.value, secret("value 7"));
        store.close().await;
    }
}

/// A row that another process has changed at the same moment would keep the data key that leaked.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_reencryption_loses_to_another_is_done_again() {
    for place in Place::all("what_a_reencryption_loses").await {
        let store = place.open(Mode::Encrypted, Some(&ring())).await.unwrap();
        for number in 0..50 {
            store.write(write(number, "value")).await.unwrap();
        }
        let reencrypt = RotateOptions::default().with_reencrypt(true);
        let conversion = store.rotation(&reencrypt).await.unwrap();
        let range = Range::default();
        let mut lost = 0;
        for _ in 0..100 {
            let (one, other) = tokio::join!(conversion.convert(&range), conversion.convert(&range));
            for step in [one.unwrap(), other.unwrap()] {
                assert_eq!(step.converted + step.lost.len() as u64, 50);
                lost += step.lost.len();
                let again = conversion.convert_again(&step.lost).await.unwrap();
                assert_eq!(again.converted, step.lost.len() as u64);
            }
            if lost > 0 {
                break;
            }
        }
        assert!(lost > 0, "they never met");
        let read = store.read(&managed(7).into()).await.unwrap();
        assert_eq!(read.value, secret("value"));
        store.close().await;
    }
}

/// SQLite's files contain no plain text afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn encrypted_and_deleted_values_are_gone_from_the_files() {
    let place = Place::Sqlite(crate::support::Folder::new());
    let folder = place.folder();
    // An installation's file, written without our settings, with some rows deleted long ago.
    let raw = folder.raw().await;
    raw.run("PRAGMA secure_delete = OFF").await.unwrap();
    raw.run(LEGACY).await.unwrap();
    let long = "long-canary ".repeat(4_000);
    for number in 0..200 {
        raw.insert(managed(number).as_str(), &format!("canary-{number}"))
            .await;
    }
    raw.insert(managed(900).as_str(), &long).await;
    raw.insert(managed(901).as_str(), "deleted-canary").await;
    raw.run("DELETE FROM secrets WHERE payload = 'deleted-canary'")
        .await
        .unwrap();
    raw.close().await;
    assert!(contains(&folder.bytes(), "canary"));

    // Plain: a deleted value is removed from the database, its log and its index immediately.
    let store = place.open(Mode::Plain, None).await.unwrap();
    store.write(write(902, "brief-visitor")).await.unwrap();
    assert!(contains(&folder.bytes(), "brief-visitor"));
    store
        .delete(&managed(902), &DeleteOptions::default())
        .await
        .unwrap();
    assert!(!contains(&folder.bytes(), "brief-visitor"));
    store.close().await;

    // Encrypted: all of them are, including free pages and the log, while the store is still open.
    Database::prepare(&place.config().build().unwrap())
        .await
        .unwrap();
    let store = place.open(Mode::Encrypted, Some(&ring())).await.unwrap();
    assert!(contains(&folder.bytes(), "canary"));
    let done = store.encrypt(&stated(), &|_| {}).await.unwrap();
    assert!(done.rewritten);
    assert_eq!(done.converted, 201);
    assert!(!contains(&folder.bytes(), "canary"));
    let read = store.read(&managed(900).into()).await.unwrap();
    assert_eq!(read.value, secret(&long));
    store.write(write(903, "canary after")).await.unwrap();
    store
        .delete(&managed(903), &DeleteOptions::default())
        .await
        .unwrap();
    assert!(!contains(&folder.bytes(), "canary"));
    store.close().await;
    assert!(!contains(&folder.bytes(), "canary"));
}
