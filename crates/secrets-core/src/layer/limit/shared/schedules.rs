//! Random schedules of several processes: whatever happens to them and to the source of the rates, no
//! second has more requests than the quota.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::join_all;
use tokio::time::{Sleep, timeout_at};

use super::bucket::Buckets;
use super::tests::{load, process};
use super::*;
use crate::layer::probe::{Probe, holding};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Repeatable numbers.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    /// One of so many numbers, by SplitMix64.
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) % u64::from(end)).unwrap()
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(u32::try_from(choices.len()).unwrap()) as usize]
    }

    fn ms(&mut self, end: u32) -> Duration {
        MS * self.below(end)
    }
}

/// A process that does not run at some times: stopped, or not scheduled. Time goes on for all others.
struct Interrupted<F> {
    process: Pin<Box<F>>,
    pauses: Vec<(Instant, Instant)>,
    resumes: Pin<Box<Sleep>>,
}

impl<F: Future<Output = ()>> Future for Interrupted<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let paused = |(from, until): &&(Instant, Instant)| *from <= now && now < *until;
        let Some((_, until)) = self.pauses.iter().find(paused).copied() else {
            return self.process.as_mut().poll(cx);
        };
        self.resumes.as_mut().reset(until);
        // It wakes this, and the process is polled.
        let _ = self.resumes.as_mut().poll(cx);
        Poll::Pending
    }
}

/// How long a way to the source or back takes: mostly a moment, now and then much longer.
fn ways(mut random: Random) -> impl FnMut() -> Duration + Send {
    move || match random.below(100) {
        0..80 => random.ms(4),
        80..90 => MS * 5 + random.ms(60),
        90..98 => MS * 50 + random.ms(700),
        _ => SECOND + random.ms(4_000),
    }
}

fn pauses(random: &mut Random, began: Instant) -> Vec<(Instant, Instant)> {
    let mut at = began;
    (0..random.below(30))
        .map(|_| {
            at += random.ms(2_000);
            let from = at;
            at += match random.below(3) {
                0 => random.ms(30),
                1 => random.ms(300),
                _ => random.ms(2_500),
            };
            (from, at)
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn no_second_of_any_schedule_has_more_requests_than_the_quota() {
    let (mut requests, mut least) = (0, Duration::MAX);
    for seed in 0..120 {
        let mut random = Random(seed);
        let quota = random.of(&[3, 7, 12, 40, 100, 250]);
        let latency = random.ms(40);
        let probe = holding(Probe::new().with_latency(latency), 1).await;
        probe.forget_requests();
        let rates = Buckets::with_ways(ways(Random(!seed)));
        let began = Instant::now();
        let end = began + SECOND * 12;
        let processes = (0..=random.below(4)).map(|_| {
            let store = process(&probe, &rates, f64::from(quota));
            let callers = 1 + random.below(24) as usize;
            let (begins, dies) = (random.ms(3_000), random.ms(20_000));
            let work = async move {
                tokio::time::sleep(begins).await;
                // Killed, or to the end.
                let _ = timeout_at((began + dies).min(end), load(&store, callers, end)).await;
            };
            Interrupted {
                process: Box::pin(work),
                pauses: pauses(&mut random, began),
                resumes: Box::pin(sleep_until(began)),
            }
        });
        join_all(processes.collect::<Vec<_>>()).await;
        let mut times: Vec<_> = probe.requests().iter().map(|request| request.at).collect();
        times.sort();
        requests += times.len();
        for window in times.windows(quota as usize + 1) {
            least = least.min(window[quota as usize] - window[0]);
        }
        // What is left of the window is for the way to the provider.
        let window = Draw::new("", 1.0, 1).window() - LATEST;
        assert!(least + MS * 2 >= window, "seed {seed}, {quota}: {least:?}");
    }
    assert!(requests > 10_000, "{requests}");
}
