//! What processes that share a journal rely on.
use std::time::Duration;

use futures::future::join_all;

use super::{all, name, ok, run};
use crate::{
    Claim, Class, ConfigCursor, ConfigurationsPage, Halt, Journal, Layout, Mark, Member, Mention,
    MigrateErrorKind, MigrateResult, Next, Note, Position, SecretsPage, Select, SharedWork,
    Sharing, State, Stop, Transition,
};

/// Longer than a case takes.
const LONG: Duration = Duration::from_secs(60);

/// Short, and long enough for a few calls.
const SHORT: Duration = Duration::from_millis(300);

/// Runs every case of a shared journal, each on a new one. `empty` makes it and returns four
/// connections to it, as four processes have them.
///
/// # Panics
/// If the journal breaks a guarantee; the message names it.
pub async fn sharing<J: Journal>(empty: impl AsyncFn() -> [J; 4]) {
    let opened = async || {
        let processes = empty().await;
        for process in &processes {
            ok(process.open(&run("a")).await);
        }
        processes
    };
    refuses_another_run(&empty().await).await;
    one_pass_for_all_with_one_setting(&opened().await).await;
    one_process_scans_and_every_page_is_claimed_once(&opened().await).await;
    whoever_lapsed_writes_nothing(&opened().await).await;
    the_last_page_comes_after_all_others(&opened().await).await;
    what_a_page_found_reaches_all(&opened().await).await;
    an_ended_page_is_corrected_by_its_process_only(&opened().await).await;
    a_renewed_claim_does_not_lapse(&opened().await).await;
    a_halt_reaches_all(&opened().await).await;
    a_halted_pass_gives_way_to_its_own_command(&opened().await).await;
    a_halted_pass_is_forgotten_after_its_lease(&opened().await).await;
    a_released_page_is_free_at_once(&opened().await).await;
    marks_reach_all(&opened().await).await;
    a_pass_that_nobody_attends_is_left(&opened().await).await;
    configurations_are_read_one_page_after_the_other(&opened().await).await;
}

async fn refuses_another_run<J: Journal>([first, second, ..]: &[J; 4]) {
    ok(first.open(&run("a")).await);
    ok(second.open(&run("a")).await);
    let refused = second.open(&run("b")).await;
    let error = refused.expect_err("others use the journal for another run");
    assert_eq!(error.kind(), MigrateErrorKind::AnotherRun);
}

async fn one_pass_for_all_with_one_setting<J: Journal>(processes: &[J; 4]) {
    let joined = join_all(processes.iter().map(|process| join(process, LONG))).await;
    let passes: Vec<u64> = joined.iter().map(|member| member.pass).collect();
    assert!(
        passes.iter().all(|pass| *pass == passes[0]),
        "all are in one pass: {passes:?}"
    );
    let refused = shared(&processes[1])
        .join(&SharedWork::new("copy", "other"), "x", LONG)
        .await;
    let error = refused.expect_err("other settings are refused");
    assert_eq!(error.kind(), MigrateErrorKind::AnotherRun);
}

async fn one_process_scans_and_every_page_is_claimed_once<J: Journal>(processes: &[J; 4]) {
    let members = join_all(processes.iter().map(|process| join(process, LONG))).await;
    let claims = processes.iter().zip(&members);
    let claims =
        join_all(claims.map(|(process, member)| async { ok(shared(process).claim(member).await) }));
    let mut scans: Vec<Claim> = claims.await.into_iter().filter_map(scan).collect();
    assert_eq!(scans.len(), 1, "one process scans, and the others wait");
    lay_out(&processes[0], scans.remove(0), 100, 7, false).await;
    let works = processes
        .iter()
        .zip(&members)
        .map(|(process, member)| async {
            let mut seen = Vec::new();
            loop {
                match ok(shared(process).claim(member).await) {
                    Next::Secrets(page) => {
                        let names = names(process, &page).await;
                        assert!(names.len() <= 7, "no page is larger than was asked for");
                        let written: Vec<Transition> = names
                            .iter()
                            .map(|name| Transition::new(name.clone(), State::Written, true))
                            .collect();
                        ok(shared(process).finish(page.claim, &written, None).await);
                        seen.extend(names);
                    }
                    Next::Wait => tokio::time::sleep(Duration::from_millis(5)).await,
                    Next::Ended => return seen,
                    other => panic!("neither a page nor the end: {other:?}"),
                }
            }
        });
    let mut seen = join_all(works).await.concat();
    seen.sort();
    let expected: Vec<_> = (1..=100).map(name).collect();
    assert_eq!(seen, expected, "every secret in one page of one process");
    assert_eq!(ok(processes[3].counts().await).written, 100);
    let next = join(&processes[2], LONG).await;
    assert!(
        next.pass > members[0].pass,
        "a pass that ended is not joined"
    );
}

