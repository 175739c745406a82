//! Proves that the suite detects faults: a store that breaks one guarantee must fail the case that
//! checks it.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Options, Outcome, Outsider, Report, run, run_reading};
use crate::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Error, ErrorKind, Expiry, Identity,
    ListOptions, Listing, ManagedCoordinate, Memory, OnPending, Owner, Page, Read, Recovery,
    Result, SecretPersistence, SecretPersistenceExt, SecretValue, Write, Written,
};

fn owner() -> Owner {
    Owner::parse("conformance-test").unwrap()
}

fn options(memory: &Arc<Memory>) -> Options {
    let store: Arc<dyn SecretPersistence> = Arc::clone(memory) as _;
    Options::default()
        .with_case_timeout(Duration::from_secs(20))
        .with_patience(Duration::from_millis(200))
        .with_list_lag(Duration::from_millis(200))
        .with_poll_interval(Duration::from_millis(5))
        .with_owner(owner())
        .with_outsider(Arc::new(Gardener(Arc::clone(memory))))
        .with_reopen(move || {
            let store = Arc::clone(&store);
            Box::pin(async move { Ok(store) })
        })
}

#[derive(Debug)]
struct Gardener(Arc<Memory>);

#[async_trait]
impl Outsider for Gardener {
    async fn insert(&self, name: &str, value: &SecretValue) -> Result<Coordinate> {
        self.0.insert(name, value.clone());
        Coordinate::parse(name)
    }

    async fn remove(&self, coordinate: &Coordinate) -> Result<()> {
        self.0.remove(coordinate.as_str());
        Ok(())
    }
}

fn complete() -> Capabilities {
    Memory::new().capabilities()
}

async fn run_over_memory(capabilities: Capabilities) -> Report {
    let memory = Memory::new()
        .with_capabilities(capabilities)
        .with_owner(owner());
    memory.insert("somebody-elses", SecretValue::new("untouched".to_owned()));
    let memory = Arc::new(memory);
    let options = options(&memory);
    let store: Arc<dyn SecretPersistence> = Arc::clone(&memory) as _;
    let report = run(&store, &options).await;
    // Nothing of ours remains, and nothing of others is gone.
    let left = format!("{memory:?}");
    assert_eq!(left.matches("Stored {").count(), 1, "{left}");
    assert!(left.contains("somebody-elses"), "{left}");
    report
}

fn not_applicable(report: &Report) -> BTreeSet<&'static str> {
    report
        .cases
        .iter()
        .filter(|case| matches!(case.outcome, Outcome::NotApplicable(_)))
        .map(|case| case.name)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_every_promise_whatever_its_abilities() {
    let enforced = "the store removes what has expired";
    type Change = fn(&mut Capabilities);
    let variants: &[(Change, &[&'static str])] = &[
        (|_| {}, &[enforced]),
        (|c| (c.read_batch, c.write_batch) = (1, 1), &[enforced]),
        (|c| (c.read_batch, c.write_batch) = (3, 2), &[enforced]),
        (|c| c.concurrency = 1, &[enforced]),
        (|c| c.nul = false, &[enforced]),
        (|c| c.owner = false, &[enforced, "the owner is kept"]),
        (
            |c| c.recovery = false,
            &[
                enforced,
                "pending deletion is told apart",
                "a pending name is not free",
                "restore brings a value back",
            ],
        ),
        (
            |c| c.expiry = Expiry::None,
            &[enforced, "expiry is kept", "sweep removes what has expired"],
        ),
        (
            |c| c.listing = Listing::None,
            &[
                enforced,
                "listing shows every name once",
                "listing keeps to its prefix",
                "listing forgets what was deleted",
                "sweep removes what has expired",
            ],
        ),
        (|c| c.listing = Listing::Eventual, &[enforced]),
        (
            |c| c.on_pending = OnPending::Purge,
            &[
                enforced,
                "a pending name is not free",
                "writing restores a pending name",
            ],
        ),
        (
            |c| c.on_pending = OnPending::Restore,
            &[
                enforced,
                "a pending name is not free",
                "writing purges a pending name",
            ],
        ),
        (
            |c| c.atomic_create = false,
            &[enforced, "concurrent different writes have one winner"],
        ),
        (|c| c.max_value_bytes = 1001, &[enforced]),
        (
            |c| c.max_value_bytes = 1 << 30,
            &[
                enforced,
                "values at the size limit come back",
                "a value above the size limit is refused",
            ],
        ),
    ];
    for (change, expected) in variants {
        let mut capabilities = complete();
        change(&mut capabilities);
        let report = run_over_memory(capabilities).await;
        report.assert_passed();
        let mut expected: BTreeSet<&str> = expected.iter().copied().collect();
        if capabilities.on_pending == OnPending::Refuse {
            expected.extend([
                "writing purges a pending name",
                "writing restores a pending name",
            ]);
        }
        assert_eq!(not_applicable(&report), expected, "{report}");
    }
    let least = run_over_memory(Capabilities::LEAST).await;
    least.assert_passed();
    assert_eq!(not_applicable(&least).len(), 13, "{least}");
}

#[tokio::test]
async fn a_report_prints_a_line_per_case_and_a_sum() {
    let memory = Arc::new(Memory::new());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let store: Arc<dyn SecretPersistence> = memory;
    let options = Options::default().with_progress(move |case| {
        told.lock().unwrap().push(case.to_string());
    });
    let report = run(&store, &options).await;
    let text = report.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), report.cases.len() + 1);
    assert!(lines[0].starts_with("passed          capabilities are sane ("));
    assert!(text.contains(
        "not applicable  external names are read: the options do not contain an outsider"
    ));
    assert!(lines.last().unwrap().ends_with(", 0 failed"), "{text}");
    assert_eq!(*seen.lock().unwrap(), lines[..lines.len() - 1]);
}

