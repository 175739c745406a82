//! What an inventory lists, and what it counted.

use secret_persistence_core::Timestamp;
use serde::Serialize;

/// One secret at one place of one configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SecretAt {
    /// The configuration: its source and its id there.
    pub configuration: String,
    /// The place in the configuration, as a JSON pointer (`/credentials/0/password`); empty for a bare coordinate.
    pub place: String,
    /// The base id of the row, as a rule the workspace, if the source has it.
    pub base_id: Option<String>,
    /// The name of the secret; `None` if the place is unreadable.
    pub coordinate: Option<String>,
    /// The storage id that the configuration or the reference names.
    pub storage: Option<String>,
    /// What is known about it.
    pub standing: Standing,
    /// When the value was written, if the store records it.
    pub created: Option<Timestamp>,
    /// Seconds since then; 0 if the store's clock is ahead.
    pub age_seconds: Option<u64>,
    /// When it may be deleted, if ever.
    pub expires: Option<Timestamp>,
    /// The installation that wrote it, if the store records it.
    pub owner: Option<String>,
    /// What the [history](crate::Inventory::with_history) knows; without one `None`, and no fields in JSON.
    #[serde(flatten)]
    pub reads: Option<Reads>,
    /// Why nothing is known about it, if something failed.
    pub detail: Option<String>,
}

/// What is known about the reads of a secret, by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Reads {
    /// When a value was last handed out. `None` says only that no such read was recorded since `reads_since`.
    pub last_read: Option<Timestamp>,
    /// To whom.
    pub last_reader: Option<String>,
    /// Whether the record of that read is genuine; one that is not says nothing for certain.
    pub last_read_genuine: Option<bool>,
    /// From when on the history knows every read that was [recorded](secret_persistence_core::LastReads::since); `None` if nobody
    /// can tell. A secret that was created later may have been read before: a copy gives it the time of the
    /// copy.
    pub reads_since: Option<Timestamp>,
}

impl Reads {
    /// Whether no read was recorded since `reads_since`.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.last_read.is_none() && self.reads_since.is_some()
    }
}

/// What is known about a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Standing {
    /// In another storage, which is not asked.
    Elsewhere,
    /// A name that others manage, which the store is not asked about.
    External,
    /// The store does not have it.
    Missing,
    /// Scheduled for deletion.
    PendingDeletion,
    /// The store has it.
    Present,
    /// It was scheduled for deletion, and this run has restored it.
    Restored,
    /// The store failed to describe it.
    Undescribed,
    /// The place does not say which secret it is. A configuration with a malformed pointer lists
    /// only its malformed ones: none of its other places is known.
    Unreadable,
}

impl Standing {
    /// The standing in `snake_case`, stable, for reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Elsewhere => "elsewhere",
            Self::External => "external",
            Self::Missing => "missing",
            Self::PendingDeletion => "pending_deletion",
            Self::Present => "present",
            Self::Restored => "restored",
            Self::Undescribed => "undescribed",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What an [`Inventory`](crate::Inventory) counted. Everything after `places` counts listed secrets only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InventoryReport {
    /// Rows that were read.
    pub configurations: u64,
    /// Places with a pointer, and bare coordinates.
    pub places: u64,
    /// Secrets that meet the conditions, once for each place.
    pub listed: u64,
    /// Of those, without a known creation time.
    pub unknown_age: u64,
    /// Of those, [unread](Reads::is_unread) since `reads_since`; `None` without a history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub never_read: Option<u64>,
    /// Of those, with a last read whose record is not genuine; `None` without a history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_genuine: Option<u64>,
    /// The latest `reads_since` of those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads_since: Option<Timestamp>,
    /// Of those, [`Standing::Elsewhere`].
    pub elsewhere: u64,
    /// Of those, [`Standing::External`].
    pub external: u64,
    /// Of those, [`Standing::Missing`].
    pub missing: u64,
    /// Of those, [`Standing::PendingDeletion`].
    pub pending_deletion: u64,
    /// Of those, [`Standing::Restored`].
    pub restored: u64,
    /// Of those, [`Standing::Undescribed`].
    pub undescribed: u64,
    /// Of those, [`Standing::Unreadable`].
    pub unreadable: u64,
    /// Whether the run was stopped before it had read everything.
    pub stopped: bool,
}

impl InventoryReport {
    /// Whether everything was read, every secret could be identified and described, and the record of
    /// every last read is genuine.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.stopped
            && self.undescribed == 0
            && self.unreadable == 0
            && self.not_genuine.unwrap_or_default() == 0
    }
}
