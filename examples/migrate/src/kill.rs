//! Points at which a test stops the process: every store operation and every journal write, before
//! and after. Test-only: a release build has neither the points nor the variables.
//!
//! `MIGRATE_TEST_STOP_AT=<k>` makes the process say so on standard error when it comes to the k-th
//! point, and go no further, until the test kills it. `MIGRATE_TEST_POINTS=<file>` writes how many
//! points a whole run has.

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

        async fn delete(
            &self,
            coordinate: &ManagedCoordinate,
            options: &DeleteOptions,
        ) -> Result<()> {
            between(self.0.delete(coordinate, options)).await
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

    async fn between<T>(operation: impl Future<Output = T>) -> T {
        point().await;
        let result = operation.await;
        point().await;
        result
    }

    pub(crate) async fn point() {
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
            // A test that cannot read the file fails by itself.
            let _ = std::fs::write(file, PASSED.load(Ordering::SeqCst).to_string());
        }
    }
}

#[cfg(debug_assertions)]
pub(crate) use points::{Points, point, report};

/// Does nothing.
#[cfg(not(debug_assertions))]
pub(crate) async fn point() {}

/// Does nothing.
#[cfg(not(debug_assertions))]
pub(crate) fn report() {}
