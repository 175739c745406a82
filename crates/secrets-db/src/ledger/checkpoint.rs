//! The last line of every chain at one moment, to be kept somewhere else.

use secret_persistence_core::{Error, ErrorKind, Result, Timestamp};
use serde::{Deserialize, Serialize};

use super::line::{Head, Keys};

const FORMAT: u32 = 1;

/// What a ledger had at one moment: the position and digest of the last line of every chain, with a
/// digest over all of it.
///
/// Keep it where those who can write the ledger cannot. A verification with it finds what is
/// missing at the end of a chain, a chain that is missing whole, and lines that were written anew
/// with the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    format: u32,
    at: Timestamp,
    pub(super) chains: Vec<Head>,
    key: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    digest: String,
}

impl Checkpoint {
    /// When it was made.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// How many chains it has.
    #[must_use]
    pub fn chains(&self) -> usize {
        self.chains.len()
    }

    /// Its text: one line of JSON.
    ///
    /// # Errors
    /// None in practice; serialisation has an error.
    pub fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|_| unreadable())
    }

    pub(super) fn of(chains: Vec<Head>, keys: &Keys) -> Result<Self> {
        let mut checkpoint = Self {
            format: FORMAT,
            at: Timestamp::now(),
            chains,
            key: keys.active(),
            digest: String::new(),
        };
        let digest = keys.digest(&checkpoint.key, &checkpoint.to_text()?);
        checkpoint.digest = digest.ok_or_else(unreadable)?;
        Ok(checkpoint)
    }

    /// Reads a text, and checks its digest.
    pub(super) fn parse(text: &str, keys: &Keys) -> Result<Self> {
        let checkpoint: Self = serde_json::from_str(text).map_err(|_| unreadable())?;
        let mut unsigned = checkpoint.clone();
        let digest = std::mem::take(&mut unsigned.digest);
        match keys.verifies(&unsigned.key, &unsigned.to_text()?, &digest) {
            Some(true) if checkpoint.format == FORMAT => Ok(checkpoint),
            Some(_) => Err(unreadable()),
            None => Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "the key ring does not have the checkpoint's key `{}`",
                    unsigned.key
                ),
            )
            .with_hint("use the key ring of the ledger, with its old keys")),
        }
    }
}

fn unreadable() -> Error {
    Error::new(
        ErrorKind::Integrity,
        "this is not a checkpoint of this ledger: it was changed, or made with another key",
    )
}