async fn whoever_lapsed_writes_nothing<J: Journal>([first, second, ..]: &[J; 4]) {
    let (slow, quick) = (join(first, SHORT).await, join(second, LONG).await);
    let stale = scan(ok(shared(first).claim(&slow).await)).expect("the scan");
    let number = ok(shared(first).begin_scan_under(stale).await);
    tokio::time::sleep(SHORT * 2).await;
    let claim = scan(ok(shared(second).claim(&quick).await)).expect("a scan that lapsed");
    assert!(claim.epoch > stale.epoch, "a new claim has a new epoch");
    let before = ok(shared(second).begin_scan_under(claim).await);
    assert!(before > number);
    let mentions = [Mention::new(name(1), Some("c#1".to_owned()))];
    ok(shared(second).mention_under(claim, before, &mentions).await);
    let entries = all(second).await;
    let sharing = shared(first);
    let late = [Transition::new(name(1), State::Written, true)];
    let keys = ["c#1".to_owned()];
    lapses(sharing.renew(stale).await);
    lapses(sharing.begin_scan_under(stale).await);
    lapses(sharing.see_under(stale, number, &keys).await);
    lapses(sharing.mention_under(stale, number, &mentions).await);
    lapses(sharing.mark(stale, &[Mark::Orphan(name(1))]).await);
    lapses(sharing.advance_under(stale, &late).await);
    let layout = |size| Layout::new(before, Select::all(), size);
    lapses(sharing.lay_out(stale, &layout(1)).await);
    lapses(sharing.finish(stale, &late, None).await);
    ok(sharing.release(stale).await);
    assert_eq!(all(second).await, entries, "it changed nothing");
    assert!(ok(shared(second).marks(quick.pass).await).is_empty());
    ok(shared(second).renew(claim).await);
    ok(shared(second).lay_out(claim, &layout(10)).await);
    // The same for a page of secrets, and for one that has ended.
    let page = secrets(ok(shared(first).claim(&slow).await));
    tokio::time::sleep(SHORT * 2).await;
    let again = secrets(ok(shared(second).claim(&quick).await));
    lapses(sharing.advance_under(page.claim, &late).await);
    ok(shared(second).finish(again.claim, &late, None).await);
    lapses(sharing.finish(page.claim, &[], None).await);
    lapses(shared(second).finish(again.claim, &[], None).await);
    assert_eq!(ok(shared(first).claim(&slow).await), Next::Ended);
}

async fn the_last_page_comes_after_all_others<J: Journal>([first, second, ..]: &[J; 4]) {
    for secrets in [0, 2] {
        let (member, other) = (join(first, LONG).await, join(second, LONG).await);
        let claim = scan(ok(shared(first).claim(&member).await)).expect("the scan");
        lay_out(first, claim, secrets, 1, true).await;
        let mut pages = Vec::new();
        for _ in 0..secrets {
            pages.push(self::secrets(ok(shared(first).claim(&member).await)));
        }
        for page in pages {
            let next = ok(shared(second).claim(&other).await);
            assert_eq!(next, Next::Wait, "a page of secrets is left");
            let written = names(first, &page).await;
            let written: Vec<Transition> = written
                .into_iter()
                .map(|name| Transition::new(name, State::Written, true))
                .collect();
            ok(shared(first).finish(page.claim, &written, None).await);
        }
        let Next::Last(last) = ok(shared(second).claim(&other).await) else {
            panic!("all pages of secrets have ended");
        };
        assert_eq!(ok(shared(first).claim(&member).await), Next::Wait);
        ok(shared(second).finish(last, &[], None).await);
        assert_eq!(ok(shared(first).claim(&member).await), Next::Ended);
        assert_eq!(ok(shared(second).claim(&other).await), Next::Ended);
    }
}

async fn what_a_page_found_reaches_all<J: Journal>([first, second, third, _]: &[J; 4]) {
    let (member, other) = (join(first, LONG).await, join(second, LONG).await);
    let claim = scan(ok(shared(first).claim(&member).await)).expect("the scan");
    lay_out(first, claim, 3, 1, false).await;
    for found in [Some(Stop::Failures), Some(Stop::Conflict), None] {
        let page = secrets(ok(shared(first).claim(&member).await));
        ok(shared(first).finish(page.claim, &[], found).await);
    }
    // Whoever found it may be gone by now.
    let halt = Next::Halted(Halt::new(Stop::Conflict, Vec::new()));
    for _ in 0..2 {
        let next = ok(shared(second).claim(&other).await);
        assert_eq!(next, halt, "the most severe, after the last page");
    }
    let next = join(third, LONG).await;
    assert!(next.pass > member.pass, "the pass has ended");
}

