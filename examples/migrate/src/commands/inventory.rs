//! `ages`, `affected` and `restore`: how old each connector's secrets are, which to issue again after a
//! leak, and which to undelete or enter again after configurations were restored.

mod list;

use std::ops::ControlFlow;
use std::sync::Arc;

use secret_persistence::Environment;
use secret_persistence_core::Timestamp;
use secret_persistence_migrate::{Access, Inventory, InventoryReport, SecretFilter};

use self::list::List;
use super::ledger;
use super::moving::paced;
use crate::cli::{AffectedArgs, AgesArgs, InventoryArgs, RestoreArgs};
use crate::configs;
use crate::console::remark;
use crate::interrupt;
use crate::output::Output;
use crate::role::Role;
use crate::status::{Failure, Result, Status, chain};
use crate::store::{Described, IfMissing};

/// `ages`.
pub(crate) async fn ages(
    args: AgesArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let now = Timestamp::now();
    let mut filter = SecretFilter::default();
    filter.created_until = args.older_than.map(|age| now.saturating_sub(age));
    filter.expires_until = args.expiring_within.map(|span| now.saturating_add(span));
    filter.never_read = args.never_read;
    let ask = Ask::new("ages", filter).with_ledger(args.history.ledger);
    run(ask, &args.of, environment, output).await
}

/// `affected`.
pub(crate) async fn affected(
    args: AffectedArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let mut filter = SecretFilter::default();
    filter.created_from = args.since;
    filter.created_until = args.until;
    filter.in_store = args.in_store;
    if let (Some(since), Some(until)) = (args.since, args.until)
        && since > until
    {
        return Err(Failure::input("--since is after --until"));
    }
    let ask = Ask::new("affected", filter).with_ledger(args.history.ledger);
    run(ask, &args.of, environment, output).await
}

/// `restore`.
pub(crate) async fn restore(
    args: RestoreArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let mut filter = SecretFilter::default();
    filter.not_present = true;
    let mut ask = Ask::new("restore", filter);
    ask.restores = !args.dry_run;
    run(ask, &args.of, environment, output).await
}

/// What a command asks for.
struct Ask {
    command: &'static str,
    filter: SecretFilter,
    restores: bool,
    /// The address of the ledger that knows who read what.
    ledger: Option<String>,
}

impl Ask {
    fn new(command: &'static str, filter: SecretFilter) -> Self {
        Self {
            command,
            filter,
            restores: false,
            ledger: None,
        }
    }

    fn with_ledger(mut self, ledger: Option<String>) -> Self {
        self.ledger = ledger;
        self
    }
}

async fn run(
    ask: Ask,
    args: &InventoryArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let Ask {
        command,
        mut filter,
        restores,
        ledger,
    } = ask;
    filter.workspaces = args.workspaces.iter().copied().collect();
    let store = Described::read(args.at.place(), Role::Store, environment)?;
    let sources = configs::open(&args.configs.sources, environment, Access::ReadOnly).await?;
    let references = configs::references(args.configs.references.as_deref(), environment).await?;
    let history = match &ledger {
        Some(ledger) => Some(ledger::open(ledger, environment).await?),
        None => None,
    };
    let store = store.open(args.pace.rate, IfMissing::Refuse).await?;
    let mut inventory = Inventory::new(store.store)
        .with_filter(filter)
        .with_restoring(restores)
        .with_options(paced(&args.pace, output))
        .with_cancellation(interrupt::watch());
    for id in &args.storage_ids {
        inventory = inventory.with_storage(id);
    }
    if let Some(references) = references {
        inventory = inventory.with_references(references);
    }
    for source in sources {
        inventory = inventory.with_configs(source);
    }
    let has_history = history.is_some();
    if let Some(history) = history {
        inventory = inventory.with_history(Arc::new(history));
    }
    let mut list = List::begin(command, args.format, has_history, output)?;
    let mut unwritten = None;
    let report = inventory
        .run(&mut |secret| match list.add(secret) {
            Ok(()) => ControlFlow::Continue(()),
            Err(cause) => {
                unwritten = Some(cause);
                ControlFlow::Break(())
            }
        })
        .await;
    if let Some(cause) = unwritten {
        return list::unwritten(cause);
    }
    let (status, report) = match report {
        Ok(report) => (status_of(command, &report), report),
        Err(error) => {
            let failure = Failure::from(error);
            let text = chain(&failure);
            remark(format!("secret-migrate: {text}"));
            return match list.fail(failure.status(), &text) {
                Ok(()) => Ok(failure.status()),
                Err(cause) => list::unwritten(cause),
            };
        }
    };
    if let Err(cause) = list.end(status, &report) {
        return list::unwritten(cause);
    }
    remark(summary(command, &report));
    Ok(status)
}

fn status_of(command: &str, report: &InventoryReport) -> Status {
    // A connector lacks what is missing, or what nobody has restored.
    let lacks = command == "restore" && report.missing + report.pending_deletion > 0;
    if report.stopped {
        Status::Interrupted
    } else if report.is_complete() && !lacks {
        Status::Done
    } else {
        Status::Found
    }
}

/// Every figure that is not zero, on standard error: standard output is the list.
fn summary(command: &str, report: &InventoryReport) -> String {
    let mut text = format!(
        "{command}: {} of {} places in {} configurations",
        report.listed, report.places, report.configurations
    );
    for (count, name) in [
        (report.unknown_age, "of unknown age"),
        (report.elsewhere, "elsewhere"),
        (report.external, "external"),
        (report.missing, "missing"),
        (report.pending_deletion, "pending deletion"),
        (report.restored, "restored"),
        (report.undescribed, "undescribed"),
        (report.unreadable, "unreadable"),
        (
            report.not_genuine.unwrap_or_default(),
            "with a last read that is not genuine (ledger verify says more)",
        ),
    ] {
        if count > 0 {
            text += &format!(", {count} {name}");
        }
    }
    if let (Some(unread), Some(since)) = (report.never_read, report.reads_since) {
        text += &format!(", {unread} not read since {since}, as far back as the ledger goes");
    } else if report.never_read.is_some() {
        text += "; the ledger does not say how far back it goes";
    }
    if command == "restore" && report.missing > 0 {
        text +=
            "; what is missing is beyond recovery here: enter it again in the listed connectors";
    }
    if report.stopped {
        text += "; stopped before the end, the list is incomplete";
    }
    text
}
