//! Interleaved repetitions, and their output.

use std::time::{Duration, Instant};

use crate::target::Target;

/// The rows of one store with one delay.
pub(crate) struct Rows<'a> {
    pub(crate) store: &'static str,
    pub(crate) delay: Duration,
    pub(crate) target: &'a Target,
}

impl Rows<'_> {
    /// Measures, and prints the medians and the requests of one more run of ours.
    pub(crate) async fn row(
        &self,
        (what, repetitions, limit): (&str, usize, Option<f64>),
        ours: impl AsyncFn() -> Duration,
        bare: impl AsyncFn() -> Duration,
    ) {
        // Opens connections.
        ours().await;
        bare().await;
        let mut times = [Vec::new(), Vec::new()];
        for repetition in 0..repetitions {
            // The second one may find warm caches, so they alternate.
            if repetition % 2 == 0 {
                times[0].push(ours().await);
                times[1].push(bare().await);
            } else {
                times[1].push(bare().await);
                times[0].push(ours().await);
            }
        }
        let [mine, theirs] = times.map(|times| milliseconds(median(times)));
        self.target.reset();
        ours().await;
        let [requests, in_flight, connections] = self.target.counts();
        println!(
            "| {} | {} ms | {what} | {mine:.2} | {theirs:.2} | {:.2} | {} | {requests} | {in_flight} | {connections} |",
            self.store,
            self.delay.as_millis(),
            mine / theirs,
            limit.map_or_else(String::new, |limit| format!("≤ {limit:.2}")),
        );
    }
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The time until the response, without wiping it.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> Duration {
    let started = Instant::now();
    let answer = work.await;
    let elapsed = started.elapsed();
    drop(answer);
    elapsed
}
