//! Retention: the beginning of a chain goes, and what is left still verifies.

use std::time::Duration;

use secret_persistence_core::{AuditSink, ErrorKind, Timestamp};
use secret_persistence_db::{FindingKind, Ledger};

use super::{Home, event, events};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn a_pruned_ledger_verifies_and_says_what_was_pruned() {
    for home in Home::all("a_pruned_ledger").await {
        let old = Timestamp::now().saturating_sub(DAY * 10);
        let aged = |number: usize, days: u32| {
            let mut event = event(number);
            event.at = old.saturating_add(DAY * days);
            event
        };
        // One byte: every write has a file of its own.
        let ledger = Ledger::new(home.config_with(&home.ring, "?file-bytes=1")).unwrap();
        for (number, days) in [(0, 0), (1, 1), (2, 2), (3, 9), (4, 1)] {
            ledger.record(&[aged(number, days)]).await.unwrap();
        }
        // A whole chain is old, and its process has ended.
        let ended = Ledger::new(home.config_with(&home.ring, "?file-bytes=1")).unwrap();
        ended.record(&[aged(5, 0)]).await.unwrap();
        drop(ended);
        until_closed(&home).await;

        let reader = home.reader().await;
        let checkpoint = reader.checkpoint(&[]).await.unwrap();
        let before = old.saturating_add(DAY * 5);
        let pruned = reader.prune(before, &[]).await.unwrap();
        // Not the line after the young one, because only beginnings are removed.
        assert_eq!((pruned.lines, pruned.chains), (4, 2), "{}", home.url);
        let verified = reader.verify(&[]).await.unwrap();
        assert!(verified.is_intact(), "{verified:?}");
        assert_eq!(
            (verified.lines, verified.pruned, verified.chains),
            (2, 4, 2)
        );
        // An older checkpoint still holds.
        let verified = reader.verify(&[checkpoint]).await.unwrap();
        assert!(verified.is_intact(), "{verified:?}");
        // Again: nothing.
        assert_eq!(reader.prune(before, &[]).await.unwrap().lines, 0);

        // The writer goes on, and a later prune replaces the mark.
        ledger.record(&events(6..8)).await.unwrap();
        let pruned = reader
            .prune(old.saturating_add(DAY * 10 - DAY / 2), &[])
            .await
            .unwrap();
        assert_eq!(pruned.lines, 2);
        let verified = reader.verify(&[]).await.unwrap();
        assert!(verified.is_intact(), "{verified:?}");
        assert_eq!((verified.lines, verified.pruned), (2, 6));
        let requests: Vec<_> = home
            .lines()
            .await
            .into_iter()
            .filter_map(|line| line.request)
            .collect();
        assert_eq!(
            requests.iter().map(|id| &**id).collect::<Vec<_>>(),
            ["r-6", "r-7"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_prunes_at_once_leave_a_ledger_that_verifies() {
    for home in Home::all("two_prunes_at_once").await {
        let now = Timestamp::now();
        for number in 0..4_usize {
            let ledger = Ledger::new(home.config()).unwrap();
            let mut old = event(number);
            old.at = now.saturating_sub(DAY);
            ledger.record(&[old.clone(), old]).await.unwrap();
            drop(ledger);
        }
        until_open(&home, 0).await;
        let (one, other) = (home.reader().await, home.reader().await);
        let (first, second) = tokio::join!(one.prune(now, &[]), other.prune(now, &[]));
        let mut lines = 0;
        for pruned in [first, second] {
            match pruned {
                Ok(pruned) => lines += pruned.lines,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
        assert!(lines <= 8, "{lines}");
        // What a refused one left is for the next.
        one.prune(now, &[]).await.unwrap();
        let verified = home.verify().await;
        assert!(verified.is_intact(), "{verified:?}");
        assert_eq!((verified.lines, verified.pruned), (0, 8), "{}", home.url);
    }
}

/// Its verification would be of lines that the other one removes.
#[tokio::test]
async fn a_prune_of_a_folder_waits_for_another_one() {
    for home in Home::all("a_prune_of_a_folder_waits").await {
        let Some(folder) = &home.folder else {
            continue;
        };
        home.ledger().record(&events(0..2)).await.unwrap();
        until_open(&home, 0).await;
        let other = std::fs::File::create(folder.path().join("ledger/prune.lock")).unwrap();
        other.lock().unwrap();
        let reader = home.reader().await;
        let mut prune = Box::pin(reader.prune(Timestamp::now().saturating_add(DAY), &[]));
        assert!(futures::poll!(&mut prune).is_pending());
        assert_eq!(home.verify().await.lines, 2);
        drop(other);
        assert_eq!(prune.await.unwrap().lines, 2);
        assert!(home.verify().await.is_intact());
    }
}

/// The writer of a dropped ledger ends a moment later.
pub(super) async fn until_closed(home: &Home) {
    until_open(home, 1).await;
}

/// Waits until no more than this many files are written.
async fn until_open(home: &Home, most: usize) {
    if home.folder.is_none() {
        return;
    }
    let folder = home.folder.as_ref().unwrap().path().join("ledger");
    loop {
        let open = folder
            .read_dir()
            .unwrap()
            .filter(|entry| {
                let file = std::fs::File::open(entry.as_ref().unwrap().path()).unwrap();
                file.try_lock_shared().is_err()
            })
            .count();
        if open <= most {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Otherwise a prune would end the search for what was done.
#[tokio::test]
async fn a_ledger_that_is_not_intact_is_not_pruned() {
    for home in Home::all("a_ledger_that_is_not_intact").await {
        let Some(raw) = home.raw().await else {
            continue;
        };
        home.ledger().record(&events(0..4)).await.unwrap();
        raw.run("DELETE FROM secret_ledger WHERE sequence = 2")
            .await
            .unwrap();
        let reader = home.reader().await;
        let later = Timestamp::now().saturating_add(DAY);
        let error = reader.prune(later, &[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert_eq!(raw.number("SELECT count(*) FROM secret_ledger").await, 3);
    }
}

/// Without the key nobody can remove the beginning of a chain and say that it was pruned.
#[tokio::test]
async fn a_forged_mark_is_found() {
    for home in Home::all("a_forged_mark").await {
        let Some(raw) = home.raw().await else {
            continue;
        };
        home.ledger().record(&events(0..4)).await.unwrap();
        home.reader()
            .await
            .prune(Timestamp::now().saturating_add(DAY), &[])
            .await
            .unwrap();
        raw.run("UPDATE secret_ledger SET line = replace(line, '\"lines\":4', '\"lines\":3')")
            .await
            .unwrap();
        let verified = home.verify().await;
        let kinds: Vec<_> = verified
            .findings
            .iter()
            .map(|finding| finding.kind)
            .collect();
        assert_eq!(kinds, [FindingKind::Altered, FindingKind::Missing]);
    }
}
