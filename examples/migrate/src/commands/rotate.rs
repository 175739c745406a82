//! `rotate`: wraps every data key with the active key, or generates new data keys; online,
//! resumable.

use std::sync::atomic::{AtomicU64, Ordering};

use secret_persistence::Environment;
use secret_persistence::database::RotateOptions;
use serde_json::json;

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
    let store = Described::read(args.at.place(), Role::Store, environment)?
        .open_database()
        .await?;
    let progress = Progress::begin("rotate", None);
    let told = AtomicU64::new(0);
    let options = RotateOptions::default().with_reencrypt(args.reencrypt);
    let rotated = store
        .rotate(&options, &|now| {
            let before = told.swap(now.done, Ordering::Relaxed);
            progress.advance(now.done.saturating_sub(before));
        })
        .await;
    progress.finish();
    store.close().await;
    let rotated = rotated?;
    output.line(format!(
        "rotate: {} rows {} the active key",
        rotated.rotated,
        if args.reencrypt {
            "encrypted again with"
        } else {
            "rewrapped with"
        }
    ));
    let damaged: Vec<String> = rotated.damaged.iter().map(ToString::to_string).collect();
    if !damaged.is_empty() {
        output.line(format!("{:>10}  damaged and unchanged", damaged.len()));
        output.names(&damaged);
    }
    let status = if damaged.is_empty() {
        Status::Done
    } else {
        Status::Found
    };
    output.object(
        status,
        &json!({
            "command": "rotate",
            "rotated": rotated.rotated,
            "reencrypt": args.reencrypt,
            "damaged": damaged,
        }),
    );
    Ok(status)
}