#[tokio::test(start_paused = true)]
async fn the_reading_half_changes_nothing_through_the_store() {
    let memory = Arc::new(Memory::new().with_owner(owner()));
    let options = options(&memory);
    let writer: Arc<dyn SecretPersistence> = Arc::clone(&memory) as _;
    let store: Arc<dyn SecretPersistence> =
        Broken::over(Arc::clone(&memory), Defect::PanicsOnChange);
    let report = run_reading(&store, &writer, &options).await;
    report.assert_passed();
    assert_eq!(report.cases.len(), 20, "{report}");
    assert!(!run(&store, &options).await.passed());
}

#[tokio::test(start_paused = true)]
async fn retryable_errors_are_repeated_and_fail_nothing() {
    let memory = Arc::new(Memory::new().with_owner(owner()));
    let options = options(&memory).with_patience(Duration::from_secs(5));
    let store: Arc<dyn SecretPersistence> = Broken::over(memory, Defect::ThrottlesEveryThird);
    let report = run(&store, &options).await;
    report.assert_passed();
}

/// Google documents that its listings may lag by hours. Whatever the wait, the same faults fail:
/// names that a listing must never show. The report says that the listing had not caught up.
#[tokio::test(start_paused = true)]
async fn how_late_a_listing_is_decides_nothing() {
    let eventual = || {
        let capabilities = Capabilities {
            listing: Listing::Eventual,
            ..complete()
        };
        Arc::new(
            Memory::new()
                .with_owner(owner())
                .with_capabilities(capabilities),
        )
    };
    for (waits, seen) in [(0, false), (2_000, true)] {
        let lag = Duration::from_millis(waits);
        let memory = eventual();
        let patient = options(&memory).with_list_lag(lag);
        let report = run(&Broken::over(memory, Defect::ListingLags), &patient).await;
        report.assert_passed();
        let lagged = not_applicable(&report);
        for case in [
            "listing shows every name once",
            "listing keeps to its prefix",
            "listing forgets what was deleted",
            "sweep removes what has expired",
        ] {
            assert_eq!(lagged.contains(case), !seen, "{waits} ms: {report}");
        }
        assert_eq!(report.to_string().contains("may lag and did"), !seen);
        for (defect, case) in [
            (Defect::IgnoresPageSize, "listing shows every name once"),
            (Defect::IgnoresPrefix, "listing keeps to its prefix"),
            (Defect::RepeatsPages, "listing shows every name once"),
        ] {
            let memory = eventual();
            let patient = options(&memory).with_list_lag(lag);
            let report = run(&Broken::over(memory, defect), &patient).await;
            assert!(
                report.failures().any(|failure| failure.name == case),
                "{defect:?} went unseen with {waits} ms"
            );
        }
    }
}

