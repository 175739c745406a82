//! Every order of the steps of refreshes, a healer, an edit, a stale lease and a crash.
//!
//! The library code is real, and so is the store's contract. The caller's database and the provider
//! are models. The provider ends the grant when a token is used twice. That, and a new token that is
//! lost, is allowed in the documented window only: the holder died, or its lease ran out, between
//! its last look at the lease and the end of its write. Each rule of the database is then broken on
//! purpose, and the explorer finds the order in which that costs a grant.

mod handle;
mod model;

use super::explorer::{Explored, Orders, explore};
use model::{Cast, Edit, Model, Rules};

const ONE: Cast = Cast {
    callers: 1,
    heal: false,
    edit: None,
    expiries: 0,
    probes: false,
};
const TWO: Cast = Cast { callers: 2, ..ONE };

fn run(orders: Orders, crashes: usize, rules: Rules, cast: Cast) -> Explored {
    // For its clock, which stands still: nothing times out.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let explored = explore(orders, crashes, |world| {
        Model::new(world, rules, cast.probes).scene(cast)
    });
    println!(
        "{orders:?}: {} orders of at most {} steps, {} crashes, {} equivalent ones left out ({cast:?})",
        explored.runs, explored.longest, explored.crashes, explored.pruned
    );
    explored
}

fn holds(orders: Orders, crashes: usize, cast: Cast, at_least: u64) {
    let explored = run(orders, crashes, Rules::ALL, cast);
    if let Some(violation) = explored.violation {
        panic!("{violation}");
    }
    let runs = explored.runs;
    assert!(runs >= at_least, "only {runs} orders: steps are missing");
}

/// Breaks a rule. The explorer must find the loss.
fn breaks(crashes: usize, rules: Rules, cast: Cast, what: &str) {
    let violation = run(Orders::Different, crashes, rules, cast).violation;
    let violation = violation.expect("the broken rule loses nothing, so this model proves nothing");
    assert!(violation.contains(what), "{violation}");
}

#[test]
fn two_callers_make_one_exchange() {
    holds(Orders::Every, 0, TWO, 200);
}

#[test]
fn a_crash_after_any_step() {
    holds(Orders::Different, 1, Cast { expiries: 1, ..TWO }, 5_000);
}

#[test]
fn a_healer_and_a_stale_lease() {
    let cast = Cast {
        heal: true,
        expiries: 1,
        ..ONE
    };
    holds(Orders::Different, 1, cast, 3_000);
}

#[test]
fn an_edit_and_a_healer() {
    for edit in [Edit::Host, Edit::LogIn] {
        let cast = Cast {
            edit: Some(edit),
            ..ONE
        };
        holds(Orders::Different, 1, cast, 100);
    }
}

#[test]
fn a_probe_and_a_crash() {
    let cast = Cast {
        probes: true,
        heal: true,
        expiries: 1,
        ..ONE
    };
    holds(Orders::Different, 1, cast, 5_000);
}

#[test]
fn a_lease_that_two_can_have_costs_the_grant() {
    let rules = Rules {
        lease_is_exclusive: false,
        ..Rules::ALL
    };
    breaks(0, rules, TWO, "a token was used twice");
}

#[test]
fn a_release_by_a_former_holder_costs_the_grant() {
    let rules = Rules {
        release_compares: false,
        ..Rules::ALL
    };
    let cast = Cast {
        callers: 3,
        expiries: 1,
        ..ONE
    };
    breaks(0, rules, cast, "a token was used twice");
}

#[test]
fn a_record_by_a_former_holder_costs_the_grant() {
    let rules = Rules {
        open_compares: false,
        ..Rules::ALL
    };
    let cast = Cast { expiries: 1, ..TWO };
    breaks(0, rules, cast, "a token was used twice");
}

#[test]
fn without_a_record_a_crash_loses_the_new_token() {
    let rules = Rules {
        record_is_stored: false,
        ..Rules::ALL
    };
    let cast = Cast { expiries: 1, ..TWO };
    breaks(1, rules, cast, "a secret will never be found");
}

#[test]
fn without_comparing_the_row_an_edit_is_lost() {
    let rules = Rules {
        row_is_compared: false,
        ..Rules::ALL
    };
    let cast = Cast {
        edit: Some(Edit::Host),
        ..ONE
    };
    breaks(0, rules, cast, "an edit was overwritten");
}
