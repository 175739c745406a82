//! An installation on disk: the demo's connectors and some more, their secrets in an embedded
//! store, their configurations in a file, and the tool that moves them.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use e2e::{FaultProxy, proxy};
use secret_persistence_core::{Coordinate, ManagedCoordinate, SecretPersistenceExt as _};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    demo::{self, Saved},
    fleet::{Fleet, WORKSPACE, expect_exactly, names},
    program::{Ended, Program},
    stores::{Store, calls, sqlite},
};

/// The initial store.
pub(crate) const FIRST: &str = "sqlite:first.db";
/// Another embedded store, empty.
pub(crate) const LAST: &str = "sqlite:last.db";

pub(crate) struct Installation {
    pub(crate) program: Program,
    pub(crate) first: Store,
    pub(crate) last: Store,
    /// All secrets of the first store at the beginning.
    pub(crate) secrets: BTreeMap<ManagedCoordinate, String>,
    connectors: Vec<Saved>,
    fleet: Fleet,
}

impl Installation {
    /// Four more secrets for each of `others`.
    pub(crate) async fn new(others: usize) -> Option<Self> {
        let mut program = Program::found()?;
        let first = sqlite(&program.folder().join("first.db")).await;
        // The tool creates a table only on request.
        let last = sqlite(&program.folder().join("last.db")).await;
        let connectors = demo::save_in(&first).await;
        let fleet = Fleet::new(others);
        fleet.save_in(&first).await;

        let rows = connectors
            .iter()
            .map(|saved| (saved.name.clone(), saved.configuration.clone()));
        let others = fleet.rows().enumerate();
        let rows = rows.chain(others.map(|(row, (saved, _))| (row.to_string(), saved)));
        let lines = rows.map(|(id, configuration)| {
            let line =
                json!({"id": id, "baseId": WORKSPACE.to_string(), "configuration": configuration});
            format!("{line}\n")
        });
        let lines: String = lines.collect();
        fs::write(program.folder().join("configs.jsonl"), lines).unwrap();

        let found = names(&first).await;
        let coordinates: Vec<Coordinate> = found.iter().cloned().map(Into::into).collect();
        let reads = first.read_many(&coordinates).await.into_iter();
        let values = reads.map(|read| read.unwrap().value.expose().to_owned());
        let secrets: BTreeMap<_, _> = found.into_iter().zip(values).collect();
        secrets.values().for_each(|value| program.never_show(value));
        Some(Self {
            program,
            first,
            last,
            secrets,
            connectors,
            fleet,
        })
    }

    pub(crate) fn secrets(&self) -> u64 {
        self.secrets.len() as u64
    }

    pub(crate) fn configurations(&self) -> u64 {
        (self.connectors.len() + self.fleet.rows().count()) as u64
    }

    /// A command between two stores, with a journal of this name.
    pub(crate) fn step<'a>(&'a self, from: &'a str, to: &'a str, journal: &'a str) -> Step<'a> {
        Step {
            installation: self,
            route: ["--from", from, "--to", to, "--configs", "configs.jsonl"],
            journal: ["--journal", journal],
            rate: &[],
        }
    }

    /// Fails the test unless the store contains every secret once and equal, and every connector
    /// hydrates from it as it was entered.
    pub(crate) async fn expect_in(&self, store: &Store) {
        expect_exactly(store, &self.secrets).await;
        for saved in &self.connectors {
            let full = calls(store)
                .hydrate(saved.configuration.clone())
                .await
                .unwrap();
            assert!(*full == saved.full, "{} differs", saved.name);
        }
    }
}

/// A command of the tool between two stores.
pub(crate) struct Step<'a> {
    installation: &'a Installation,
    route: [&'a str; 6],
    journal: [&'a str; 2],
    rate: &'a [&'a str],
}

impl<'a> Step<'a> {
    /// The same at full speed: test servers have no quotas, or others than the documented ones.
    pub(crate) fn fast(mut self) -> Self {
        self.rate = &["--rate", "10000"];
        self
    }

    fn arguments<'b>(&'b self, command: &'b str) -> Vec<&'b str>
    where
        'a: 'b,
    {
        // Few enough requests at once to fail in the middle, and enough that all of them give up
        // soon.
        let pace = ["--concurrency", "16"];
        let parts = [&[command][..], &self.route, &self.journal, &pace, self.rate];
        parts.concat()
    }

