//! Bytes per second through the redactor with 1, 10 and 100 secrets, next to copying:
//! `cargo bench -p secret-persistence-core --features redact --bench redact`.

// A measurement that cannot be taken ends.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod figures;

use std::io::Write as _;
use std::time::{Duration, Instant};

use secret_persistence_core::SecretValue;
use secret_persistence_core::redact::Redactor;

/// What a pipe gives at once.
const CHUNK: usize = 8 * 1024;
const ROUNDS: usize = 401;
/// Little enough that hardly a round is interrupted by other processes: an interruption takes as long as
/// copying much more.
const TEXT: usize = 256 * 1024;

fn main() {
    let line = "2026-01-01T00:00:00Z INFO source read 1000 records of stream users in 120 ms, state saved\n";
    let text = line.repeat(TEXT / line.len());
    println!(
        "{} KiB of log lines in chunks of {CHUNK} bytes; medians of {ROUNDS}\n",
        text.len() >> 10
    );
    println!("| | MB/s | ratio to copying |\n|---|---|---|");
    let redactors = [1, 10, 100].map(|secrets| (secrets, redactor(secrets)));
    let mut copying = Vec::new();
    let mut redacting = vec![Vec::new(); redactors.len()];
    for _ in 0..ROUNDS {
        copying.push(time(|out| {
            for chunk in text.as_bytes().chunks(CHUNK) {
                out.write_all(chunk).unwrap();
            }
        }));
        for ((_, redactor), times) in redactors.iter().zip(&mut redacting) {
            times.push(time(|out| {
                let mut writer = redactor.writer(out);
                for chunk in text.as_bytes().chunks(CHUNK) {
                    writer.write_all(chunk).unwrap();
                }
                writer.finish().unwrap();
            }));
        }
    }
    let copy = median(copying);
    let speed = |took: Duration| {
        figures::grouped((text.len() as f64 / took.as_secs_f64() / 1e6).round() as u64)
    };
    println!("| copy | {} | 1 |", speed(copy));
    for ((secrets, _), times) in redactors.iter().zip(redacting) {
        let took = median(times);
        println!(
            "| {secrets} secret{} | {} | {:.3} |",
            if *secrets == 1 { "" } else { "s" },
            speed(took),
            copy.as_secs_f64() / took.as_secs_f64()
        );
    }
}

fn redactor(secrets: u32) -> Redactor {
    let mut builder = Redactor::builder();
    for n in 0..secrets {
        let value = format!("{:08x}/p4ss{}+word", n.wrapping_mul(2_654_435_761), n * 7);
        builder = builder.value(&SecretValue::new(value));
    }
    builder.build().unwrap()
}

fn time(mut run: impl FnMut(&mut Vec<u8>)) -> Duration {
    let mut out = Vec::with_capacity(2 * TEXT);
    let start = Instant::now();
    run(&mut out);
    let took = start.elapsed();
    std::hint::black_box(&out);
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
