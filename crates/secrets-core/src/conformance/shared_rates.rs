//! What processes that share a quota rely on.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;
use uuid::Uuid;

use crate::rates::{Draw, SharedRates, Slice};

/// Runs every case for a source of [`SharedRates`], each with a bucket of its own.
///
/// `processes` are at least two handles of one source, as several processes have them. The cases take a
/// few seconds, and none fails because it was slow.
///
/// # Panics
/// If the source breaks a promise; the message names it.
pub async fn shared_rates<R: SharedRates>(processes: &[R]) {
    assert!(processes.len() > 1, "a quota is shared by at least two");
    at_first_a_whole_quota_is_free(processes).await;
    for quota in [1.0, 7.5, 40.0, 2_000.0] {
        under_load_no_window_has_more(processes, quota).await;
    }
    after_a_rest_no_window_has_more(processes).await;
    what_nobody_uses_passes(processes).await;
    a_draw_of_more_than_the_quota_takes_its_time(processes).await;
    what_is_for_later_comes_later(processes).await;
    buckets_do_not_know_each_other(processes).await;
}

/// A slot, and the quota it belongs to.
type Slots = Vec<Duration>;

fn bucket() -> String {
    format!("conformance {}", Uuid::new_v4().simple())
}

async fn draw<R: SharedRates>(process: &R, draw: &Draw, slots: &mut Slots) -> Slice {
    let slice = process.draw(draw).await;
    let slice = slice.unwrap_or_else(|error| panic!("a draw fails: {error}"));
    assert!(
        slice.first >= slice.now,
        "no slot lies in the past: {slice:?}"
    );
    let spacing = slice.spacing;
    assert!(
        spacing.is_zero() && slice.first == slice.now || spacing == draw.spacing(),
        "slots are for now or at even distances: {slice:?}"
    );
    slots.extend((0..draw.units).map(|number| slice.first + spacing * number));
    slice
}

/// Checks slots of one bucket; returns how long they last.
fn check(mut slots: Slots, quota: &Draw) -> Duration {
    slots.sort();
    // A part of a request is one more.
    let most = quota.room() as usize + usize::from(quota.per_second.fract() > 0.0);
    for window in slots.windows(most + 1) {
        let length = window[most] - window[0];
        assert!(
            // Clocks count in whole microseconds or less.
            length + Duration::from_micros(2) >= quota.window(),
            "{} slots within {length:?} at {} per second",
            most + 1,
            quota.per_second
        );
    }
    slots[slots.len() - 1] - slots[0]
}

async fn at_first_a_whole_quota_is_free<R: SharedRates>(processes: &[R]) {
    let ten = Draw::new(bucket(), 40.0, 10);
    let mut slots = Slots::new();
    for number in 0..4 {
        let slice = draw(&processes[number % 2], &ten, &mut slots).await;
        assert_eq!(slice.first, slice.now, "there is room for all");
    }
    let slice = draw(&processes[0], &ten, &mut slots).await;
    assert!(!slice.spacing.is_zero(), "there is no room left: {slice:?}");
    check(slots, &ten);
}

async fn under_load_no_window_has_more<R: SharedRates>(processes: &[R], quota: f64) {
    let name = bucket();
    let all = join_all(processes.iter().enumerate().map(async |(at, process)| {
        let mut slots = Slots::new();
        for number in 0..30 {
            // Some ask for one, some for a slice.
            let units = if (at + number) % 3 == 0 {
                1
            } else {
                Draw::new("", quota, 1).room() / 4 + 1
            };
            draw(process, &Draw::new(name.clone(), quota, units), &mut slots).await;
        }
        slots
    }));
    let slots = all.await.concat();
    let number = slots.len() as f64;
    let draw = Draw::new(name, quota, 1);
    let lasts = (check(slots, &draw) + draw.spacing()).as_secs_f64();
    let used = number / (quota * lasts);
    // A slow machine draws later than the slots come, except where they lie far ahead.
    assert!(used >= 0.9 || lasts < 2.0, "{used} of {quota} is used");
}

async fn after_a_rest_no_window_has_more<R: SharedRates>(processes: &[R]) {
    let name = bucket();
    let all = join_all(processes.iter().enumerate().map(async |(at, process)| {
        let mut slots = Slots::new();
        for number in 0..12 {
            let seed = (at * 31 + number * 17) % 7;
            let units = [1, 2, 3, 5, 8, 13, 20][seed];
            draw(process, &Draw::new(name.clone(), 60.0, units), &mut slots).await;
            sleep(Duration::from_millis(
                [0, 10, 40, 90, 180, 350, 700][6 - seed],
            ))
            .await;
        }
        slots
    }));
    check(all.await.concat(), &Draw::new(name, 60.0, 1));
}

async fn what_nobody_uses_passes<R: SharedRates>(processes: &[R]) {
    let slice = Draw::new(bucket(), 40.0, 30);
    // Whoever drew these is gone.
    let mut slots = Slots::new();
    draw(&processes[0], &slice, &mut slots).await;
    let gone = draw(&processes[0], &slice, &mut slots).await;
    let next = draw(&processes[1], &slice, &mut slots).await;
    let end = gone.first + slice.spacing() * slice.units;
    assert!(next.first <= next.now.max(end), "{next:?} after {gone:?}");
    check(slots, &slice);
}

async fn a_draw_of_more_than_the_quota_takes_its_time<R: SharedRates>(processes: &[R]) {
    let many = Draw::new(bucket(), 10.0, 35);
    let mut slots = Slots::new();
    draw(&processes[0], &many, &mut slots).await;
    draw(&processes[1], &many, &mut slots).await;
    assert!(check(slots, &many) >= many.window() * 6);
}

async fn what_is_for_later_comes_later<R: SharedRates>(processes: &[R]) {
    let ahead = Duration::from_millis(300);
    let later = Draw::new(bucket(), 40.0, 5).with_ahead(ahead);
    let mut slots = Slots::new();
    for process in &processes[..2] {
        let slice = draw(process, &later, &mut slots).await;
        assert!(slice.first >= slice.now + ahead, "too early: {slice:?}");
        assert_eq!(slice.spacing, later.spacing(), "none at once: {slice:?}");
    }
    check(slots, &later);
}

async fn buckets_do_not_know_each_other<R: SharedRates>(processes: &[R]) {
    for process in processes {
        let all = Draw::new(bucket(), 20.0, 20);
        let slice = draw(process, &all, &mut Slots::new()).await;
        assert_eq!(slice.first, slice.now, "nobody has drawn from it before");
    }
}
