//! What each layer adds to a read over the store in memory: `cargo bench -p secret-persistence-core --features layers
//! --bench layers`.
//!
//! All stacks alternate, and each line is the median of many reads and its ratio to the store alone. With `count STACK
//! ENTRIES TIMES` after `--` it makes so many calls and nothing else: `scripts/instructions` counts what two such runs
//! differ by. The cache is warm; the limit is never reached; nothing records the metrics.

// A benchmark is a program of its own: it reports to its output and ends where it cannot go on.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secret_persistence_core::layer::{
    CacheOptions, ClassLimit, Layers, LimitOptions, RetryOptions, Stack,
};
use secret_persistence_core::{Coordinate, Memory, SecretPersistence, SecretValue};

const STACKS: [&str; 7] = [
    "memory",
    "retry",
    "cache",
    "metrics",
    "limit",
    "metrics, retry and limit",
    "all",
];
const ENTRIES: [usize; 2] = [1, 100];
const ROUNDS: usize = 301;
/// Calls within one time, so that the clock does not count.
const BATCH: u32 = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip_while(|text| text != "count")
        .collect();
    if let [_, stack, entries, times, ..] = &arguments[..] {
        let (names, backend) = secrets(entries.parse().unwrap());
        let store = over(&backend, stack);
        for _ in 0..times.parse().unwrap() {
            read(&*store, &names).await;
        }
        return;
    }
    for entries in ENTRIES {
        let (names, backend) = secrets(entries);
        let stores = STACKS.map(|stack| over(&backend, stack));
        let mut times = STACKS.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for (store, times) in stores.iter().zip(&mut times) {
                let start = Instant::now();
                for _ in 0..BATCH {
                    read(&**store, &names).await;
                }
                times.push(start.elapsed() / BATCH);
            }
        }
        let medians = times.map(median);
        for (stack, time) in STACKS.iter().zip(medians) {
            println!(
                "read {entries:>3}, {stack:<25} {time:>9.1?}  {:.2} × memory",
                time.as_secs_f64() / medians[0].as_secs_f64()
            );
        }
    }
}

async fn read(store: &dyn SecretPersistence, names: &[Coordinate]) {
    let read = store.read_batch(names).await;
    assert!(read.iter().all(Result::is_ok));
    black_box(read);
}

fn secrets(count: usize) -> (Vec<Coordinate>, Arc<Memory>) {
    let backend = Arc::new(Memory::new());
    let names = (0..count).map(|number| {
        let name = format!("airbyte_workspace_{number:036}_secret_{number:036}_v1");
        backend.insert(&name, SecretValue::new("x".repeat(32)));
        Coordinate::parse(&name).unwrap()
    });
    (names.collect(), Arc::clone(&backend))
}

fn over(backend: &Arc<Memory>, which: &str) -> Arc<dyn SecretPersistence> {
    let has = |layer| which == "all" || which.contains(layer);
    let mut stack = Stack::over(Arc::clone(backend) as _);
    if has("cache") {
        stack = stack.with_cache(CacheOptions::default());
    }
    if has("retry") {
        stack = stack.with_retry(RetryOptions::default());
    }
    if has("limit") {
        stack = stack.with_limit(LimitOptions::default().with_read(ClassLimit {
            concurrency: 64,
            per_second: 1e6,
        }));
    }
    Layers::over(stack).with_metrics(has("metrics")).build()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
