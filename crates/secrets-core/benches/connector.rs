//! How long compiling, splitting, hydrating and masking take: `cargo bench -p secret-persistence-core`.
//!
//! With `CONNECTOR_SPECS` set, on the public specifications it names: every figure is a ratio to
//! `serde_json::Value::clone` of the same full configuration, both measured in turns in one run;
//! cloning inputs and dropping outputs happen outside the timed part. Then the same with drops, a
//! clone's too, and the calls over a store in memory beside the walks they make. Then the growth from 10 to
//! 10,000 secrets: the least of several times, and its ratio to a clone, because memory that is
//! touched for the first time slows large ones down whatever is done with it. With
//! `MALLOC_TRIM_THRESHOLD_` and `MALLOC_MMAP_THRESHOLD_` at 4000000000 glibc keeps what it has.

// A benchmark is a program of its own: it reports to its output and ends where it cannot go on.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

#[path = "../tests/connector/generator.rs"]
mod generator;

use std::collections::HashMap;
use std::env;
use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use secret_persistence_core::connector::{
    ConnectorOptions, ConnectorSecrets, ConnectorSpec, Place, Policy, References, hydrate_with,
    plan_create, plan_update, pointers,
};
use secret_persistence_core::{Actor, Coordinate, Memory, Scope, SecretValue, Stores};
use serde_json::{Value, json};
use uuid::Uuid;

/// Repetitions of one operation within one time measurement, so that the clock does not count.
const BATCH: usize = 64;
const ROUNDS: usize = 15;

fn main() {
    match env::var_os("CONNECTOR_SPECS") {
        Some(file) => corpus(&fs::read_to_string(file).unwrap()),
        None => println!("CONNECTOR_SPECS is not set: no public specification is measured"),
    }
    growth();
}

/// What one configuration took, per repetition.
#[derive(Default)]
struct Figures {
    clone: Vec<f64>,
    split: Vec<f64>,
    hydrate: Vec<f64>,
    mask: Vec<f64>,
}

/// The same with what is made dropped within the time, and the calls over a store in memory.
#[derive(Default)]
struct Dropped {
    clone: Vec<f64>,
    split: Vec<f64>,
    stage: Vec<f64>,
    hydrate: Vec<f64>,
    hydrate_call: Vec<f64>,
}

fn corpus(lines: &str) {
    let mut compile = Vec::new();
    let mut sizes = Vec::new();
    let mut secrets = Vec::new();
    let mut ratios: [Vec<f64>; 3] = Default::default();
    let mut micros: [Vec<f64>; 4] = Default::default();
    let mut dropped: [Vec<f64>; 5] = Default::default();
    for line in lines.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let specification = &row["connectionSpecification"];
        let spec = ConnectorSpec::compile(specification).unwrap();
        compile.push(median((0..ROUNDS).map(|_| {
            timed(|| ConnectorSpec::compile(specification))
                .0
                .as_secs_f64()
                * 1e6
        })));
        for seed in 0..3 {
            let generated = generator::generate(specification, seed, false);
            if generated.canaries.is_empty() {
                continue;
            }
            sizes.push(generated.config.to_string().len() as f64);
            secrets.push(generated.canaries.len() as f64);
            let figures = measure(&spec, &generated.config, ROUNDS, BATCH);
            let of_clone = |figure: &[f64]| {
                median(
                    figure
                        .iter()
                        .zip(&figures.clone)
                        .map(|(ours, clone)| ours / clone),
                )
            };
            for (ratios, figure) in
                ratios
                    .iter_mut()
                    .zip([&figures.split, &figures.hydrate, &figures.mask])
            {
                ratios.push(of_clone(figure));
            }
            let figures_dropped = measure_dropped(&spec, &generated.config, ROUNDS, BATCH);
            for (dropped, figure) in dropped.iter_mut().zip([
                &figures_dropped.clone,
                &figures_dropped.split,
                &figures_dropped.stage,
                &figures_dropped.hydrate,
                &figures_dropped.hydrate_call,
            ]) {
                dropped.push(median(figure.iter().copied()));
            }
            for (micros, figure) in micros.iter_mut().zip([
                &figures.clone,
                &figures.split,
                &figures.hydrate,
                &figures.mask,
            ]) {
                micros.push(median(figure.iter().copied()));
            }
        }
    }
    println!(
        "{} specifications, {} configurations (median {} bytes, {} secrets)",
        compile.len(),
        sizes.len(),
        median(sizes.iter().copied()),
        median(secrets.iter().copied()),
    );
    println!("| | median ratio to clone | median µs | mean µs |");
    println!("|---|---|---|---|");
    println!(
        "| clone | 1 | {:.3} | {:.3} |",
        median(micros[0].iter().copied()),
        mean(&micros[0])
    );
    for (name, (ratio, micros)) in ["split", "hydrate", "mask"]
        .iter()
        .zip(ratios.iter().zip(&micros[1..]))
    {
        println!(
            "| {name} | {:.2} | {:.3} | {:.3} |",
            median(ratio.iter().copied()),
            median(micros.iter().copied()),
            mean(micros)
        );
    }
    println!(
        "| compile | | {:.1} | {:.1} |",
        median(compile.iter().copied()),
        mean(&compile)
    );
    println!("\n| with drops | median µs | mean µs |");
    println!("|---|---|---|");
    for (name, micros) in [
        "clone",
        "split",
        "stage_create over memory",
        "hydrate",
        "hydrate over memory",
    ]
    .iter()
    .zip(&dropped)
    {
        let median = median(micros.iter().copied());
        println!("| {name} | {median:.3} | {:.3} |", mean(micros));
    }
}