async fn an_ended_page_is_corrected_by_its_process_only<J: Journal>([first, second, ..]: &[J; 4]) {
    let (slow, quick) = (join(first, SHORT).await, join(second, LONG).await);
    let claim = scan(ok(shared(first).claim(&slow).await)).expect("the scan");
    lay_out(first, claim, 1, 1, false).await;
    let stale = secrets(ok(shared(first).claim(&slow).await));
    tokio::time::sleep(SHORT * 2).await;
    let page = secrets(ok(shared(second).claim(&quick).await));
    let written = [Transition::new(name(1), State::Written, true)];
    ok(shared(second).finish(page.claim, &written, None).await);
    let pending = [Transition::new(name(1), State::Pending, true)];
    lapses(shared(first).advance_under(stale.claim, &pending).await);
    ok(shared(second).advance_under(page.claim, &pending).await);
    assert_eq!(ok(second.counts().await).pending, 1);
    assert_eq!(ok(shared(second).claim(&quick).await), Next::Ended);
    join(second, LONG).await;
    lapses(shared(second).advance_under(page.claim, &written).await);
}

async fn a_renewed_claim_does_not_lapse<J: Journal>([first, second, ..]: &[J; 4]) {
    let (member, other) = (join(first, SHORT * 2).await, join(second, LONG).await);
    let claim = scan(ok(shared(first).claim(&member).await)).expect("the scan");
    for _ in 0..4 {
        tokio::time::sleep(SHORT).await;
        ok(shared(first).renew(claim).await);
        assert_eq!(ok(shared(second).claim(&other).await), Next::Wait);
    }
}

async fn a_halt_reaches_all<J: Journal>([first, second, third, _]: &[J; 4]) {
    let (member, other) = (join(first, LONG).await, join(second, LONG).await);
    let halt = Halt::new(Stop::Undecided, vec![Class::Missing]);
    ok(shared(first).halt(member.pass, &halt).await);
    let later = Halt::new(Stop::Failures, Vec::new());
    ok(shared(second).halt(member.pass, &later).await);
    assert_eq!(
        ok(shared(second).claim(&other).await),
        Next::Halted(halt),
        "the first reason counts"
    );
    let next = join(third, LONG).await;
    assert!(next.pass > member.pass, "a halted pass is not joined");
    assert_eq!(
        ok(shared(second).claim(&other).await),
        Next::Superseded,
        "a pass ends when another begins"
    );
}

async fn a_halted_pass_gives_way_to_its_own_command<J: Journal>(
    [first, second, third, _]: &[J; 4],
) {
    let copy = SharedWork::new("copy", "settings");
    let (member, other) = (join(first, LONG).await, join(second, LONG).await);
    let claim = scan(ok(shared(second).claim(&other).await)).expect("the scan");
    let halt = Halt::new(Stop::Failures, Vec::new());
    ok(shared(first).halt(member.pass, &halt).await);
    refuses_rollback(third).await;
    ok(shared(second).renew(claim).await);
    // The same command, also with other decisions.
    let decided = SharedWork::new(copy.command, "others");
    let next = ok(shared(third).join(&decided, "worker", SHORT).await);
    assert!(next.pass > member.pass);
    lapses(shared(second).renew(claim).await);
    // Whoever had a page of the first pass may not know it yet, however short and many the passes are that
    // have come after it.
    end(third, &next).await;
    refuses_rollback(first).await;
    let next = ok(shared(third).join(&decided, "worker", SHORT).await);
    ok(shared(third).halt(next.pass, &halt).await);
    let next = ok(shared(third).join(&decided, "worker", SHORT).await);
    end(third, &next).await;
    tokio::time::sleep(SHORT * 2).await;
    refuses_rollback(first).await;
}

async fn a_halted_pass_is_forgotten_after_its_lease<J: Journal>([first, second, ..]: &[J; 4]) {
    let member = join(first, SHORT).await;
    let halt = Halt::new(Stop::Failures, Vec::new());
    ok(shared(first).halt(member.pass, &halt).await);
    let next = join(first, SHORT).await;
    end(first, &next).await;
    tokio::time::sleep(SHORT * 2).await;
    let rollback = SharedWork::new("rollback", "settings");
    let last = ok(shared(second).join(&rollback, "worker", LONG).await);
    assert!(last.pass > next.pass, "no lease lasts any more");
}

