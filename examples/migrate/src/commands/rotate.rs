//! `rotate`: wraps every data key with the active key, or generates new data keys; online,
//! resumable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use secret_persistence::Environment;
use secret_persistence::database::{self, Database, Ended, RotateOptions};
use secret_persistence_migrate::{Convert, ConvertJournal, ConvertReport};
use serde_json::json;

use super::converting;
use crate::cli::RotateArgs;
use crate::console::Progress;
use crate::output::Output;
use crate::role::Role;
use crate::status::{Result, Status};
use crate::store::Described;

/// Runs it.
pub(crate) async fn run(
    args: RotateArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let described = Described::read(args.at.place(), Role::Store, environment)?;
    let options = RotateOptions::default().with_reencrypt(args.reencrypt);
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
    output.line(format!(
        "rotate: {} rows {} the active key",
        report.converted,
        if args.reencrypt {
            "encrypted again with"
        } else {
            "rewrapped with"
        }
    ));
    let status = converting::show(&report, output);
    output.object(
        status,
        &json!({
            "command": "rotate",
            "rotated": report.converted,
            "reencrypt": args.reencrypt,
            "damaged": report.failures,
            "others_damaged": report.others_damaged,
            "stopped": report.stopped,
        }),
    );
    Ok(status)
}

async fn shared(
    store: &Database,
    options: &RotateOptions,
    journal: &Arc<ConvertJournal>,
    args: &RotateArgs,
    output: &Output,
) -> Result<ConvertReport> {
    let convert = Convert::rotation(store, options, Arc::clone(journal)).await?;
    converting::take_part(convert, &args.shared, "rotate", output).await
}

async fn alone(store: &Database, options: &RotateOptions) -> Result<ConvertReport> {
    let progress = Progress::begin("rotate", None);
    let told = AtomicU64::new(0);
    let tell = |now: database::Progress| {
        let before = told.swap(now.done, Ordering::Relaxed);
        progress.advance(now.done.saturating_sub(before));
    };
    let rotated = store.rotate(options, &tell).await;
    progress.finish();
    let rotated = rotated?;
    Ok(converting::alone(
        rotated.rotated,
        &rotated.damaged,
        Ended::default(),
    ))
}
