//! Measurements for stores with a stand-in, which return one secret per request.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use secret_persistence_core::{
    ManagedCoordinate, SecretPersistence, SecretPersistenceExt as _, SecretValue, Write,
    layer::{ClassLimit, Layers, LimitOptions, Stack},
};

use crate::{
    configuration::{acting, configuration, names, value, write},
    rows::{median, milliseconds, timed},
    target::Target,
};

/// The maximum number of concurrent requests, for our store and for the bare client.
const CONCURRENCY: usize = 50;

/// The number of secrets, and how many times longer than one of them they may take.
const CASES: [(usize, Option<f64>); 3] = [(1, None), (32, Some(1.5)), (100, Some(3.0))];

const REPETITIONS: usize = 31;

/// A bare HTTP client with a token.
pub(crate) trait Floor {
    async fn read_one(&self, name: &ManagedCoordinate);
}

pub(crate) fn header() {
    println!(
        "\n| store | delay | what | ours, ms | × 1 | target | bare, ms | × 1 | ours ÷ bare | requests | in flight | \
         connections |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
    );
}

/// Measures one store. Each repetition runs all cases, ours and bare, so that other load on the
/// machine affects them equally.
pub(crate) async fn measure(
    name: &str,
    delay: Duration,
    target: &Target,
    ours: Arc<dyn SecretPersistence>,
    floor: &impl Floor,
) {
    let largest = CASES.iter().map(|(count, _)| *count).max().unwrap();
    let names = names(largest);
    let write_one = async |name: &ManagedCoordinate| {
        let value = SecretValue::new(value(name));
        ours.write(Write::new(name.clone(), value)).await.unwrap();
    };
    write(&names, write_one).await;

    let secrets = acting(limited(ours));
    let hydrate = async |count: usize| {
        let saved = configuration(&names[..count], 1);
        timed(async { secrets.hydrate(saved).await.unwrap() }).await
    };
    let read = async |count: usize| {
        let reads = stream::iter(&names[..count])
            .for_each_concurrent(CONCURRENCY, |name| floor.read_one(name));
        timed(reads).await
    };
    // Opens connections.
    hydrate(largest).await;
    read(largest).await;
    let mut times = CASES.map(|_| [Vec::new(), Vec::new()]);
    for repetition in 0..REPETITIONS {
        for ((count, _), times) in CASES.iter().zip(&mut times) {
            // The second one may find warm caches, so they alternate.
            if repetition % 2 == 0 {
                times[0].push(hydrate(*count).await);
                times[1].push(read(*count).await);
            } else {
                times[1].push(read(*count).await);
                times[0].push(hydrate(*count).await);
            }
        }
    }

    let medians = times.map(|times| times.map(|times| milliseconds(median(times))));
    let [one, bare_one] = medians[0];
    for ((count, limit), [mine, theirs]) in CASES.into_iter().zip(medians) {
        target.reset();
        hydrate(count).await;
        let [requests, in_flight, connections] = target.counts();
        println!(
            "| {name} | {} ms | hydrate {count} | {mine:.2} | {:.2} | {} | {theirs:.2} | {:.2} | {:.2} | {requests} | \
             {in_flight} | {connections} |",
            delay.as_millis(),
            mine / one,
            limit.map_or_else(String::new, |limit| format!("≤ {limit:.2}")),
            theirs / bare_one,
            mine / theirs,
        );
    }
}

/// The store with this concurrency and without a rate limit: the stand-ins have no quota here.
fn limited(store: Arc<dyn SecretPersistence>) -> Arc<dyn SecretPersistence> {
    let limit = ClassLimit {
        concurrency: CONCURRENCY,
        per_second: 1e6,
    };
    let limit = LimitOptions::default().with_read(limit);
    Layers::over(Stack::over(store).with_limit(limit)).build()
}