/// A, B, A, B: an untrusted server must not keep a caller busy forever.
#[tokio::test]
async fn a_listing_that_goes_round_in_a_circle_ends() {
    let store = Broken::over(Arc::new(Memory::new()), Defect::GoesRound);
    let options = ListOptions::default();
    let listing = futures::TryStreamExt::try_collect::<Vec<Entry>>(store.list(&options));
    let ended = tokio::time::timeout(Duration::from_secs(10), listing).await;
    let error = ended.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_deleted_is_reported() {
    let memory = Arc::new(Memory::new());
    let store: Arc<dyn SecretPersistence> = Broken::over(Arc::clone(&memory), Defect::CannotDelete);
    let report = run(&store, &options(&memory)).await;
    let failure = report
        .failures()
        .find(|case| case.name == "values come back byte for byte")
        .unwrap()
        .to_string();
    assert!(
        failure.contains("cleaning up: 38 secrets remain"),
        "{failure}"
    );
}

#[tokio::test(start_paused = true)]
async fn every_defect_fails_its_case() {
    let round_trip = "values come back byte for byte";
    let batch = "a batch answers by name";
    let errors = "errors name the coordinate, never the value";
    let cancelled = "dropped futures leave nothing behind";
    let listing = "listing shows every name once";
    let many_deletes = "deleting many takes each of them";
    let defects: &[(Defect, &str)] = &[
        (Defect::AcceptsEmpty, "an empty value is refused"),
        (
            Defect::AcceptsTooLarge,
            "a value above the size limit is refused",
        ),
        (Defect::AlwaysCreated, "writing again is already the same"),
        (Defect::AnswersInOrderOfNames, batch),
        (Defect::AnswersOnlyWhatIsThere, batch),
        (Defect::BaseNameOnly, "versions are names of their own"),
        (
            Defect::CountsCharacters,
            "a value above the size limit is refused",
        ),
        (Defect::CutsAtNul, "NUL is kept or refused"),
        (Defect::CutsNames, "the longest name works"),
        (Defect::DeletesAllVersions, "deleting takes that one name"),
        (Defect::DeletesFirstOfBatch, many_deletes),
        (Defect::DeletesNoneAfterMissing, many_deletes),
        (Defect::DescribeInventsMissing, "describe knows the name"),
        (Defect::DropsLastPage, listing),
        (
            Defect::EmptyExternals,
            "an empty value of others reads as empty",
        ),
        (Defect::EmptyForMissing, "missing is not found"),
        (Defect::ErrorWithoutCoordinate, errors),
        (Defect::ErrorWithoutStore, errors),
        (Defect::FailsAboveForty, "many readers and writers at once"),
        (
            Defect::FailsBatchAtFirst,
            "each write of a batch is independent",
        ),
        (Defect::FirstEntryDecides, batch),
        (Defect::FoldsLineEnds, round_trip),
        (Defect::ForgetsExpiry, "expiry is kept"),
        (
            Defect::ForgetsExpiryInListing,
            "sweep removes what has expired",
        ),
        (Defect::ForgetsOwner, "the owner is kept"),
        (Defect::HangsOnDelete, "deleted is gone"),
        (Defect::IgnoresPrefix, "listing keeps to its prefix"),
        (Defect::KeepsLockWhenDropped, cancelled),
        (Defect::LeaksInSource, errors),
        (Defect::LeaksValueInError, errors),
        (Defect::ListingLags, listing),
        (Defect::ListsDeleted, "listing forgets what was deleted"),
        (Defect::LowerCasesValues, round_trip),
        (
            Defect::MissingDeleteFails,
            "deleting what is missing succeeds",
        ),
        (Defect::NoExternals, "external names are read"),
        (Defect::NoIdentity, "identity says who and where"),
        (Defect::Overwrites, "another value already exists"),
        (Defect::PanicsOnChange, round_trip),
        (Defect::PendingIsNotFound, "pending deletion is told apart"),
        (
            Defect::RacyCreate,
            "concurrent different writes have one winner",
        ),
        (Defect::RepeatsPages, listing),
        (Defect::RestoresAnything, "restore brings a value back"),
        (Defect::RestoresNothing, "restore brings a value back"),
        (Defect::RevivesPending, "a pending name is not free"),
        (Defect::SaysAlreadySame, "writing again is already the same"),
        (Defect::ServesDeleted, "deleted is gone"),
        (Defect::IgnoresPageSize, listing),
        (Defect::TrimsBlanks, round_trip),
        (Defect::TrimsTrailingNewline, round_trip),
        (Defect::ClaimsToPurge, "writing purges a pending name"),
        (Defect::ClaimsToRestore, "writing restores a pending name"),
        (Defect::ComparesBeginnings, "another value already exists"),
        (Defect::WritesUnderTemporaryName, cancelled),
        (Defect::ZeroBatch, "capabilities are sane"),
    ];
    for (defect, case) in defects {
        let memory = Arc::new(
            Memory::new()
                .with_owner(owner())
                .with_capabilities(Capabilities {
                    max_value_bytes: 4096,
                    ..complete()
                }),
        );
        let mut options = options(&memory);
        if *defect == Defect::HangsOnDelete {
            options = options.with_case_timeout(Duration::from_millis(200));
        }
        let store: Arc<dyn SecretPersistence> = Broken::over(memory, *defect);
        let report = run(&store, &options).await;
        assert!(
            report.failures().any(|failure| failure.name == *case),
            "{defect:?} went unseen by `{case}`:\n{report}"
        );
    }
}

/// The fault of a [`Broken`] store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    AcceptsEmpty,
    AcceptsTooLarge,
    AlwaysCreated,
    AnswersInOrderOfNames,
    AnswersOnlyWhatIsThere,
    BaseNameOnly,
    CannotDelete,
    ClaimsToPurge,
    ClaimsToRestore,
    ComparesBeginnings,
    CountsCharacters,
    CutsAtNul,
    CutsNames,
    DeletesAllVersions,
    DeletesFirstOfBatch,
    DeletesNoneAfterMissing,
    DescribeInventsMissing,
    DropsLastPage,
    EmptyExternals,
    EmptyForMissing,
    ErrorWithoutCoordinate,
    ErrorWithoutStore,
    FailsAboveForty,
    FailsBatchAtFirst,
    FirstEntryDecides,
    FoldsLineEnds,
    ForgetsExpiry,
    ForgetsExpiryInListing,
    ForgetsOwner,
    GoesRound,
    HangsOnDelete,
    IgnoresPageSize,
    IgnoresPrefix,
    KeepsLockWhenDropped,
    LeaksInSource,
    LeaksValueInError,
    ListingLags,
    ListsDeleted,
    LowerCasesValues,
    MissingDeleteFails,
    NoExternals,
    NoIdentity,
    Overwrites,
    PanicsOnChange,
    PendingIsNotFound,
    RacyCreate,
    RepeatsPages,
    RestoresAnything,
    RestoresNothing,
    RevivesPending,
    SaysAlreadySame,
    ServesDeleted,
    ThrottlesEveryThird,
    TrimsBlanks,
    TrimsTrailingNewline,
    WritesUnderTemporaryName,
    ZeroBatch,
}

