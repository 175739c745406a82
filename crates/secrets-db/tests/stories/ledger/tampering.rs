//! Every kind of tampering, on tables and on files.

use secret_persistence_core::{AuditSink, ErrorKind};
use secret_persistence_db::FindingKind;

use super::{Home, events};
use crate::support::{Raw, ring};

const LINES: usize = 6;

/// The findings, without the chains: kind and sequence.
async fn found(home: &Home) -> Vec<(FindingKind, i64)> {
    let verified = home.verify().await;
    assert_eq!(verified.found, verified.findings.len() as u64);
    verified
        .findings
        .iter()
        .map(|finding| (finding.kind, finding.sequence))
        .collect()
}

#[tokio::test]
async fn a_table_that_was_tampered_with_is_found_out() {
    use FindingKind::{Altered, Detached, Displaced, Missing, Unreadable};

    let swap = |column: &str, one: i64, other: i64| {
        format!(
            "UPDATE secret_ledger SET {column} = -{column} WHERE sequence IN ({one}, {other});
             UPDATE secret_ledger SET sequence = {one} WHERE sequence = -{other};
             UPDATE secret_ledger SET sequence = {other} WHERE sequence = -{one}"
        )
    };
    let swapped = swap("sequence", 2, 3);
    for (tampering, expected) in [
        // Changed.
        (
            r#"UPDATE secret_ledger SET line = replace(line, '"maria"', '"otto"') WHERE sequence = 3"#,
            vec![(Altered, 3)],
        ),
        (
            r#"UPDATE secret_ledger SET line = replace(line, '"ok"', '"no"') WHERE sequence = 6"#,
            vec![(Altered, 6)],
        ),
        (
            "UPDATE secret_ledger SET coordinate = 'x' WHERE sequence = 3",
            vec![(Displaced, 3)],
        ),
        (
            "UPDATE secret_ledger SET at = 0 WHERE sequence = 3",
            vec![(Displaced, 3)],
        ),
        (
            "UPDATE secret_ledger SET line = '{}' WHERE sequence = 3",
            vec![(Unreadable, 3)],
        ),
        // Removed.
        (
            "DELETE FROM secret_ledger WHERE sequence = 1",
            vec![(Missing, 1)],
        ),
        (
            "DELETE FROM secret_ledger WHERE sequence <= 3",
            vec![(Missing, 1)],
        ),
        (
            "DELETE FROM secret_ledger WHERE sequence IN (3, 4)",
            vec![(Missing, 3)],
        ),
        // Removed, and the gap closed.
        (
            "DELETE FROM secret_ledger WHERE sequence = 5;
             UPDATE secret_ledger SET sequence = 5 WHERE sequence = 6",
            vec![(Displaced, 5), (Detached, 5)],
        ),
        // Reordered.
        (
            &*swapped,
            vec![
                (Displaced, 2),
                (Detached, 2),
                (Displaced, 3),
                (Detached, 3),
                (Detached, 4),
            ],
        ),
        // Given to another chain.
        (
            "UPDATE secret_ledger SET writer = 'x' WHERE sequence = 6",
            vec![(Displaced, 6), (Missing, 1)],
        ),
    ] {
        for home in Home::all("a_table_that_was_tampered_with").await {
            let Some(raw) = home.raw().await else {
                continue;
            };
            home.ledger().record(&events(0..LINES)).await.unwrap();
            assert_eq!(found(&home).await, []);
            raw.run(tampering).await.unwrap();
            let mut found = found(&home).await;
            let mut expected = expected.clone();
            for list in [&mut found, &mut expected] {
                list.sort_unstable_by_key(|(kind, at)| (*at, kind.as_str()));
            }
            assert_eq!(found, expected, "{tampering} in {}", home.url);
        }
    }
}

#[tokio::test]
async fn files_that_were_tampered_with_are_found_out() {
    use FindingKind::{Altered, Displaced, Missing, Unreadable};

    type Tampering = fn(&mut Vec<String>);
    let cases: [(Tampering, Vec<(FindingKind, i64)>); 7] = [
        (
            |lines| lines[2] = lines[2].replace("maria", "otto"),
            vec![(Altered, 3)],
        ),
        (|lines| drop(lines.remove(0)), vec![(Missing, 1)]),
        (|lines| drop(lines.drain(2..4)), vec![(Missing, 3)]),
        (
            |lines| lines.swap(1, 2),
            vec![(Missing, 2), (Displaced, 2), (Missing, 3)],
        ),
        (
            |lines| lines.insert(3, lines[0].clone()),
            vec![(Displaced, 1), (Missing, 2)],
        ),
        (|lines| lines[3] = "{}".to_owned(), vec![(Unreadable, 4)]),
        (
            |lines| lines.push("not JSON".to_owned()),
            vec![(Unreadable, LINES as i64 + 1)],
        ),
    ];
    for (number, (tampering, expected)) in cases.into_iter().enumerate() {
        let homes = Home::all("files_that_were_tampered_with").await;
        let home = homes.iter().find(|home| home.folder.is_some()).unwrap();
        home.ledger().record(&events(0..LINES)).await.unwrap();
        let folder = home.folder.as_ref().unwrap().path().join("ledger");
        let file = folder.read_dir().unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        tampering(&mut lines);
        std::fs::write(&file, lines.join("\n") + "\n").unwrap();
        assert_eq!(found(home).await, expected, "case {number}");
    }
}

