//! A report under construction.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use secret_persistence_core::ErrorKind;
use secret_persistence_core::connector::Problem;

use crate::{
    Cancellation, Class, Counts, Decisions, Difference, Event, Failure, Finding, Halt,
    JournalEntry, MigrateOptions, Observer, Phase, Report, Run, Stop, Tally,
};

/// Collects results, notifies the observer, and decides whether the run continues.
#[derive(Debug)]
pub(super) struct Tracker {
    report: Mutex<Report>,
    observer: Arc<dyn Observer>,
    cancellation: Cancellation,
    decisions: Decisions,
    listed: usize,
    max_failures: u64,
    done: AtomicU64,
}

impl Tracker {
    pub(super) fn new(
        command: &'static str,
        run: Run,
        options: &MigrateOptions,
        observer: Arc<dyn Observer>,
        cancellation: Cancellation,
    ) -> Self {
        Self {
            report: Mutex::new(Report {
                command,
                run,
                dry_run: options.dry_run,
                stopped: None,
                stopped_by_another: false,
                tally: Tally::default(),
                storages: BTreeMap::new(),
                findings: BTreeMap::new(),
                decisions: options.decisions.clone(),
                undecided: Vec::new(),
                unlisted: false,
                failed: 0,
                failures: Vec::new(),
                states: Counts::default(),
                unreachable: Vec::new(),
            }),
            observer,
            cancellation,
            decisions: options.decisions.clone(),
            listed: options.listed,
            max_failures: u64::try_from(options.max_failures.get()).unwrap_or(u64::MAX),
            done: AtomicU64::new(0),
        }
    }

    pub(super) fn run(&self) -> Run {
        self.report.lock().run.clone()
    }

    /// Changes the report's figures.
    pub(super) fn note(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock());
    }

    /// Changes the report's tally.
    pub(super) fn tally(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.report.lock().tally);
    }

    pub(super) fn found(&self, finding: Finding) {
        self.observer.event(&Event::Found(&finding));
        let mut report = self.report.lock();
        let findings = report.findings.entry(finding.class).or_default();
        findings.count += 1;
        if findings.listed.len() < self.listed {
            findings.listed.push(finding);
        }
    }

    /// Records a finding, which stops the run unless its class is decided. Returns whether it is
    /// decided.
    pub(super) fn found_and_settled(&self, finding: Finding) -> bool {
        let class = finding.class;
        self.found(finding);
        let settled = self.decisions.settles(class);
        if !settled {
            self.stop(if class == Class::Conflicting {
                Stop::Conflict
            } else {
                Stop::Undecided
            });
        }
        settled
    }

    /// Tells the observer how a secret differs.
    pub(super) fn compared(&self, entry: &JournalEntry, difference: Option<Difference>) {
        if let Some(difference) = difference {
            self.observer.event(&Event::Compared {
                coordinate: entry.coordinate.as_str(),
                configuration: entry.holder.as_deref(),
                difference,
            });
        }
    }

    /// Records a failure of one secret. Too many failures stop the run.
    pub(super) fn failed(&self, failure: Failure) {
        if self.count_failure(failure) >= self.max_failures {
            self.stop(Stop::Failures);
        }
    }

    /// Records a configuration that does not hydrate. These failures do not stop the run, so that
    /// all of them are reported.
    pub(super) fn not_hydrated(&self, failure: Failure) {
        self.count_failure(failure);
    }

    /// Stops the run, unless it is already stopped for another reason.
    pub(super) fn stop(&self, reason: Stop) {
        self.report.lock().stopped.get_or_insert(reason);
    }

    /// What the other processes of a shared run must know even if this one is killed now.
    pub(super) fn worst(&self) -> Option<Stop> {
        let report = self.report.lock();
        let stopped = report.stopped.filter(|stop| *stop != Stop::Cancelled);
        let found = [
            (report.count(Class::Conflicting) > 0, Stop::Conflict),
            (report.tally.lost > 0, Stop::Unverified),
            (report.failed > 0, Stop::Failures),
        ];
        let found = || found.into_iter().find(|(is_found, _)| *is_found);
        stopped.or_else(|| found().map(|(_, stop)| stop))
    }

    /// Adds what another process found, for which this one stopped too.
    pub(super) fn halted(&self, halt: &Halt) {
        let mut report = self.report.lock();
        if report.stopped.is_none() {
            report.stopped = Some(halt.stop);
            report.stopped_by_another = true;
        }
        for class in &halt.undecided {
            if !report.undecided.contains(class) {
                report.undecided.push(*class);
            }
        }
    }

    /// Whether this process was asked to stop.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancellation.is_cancelled()
    }

    /// Whether the run must not begin further work.
    pub(super) fn is_stopped(&self) -> bool {
        if self.is_cancelled() {
            self.stop(Stop::Cancelled);
        }
        self.report.lock().stopped.is_some()
    }

    /// Reports the classes that need a decision, and stops if there are any.
    pub(super) fn decide(&self) {
        let mut report = self.report.lock();
        report.undecided = self.undecided(&report);
        if !report.undecided.is_empty() {
            report.stopped.get_or_insert(Stop::Undecided);
        }
    }

    /// Whether there are such classes, which stop nothing yet.
    pub(super) fn has_undecided(&self) -> bool {
        !self.undecided(&self.report.lock()).is_empty()
    }

    fn undecided(&self, report: &Report) -> Vec<Class> {
        let findings = report.findings.iter();
        findings
            .filter(|(class, findings)| findings.count > 0 && !self.decisions.settles(**class))
            .map(|(class, _)| *class)
            .collect()
    }

    pub(super) fn began(&self, phase: Phase, total: Option<u64>) {
        self.done.store(0, Ordering::Relaxed);
        self.observer.event(&Event::Began { phase, total });
    }

    pub(super) fn advanced(&self, phase: Phase, units: usize) {
        let units = units as u64;
        let done = self.done.fetch_add(units, Ordering::Relaxed) + units;
        self.observer.event(&Event::Advanced { phase, done });
    }

    pub(super) fn ended(&self, phase: Phase) {
        let done = self.done.load(Ordering::Relaxed);
        self.observer.event(&Event::Ended { phase, done });
    }

    /// The current report.
    pub(super) fn close(&self, states: Counts) -> Report {
        let mut report = self.report.lock();
        report.states = states;
        report.clone()
    }

    fn count_failure(&self, failure: Failure) -> u64 {
        self.observer.event(&Event::Failed(&failure));
        let mut report = self.report.lock();
        report.failed += 1;
        if report.failures.len() < self.listed {
            report.failures.push(failure);
        }
        report.failed
    }
}

