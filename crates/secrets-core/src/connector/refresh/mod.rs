//! Exchanges a token that may be used once for the next one, once over all processes.

mod adopt;
mod edit;
mod heal;
mod proofs;
mod record;
mod replace;
mod request;
mod row;
mod rows;
mod run;

use std::error::Error as StdError;
use std::fmt;

use serde_json::Value;

pub use heal::HealedRefreshes;
pub(super) use proofs::Proofs;
pub use record::{RefreshRecord, RefreshTarget};
pub use request::Refresh;
pub use rows::{Ended, Lease, RefreshRows, RefreshSaved, Taken};

use super::error::ConnectorError;
use super::place::Place;
use crate::SecretValue;

/// The values of secret places.
pub type PlacedValues = Vec<(Place, SecretValue)>;

/// The outcome of a refresh: what the row now has.
#[derive(Clone)]
#[non_exhaustive]
pub struct Refreshed {
    /// The row's revision.
    pub revision: i64,
    /// The row's configuration, with pointers: the `saved` of the next [`Refresh`].
    pub config: Value,
    /// The values of the requested places that have one.
    pub values: PlacedValues,
    /// Whether this call brought the values; otherwise another call, another process or a person
    /// did.
    pub ours: bool,
}

impl Refreshed {
    /// The value of a place.
    #[must_use]
    pub fn value(&self, place: &Place) -> Option<&SecretValue> {
        let found = self.values.iter().find(|(found, _)| found == place);
        found.map(|(_, value)| value)
    }
}

/// Without the configuration, because rows of old versions contain raw secrets.
impl fmt::Debug for Refreshed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refreshed")
            .field("revision", &self.revision)
            .field("values", &self.values)
            .field("ours", &self.ours)
            .finish_non_exhaustive()
    }
}

/// Why a refresh failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RefreshError<E> {
    /// Another process held the lease for longer than [`Refresh::with_patience`] allows. `exchange`
    /// was not called.
    Busy,
    /// A secret could not be read or written, or a place is not what a refresh needs. After a failed
    /// write the record remains: what was written is adopted later.
    Connector(ConnectorError),
    /// The exchange failed. Nothing has changed.
    Exchange(E),
    /// This process was suspended until its lease had expired, or its runtime is shutting down. What
    /// was written is adopted later.
    Interrupted,
    /// There is no such row.
    Missing,
    /// The caller's database failed. What was written is adopted later.
    Rows(crate::Error),
    /// The exchange did not end in time and was dropped. Whether the provider has used the old
    /// token is unknown.
    TimedOut,
    /// Every save found that the row had moved, or changed nothing: its table refuses updates without
    /// an error (a trigger, a row policy), or other saves leave no gap. The new values are in the
    /// store, and are adopted once the row can be saved.
    Unsaved,
}

impl<E: fmt::Display> fmt::Display for RefreshError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("another process is refreshing this row; try again"),
            Self::Connector(error) => error.fmt(f),
            Self::Exchange(error) => error.fmt(f),
            Self::Interrupted => f.write_str("the refresh was interrupted; try again"),
            Self::Missing => f.write_str("the row to refresh does not exist"),
            Self::Rows(error) => error.fmt(f),
            Self::TimedOut => f.write_str("the exchange did not end in time"),
            Self::Unsaved => f.write_str(
                "the row takes no update; look for a trigger or a row policy that refuses it, or for \
                 saves that never pause. The new values are in the store: the next refresh or healer \
                 puts them into the row",
            ),
        }
    }
}

impl<E: StdError + 'static> StdError for RefreshError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Connector(error) => error.source(),
            Self::Exchange(error) => error.source(),
            Self::Rows(error) => error.source(),
            Self::Busy | Self::Interrupted | Self::Missing | Self::TimedOut | Self::Unsaved => None,
        }
    }
}

impl<E> From<ConnectorError> for RefreshError<E> {
    fn from(error: ConnectorError) -> Self {
        Self::Connector(error)
    }
}

impl<E> From<crate::Error> for RefreshError<E> {
    fn from(error: crate::Error) -> Self {
        Self::Rows(error)
    }
}
