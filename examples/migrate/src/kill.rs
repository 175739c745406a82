//! Points where a test stops the process: before and after every store operation and every journal
//! write. A release build has neither the points nor the variables.
//!
//! `MIGRATE_TEST_STOP_AT=<k>` makes the process report on standard error that it has reached the
//! k-th point, and then wait until the test kills it. `MIGRATE_TEST_POINTS=<file>` writes the
//! number of points of a whole run.

#[cfg(debug_assertions)]
mod points {
    use std::fmt;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, LazyLock};

    use async_trait::async_trait;
    use secret_persistence_core::{
        Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Identity, ListOptions,
        ManagedCoordinate, Page, Read, Result, SecretPersistence, Write, Written,
    };
    use secret_persistence_migrate::{
        Counts, Journal, JournalEntry, Mention, MigrateResult, Note, Run, Select, Sharing,
        Transition,
    };

    static PASSED: AtomicU64 = AtomicU64::new(0);
    static STOP_AT: LazyLock<u64> = LazyLock::new(|| {
        std::env::var("MIGRATE_TEST_STOP_AT")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(u64::MAX)
    });

    /// A store with a point before and after every operation.
    #[derive(Debug)]
    pub(crate) struct Points(pub(crate) Arc<dyn SecretPersistence>);

    impl fmt::Display for Points {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    #[async_trait]
    #[deny(clippy::missing_trait_methods)]
    impl SecretPersistence for Points {
        fn capabilities(&self) -> Capabilities {
            self.0.capabilities()
        }

        async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
            between(self.0.read_batch(coordinates)).await
        }

        async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
            between(self.0.write_batch(writes)).await
        }

        async fn delete_batch(
            &self,
            coordinates: &[ManagedCoordinate],
            options: &DeleteOptions,
        ) -> Vec<Result<()>> {
            between(self.0.delete_batch(coordinates, options)).await
        }

        async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
            between(self.0.restore(coordinate)).await
        }

        async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
            between(self.0.list_page(options, after)).await
        }

        async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
            between(self.0.describe(coordinate)).await
        }

        async fn identity(&self) -> Result<Identity> {
            between(self.0.identity()).await
        }
    }

    /// A journal with a point before and after every call.
    #[derive(Debug)]
    struct PointsOfJournal<J>(Arc<J>);

    /// The journal, with its points.
    pub(crate) fn journal<J: Journal + 'static>(journal: Arc<J>) -> Arc<dyn Journal> {
        Arc::new(PointsOfJournal(journal))
    }

    impl<J: Journal> fmt::Display for PointsOfJournal<J> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    #[async_trait]
    #[deny(clippy::missing_trait_methods)]
    impl<J: Journal> Journal for PointsOfJournal<J> {
        async fn open(&self, run: &Run) -> MigrateResult<()> {
            between(self.0.open(run)).await
        }

        async fn begin_scan(&self) -> MigrateResult<u64> {
            between(self.0.begin_scan()).await
        }

        async fn see(&self, scan: u64, configurations: &[String]) -> MigrateResult<Vec<String>> {
            between(self.0.see(scan, configurations)).await
        }

        async fn mention(&self, scan: u64, mentions: &[Mention]) -> MigrateResult<()> {
            between(self.0.mention(scan, mentions)).await
        }

        async fn page(
            &self,
            select: &Select,
            after: Option<&ManagedCoordinate>,
            limit: usize,
        ) -> MigrateResult<Vec<JournalEntry>> {
            self.0.page(select, after, limit).await
        }

        async fn find(
            &self,
            coordinates: &[ManagedCoordinate],
        ) -> MigrateResult<Vec<Option<JournalEntry>>> {
            self.0.find(coordinates).await
        }

        async fn advance(&self, transitions: &[Transition]) -> MigrateResult<()> {
            between(self.0.advance(transitions)).await
        }

        async fn counts(&self) -> MigrateResult<Counts> {
            self.0.counts().await
        }

        async fn put_note(&self, key: &str, text: Option<&str>) -> MigrateResult<()> {
            between(self.0.put_note(key, text)).await
        }

        async fn notes(&self, after: Option<&str>, limit: usize) -> MigrateResult<Vec<Note>> {
            self.0.notes(after, limit).await
        }

        fn sharing(&self) -> Option<&dyn Sharing> {
            self.0.sharing()
        }
    }

    async fn between<T>(operation: impl Future<Output = T>) -> T {
        point().await;
        let result = operation.await;
        point().await;
        result
    }

    async fn point() {
        let passed = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
        if passed == *STOP_AT {
            crate::console::remark(format!("stopped at point {passed}"));
        }
        if passed >= *STOP_AT {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn report() {
        if let Some(file) = std::env::var_os("MIGRATE_TEST_POINTS") {
            // If the test cannot read the file, it fails.
            let _ = std::fs::write(file, PASSED.load(Ordering::SeqCst).to_string());
        }
    }
}

#[cfg(debug_assertions)]
pub(crate) use points::{Points, journal, report};

/// The unchanged journal.
#[cfg(not(debug_assertions))]
pub(crate) fn journal<J: secret_persistence_migrate::Journal + 'static>(
    journal: std::sync::Arc<J>,
) -> std::sync::Arc<dyn secret_persistence_migrate::Journal> {
    journal
}

/// Does nothing.
#[cfg(not(debug_assertions))]
pub(crate) fn report() {}