fn growth() {
    let spec = ConnectorSpec::compile(&json!({"properties": {"list": {"type": "array", "items": {
        "type": "object", "properties": {"name": {"type": "string"}, "s": {"airbyte_secret": true}},
    }}}}))
    .unwrap();
    println!(
        "\n| secrets | clone µs | split µs (ratio) | hydrate | mask | masked and reversed update |"
    );
    println!("|---|---|---|---|---|---|");
    for count in [10, 100, 1_000, 10_000] {
        let list: Vec<Value> = (0..count)
            .map(|index| json!({"name": format!("name {index}"), "s": format!("secret {index}")}))
            .collect();
        let config = json!({"list": list});
        let figures = measure(&spec, &config, ROUNDS, (2_000 / count).max(1));
        let update = least((0..15).map(|_| update(&spec, &config)).collect());
        let [clone, split, hydrate, mask] =
            [figures.clone, figures.split, figures.hydrate, figures.mask].map(least);
        let cell = |figure: f64| format!("{figure:.1} ({:.1})", figure / clone);
        let [split, hydrate, mask, update] = [split, hydrate, mask, update].map(cell);
        println!("| {count} | {clone:.1} | {split} | {hydrate} | {mask} | {update} |");
    }
}

fn scope() -> Scope {
    Scope::workspace(Uuid::from_u128(0xA))
}

fn measure(spec: &ConnectorSpec, config: &Value, rounds: usize, batch: usize) -> Figures {
    let (scope, policy) = (scope(), Policy::default());
    let plan = plan_create(spec, &scope, &policy, config.clone()).unwrap();
    // In the order of the pointers, as a store answers what it was asked for.
    let by_name: HashMap<Coordinate, SecretValue> = plan
        .writes
        .iter()
        .map(|write| (write.coordinate.clone().into(), write.value.clone()))
        .collect();
    let stored: Vec<SecretValue> = pointers(&plan.config)
        .unwrap()
        .iter()
        .map(|(_, pointer)| by_name[pointer.coordinate.as_ref().unwrap()].clone())
        .collect();
    let mut figures = Figures::default();
    for _ in 0..rounds {
        figures
            .clone
            .push(per_item(&vec![(); batch], |()| config.clone()));
        figures.split.push(per_item(&vec![config; batch], |config| {
            plan_create(spec, &scope, &policy, config).unwrap()
        }));
        figures
            .hydrate
            .push(per_item(&vec![&plan.config; batch], |config| {
                let mut values = stored.iter();
                hydrate_with(config, |_| values.next()).unwrap()
            }));
        figures.mask.push(per_item(&vec![config; batch], |config| {
            spec.mask(config).unwrap()
        }));
    }
    figures
}

