//! The rates that the processes with one journal share.
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use secret_persistence_core::rates::{Draw, SharedRates, Slice};
use secret_persistence_core::{Error, Result};
use tokio::time::{Instant, sleep};

use super::SqlJournal;
use crate::address::{self, Variables};
use crate::{MigrateResult, database};

impl SqlJournal {
    /// The source of rates in the database of a journal in Postgres, for
    /// [`MigrateOptions::with_shared_rates`](crate::MigrateOptions::with_shared_rates) and for stores that are
    /// opened with a limit. There is none for a file, which admits one process. Sends nothing yet.
    ///
    /// While the database does not answer, or refuses, draws wait for it as long as it takes, so a request has
    /// only the deadline of its caller: a process that went on alone would use what others may be using.
    /// `waiting` is told why, at once and then every thirty seconds. The journal itself waits for nothing: its
    /// next statement fails if the database refuses it.
    ///
    /// # Errors
    /// As [`open`](Self::open), for settings that cannot be used.
    pub fn rates(
        text: &str,
        variables: Variables<'_>,
        waiting: impl Fn(&Error) + Send + Sync + 'static,
    ) -> MigrateResult<Option<Arc<dyn SharedRates>>> {
        if !address::is_url(text) {
            return Ok(None);
        }
        let url = address::parse(text)?;
        let settings = database::settings(&url, database::SERVER, variables)?;
        if url.scheme() == "sqlite" {
            return Ok(None);
        }
        #[cfg(feature = "postgres")]
        {
            use secret_persistence_db::{PostgresOptions, PostgresRates};

            use crate::MigrateError;

            let options = PostgresOptions::from_settings(&settings)
                .map_err(|error| MigrateError::of_setting(error).within(&url))?;
            let rates = Arc::new(PostgresRates::new(&options));
            Ok(Some(Arc::new(Patient::new(rates, waiting))))
        }
        #[cfg(not(feature = "postgres"))]
        {
            let _ = (settings, waiting);
            Ok(None)
        }
    }
}

/// When the source is asked again after it has failed.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a caller is told that it waits.
const TOLD: Duration = Duration::from_secs(30);

/// A source that does not fail, but waits until it can be used.
#[cfg_attr(not(feature = "postgres"), allow(dead_code))]
struct Patient<W> {
    rates: Arc<dyn SharedRates>,
    waiting: W,
    told: Mutex<Option<Instant>>,
}

#[cfg_attr(not(feature = "postgres"), allow(dead_code))]
impl<W: Fn(&Error)> Patient<W> {
    fn new(rates: Arc<dyn SharedRates>, waiting: W) -> Self {
        Self {
            rates,
            waiting,
            told: Mutex::default(),
        }
    }

    fn tell(&self, error: &Error) {
        let mut told = self.told.lock();
        if told.is_none_or(|told| told.elapsed() >= TOLD) {
            *told = Some(Instant::now());
            (self.waiting)(error);
        }
    }
}

#[async_trait]
impl<W: Fn(&Error) + Send + Sync + 'static> SharedRates for Patient<W> {
    async fn draw(&self, draw: &Draw) -> Result<Slice> {
        loop {
            match self.rates.draw(draw).await {
                Ok(slice) => return Ok(slice),
                Err(error) => self.tell(&error),
            }
            sleep(AGAIN).await;
        }
    }
}

impl<W> fmt::Debug for Patient<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patient")
            .field("rates", &self.rates)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use secret_persistence_core::ErrorKind;
    use secret_persistence_core::layer::{ClassLimit, Layers, LimitOptions, Stack};
    use secret_persistence_core::{Coordinate, Memory, SecretPersistenceExt};

    use super::*;

    /// Away for a minute.
    #[derive(Debug)]
    struct Away(Instant);

    #[async_trait]
    impl SharedRates for Away {
        async fn draw(&self, _: &Draw) -> Result<Slice> {
            let now = self.0.elapsed();
            match now > Duration::from_secs(60) {
                true => Ok(Slice::new(now, now, Duration::ZERO)),
                false => Err(Error::new(ErrorKind::Unavailable, "away")),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_database_requests_wait_and_that_is_said() {
        let told = Arc::new(AtomicUsize::new(0));
        let tells = Arc::clone(&told);
        let away = Arc::new(Away(Instant::now()));
        let rates = Patient::new(away, move |error: &Error| {
            assert_eq!(error.message(), "away");
            tells.fetch_add(1, Ordering::Relaxed);
        });
        let limit = LimitOptions::default().with_read(ClassLimit {
            concurrency: 8,
            per_second: 100.0,
        });
        let stack = Stack::over(Arc::new(Memory::new()))
            .with_limit(limit)
            .with_shared_rates(Arc::new(rates), 1);
        let store = Layers::over(stack).build();
        let began = Instant::now();
        let name: Coordinate = "airbyte_workspace_1_secret_2_v1".parse().unwrap();
        store.read(&name).await.unwrap_err();
        let waited = began.elapsed();
        assert!(waited > Duration::from_secs(60), "{waited:?}");
        assert!(waited < Duration::from_secs(63), "{waited:?}");
        assert_eq!(told.load(Ordering::Relaxed), 3);
    }
}
