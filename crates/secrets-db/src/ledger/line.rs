//! One line of the ledger: its text, its digest, and the keys that make digests.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secret_persistence_core::{AuditEvent, Error, ErrorKind, Result, StorageId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::cipher::Mac;
use crate::keyring::{KeyId, KeyRing};

const PURPOSE: &str = "secret-persistence-db 1 ledger";

/// What stands between a line's members and its digest, and after the digest.
const BEFORE_DIGEST: &str = ",\"digest\":\"";
const AFTER_DIGEST: &str = "\"}";

/// The characters of a digest: 32 bytes in base64url without padding.
const DIGEST_CHARS: usize = 43;

/// `previous` of a chain's first line.
pub(super) const BEGINNING: &str = "";

/// A line of the ledger, as a program that searches it needs it.
///
/// Its text is a JSON object with the members below, in this order, without those that are `None` or
/// empty; `digest` is the last. The digest is over the text before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LedgerLine {
    /// The chain: a UUID of the process that wrote it.
    pub writer: String,
    /// The position in the chain, from 1.
    pub sequence: i64,
    /// When the store answered.
    pub at: Timestamp,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// What: `read`, `write`, `delete`, and with the gateway `describe` and `restore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The name of the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinate: Option<String>,
    /// The storage, if it is not the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_id: Option<String>,
    /// The places of the configuration, as JSON Pointers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<String>,
    /// How many places were left out, because the text of all would be too long.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub places_omitted: usize,
    /// `ok`, or the kind of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The beginning of the chain that was pruned: such a line is in the place of its last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned: Option<PrunedLines>,
    /// The key of the digest.
    pub key: String,
    /// The digest of the line before; empty for the first one. Of pruned lines, the digest of the
    /// last one.
    pub previous: String,
}

/// What a prune removed from the beginning of a chain, in all prunes together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PrunedLines {
    /// How many.
    pub lines: i64,
    /// The latest time of them.
    pub last: Timestamp,
}

impl LedgerLine {
    /// The line of an event, before its digest.
    fn of(event: &AuditEvent, head: &Head, key: &KeyId) -> Self {
        Self {
            writer: head.writer.clone(),
            sequence: head.sequence + 1,
            at: event.at,
            actor: Some(event.actor.as_str().into()),
            operation: Some(event.operation.as_str().into()),
            coordinate: Some(event.location.coordinate.as_str().into()),
            storage_id: event
                .location
                .storage_id
                .as_ref()
                .map(StorageId::as_str)
                .map(Into::into),
            places: event
                .places
                .iter()
                .map(|place| place.as_str().into())
                .collect(),
            places_omitted: event.places_omitted,
            outcome: Some(event.failure.map_or("ok", ErrorKind::as_str).into()),
            request: event.request.as_deref().map(Into::into),
            pruned: None,
            key: key.as_str().into(),
            previous: head.digest.as_str().into(),
        }
    }
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// The last line of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) writer: String,
    pub(super) sequence: i64,
    pub(super) digest: String,
}

impl Head {
    /// A new chain.
    pub(super) fn new() -> Self {
        Self {
            writer: uuid::Uuid::new_v4().to_string(),
            sequence: 0,
            digest: BEGINNING.to_owned(),
        }
    }
}

/// A line as it is stored: its text, and the columns by which it is found.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) writer: String,
    pub(super) sequence: i64,
    /// Seconds since 1970.
    pub(super) at: i64,
    /// Empty for a prune.
    pub(super) coordinate: String,
    pub(super) text: String,
    /// Whether the chain can be cut after it: in a folder, only at the end of a file.
    pub(super) separable: bool,
}

/// The keys of a key ring, derived for the ledger.
#[derive(Clone)]
pub(super) struct Keys {
    keys: HashMap<String, Mac>,
    active: KeyId,
}

impl Keys {
    pub(super) fn of(ring: &KeyRing) -> Self {
        let derived = |id: &KeyId| Some((id.as_str().into(), ring.derive(id, PURPOSE)?));
        Self {
            keys: ring.ids().filter_map(derived).collect(),
            active: ring.active().clone(),
        }
    }

    /// Writes the next line of a chain, and moves its head.
    pub(super) fn append(&self, head: &mut Head, event: &AuditEvent) -> Result<Stored> {
        let (stored, digest) = self.sign(&LedgerLine::of(event, head, &self.active))?;
        head.sequence = stored.sequence;
        head.digest = digest;
        Ok(stored)
    }

    /// The text of a line that has everything but the digest, and its digest.
    pub(super) fn sign(&self, line: &LedgerLine) -> Result<(Stored, String)> {
        let mut text = serde_json::to_string(line).map_err(|_| unwritable())?;
        // The digest is the last member.
        text.pop();
        let digest = self.digest(&line.key, &text).ok_or_else(unwritable)?;
        for part in [BEFORE_DIGEST, &digest, AFTER_DIGEST] {
            text.push_str(part);
        }
        let stored = Stored {
            writer: line.writer.clone(),
            sequence: line.sequence,
            at: line.at.unix_seconds(),
            coordinate: line.coordinate.as_deref().unwrap_or_default().to_owned(),
            text,
            separable: true,
        };
        Ok((stored, digest))
    }

    /// Reads a line, and checks its digest.
    pub(super) fn check(&self, text: &str) -> Checked {
        let Some((line, digest, signed)) = parse(text) else {
            return Checked::Unreadable;
        };
        match self.verifies(&line.key, signed, &digest) {
            Some(true) => Checked::Genuine(line, digest),
            Some(false) => Checked::Altered(line, digest),
            None => Checked::UnknownKey(line, digest),
        }
    }

    /// The id of the key that signs.
    pub(super) fn active(&self) -> String {
        self.active.as_str().into()
    }

    /// The digest of a text; `None` without the key.
    pub(super) fn digest(&self, key: &str, text: &str) -> Option<String> {
        let tag = self.keys.get(key)?.sign(text.as_bytes());
        Some(URL_SAFE_NO_PAD.encode(tag))
    }

    /// Whether a digest is that of a text; `None` without the key.
    pub(super) fn verifies(&self, key: &str, text: &str, digest: &str) -> Option<bool> {
        let mac = self.keys.get(key)?;
        let tag = URL_SAFE_NO_PAD.decode(digest);
        Some(tag.is_ok_and(|tag| mac.verifies(text.as_bytes(), &tag)))
    }
}

/// A line that was read, with its digest.
pub(super) enum Checked {
    Genuine(LedgerLine, String),
    /// The digest is not that of the text.
    Altered(LedgerLine, String),
    /// The ring does not have its key.
    UnknownKey(LedgerLine, String),
    /// Not a line of the ledger.
    Unreadable,
}

/// The line, its digest, and the text that the digest is over.
fn parse(text: &str) -> Option<(LedgerLine, String, &str)> {
    let rest = text.strip_suffix(AFTER_DIGEST)?;
    let (rest, digest) = rest.split_at_checked(rest.len().checked_sub(DIGEST_CHARS)?)?;
    let signed = rest.strip_suffix(BEFORE_DIGEST)?;
    let line = serde_json::from_str(&format!("{signed}}}")).ok()?;
    Some((line, digest.to_owned(), signed))
}

fn unwritable() -> Error {
    Error::new(
        ErrorKind::Unexpected,
        "a line of the ledger cannot be written",
    )
}