/// A correct store with one fault.
#[derive(Debug)]
struct Broken {
    inner: Arc<Memory>,
    defect: Defect,
    calls: AtomicUsize,
    in_flight: AtomicUsize,
    locked: Mutex<BTreeSet<String>>,
    seen: Mutex<HashMap<String, Read>>,
    written: Mutex<HashMap<String, Instant>>,
}

impl Broken {
    fn over(inner: Arc<Memory>, defect: Defect) -> Arc<dyn SecretPersistence> {
        Arc::new(Self {
            inner,
            defect,
            calls: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            locked: Mutex::default(),
            seen: Mutex::default(),
            written: Mutex::default(),
        })
    }

    fn throttled(&self) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if self.defect == Defect::ThrottlesEveryThird && call % 3 == 2 {
            return Err(Error::new(ErrorKind::Throttled, "slow down"));
        }
        Ok(())
    }

    fn changes(&self) {
        assert_ne!(self.defect, Defect::PanicsOnChange, "a change arrived");
    }

    /// The name under which this store keeps `coordinate`.
    fn native(&self, coordinate: &ManagedCoordinate) -> ManagedCoordinate {
        let name = coordinate.as_str();
        let name = match self.defect {
            Defect::BaseNameOnly => format!("{}_v1", coordinate.base()),
            Defect::CutsNames if name.len() > 110 => format!("{}_v1", &name[..107]),
            _ => return coordinate.clone(),
        };
        ManagedCoordinate::parse(&name).unwrap()
    }

    fn error(&self, error: Error) -> Error {
        let bare = Error::new(error.kind(), error.message().to_owned())
            .with_operation(error.operation().unwrap());
        match (self.defect, error.coordinate()) {
            (Defect::ErrorWithoutCoordinate, _) => bare.with_store("broken"),
            (Defect::ErrorWithoutStore, Some(coordinate)) => bare.with_coordinate(coordinate),
            _ => error,
        }
    }

    async fn read_one(&self, coordinate: &Coordinate) -> Result<Read> {
        self.throttled()?;
        if self.defect == Defect::NoExternals && coordinate.managed().is_none() {
            return Err(Error::new(ErrorKind::NotFound, "what is that"));
        }
        let native = match coordinate {
            Coordinate::Managed(managed) => self.native(managed).into(),
            external => external.clone(),
        };
        let result = self.inner.read(&native).await;
        match (self.defect, result) {
            (Defect::EmptyForMissing, Err(error)) if error.kind() == ErrorKind::NotFound => {
                Ok(Read::new(SecretValue::new(String::new())))
            }
            (Defect::EmptyExternals, Ok(read)) if read.value.is_empty() => {
                Err(Error::new(ErrorKind::NotFound, "empty is nothing"))
            }
            (Defect::PendingIsNotFound, Err(error))
                if error.kind() == ErrorKind::PendingDeletion =>
            {
                Err(Error::new(ErrorKind::NotFound, "gone"))
            }
            (Defect::ServesDeleted, result) => {
                let mut seen = self.seen.lock().unwrap();
                if let Ok(read) = &result {
                    seen.insert(coordinate.to_string(), read.clone());
                }
                seen.get(coordinate.as_str()).cloned().map_or(result, Ok)
            }
            (_, result) => result.map_err(|error| self.error(error)),
        }
    }

    async fn delete_one(
        &self,
        coordinate: &ManagedCoordinate,
        options: &DeleteOptions,
    ) -> Result<()> {
        self.changes();
        self.throttled()?;
        let coordinate = &self.native(coordinate);
        match self.defect {
            Defect::CannotDelete => {
                return Err(Error::new(ErrorKind::PermissionDenied, "no"));
            }
            Defect::DeletesAllVersions => {
                let all = ListOptions::default().with_prefix(coordinate.base());
                for entry in self.inner.list_page(&all, None).await?.entries {
                    self.inner.delete(&entry.coordinate, options).await?;
                }
            }
            Defect::HangsOnDelete if options.recovery == Recovery::Configured => {
                std::future::pending::<()>().await;
            }
            Defect::MissingDeleteFails => drop(self.inner.describe(coordinate).await?),
            _ => {}
        }
        self.inner.delete(coordinate, options).await
    }

    async fn write_one(&self, write: &Write) -> Result<Written> {
        self.throttled()?;
        let mut write = write.clone();
        write.coordinate = self.native(&write.coordinate);
        let name = write.coordinate.as_str().to_owned();
        let (text, limit) = (
            write.value.expose(),
            self.inner.capabilities().max_value_bytes,
        );
        self.written
            .lock()
            .unwrap()
            .entry(name.clone())
            .or_insert_with(Instant::now);
        let stored = match self.defect {
            Defect::FoldsLineEnds => text.replace("\r\n", "\n"),
            Defect::LowerCasesValues => text.to_lowercase(),
            Defect::TrimsBlanks if !text.trim().is_empty() => text.trim().to_owned(),
            Defect::TrimsTrailingNewline if text.len() > 1 => {
                text.strip_suffix('\n').unwrap_or(text).to_owned()
            }
            Defect::CutsAtNul if !text.starts_with('\0') => {
                text.split('\0').next().unwrap().to_owned()
            }
            _ => text.to_owned(),
        };
        let accepted = match self.defect {
            Defect::AcceptsEmpty => text.is_empty(),
            Defect::AcceptsTooLarge => text.len() > limit,
            Defect::CountsCharacters => text.len() > limit && text.chars().count() <= limit,
            _ => false,
        };
        if accepted {
            self.inner.insert(&name, write.value);
            return Ok(Written::Created);
        }
        let attempted = write.value.clone();
        write.value = SecretValue::new(stored);
        if self.defect == Defect::ForgetsExpiry {
            write.expires = None;
        }
        let there = self.inner.read(&write.coordinate.clone().into()).await.ok();
        match self.defect {
            Defect::RacyCreate => {
                tokio::task::yield_now().await;
                return match there {
                    None => {
                        self.inner.insert(&name, write.value);
                        Ok(Written::Created)
                    }
                    Some(_) => self.inner.write(write).await,
                };
            }
            Defect::KeepsLockWhenDropped => {
                if !self.locked.lock().unwrap().insert(name.clone()) {
                    return Err(Error::new(ErrorKind::Conflict, "somebody else is at it"));
                }
                tokio::task::yield_now().await;
                let result = self.inner.write(write).await;
                self.locked.lock().unwrap().remove(&name);
                return result;
            }
            Defect::WritesUnderTemporaryName => {
                let base = write.coordinate.base();
                let temporary = format!("{}_v99", &base[..base.len().min(120)]);
                let temporary = ManagedCoordinate::parse(&temporary).unwrap();
                let draft = Write::new(temporary.clone(), write.value.clone());
                self.inner.write(draft).await.ok();
                tokio::task::yield_now().await;
                let immediate = DeleteOptions::default().with_recovery(Recovery::Immediate);
                self.inner.delete(&temporary, &immediate).await?;
            }
            Defect::ComparesBeginnings
                if there
                    .is_some_and(|read| read.value.expose().starts_with(write.value.expose())) =>
            {
                return Ok(Written::AlreadySame);
            }
            _ => {}
        }
        let result = self.inner.write(write.clone()).await;
        match (self.defect, result) {
            (Defect::AlwaysCreated, Ok(_)) => Ok(Written::Created),
            (Defect::SaysAlreadySame, Ok(_)) => Ok(Written::AlreadySame),
            (Defect::Overwrites, Err(error)) if error.kind() == ErrorKind::AlreadyExists => {
                self.inner.insert(&name, write.value);
                Ok(Written::Created)
            }
            (Defect::RevivesPending, Err(error)) if error.kind() == ErrorKind::PendingDeletion => {
                self.inner.restore(&write.coordinate).await?;
                self.inner.write(write).await
            }
            (Defect::LeaksValueInError, Err(error)) => {
                Err(error.with_hint(format!("do not write {}", attempted.expose())))
            }
            (Defect::LeaksInSource, Err(error)) => {
                let cause = attempted.expose().lines().last().unwrap_or("").to_owned();
                Err(error.with_source(std::io::Error::other(cause)))
            }
            (_, result) => result.map_err(|error| self.error(error)),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory with a defect")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretPersistence for Broken {
    fn capabilities(&self) -> Capabilities {
        let capabilities = self.inner.capabilities();
        match self.defect {
            Defect::ZeroBatch => Capabilities {
                read_batch: 0,
                ..capabilities
            },
            Defect::ClaimsToPurge => Capabilities {
                on_pending: OnPending::Purge,
                ..capabilities
            },
            Defect::ClaimsToRestore => Capabilities {
                on_pending: OnPending::Restore,
                ..capabilities
            },
            _ => capabilities,
        }
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        let in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst);
        if self.defect == Defect::FailsAboveForty {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut asked = coordinates.to_vec();
        if self.defect == Defect::AnswersInOrderOfNames {
            asked.sort();
        }
        let mut results = Vec::new();
        for coordinate in &asked {
            results.push(self.read_one(coordinate).await);
        }
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        match self.defect {
            Defect::AnswersOnlyWhatIsThere => {
                results.retain(|result| {
                    !result
                        .as_ref()
                        .is_err_and(|error| error.kind() == ErrorKind::NotFound)
                });
            }
            Defect::FailsAboveForty if in_flight > 40 => {
                results.fill_with(|| Err(Error::new(ErrorKind::Unexpected, "too many at once")));
            }
            Defect::FirstEntryDecides => {
                if let Some(error) = results.iter().find_map(|result| result.clone().err()) {
                    results.fill_with(|| Err(error.clone()));
                }
            }
            _ => {}
        }
        results
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        self.changes();
        let mut results: Vec<Result<Written>> = Vec::new();
        for write in writes {
            let failed = results.last().and_then(|result| result.clone().err());
            results.push(match failed {
                Some(error) if self.defect == Defect::FailsBatchAtFirst => Err(error),
                _ => self.write_one(write).await,
            });
        }
        results
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let mut results = Vec::new();
        for (at, coordinate) in coordinates.iter().enumerate() {
            results.push(match self.defect {
                Defect::DeletesFirstOfBatch if at > 0 => Ok(()),
                Defect::DeletesNoneAfterMissing
                    if coordinates.len() > 1 && self.inner.describe(coordinate).await.is_err() =>
                {
                    break;
                }
                _ => self.delete_one(coordinate, options).await,
            });
        }
        results
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        self.changes();
        match self.defect {
            Defect::RestoresNothing => drop(self.inner.describe(coordinate).await?),
            Defect::RestoresAnything => drop(self.inner.restore(coordinate).await),
            _ => self
                .inner
                .restore(coordinate)
                .await
                .map_err(|error| self.error(error))?,
        }
        Ok(())
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        self.throttled()?;
        let mut options = options.clone();
        match self.defect {
            Defect::IgnoresPageSize => options.page_size = None,
            Defect::IgnoresPrefix => options.prefix = ListOptions::default().prefix,
            Defect::ListsDeleted => options.deleted = true,
            _ => {}
        }
        let mut page = self.inner.list_page(&options, after).await?;
        match self.defect {
            Defect::GoesRound => {
                let call = self.calls.load(Ordering::Relaxed);
                assert!(call < 1000, "the circle went unseen");
                page.next = Some(Cursor::new(format!("{}", call % 5)));
            }
            Defect::DropsLastPage if after.is_some() && page.next.is_none() => {
                page.entries.clear();
            }
            Defect::ForgetsExpiryInListing => {
                for entry in &mut page.entries {
                    entry.expires = None;
                }
            }
            Defect::ListingLags => {
                let written = self.written.lock().unwrap();
                page.entries.retain(|entry| {
                    written[entry.coordinate.as_str()].elapsed() > Duration::from_millis(300)
                });
            }
            Defect::RepeatsPages => {
                if let (Some(_), Some(last)) = (after, page.entries.last_mut()) {
                    let first = self
                        .inner
                        .list_page(&options, None)
                        .await?
                        .entries
                        .remove(0);
                    *last = first;
                }
            }
            _ => {}
        }
        Ok(page)
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.throttled()?;
        let result = self.inner.describe(&self.native(coordinate)).await;
        match (self.defect, result) {
            (Defect::DescribeInventsMissing, Err(_)) => Ok(Entry::new(coordinate.clone())),
            (Defect::ForgetsOwner, Ok(entry)) => Ok(entry.with_owner(None)),
            (_, result) => result.map_err(|error| self.error(error)),
        }
    }

    async fn identity(&self) -> Result<Identity> {
        match self.defect {
            Defect::NoIdentity => Ok(Identity::new("memory", "", "")),
            _ => self.inner.identity().await,
        }
    }
}
