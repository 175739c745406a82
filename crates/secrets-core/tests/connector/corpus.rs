//! The public specifications that `CONNECTOR_SPECS` names.

use std::env;
use std::fs;
use std::path::PathBuf;

use secret_persistence_core::connector::ConnectorSpec;
use serde_json::Value;

use crate::generator::generate;
use crate::round_trip::check;

const CONFIGURATIONS: u64 = 12;

/// How many lines the file has; more or fewer and it is another one.
const SPECIFICATIONS: usize = 491;

#[test]
fn every_public_specification_splits_and_comes_back() {
    let Some(file) = env::var_os("CONNECTOR_SPECS").map(PathBuf::from) else {
        assert!(
            env::var_os("CI").is_none_or(|ci| ci != "true"),
            "CONNECTOR_SPECS has to be set in CI"
        );
        println!("SKIPPED: CONNECTOR_SPECS is not set, so no public specification was tried");
        return;
    };
    let lines = fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("CONNECTOR_SPECS names no readable file: {error}"));
    let (mut specifications, mut configurations, mut secrets) = (0, 0, 0);
    for line in lines.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let name = row["name"].as_str().unwrap();
        let specification = &row["connectionSpecification"];
        let spec = ConnectorSpec::compile(specification)
            .unwrap_or_else(|error| panic!("{name} does not compile: {error}"));
        specifications += 1;
        for seed in 0..CONFIGURATIONS {
            let generated = generate(specification, seed, true);
            let plan = check(&spec, &generated.config, &generated.canaries)
                .unwrap_or_else(|error| panic!("{name}, configuration {seed}: {error}"));
            configurations += 1;
            secrets += plan.writes.len();
        }
    }
    println!("{specifications} specifications, {configurations} configurations, {secrets} secrets");
    assert_eq!(specifications, SPECIFICATIONS);
    assert!(
        secrets > configurations / 2,
        "the generator makes too few secrets"
    );
}