    pub(crate) async fn run(&self, command: &str) -> Ended {
        self.installation
            .program
            .run(&self.arguments(command))
            .await
    }

    /// Fails the test unless the command completes its work. Returns its report.
    pub(crate) async fn done(&self, command: &str) -> Value {
        let report = self.run(command).await.expect(0);
        assert_eq!(report["failed"], 0, "{report}");
        report["tally"].clone()
    }

    /// Fails the test unless the command reaches this operation of a store or its journal, where it
    /// is killed.
    pub(crate) async fn killed_at(&self, command: &str, point: u64) {
        let program = &self.installation.program;
        let arguments = self.arguments(command);
        let killed = program.killed_at(&arguments, point).await;
        assert!(killed, "{arguments:?} was over before point {point}");
    }

    /// Fails the test unless the command is running when it is killed.
    pub(crate) async fn killed_once(&self, command: &str, happens: impl Fn() -> bool) {
        let program = &self.installation.program;
        let arguments = self.arguments(command);
        let mut child = program.start(&arguments);
        let patience = Instant::now() + Duration::from_secs(60);
        while !happens() {
            assert_eq!(child.try_wait().unwrap(), None, "{arguments:?} was over");
            assert!(Instant::now() < patience, "{arguments:?} is too slow");
            sleep(Duration::from_millis(5)).await;
        }
        child.kill().unwrap();
        program.ended(child).await;
    }

    /// Copies, and acts when the proxy has received this many requests.
    pub(crate) async fn copy_struck(
        &self,
        proxy: &FaultProxy,
        (pattern, count): (&str, usize),
        strike: impl AsyncFnOnce(&mut std::process::Child),
    ) -> Ended {
        let program = &self.installation.program;
        let mut child = program.start(&self.arguments("copy"));
        let reached = proxy.reached(pattern, count);
        let limit = Duration::from_secs(60);
        if tokio::time::timeout(limit, reached).await.is_err() {
            child.kill().unwrap();
            panic!(
                "the copy never gets that far: {:?}",
                program.ended(child).await
            );
        }
        program.expect_secrecy_of(&child);
        strike(&mut child).await;
        program.ended(child).await
    }

    /// Fails the test unless this copy completes an interrupted one, and a verify finds all
    /// secrets.
    pub(crate) async fn expect_resumed(&self, before: u64) {
        let tally = self.done("copy").await;
        let count = |name: &str| tally[name].as_u64().unwrap();
        let all = self.installation.secrets();
        assert_eq!(before + count("written") + count("resumed"), all, "{tally}");
        self.expect_verified().await;
    }

    pub(crate) async fn expect_verified(&self) {
        let tally = self.done("verify").await;
        assert_eq!(tally["verified"], self.installation.secrets(), "{tally}");
        assert_eq!(
            tally["hydrated"],
            self.installation.configurations(),
            "{tally}"
        );
        let tally = self.done("copy").await;
        assert_eq!(tally["written"], 0, "a delta has nothing to do: {tally}");
    }
}

/// Fails the test unless the report says that failures of this kind stopped it in the middle, and
/// one of them names the cause and a secret. Returns how much was written before.
#[track_caller]
pub(crate) fn expect_middle(report: &Value, all: u64, kind: &str, cause: &str) -> u64 {
    assert_eq!(report["stopped"], "failures", "{report}");
    let failures = report["failures"].as_array().unwrap();
    assert!(
        failures.iter().all(|failure| failure["kind"] == kind),
        "{report}"
    );
    let named = |failure: &Value| {
        failure["message"].as_str().unwrap().contains(cause) && failure["coordinate"].is_string()
    };
    assert!(failures.iter().any(named), "no `{cause}` in {report}");
    let written = report["tally"]["written"].as_u64().unwrap();
    assert!((1..all).contains(&written), "{written} of {all}");
    written
}

/// The number of requests with this response.
pub(crate) fn answered(proxy: &FaultProxy, status: u16) -> usize {
    let is_it = |request: &&proxy::Request| request.status.is_some_and(|other| other == status);
    proxy.requests().iter().filter(is_it).count()
}
