//! Whether a key ring is the one that the table was encrypted with: asked at open, before any write.
//!
//! The second table has a check value for every key that anything was ever written under. Only the
//! holder of a key can make its check value; taking it away forbids writing under the key.

use secret_persistence_core::{Error, ErrorKind, Result};

use crate::client::{Client, Filter};
use crate::config::Mode;
use crate::envelope::Binding;
use crate::keyring::{KeyId, KeyRing};

const PREFIX: &str = "check:";
const RETIRED: &str = "retired:";

/// How many rows are tried where a check value is missing.
const SAMPLE: usize = 8;

/// The entry with a key's check value.
pub(crate) fn entry(key_id: &str) -> String {
    format!("{PREFIX}{key_id}")
}

/// The entry that says that a key was retired, so that its id never comes back to life.
pub(crate) fn tombstone(id: &KeyId) -> String {
    format!("{RETIRED}{id}")
}

/// Refuses a ring that does not fit the table, and a table that does not fit the mode.
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

/// Where the check value is missing but rows name the key, as after a restore of one table alone,
/// one of the first rows has to open. Several, because one alone may be damaged.
async fn try_some_rows(client: &dyn Client, ring: &KeyRing, id: &KeyId) -> Result<()> {
    let rows = client
        .scan(&Filter::SealedUnder(id.to_string()), None, SAMPLE)
        .await?;
    let mut opened = rows.iter().filter_map(|row| {
        let sealed = row.content.as_ref().ok()?.to_sealed()?;
        let binding = Binding {
            coordinate: &row.coordinate,
            expires: row.expires,
        };
        Some(sealed.open(ring, binding).is_ok())
    });
    // Where no row is complete there is nothing to judge by, and nothing to open either.
    match opened.next() {
        None | Some(true) => Ok(()),
        Some(false) if opened.any(|opens| opens) => Ok(()),
        Some(false) => Err(wrong(format!(
            "rows name the key `{id}`, but the ring's key decrypts none of the first ones"
        ))
        .with_hint("use the key ring that belongs to this table")),
    }
}

/// Makes sure that the active key's check value is there, before anything is written under it.
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
    // Somebody else may have been first, with another key of the same id.
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

/// What a write under a key says whose check value has been taken away.
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