/// A crash in the middle of a write leaves a part of a line, whose value was not handed out.
#[tokio::test]
async fn an_unfinished_line_is_counted_and_is_no_finding() {
    let homes = Home::all("an_unfinished_line").await;
    let home = homes.iter().find(|home| home.folder.is_some()).unwrap();
    home.ledger().record(&events(0..LINES)).await.unwrap();
    let folder = home.folder.as_ref().unwrap().path().join("ledger");
    let file = folder.read_dir().unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, &text[..text.len() - 30]).unwrap();
    let verified = home.verify().await;
    assert!(verified.is_intact(), "{verified:?}");
    assert_eq!((verified.lines, verified.unfinished), (LINES as u64 - 1, 1));
}

#[tokio::test]
async fn lines_that_were_written_without_the_key_are_found() {
    for home in Home::all("lines_that_were_written_without").await {
        home.ledger().record(&events(0..2)).await.unwrap();
        // A key of the same name.
        let theirs = home.config_with(&ring(), "");
        let forger = secret_persistence_db::Ledger::new(theirs).unwrap();
        forger.record(&events(2..4)).await.unwrap();
        let kinds: Vec<_> = found(&home)
            .await
            .into_iter()
            .map(|(kind, _)| kind)
            .collect();
        assert_eq!(kinds, [FindingKind::Altered; 2]);
        // A search says so too.
        let mut genuine = 0;
        home.reader()
            .await
            .search(&Default::default(), &mut |_, is| genuine += usize::from(is))
            .await
            .unwrap();
        assert_eq!(genuine, 2);
    }
}

/// Removes the last two lines of the chain with the most lines, or a whole chain.
async fn cut_off(home: &Home, raw: Option<&Raw>, whole: bool) {
    let Some(raw) = raw else {
        let folder = home.folder.as_ref().unwrap().path().join("ledger");
        for file in folder.read_dir().unwrap() {
            let file = file.unwrap().path();
            let text = std::fs::read_to_string(&file).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            if lines.len() == LINES {
                match whole {
                    true => std::fs::remove_file(&file).unwrap(),
                    false => std::fs::write(&file, lines[..LINES - 2].join("\n") + "\n").unwrap(),
                }
            }
        }
        return;
    };
    let from = if whole { 1 } else { LINES as i64 - 1 };
    raw.run(&format!(
        "DELETE FROM secret_ledger WHERE sequence >= {from} AND writer =
         (SELECT writer FROM secret_ledger WHERE sequence = {LINES})"
    ))
    .await
    .unwrap();
}

#[tokio::test]
async fn the_end_of_a_chain_and_a_whole_chain_are_missed_only_with_a_checkpoint() {
    for whole in [false, true] {
        for home in Home::all("the_end_of_a_chain").await {
            home.ledger().record(&events(0..LINES)).await.unwrap();
            home.ledger().record(&events(6..8)).await.unwrap();
            let checkpoint = home.reader().await.checkpoint(&[]).await.unwrap();
            assert_eq!(checkpoint.chains(), 2);
            // It is kept somewhere else, as text.
            let text = checkpoint.to_text().unwrap();
            let kept = home.reader().await.read_checkpoint(&text).unwrap();
            home.ledger().record(&events(8..9)).await.unwrap();
            let intact = home
                .reader()
                .await
                .verify(std::slice::from_ref(&kept))
                .await
                .unwrap();
            assert!(intact.is_intact(), "{intact:?}");

            cut_off(&home, home.raw().await.as_ref(), whole).await;
            assert_eq!(found(&home).await, [], "nothing is left to be found");
            let reader = home.reader().await;
            let verified = reader.verify(std::slice::from_ref(&kept)).await.unwrap();
            let kinds: Vec<_> = verified
                .findings
                .iter()
                .map(|one| (one.kind, one.sequence))
                .collect();
            assert_eq!(kinds, [(FindingKind::Truncated, LINES as i64)]);
            // A checkpoint or a prune would hide it.
            let error = reader
                .checkpoint(std::slice::from_ref(&kept))
                .await
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Integrity);
            let now = secret_persistence_core::Timestamp::now();
            let error = reader.prune(now, &[kept]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Integrity);

            let forged = text.replace("\"sequence\":6", "\"sequence\":4");
            let error = reader.read_checkpoint(&forged).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Integrity);
        }
    }
}

/// Who has the key can write a chain anew. A checkpoint has the old one.
#[tokio::test]
async fn a_chain_that_was_written_anew_with_the_key_is_found_with_a_checkpoint() {
    for home in Home::all("a_chain_that_was_written_anew").await {
        home.ledger().record(&events(0..3)).await.unwrap();
        let reader = home.reader().await;
        let checkpoint = reader.checkpoint(&[]).await.unwrap();
        let Some(raw) = home.raw().await else {
            continue;
        };
        // Their own chain under the old chain's name does not agree with its lines, so they
        // need another one.
        raw.run("DELETE FROM secret_ledger").await.unwrap();
        home.ledger().record(&events(0..3)).await.unwrap();
        assert_eq!(found(&home).await, []);
        let verified = reader.verify(&[checkpoint]).await.unwrap();
        assert_eq!(verified.findings[0].kind, FindingKind::Truncated);
    }
}