impl Finding {
    /// A finding about a coordinate.
    pub(super) fn of(class: Class, coordinate: &str) -> Self {
        Self {
            coordinate: Some(coordinate.to_owned()),
            ..Self::new(class)
        }
    }

    pub(super) fn new(class: Class) -> Self {
        Self {
            class,
            coordinate: None,
            configuration: None,
            place: None,
            storage: None,
            kind: None,
            detail: None,
        }
    }

    pub(super) fn in_configuration(mut self, key: &str, place: Option<&str>) -> Self {
        self.configuration = Some(key.to_owned());
        self.place = place.map(str::to_owned);
        self
    }

    pub(super) fn with_kind(mut self, kind: &str) -> Self {
        self.kind = Some(kind.to_owned());
        self
    }

    pub(super) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(super) fn with_storage(mut self, id: &str) -> Self {
        self.storage = Some(id.to_owned());
        self
    }
}

impl Failure {
    /// A store's error, which already names the coordinate.
    pub(super) fn of(error: &secret_persistence_core::Error) -> Self {
        // The message about a value that is too large contains its length; nothing here may be
        // derived from a value.
        let message = if error.kind() == ErrorKind::PayloadTooLarge {
            "the value is larger than the store accepts".to_owned()
        } else {
            error.to_string()
        };
        Self {
            coordinate: error.coordinate().map(str::to_owned),
            configuration: None,
            place: None,
            kind: error.kind().as_str().to_owned(),
            message,
        }
    }

    /// A problem in a configuration.
    /// A record of a change in a format that this version does not know.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn of_record(key: &str) -> Self {
        Self {
            coordinate: None,
            configuration: Some(key.to_owned()),
            place: None,
            kind: "unreadable".to_owned(),
            message: "the record of a change has a format that this version does not know"
                .to_owned(),
        }
    }

    pub(super) fn of_problem(key: &str, problem: &Problem) -> Self {
        let failure = problem.error().map_or_else(
            || Self {
                coordinate: problem.coordinate().map(str::to_owned),
                configuration: None,
                place: None,
                kind: problem.kind().as_str().to_owned(),
                message: problem.message().to_owned(),
            },
            Self::of,
        );
        failure.in_configuration(key, Some(problem.place().as_str()))
    }

    pub(super) fn in_configuration(mut self, key: &str, place: Option<&str>) -> Self {
        self.configuration = Some(key.to_owned());
        self.place = place.map(str::to_owned);
        self
    }
}
