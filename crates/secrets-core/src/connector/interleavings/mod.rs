//! Every order of save, commit, abort, heal and crash, over a model of the row and the record.
//!
//! The library code is real, and so is the store's contract. The database is a model, and every
//! operation on either is one atomic step. After each step, no saved configuration points to a
//! missing secret, and no secret of another owner is gone. At the end, the store contains the
//! secrets that the row points to, and no others. Each rule of the protocol is then broken on
//! purpose, and the explorer finds the order in which that loses a secret.

mod explorer;
mod model;
mod refresh;

use explorer::{Explored, Orders, explore};
use model::{Detail, Model, Rules, spec};

type Changes = Vec<(&'static str, &'static str)>;

/// Two secrets in one row, and three ways in which two stages can overlap.
fn meetings() -> [(&'static str, Changes, Changes); 3] {
    [
        ("the same value", vec![("a", "new")], vec![("a", "new")]),
        ("different values", vec![("a", "new")], vec![("a", "newer")]),
        ("different fields", vec![("a", "new")], vec![("b", "new")]),
    ]
}

/// The participants besides the healer's last round.
#[derive(Clone, Copy, Debug, Default)]
struct Cast {
    changes: [bool; 2],
    delete: bool,
    /// The healer while others are at work, for the first record.
    heal: bool,
    read: bool,
}

fn run(
    orders: Orders,
    crashes: usize,
    rules: Rules,
    detail: Detail,
    cast: Cast,
    (name, first, second): &(&'static str, Changes, Changes),
) -> Explored {
    let spec = spec();
    let explored = explore(orders, crashes, |world| {
        let model = Model::new(world, &spec, rules, detail);
        let mut actors: Vec<(&'static str, futures::future::BoxFuture<'static, ()>)> = Vec::new();
        if cast.changes[0] {
            actors.push(("first", Box::pin(model.clone().change(first.clone()))));
        }
        if cast.changes[1] {
            actors.push(("second", Box::pin(model.clone().change(second.clone()))));
        }
        if cast.delete {
            actors.push(("deleter", Box::pin(model.clone().delete())));
        }
        if cast.heal {
            actors.push(("healer", Box::pin(model.clone().heal(0))));
        }
        if cast.read {
            actors.push(("reader", Box::pin(model.clone().read())));
        }
        model.scene(actors)
    });
    println!(
        "{name}: {orders:?}: {} orders of at most {} steps, {} crashes, {} equivalent ones left out ({cast:?})",
        explored.runs, explored.longest, explored.crashes, explored.pruned
    );
    explored
}

fn holds(orders: Orders, crashes: usize, detail: Detail, cast: Cast, at_least: u64) {
    // A single change does not overlap with any other.
    let meetings = meetings()
        .into_iter()
        .skip(if cast.changes[1] { 0 } else { 2 });
    for meeting in meetings {
        let explored = run(orders, crashes, Rules::ALL, detail, cast, &meeting);
        if let Some(violation) = explored.violation {
            panic!("{violation}");
        }
        assert!(
            explored.runs >= at_least,
            "only {} orders: steps are missing",
            explored.runs
        );
    }
}

/// Breaks rules. The explorer must find the loss.
fn breaks(crashes: usize, rules: Rules, detail: Detail, cast: Cast, what: &str) {
    let meeting = &meetings()[2];
    let violation = run(Orders::Every, crashes, rules, detail, cast, meeting).violation;
    let violation = violation.expect("the broken rule loses nothing, so this model proves nothing");
    assert!(violation.contains(what), "{violation}");
}

const TWO: Cast = Cast {
    changes: [true, true],
    delete: false,
    heal: false,
    read: false,
};
const ONE: Cast = Cast {
    changes: [true, false],
    ..TWO
};

const READS: Detail = Detail {
    reads: true,
    ..Detail::PLAIN
};
const LATE_WRITES: Detail = Detail {
    late_writes: true,
    ..Detail::PLAIN
};
const LATE_SAVES: Detail = Detail {
    late_saves: true,
    ..Detail::PLAIN
};
const NO_OUTBOX: Detail = Detail {
    no_outbox: true,
    ..LATE_SAVES
};

#[test]
fn two_stages_from_one_saved_configuration() {
    holds(Orders::Every, 0, Detail::PLAIN, TWO, 400);
}

#[test]
fn two_stages_and_a_crash_after_any_step() {
    holds(Orders::Every, 1, Detail::PLAIN, TWO, 2_000);
    holds(Orders::Different, 2, Detail::PLAIN, TWO, 400);
}

#[test]
fn a_slow_saver_against_the_healer() {
    holds(
        Orders::Every,
        2,
        Detail::PLAIN,
        Cast { heal: true, ..ONE },
        100,
    );
}

#[test]
fn two_stages_against_the_healer() {
    holds(
        Orders::Different,
        0,
        Detail::PLAIN,
        Cast { heal: true, ..TWO },
        1_000,
    );
}

#[test]
fn a_reader_against_a_commit() {
    holds(Orders::Every, 1, READS, Cast { read: true, ..ONE }, 100);
}

#[test]
fn a_reader_against_two_commits() {
    holds(Orders::Different, 0, READS, Cast { read: true, ..TWO }, 700);
}

#[test]
fn the_end_of_a_row_against_a_change_and_the_healer() {
    let cast = Cast {
        delete: true,
        ..ONE
    };
    holds(Orders::Every, 1, Detail::PLAIN, cast, 1_000);
    let cast = Cast { heal: true, ..cast };
    holds(Orders::Different, 0, Detail::PLAIN, cast, 500);
}

#[test]
fn a_write_that_lands_after_its_delete() {
    holds(
        Orders::Every,
        1,
        LATE_WRITES,
        Cast { heal: true, ..ONE },
        200,
    );
    holds(Orders::Different, 1, LATE_WRITES, TWO, 500);
}

#[test]
fn a_save_of_unknown_outcome_is_settled() {
    holds(
        Orders::Every,
        1,
        LATE_SAVES,
        Cast { heal: true, ..ONE },
        300,
    );
    holds(Orders::Every, 1, NO_OUTBOX, ONE, 9);
    holds(Orders::Different, 1, NO_OUTBOX, TWO, 100);
}

#[test]
fn without_comparing_the_row_a_secret_is_lost() {
    let rules = Rules {
        row_is_compared: false,
        ..Rules::ALL
    };
    breaks(0, rules, Detail::PLAIN, TWO, "points to a missing secret");
}

#[test]
fn without_comparing_the_record_a_slow_saver_loses_its_secret() {
    let rules = Rules {
        record_is_compared: false,
        ..Rules::ALL
    };
    let cast = Cast { heal: true, ..ONE };
    breaks(0, rules, Detail::PLAIN, cast, "points to a missing secret");
}

#[test]
fn a_healer_that_does_not_claim_deletes_what_is_being_saved() {
    let rules = Rules {
        healer_claims: false,
        ..Rules::ALL
    };
    let cast = Cast { heal: true, ..ONE };
    breaks(0, rules, Detail::PLAIN, cast, "points to a missing secret");
}

#[test]
fn a_healer_that_does_not_return_leaves_what_landed_late() {
    let rules = Rules {
        healer_returns: false,
        ..Rules::ALL
    };
    let cast = Cast { heal: true, ..ONE };
    breaks(1, rules, LATE_WRITES, cast, "will never be found");
}

#[test]
fn a_commit_before_the_save_loses_the_old_secret() {
    let rules = Rules {
        saved_before_commit: false,
        ..Rules::ALL
    };
    breaks(0, rules, Detail::PLAIN, ONE, "points to a missing secret");
}

#[test]
fn settling_by_a_row_that_is_still_being_saved_loses_the_new_secret() {
    let rules = Rules {
        settles_with_lock: false,
        ..Rules::ALL
    };
    breaks(0, rules, NO_OUTBOX, ONE, "points to a missing secret");
}

#[test]
fn a_reader_that_does_not_read_the_row_again_fails() {
    let rules = Rules {
        reader_returns: false,
        ..Rules::ALL
    };
    breaks(0, rules, READS, Cast { read: true, ..ONE }, "a reader got");
}
