//! The conformance suite for implementations of [`Journal`].
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use secret_persistence_migrate::{MemoryJournal, conformance};
//!
//! conformance::journal(async || MemoryJournal::new()).await;
//! # });
//! ```
mod sharing;

use secret_persistence_core::{Identity, ManagedCoordinate, Owner};

use crate::{
    Counts, Journal, JournalEntry, Mention, MigrateErrorKind, Note, Run, Select, State, Transition,
};

pub use sharing::sharing;

/// Runs every case, each on a new journal made by `empty`.
///
/// # Panics
/// If the journal breaks a guarantee; the message names it.
pub async fn journal<J: Journal>(empty: impl AsyncFn() -> J) {
    belongs_to_the_run_that_something_was_done_for(&empty().await).await;
    is_bound_by_a_note(&empty().await).await;
    counts_scans_from_one(&empty().await).await;
    tells_configurations_seen_twice(&empty().await).await;
    mentions_add_and_never_change_states(&empty().await).await;
    mentions_tell_what_is_shared(&empty().await).await;
    transitions_set_state_and_intent(&empty().await).await;
    pages_follow_the_names_whatever_changes(&empty().await).await;
    selects_by_every_condition(&empty().await).await;
    finds_in_the_order_asked(&empty().await).await;
    keeps_notes(&empty().await).await;
    takes_concurrent_calls(&empty().await).await;
}

/// Checks that a journal which is closed and reopened has everything that it had before.
///
/// # Panics
/// If something is lost; the message names it.
pub async fn reopened<J: Journal>(open: impl AsyncFn() -> J) {
    let run = run("a");
    let first = open().await;
    ok(first.open(&run).await);
    let scan = ok(first.begin_scan().await);
    ok(first.see(scan, &["c#1".to_owned()]).await);
    ok(first.mention(scan, &[Mention::new(name(1), None)]).await);
    ok(first
        .advance(&[Transition::new(name(1), State::Verified, true)])
        .await);
    ok(first.put_note("a", Some("{}")).await);
    drop(first);
    let second = open().await;
    ok(second.open(&run).await);
    let entry = JournalEntry::new(name(1))
        .with_state(State::Verified, true)
        .with_mention(scan, None, false);
    assert_eq!(
        all(&second).await,
        [entry],
        "entries persist after the process ends"
    );
    assert_eq!(
        ok(second.notes(None, 9).await),
        [Note::new("a", "{}")],
        "notes persist after the process ends"
    );
    assert!(
        ok(second.begin_scan().await) > scan,
        "scan numbers continue after the process ends"
    );
}

async fn belongs_to_the_run_that_something_was_done_for(journal: &dyn Journal) {
    // What only looked, with a typo or without its owner, leaves nothing.
    ok(journal.open(&run("typo")).await);
    let scan = ok(journal.begin_scan().await);
    ok(journal.see(scan, &["c#1".to_owned()]).await);
    ok(journal.mention(scan, &[Mention::new(name(1), None)]).await);
    ok(journal.advance(&[]).await);
    ok(journal.put_note("unknown", None).await);
    ok(journal.open(&run("typo")).await);
    assert_eq!(all(journal).await.len(), 1, "the same run goes on");
    ok(journal.open(&run("a")).await);
    assert!(
        all(journal).await.is_empty(),
        "another run's scan is forgotten"
    );
    assert_eq!(ok(journal.begin_scan().await), 1);
    assert!(ok(journal.see(1, &["c#1".to_owned()]).await).is_empty());
    ok(journal
        .advance(&[Transition::new(name(1), State::Intent, true)])
        .await);
    ok(journal.open(&run("a")).await);
    let error = journal
        .open(&run("b"))
        .await
        .expect_err("a journal refuses another run");
    assert_eq!(error.kind(), MigrateErrorKind::AnotherRun);
    let text = error.to_string();
    assert!(
        text.contains(&run("a").to_string()) && text.contains(&run("b").to_string()),
        "the refusal names both runs: {text}"
    );
    ok(journal.open(&run("a")).await);
    assert_eq!(
        all(journal).await.len(),
        1,
        "what was refused changed nothing"
    );
}

async fn is_bound_by_a_note(journal: &dyn Journal) {
    ok(journal.open(&run("a")).await);
    ok(journal.put_note("a", Some("{}")).await);
    ok(journal.put_note("a", None).await);
    let refused = journal.open(&run("b")).await;
    let error = refused.expect_err("a journal in which something was noted refuses another run");
    assert_eq!(error.kind(), MigrateErrorKind::AnotherRun);
}

async fn counts_scans_from_one(journal: &dyn Journal) {
    ok(journal.open(&run("a")).await);
    assert_eq!(ok(journal.begin_scan().await), 1);
    assert_eq!(ok(journal.begin_scan().await), 2);
}

