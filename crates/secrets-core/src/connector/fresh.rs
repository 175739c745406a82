//! Hydrates a row that may change concurrently.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;

use serde_json::Value;

use super::error::{ConnectorError, Problem};
use super::secret_json::SecretJson;
use super::secrets::ActingSecrets;

impl ActingSecrets {
    /// Reads a row and hydrates it. If secrets are gone because another change was committed in
    /// between, it reads the row again and, if its revision has changed, hydrates the new one, at
    /// most three times.
    ///
    /// `read_row` returns the revision and the saved configuration. The result contains the
    /// revision that was hydrated.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use secret_persistence_core::connector::{ConnectorOptions, ConnectorSecrets};
    /// # use secret_persistence_core::{Actor, Memory, SecretValue, Stores};
    /// # use serde_json::json;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let store = Memory::new();
    /// # store.insert("airbyte_workspace_1_secret_3_v2", SecretValue::new("new".to_owned()));
    /// # let stores = Stores::new(Arc::new(store));
    /// # let secrets = ConnectorSecrets::new(stores, ConnectorOptions::default())
    /// #     .acting_as(&Actor::new("job 7"));
    /// // Another change replaces the first row before its secret is read.
    /// let rows = [
    ///     (1, json!({"password": {"_secret": "airbyte_workspace_1_secret_2_v1"}})),
    ///     (2, json!({"password": {"_secret": "airbyte_workspace_1_secret_3_v2"}})),
    /// ];
    /// let mut rows = rows.into_iter();
    /// let read_row = || std::future::ready(rows.next().ok_or(std::io::Error::other("no row")));
    /// let (revision, full) = secrets.hydrate_fresh(read_row).await?;
    /// assert_eq!((revision, &full["password"]), (2, &json!("new")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`FreshError::Row`] if the row cannot be read; [`FreshError::Secrets`] if the last row that
    /// was read does not hydrate, as for [`hydrate`](Self::hydrate).
    pub async fn hydrate_fresh<R, E, F, Fut>(
        &self,
        mut read_row: F,
    ) -> Result<(R, SecretJson), FreshError<E>>
    where
        R: PartialEq,
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(R, Value), E>>,
    {
        let (mut revision, mut saved) = read_row().await.map_err(FreshError::Row)?;
        let mut rereads = Rereads::default();
        loop {
            let error = match self.hydrate(saved).await {
                Ok(full) => return Ok((revision, full)),
                Err(error) => error,
            };
            if !rereads.may_help(error.problems()) {
                return Err(FreshError::Secrets(error));
            }
            let (current, row) = read_row().await.map_err(FreshError::Row)?;
            if current == revision {
                // The row has not changed, so its secret is really missing.
                return Err(FreshError::Secrets(error));
            }
            (revision, saved) = (current, row);
        }
    }
}

/// How often a row with missing secrets is read again, because another change may have been
/// committed in between: at most three times.
#[derive(Clone, Debug, Default)]
pub struct Rereads(usize);

impl Rereads {
    /// Whether reading the row again may solve these problems: a secret is gone that a newer row
    /// may not need, and the row was not read too often. Counts the attempts.
    pub fn may_help(&mut self, problems: &[Problem]) -> bool {
        const MOST: usize = 3;
        let again = self.0 < MOST && problems.iter().any(Problem::is_gone);
        self.0 += usize::from(again);
        again
    }
}

/// Why a row was not hydrated.
#[derive(Clone, Debug)]
pub enum FreshError<E> {
    /// The row could not be read.
    Row(E),
    /// The row was read but does not hydrate.
    Secrets(ConnectorError),
}

impl<E: fmt::Display> fmt::Display for FreshError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(error) => error.fmt(f),
            Self::Secrets(error) => error.fmt(f),
        }
    }
}

impl<E: StdError + 'static> StdError for FreshError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Row(error) => error.source(),
            Self::Secrets(error) => error.source(),
        }
    }
}
