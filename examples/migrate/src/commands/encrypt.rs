//! `encrypt`: converts a plain table to an encrypted one in place, online, resumable.

use std::sync::atomic::{AtomicU64, Ordering};

use secret_persistence::Environment;
use secret_persistence::database::{EncryptOptions, Mode};
use serde_json::json;

use crate::cli::EncryptArgs;
use crate::console::Progress;
use crate::output::Output;
use crate::role::Role;
use crate::status::{Failure, Result, Status};
use crate::store::Described;

/// Runs it.
pub(crate) async fn run(
    args: EncryptArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    if !args.nothing_else_reads_it {
        return Err(Failure::undecided(
            "a reader without the key ring, including Airbyte itself, fails from the first converted row; \
            confirm with --nothing-else-reads-it that nothing else reads the table",
        ));
    }
    let described = Described::read(args.at.place(), Role::Store, environment)?;
    let config = described.database()?;
    if config.mode() == Mode::Plain {
        return Err(Failure::input(format!(
            "{config}: encrypt needs the key ring that the store will use; set SECRETS_KEYRING_FILE \
            and omit mode=plain (keygen creates a ring)"
        )));
    }
    let store = described.open_database().await?;
    let progress = Progress::begin("encrypt", None);
    let told = AtomicU64::new(0);
    let options = EncryptOptions::default()
        .with_nothing_else_reads(true)
        .with_rewrite(args.vacuum_full);
    let encrypted = store
        .encrypt(&options, &|now| {
            let before = told.swap(now.done, Ordering::Relaxed);
            progress.advance(now.done.saturating_sub(before));
        })
        .await;
    progress.finish();
    store.close().await;
    let encrypted = encrypted?;
    output.line(format!(
        "encrypt: {} rows converted; the table's files were {}",
        encrypted.converted,
        if encrypted.rewritten {
            "rewritten and no longer contain plain text"
        } else {
            "not rewritten: their free space may still contain old values (use --vacuum-full, or run again when nothing reads the table)"
        }
    ));
    for place in &encrypted.out_of_reach {
        output.line(format!("out of reach: {place}"));
    }
    output.object(
        Status::Done,
        &json!({
            "command": "encrypt",
            "converted": encrypted.converted,
            "rewritten": encrypted.rewritten,
            "out_of_reach": encrypted.out_of_reach,
        }),
    );
    Ok(Status::Done)
}