async fn tells_configurations_seen_twice(journal: &dyn Journal) {
    ok(journal.open(&run("a")).await);
    let keys = |keys: &[&str]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    let scan = ok(journal.begin_scan().await);
    assert!(ok(journal.see(scan, &keys(&["c#1", "c#2"])).await).is_empty());
    assert_eq!(
        ok(journal
            .see(scan, &keys(&["c#3", "c#2", "d#4", "d#4"]))
            .await),
        keys(&["c#2", "d#4"]),
        "seen in an earlier call, and twice in this one"
    );
    let next = ok(journal.begin_scan().await);
    assert!(
        ok(journal.see(next, &keys(&["c#1", "c#2"])).await).is_empty(),
        "a new scan has not seen any configuration"
    );
}

async fn mentions_add_and_never_change_states(journal: &dyn Journal) {
    ok(journal.open(&run("a")).await);
    let scan = ok(journal.begin_scan().await);
    ok(journal
        .advance(&[Transition::new(name(1), State::Written, true)])
        .await);
    assert_eq!(
        all(journal).await,
        [JournalEntry::new(name(1)).with_state(State::Written, true)],
        "an unknown name is added by a transition"
    );
    let holder = Some("c#1".to_owned());
    ok(journal
        .mention(
            scan,
            &[
                Mention::new(name(1), holder.clone()),
                Mention::new(name(2), None),
            ],
        )
        .await);
    assert_eq!(
        all(journal).await,
        [
            JournalEntry::new(name(1))
                .with_state(State::Written, true)
                .with_mention(scan, holder, false),
            JournalEntry::new(name(2)).with_mention(scan, None, false),
        ]
    );
    ok(journal.mention(scan, &[]).await);
    ok(journal.advance(&[]).await);
}

async fn mentions_tell_what_is_shared(journal: &dyn Journal) {
    ok(journal.open(&run("a")).await);
    let mention =
        |number, holder: Option<&str>| Mention::new(name(number), holder.map(str::to_owned));
    let shared = async || -> Vec<(Option<String>, bool)> {
        all(journal)
            .await
            .into_iter()
            .map(|entry| (entry.holder, entry.shared))
            .collect()
    };
    let by = |holder: &str, shared| (Some(holder.to_owned()), shared);
    let first = ok(journal.begin_scan().await);
    ok(journal
        .mention(
            first,
            &[
                mention(1, Some("a")),
                mention(1, Some("a")),
                mention(2, Some("a")),
                mention(2, Some("b")),
                mention(3, None),
                mention(3, Some("a")),
                mention(3, None),
                mention(4, Some("a")),
            ],
        )
        .await);
    ok(journal.mention(first, &[mention(4, Some("b"))]).await);
    assert_eq!(
        shared().await,
        [by("a", false), by("a", true), by("a", false), by("a", true)],
        "same holder twice, two holders, none beside one, two in two calls"
    );
    ok(journal.mention(first, &[mention(4, Some("a"))]).await);
    assert_eq!(
        shared().await[3],
        by("a", true),
        "a shared entry stays shared"
    );
    let second = ok(journal.begin_scan().await);
    ok(journal
        .mention(second, &[mention(2, Some("b")), mention(4, None)])
        .await);
    assert_eq!(
        shared().await,
        [
            by("a", false),
            by("b", false),
            by("a", false),
            (None, false)
        ],
        "a new scan resets the entries that it mentions, and no others"
    );
}

async fn transitions_set_state_and_intent(journal: &dyn Journal) {
    ok(journal.open(&run("a")).await);
    let mut expected = Counts::default();
    let mut number = 0;
    for state in State::ALL {
        for intent in [false, true] {
            number += 1;
            ok(journal
                .advance(&[
                    Transition::new(name(number), State::Conflict, !intent),
                    Transition::new(name(number), state, intent),
                ])
                .await);
            let found = ok(journal.find(&[name(number)]).await).remove(0);
            assert_eq!(
                found,
                Some(JournalEntry::new(name(number)).with_state(state, intent)),
                "the last transition of a batch counts"
            );
            *expected.of_mut(state) += 1;
        }
    }
    assert_eq!(ok(journal.counts().await), expected);
}

async fn pages_follow_the_names_whatever_changes(journal: &dyn Journal) {
    ok(journal.open(&run("a")).await);
    let scan = ok(journal.begin_scan().await);
    // Upper case before lower case, as bytes go.
    let mut names: Vec<ManagedCoordinate> = (1..=50).map(name).collect();
    names.push(parse("airbyte_Z_secret_v1"));
    names.push(parse("airbyte_a-b_v1"));
    names.push(parse("airbyte_a_b_v1"));
    let mentions: Vec<Mention> = names
        .iter()
        .rev()
        .map(|name| Mention::new(name.clone(), None))
        .collect();
    ok(journal.mention(scan, &mentions).await);
    names.sort_by(|a, b| a.as_str().as_bytes().cmp(b.as_str().as_bytes()));
    let pending = Select::all().with_states(&[State::Pending]);
    let mut seen = Vec::new();
    let mut after: Option<ManagedCoordinate> = None;
    loop {
        let page = ok(journal.page(&pending, after.as_ref(), 7).await);
        let Some(last) = page.last() else { break };
        after = Some(last.coordinate.clone());
        // Entries of a page leave the selection, as in a copy.
        let transitions: Vec<Transition> = page
            .iter()
            .map(|entry| Transition::new(entry.coordinate.clone(), State::Written, true))
            .collect();
        ok(journal.advance(&transitions).await);
        let short = page.len() < 7;
        seen.extend(page.into_iter().map(|entry| entry.coordinate));
        if short {
            break;
        }
    }
    assert_eq!(seen, names, "every name once, in the order of its bytes");
}