async fn a_released_page_is_free_at_once<J: Journal>([first, second, ..]: &[J; 4]) {
    let (member, other) = (join(first, LONG).await, join(second, LONG).await);
    let claim = scan(ok(shared(first).claim(&member).await)).expect("the scan");
    ok(shared(first).release(claim).await);
    let again = scan(ok(shared(second).claim(&other).await)).expect("a released page");
    assert!(again.epoch > claim.epoch);
    lapses(shared(first).renew(claim).await);
}

async fn marks_reach_all<J: Journal>([first, second, ..]: &[J; 4]) {
    let member = join(first, LONG).await;
    let claim = scan(ok(shared(first).claim(&member).await)).expect("the scan");
    let mut marks: Vec<Mark> = (1..=2500)
        .map(|number| Mark::Orphan(name(number)))
        .collect();
    marks.push(Mark::Left(name(1), Some("id \"quoted\"".to_owned())));
    marks.push(Mark::Left(name(2), None));
    ok(shared(first).mark(claim, &marks).await);
    let sorted = |mut marks: Vec<Mark>| {
        marks.sort_by_key(|mark| format!("{mark:?}"));
        marks
    };
    let found = sorted(ok(shared(second).marks(member.pass).await));
    assert!(found == sorted(marks), "every mark, in any order");
    assert!(ok(shared(second).marks(member.pass + 1).await).is_empty());
}

async fn a_pass_that_nobody_attends_is_left<J: Journal>([first, second, ..]: &[J; 4]) {
    let gone = join(first, SHORT).await;
    ok(shared(first).claim(&gone).await);
    tokio::time::sleep(SHORT * 2).await;
    let next = join(second, LONG).await;
    assert!(
        next.pass > gone.pass,
        "nobody has shown itself for the length of a lease"
    );
    assert_eq!(ok(shared(first).claim(&gone).await), Next::Superseded);
    let work = SharedWork::new("copy", "settings");
    let again = ok(shared(first).rejoin(&work, "worker", LONG).await);
    assert_eq!(again.pass, next.pass);
    // Also when it has ended: it did the work of both.
    let claim = scan(ok(shared(second).claim(&next).await)).expect("the scan");
    lay_out(second, claim, 0, 1, false).await;
    assert_eq!(ok(shared(second).claim(&next).await), Next::Ended);
    let again = ok(shared(first).rejoin(&work, "worker", LONG).await);
    assert_eq!(ok(shared(first).claim(&again).await), Next::Ended);
    // But never another command's, nor a new pass.
    let other = SharedWork::new("rollback", "settings");
    let refused = shared(first).rejoin(&other, "worker", LONG).await;
    let error = refused.expect_err("another command's pass");
    assert_eq!(error.kind(), MigrateErrorKind::AnotherRun);
}

