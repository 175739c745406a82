//! What splitting a configuration comes to, before anything is written.

use std::fmt;

use serde_json::Value;

use super::place::Place;
use super::pointer::Pointer;
use crate::{ManagedCoordinate, SecretValue};

/// A configuration with its pointers in place, and what has to be written for them.
#[non_exhaustive]
pub struct SplitPlan {
    /// The configuration to save, once everything is written.
    pub config: Value,
    /// The secrets to write, all under new names, to the storage of the policy.
    pub writes: Vec<PlannedWrite>,
    /// Managed pointers of the scope that the saved configuration has and this one has not.
    pub superseded: Vec<Pointer>,
    /// References that the saved configuration has and this one has not. The rows belong to the
    /// caller, and so do the secrets they name.
    pub released_references: Vec<(Place, Pointer)>,
}

impl fmt::Debug for SplitPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SplitPlan")
            .field("writes", &self.writes)
            .field("superseded", &self.superseded)
            .field("released_references", &self.released_references)
            .finish_non_exhaustive()
    }
}

/// One secret to write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedWrite {
    /// Where its pointer stands.
    pub place: Place,
    /// Its name, new.
    pub coordinate: ManagedCoordinate,
    /// Its text.
    pub value: SecretValue,
}