async fn selects_by_every_condition(journal: &dyn Journal) {
    ok(journal.open(&run("a")).await);
    let mut number = 0;
    for scan in 1..=2 {
        assert_eq!(ok(journal.begin_scan().await), scan);
        for state in State::ALL {
            for (intent, shared) in [(false, false), (false, true), (true, false), (true, true)] {
                number += 1;
                let mut mentions = vec![Mention::new(name(number), Some("a".to_owned()))];
                if shared {
                    mentions.push(Mention::new(name(number), Some("b".to_owned())));
                }
                ok(journal.mention(scan, &mentions).await);
                ok(journal
                    .advance(&[Transition::new(name(number), state, intent)])
                    .await);
            }
        }
    }
    let entries = all(journal).await;
    assert_eq!(entries.len(), 48);
    let states: [&[State]; 4] = [
        &[],
        &[State::Intent],
        &[State::Pending, State::Intent, State::Conflict],
        &State::ALL,
    ];
    for states in states {
        for intent in [None, Some(false), Some(true)] {
            for shared in [None, Some(false), Some(true)] {
                for scan in [None, Some(1), Some(2), Some(3)] {
                    let select = Select {
                        states: states.to_vec(),
                        intent,
                        scan,
                        shared,
                        upto: None,
                    };
                    let expected: Vec<JournalEntry> = entries
                        .iter()
                        .filter(|entry| select.wants(entry))
                        .cloned()
                        .collect();
                    assert_eq!(
                        ok(journal.page(&select, None, 1000).await),
                        expected,
                        "{select:?}"
                    );
                }
            }
        }
    }
}

async fn finds_in_the_order_asked(journal: &dyn Journal) {
    ok(journal.open(&run("a")).await);
    ok(journal
        .advance(&[
            Transition::new(name(1), State::Written, true),
            Transition::new(name(3), State::Present, false),
        ])
        .await);
    let found: Vec<Option<State>> = ok(journal.find(&[name(3), name(2), name(1), name(3)]).await)
        .into_iter()
        .map(|entry| entry.map(|entry| entry.state))
        .collect();
    assert_eq!(
        found,
        [
            Some(State::Present),
            None,
            Some(State::Written),
            Some(State::Present)
        ]
    );
    assert!(ok(journal.find(&[]).await).is_empty());
    let many: Vec<ManagedCoordinate> = (1..=2500).map(name).collect();
    assert_eq!(
        ok(journal.find(&many).await).len(),
        2500,
        "whatever the limit"
    );
}

async fn keeps_notes(journal: &dyn Journal) {
    ok(journal.open(&run("a")).await);
    for key in ["b 2", "a", "b 1", "B", "c"] {
        ok(journal.put_note(key, Some("first")).await);
    }
    ok(journal
        .put_note("b 1", Some("second \"quoted\" \u{e4}"))
        .await);
    ok(journal.put_note("c", None).await);
    ok(journal.put_note("unknown", None).await);
    assert_eq!(
        ok(journal.notes(None, 9).await),
        [
            Note::new("B", "first"),
            Note::new("a", "first"),
            Note::new("b 1", "second \"quoted\" \u{e4}"),
            Note::new("b 2", "first"),
        ]
    );
    assert_eq!(
        ok(journal.notes(Some("b "), 1).await),
        [Note::new("b 1", "second \"quoted\" \u{e4}")]
    );
}

async fn takes_concurrent_calls(journal: &dyn Journal) {
    ok(journal.open(&run("a")).await);
    let tasks = (0..16).map(|task| async move {
        for step in 0..10 {
            let name = name(task * 10 + step);
            ok(journal
                .advance(&[Transition::new(name.clone(), State::Intent, true)])
                .await);
            ok(journal
                .advance(&[Transition::new(name, State::Written, true)])
                .await);
        }
    });
    futures::future::join_all(tasks).await;
    let mut expected = Counts::default();
    *expected.of_mut(State::Written) = 160;
    assert_eq!(ok(journal.counts().await), expected);
}

fn run(source: &str) -> Run {
    Run::new(
        &Identity::new("memory", "us", source),
        Some(&Identity::new("memory", "us", "target")),
        Owner::parse("conformance").ok().as_ref(),
    )
}

fn name(number: u32) -> ManagedCoordinate {
    parse(&format!("airbyte_workspace_1_secret_{number:05}_v1"))
}

fn parse(name: &str) -> ManagedCoordinate {
    ManagedCoordinate::parse(name).expect("a managed coordinate")
}

async fn all(journal: &dyn Journal) -> Vec<JournalEntry> {
    ok(journal.page(&Select::all(), None, 10_000).await)
}

fn ok<T>(result: crate::MigrateResult<T>) -> T {
    result.unwrap_or_else(|error| panic!("the journal failed: {error}"))
}
