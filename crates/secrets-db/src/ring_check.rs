//! Checks at opening, before any write, that the key ring matches the table.
//!
//! The second table contains a check value for every key that was ever used to write. Only the
//! holder of a key can create its check value. Removing it forbids writing with the key.

use secret_persistence_core::{Error, ErrorKind, Result};

use crate::client::{Client, Filter};
use crate::config::Mode;
use crate::envelope::Binding;
use crate::keyring::{KeyId, KeyRing};

const PREFIX: &str = "check:";
const RETIRED: &str = "retired:";

/// The number of rows to try if a check value is missing.
const SAMPLE: usize = 8;

/// The entry of a key's check value.
pub(crate) fn entry(key_id: &str) -> String {
    format!("{PREFIX}{key_id}")
}

/// The entry of a retired key, so that its id is never used again.
pub(crate) fn tombstone(id: &KeyId) -> String {
    format!("{RETIRED}{id}")
}

/// Refuses a ring that does not match the table, and a table that does not match the mode.
pub(crate) async fn at_open(client: &dyn Client, mode: Mode, ring: Option<&KeyRing>) -> Result<()> {
    let entries = client.meta().await?;
    let checks: Vec<(KeyId, &[u8])> = entries
        .iter()
        .filter_map(|(name, value)| {
            let id = name.strip_prefix(PREFIX)?.parse().ok()?;
            Some((id, value.as_slice()))
        })
        .collect();
    let ring = match (mode, ring) {
        (Mode::Plain, _) | (_, None) => {
            return if checks.is_empty() {
                Ok(())
            } else {
                Err(
                    wrong("the table is encrypted, but the store is configured as plain")
                        .with_hint(
                            "set SECRETS_KEYRING_FILE or SECRETS_KEYRING, and mode=encrypted",
                        ),
                )
            };
        }
        (_, Some(ring)) => ring,
    };
    for (id, value) in &checks {
        if ring.contains(id) {
            if !ring.recognises(id, value) {
                return Err(wrong(format!(
                    "the ring's key `{id}` is not the one that encrypted the table"
                ))
                .with_hint("use the key ring that belongs to this table"));
            }
        } else if client.count(&Filter::SealedUnder(id.to_string())).await? > 0 {
            return Err(wrong(format!(
                "rows are encrypted with `{id}`, which is missing in the ring"
            ))
            .with_hint("use the key ring that belongs to this table, with all its keys"));
        }
    }
    for id in ring.ids() {
        if !checks.iter().any(|(known, _)| known == id) {
            try_some_rows(client, ring, id).await?;
        }
    }
    Ok(())
}

/// If the check value is missing but rows name the key, as after a restore of only one table, at
/// least one of the first rows must decrypt. One row would not suffice, because it may be damaged.
async fn try_some_rows(client: &dyn Client, ring: &KeyRing, id: &KeyId) -> Result<()> {
    let rows = client
        .scan(&Filter::SealedUnder(id.to_string()), None, None, SAMPLE)
        .await?;
    let mut opened = rows.iter().filter_map(|(coordinate, row)| {
        let sealed = row.content.as_ref().ok()?.to_sealed()?;
        let binding = Binding {
            coordinate,
            expires: row.expires,
        };
        Some(sealed.open(ring, binding).is_ok())
    });
    // If no row is complete, there is nothing to check and nothing to decrypt.
    match opened.next() {
        None | Some(true) => Ok(()),
        Some(false) if opened.any(|opens| opens) => Ok(()),
        Some(false) => Err(wrong(format!(
            "rows name the key `{id}`, but the ring's key decrypts none of the first ones"
        ))
        .with_hint("use the key ring that belongs to this table")),
    }
}

/// Ensures that the active key's check value exists before anything is written with the key.
pub(crate) async fn register(client: &dyn Client, ring: &KeyRing) -> Result<()> {
    let name = entry(ring.active().as_str());
    let tombstone = tombstone(ring.active());
    if client
        .meta()
        .await?
        .iter()
        .any(|(known, _)| *known == tombstone)
    {
        return Err(retired(ring.active()));
    }
    let value = ring.check_value(ring.active())?.unwrap_or_default();
    client.put_meta(&name, &value, false).await?;
    // Another process may have been first, with another key of the same id.
    let entries = client.meta().await?;
    match entries.iter().find(|(known, _)| *known == name) {
        Some((_, value)) if ring.recognises(ring.active(), value) => Ok(()),
        _ => Err(wrong(format!(
            "the ring's key `{}` is not the one that encrypted the table",
            ring.active()
        ))
        .with_hint("use the key ring that belongs to this table")),
    }
}

/// The error for a write with a key whose check value was removed.
pub(crate) fn retired(id: &KeyId) -> Error {
    wrong(format!(
        "the key `{id}` has been retired while it was still active here"
    ))
    .with_hint("restart with the new key ring")
}

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("the key ring does not match: {what}"),
    )
}
