//! `encrypt`: converts a plain table to an encrypted one in place, online, resumable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use secret_persistence::Environment;
use secret_persistence::database::{self, Database, EncryptOptions, Ended, Mode};
use secret_persistence_migrate::{Convert, ConvertJournal, ConvertReport};
use serde_json::json;

use super::converting;
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
    let options = EncryptOptions::default()
        .with_nothing_else_reads(true)
        .with_rewrite(args.vacuum_full);
    let journal = converting::journal(&args.shared, environment).await?;
    let store = described.open_database().await?;
    let report = match &journal {
        Some(journal) => shared(&store, &options, journal, &args, output).await,
        None => alone(&store, &options).await,
    };
    store.close().await;
    if let Some(journal) = journal {
        journal.close().await;
    }
    let report = report?;
    let files = match &report.ended {
        None => "",
        Some(ended) if ended.rewritten => {
            "; the table's files were rewritten and no longer contain plain text"
        }
        Some(_) => {
            "; the table's files were not rewritten: their free space may still contain old values (use \
             --vacuum-full, or run again when nothing reads the table)"
        }
    };
    output.line(format!(
        "encrypt: {} rows converted{files}",
        report.converted
    ));
    let out_of_reach = report.ended.iter().flat_map(|ended| &ended.out_of_reach);
    for place in out_of_reach.clone() {
        output.line(format!("out of reach: {place}"));
    }
    let status = converting::show(&report, output);
    output.object(
        status,
        &json!({
            "command": "encrypt",
            "converted": report.converted,
            "damaged": report.failures,
            "others_damaged": report.others_damaged,
            "rewritten": report.ended.as_ref().map(|ended| ended.rewritten),
            "out_of_reach": out_of_reach.collect::<Vec<_>>(),
            "stopped": report.stopped,
        }),
    );
    Ok(status)
}

async fn shared(
    store: &Database,
    options: &EncryptOptions,
    journal: &Arc<ConvertJournal>,
    args: &EncryptArgs,
    output: &Output,
) -> Result<ConvertReport> {
    let convert = Convert::encryption(store, options, Arc::clone(journal)).await?;
    converting::take_part(convert, &args.shared, "encrypt", output).await
}

async fn alone(store: &Database, options: &EncryptOptions) -> Result<ConvertReport> {
    let progress = Progress::begin("encrypt", None);
    let told = AtomicU64::new(0);
    let tell = |now: database::Progress| {
        let before = told.swap(now.done, Ordering::Relaxed);
        progress.advance(now.done.saturating_sub(before));
    };
    let encrypted = store.encrypt(options, &tell).await;
    progress.finish();
    let encrypted = encrypted?;
    let mut ended = Ended::default();
    ended.rewritten = encrypted.rewritten;
    ended.out_of_reach = encrypted.out_of_reach;
    Ok(converting::alone(
        encrypted.converted,
        &encrypted.damaged,
        ended,
    ))
}
