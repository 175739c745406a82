//! `sweep`: deletes expired secrets of this installation.

use futures::TryStreamExt;
use secret_persistence::Environment;
use secret_persistence_core::{ListOptions, Owner, SecretPersistenceExt, Timestamp};
use serde_json::json;

use crate::cli::SweepArgs;
use crate::output::Output;
use crate::role::Role;
use crate::status::{Result, Status};
use crate::store::{Described, IfMissing, Store};

/// Runs it.
pub(crate) async fn run(
    args: SweepArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let store = Described::read(args.at.place(), Role::Store, environment)?
        .open(None, IfMissing::Refuse)
        .await?;
    let now = Timestamp::now();
    if args.dry_run {
        return preview(&store, now, output).await;
    }
    let owner = store.owner.as_ref().map(Owner::as_str);
    let sweep = store.store.sweep(now, owner).await?;
    let status = if sweep.failed.is_empty() {
        Status::Done
    } else {
        Status::Found
    };
    let failures: Vec<String> = sweep.failed.iter().map(ToString::to_string).collect();
    output.names(&failures);
    output.line(format!(
        "sweep: {} expired and deleted, {} of another installation kept, {} could not be deleted",
        sweep.deleted.len(),
        sweep.foreign.len(),
        sweep.failed.len()
    ));
    let names = |coordinates: &[secret_persistence_core::ManagedCoordinate]| {
        coordinates
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    output.object(
        status,
        &json!({
            "command": "sweep",
            "dry_run": false,
            "deleted": names(&sweep.deleted),
            "foreign": names(&sweep.foreign),
            "failures": failures,
        }),
    );
    Ok(status)
}

async fn preview(store: &Store, now: Timestamp, output: &Output) -> Result<Status> {
    let options = ListOptions::default().with_details(true);
    let mut listing = store.store.list(&options);
    let (mut deleted, mut foreign) = (Vec::new(), Vec::new());
    while let Some(entry) = listing.try_next().await? {
        let expired = entry.expires.is_some_and(|expires| expires <= now);
        if !expired || entry.pending_deletion {
            continue;
        }
        let ours = match (&entry.owner, &store.owner) {
            (None, _) => true,
            (Some(theirs), Some(ours)) => theirs == ours.as_str(),
            (Some(_), None) => false,
        };
        let list = if ours { &mut deleted } else { &mut foreign };
        list.push(entry.coordinate.to_string());
    }
    output.names(&deleted);
    output.line(format!(
        "sweep: dry run, nothing was changed; {} would be deleted, {} belong to another installation",
        deleted.len(),
        foreign.len()
    ));
    output.object(
        Status::Done,
        &json!({ "command": "sweep", "dry_run": true, "deleted": deleted, "foreign": foreign, "failures": [] }),
    );
    Ok(Status::Done)
}