fn measure_dropped(spec: &ConnectorSpec, config: &Value, rounds: usize, batch: usize) -> Dropped {
    let (scope, policy) = (scope(), Policy::default());
    let store = Arc::new(Memory::new());
    let secrets = ConnectorSecrets::new(Stores::new(store), ConnectorOptions::default())
        .acting_as(&Actor::new("bench"));
    let stage = |config| {
        // The store in memory never waits.
        let staged = secrets.stage_create(spec, &scope, config);
        staged.now_or_never().unwrap().unwrap()
    };
    let saved = stage(config.clone()).config().clone();
    let stored: Vec<SecretValue> = {
        let full = secrets.hydrate(saved.clone()).now_or_never().unwrap();
        let full = full.unwrap();
        let places = pointers(&saved).unwrap();
        let text = |place: &Place| place.find(&full).unwrap().as_str().unwrap().to_owned();
        let texts = places.iter().map(|(place, _)| text(place));
        texts.map(SecretValue::new).collect()
    };
    let mut figures = Dropped::default();
    for _ in 0..rounds {
        let configs = &vec![config; batch];
        let saveds = &vec![&saved; batch];
        figures
            .clone
            .push(per_item_dropped(&vec![(); batch], |()| config.clone()));
        figures.split.push(per_item_dropped(configs, |config| {
            plan_create(spec, &scope, &policy, config).unwrap()
        }));
        figures.stage.push(per_item_dropped(configs, stage));
        figures.hydrate.push(per_item_dropped(saveds, |saved| {
            let mut values = stored.iter();
            hydrate_with(saved, |_| values.next()).unwrap()
        }));
        figures.hydrate_call.push(per_item_dropped(saveds, |saved| {
            secrets.hydrate(saved).now_or_never().unwrap().unwrap()
        }));
    }
    figures
}

fn update(spec: &ConnectorSpec, config: &Value) -> f64 {
    let (scope, policy) = (scope(), Policy::default());
    let saved = plan_create(spec, &scope, &policy, config.clone())
        .unwrap()
        .config;
    let mut edited = spec.mask(saved.clone()).unwrap();
    let Value::Array(list) = edited["list"].take() else {
        unreachable!("the configuration has a list");
    };
    edited["list"] = list.into_iter().rev().collect();
    let (values, references) = (HashMap::new(), References::default());
    let (time, plan) =
        timed(|| plan_update(spec, &scope, &policy, &saved, &values, &references, edited));
    assert!(plan.unwrap().writes.is_empty());
    time.as_secs_f64() * 1e6
}

/// Microseconds for one of several items; copies are made before and dropped after.
fn per_item<I: ToInput, O>(items: &[I], mut run: impl FnMut(I::Input) -> O) -> f64 {
    let inputs: Vec<I::Input> = items.iter().map(ToInput::to_input).collect();
    let mut outputs = Vec::with_capacity(items.len());
    let (time, ()) = timed(|| {
        for input in inputs {
            outputs.push(black_box(run(black_box(input))));
        }
    });
    time.as_secs_f64() * 1e6 / items.len() as f64
}

/// The same, with what is made dropped within the time.
fn per_item_dropped<I: ToInput, O>(items: &[I], mut run: impl FnMut(I::Input) -> O) -> f64 {
    let inputs: Vec<I::Input> = items.iter().map(ToInput::to_input).collect();
    let (time, ()) = timed(|| {
        for input in inputs {
            drop(black_box(run(black_box(input))));
        }
    });
    time.as_secs_f64() * 1e6 / items.len() as f64
}

trait ToInput {
    type Input;
    fn to_input(&self) -> Self::Input;
}

impl ToInput for () {
    type Input = ();
    fn to_input(&self) {}
}

impl ToInput for &Value {
    type Input = Value;
    fn to_input(&self) -> Value {
        (*self).clone()
    }
}

fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = run();
    (start.elapsed(), result)
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn least(figures: Vec<f64>) -> f64 {
    figures.into_iter().fold(f64::INFINITY, f64::min)
}

fn mean(figures: &[f64]) -> f64 {
    figures.iter().sum::<f64>() / figures.len() as f64
}