async fn configurations_are_read_one_page_after_the_other<J: Journal>(
    [first, second, ..]: &[J; 4],
) {
    let (slow, quick) = (join(first, SHORT).await, join(second, LONG).await);
    let stale = scan(ok(shared(first).claim(&slow).await)).expect("the scan");
    tokio::time::sleep(SHORT * 2).await;
    let claim = scan(ok(shared(second).claim(&quick).await)).expect("a scan that lapsed");
    lapses(shared(first).lay_out_configurations(stale, 1).await);
    let number = ok(shared(second).begin_scan_under(claim).await);
    ok(shared(second).lay_out_configurations(claim, number).await);
    let keys = |keys: &[&str]| -> Vec<String> { keys.iter().map(ToString::to_string).collect() };
    let at = |source, cursor: &str| Position::new(source, Some(ConfigCursor::new(cursor)));

    // Who takes over a page that was not read sees its configurations for the first time.
    let stale = configurations(ok(shared(first).claim(&slow).await));
    assert_eq!((&stale.after, &stale.upto), (&Position::default(), &None));
    assert_eq!(ok(shared(second).claim(&quick).await), Next::Wait);
    tokio::time::sleep(SHORT * 2).await;
    let page = configurations(ok(shared(second).claim(&quick).await));
    let (seen, upto) = (keys(&["c#1", "c#2"]), at(0, "2"));
    let late = shared(first).extend(&stale, &at(0, "9"), None, &seen).await;
    lapses(late);
    lapses(shared(first).put_note_under(stale.claim, "n", "late").await);
    let twice = shared(second).extend(&page, &upto, Some(&upto), &seen);
    assert_eq!(ok(twice.await), keys(&[]));
    ok(shared(second).put_note_under(page.claim, "n", "text").await);
    let notes = ok(second.notes(None, 9).await);
    assert_eq!(notes, [Note::new("n", "text")]);

    // The next page begins where this one ends, and whoever takes it over then knows its end.
    let stale = configurations(ok(shared(first).claim(&slow).await));
    assert_eq!((&stale.after, &stale.upto), (&upto, &None));
    let (end, next) = (Position::new(0, None), Position::new(1, None));
    let seen = keys(&["c#2", "c#3"]);
    let twice = shared(first).extend(&stale, &end, Some(&next), &seen);
    assert_eq!(ok(twice.await), keys(&["c#2"]), "the scan has seen it");
    tokio::time::sleep(SHORT * 2).await;
    let again = configurations(ok(shared(second).claim(&quick).await));
    assert_eq!((&again.after, &again.upto), (&upto, &Some(end)));
    let last = configurations(ok(shared(second).claim(&quick).await));
    assert_eq!((&last.after, &last.upto), (&next, &None));
    ok(shared(second).extend(&last, &next, None, &[]).await);
    for claim in [last.claim, page.claim] {
        ok(shared(second).finish(claim, &[], None).await);
        assert_eq!(ok(shared(first).claim(&slow).await), Next::Wait);
    }
    ok(shared(second).finish(again.claim, &[], None).await);
    let Next::Last(last) = ok(shared(second).claim(&quick).await) else {
        panic!("all pages of configurations have ended");
    };
    ok(shared(second).finish(last, &[], None).await);
    assert_eq!(ok(shared(first).claim(&slow).await), Next::Ended);
}

fn configurations(next: Next) -> ConfigurationsPage {
    match next {
        Next::Configurations(page) => page,
        other => panic!("no page of configurations: {other:?}"),
    }
}

async fn join<J: Journal>(journal: &J, lease: Duration) -> Member {
    let work = SharedWork::new("copy", "settings");
    ok(shared(journal).join(&work, "worker", lease).await)
}

/// Ends a pass that nobody has begun to work on.
async fn end<J: Journal>(journal: &J, member: &Member) {
    let claim = scan(ok(shared(journal).claim(member).await)).expect("the scan");
    lay_out(journal, claim, 0, 1, false).await;
    assert_eq!(ok(shared(journal).claim(member).await), Next::Ended);
}

async fn refuses_rollback<J: Journal>(journal: &J) {
    let rollback = SharedWork::new("rollback", "settings");
    let refused = shared(journal).join(&rollback, "worker", LONG).await;
    let error = refused.expect_err("what this command does, a process with a page would undo");
    assert_eq!(error.kind(), MigrateErrorKind::AnotherRun);
}

fn shared<J: Journal>(journal: &J) -> &dyn Sharing {
    journal.sharing().expect("a journal that is shared")
}

/// Ends a scan that found so many secrets. There may be a page after all of them.
async fn lay_out<J: Journal>(journal: &J, claim: Claim, secrets: u32, size: usize, last: bool) {
    let number = ok(shared(journal).begin_scan_under(claim).await);
    let mentions: Vec<Mention> = (1..=secrets)
        .map(|number| Mention::new(name(number), None))
        .collect();
    ok(shared(journal)
        .mention_under(claim, number, &mentions)
        .await);
    let select = Select::all().with_states(&[State::Pending]);
    let layout = Layout::new(number, select, size).with_last(last);
    ok(shared(journal).lay_out(claim, &layout).await);
}

async fn names<J: Journal>(
    journal: &J,
    page: &SecretsPage,
) -> Vec<secret_persistence_core::ManagedCoordinate> {
    let select = Select::all().with_upto(page.upto.clone());
    let entries = ok(journal.page(&select, page.after.as_ref(), 1000).await);
    entries.into_iter().map(|entry| entry.coordinate).collect()
}

fn scan(next: Next) -> Option<Claim> {
    match next {
        Next::First(claim) => Some(claim),
        Next::Wait => None,
        other => panic!("neither the scan nor a reason to wait: {other:?}"),
    }
}

fn secrets(next: Next) -> SecretsPage {
    match next {
        Next::Secrets(page) => page,
        other => panic!("no page of secrets: {other:?}"),
    }
}

fn lapses<T: std::fmt::Debug>(result: MigrateResult<T>) {
    let error = result.expect_err("a claim that another process has taken over");
    assert_eq!(error.kind(), MigrateErrorKind::Lapsed);
}
