//! `plan`, `copy`, `verify`, `rollback` and `retire`: the engine's commands between two stores.

use std::sync::Arc;

use secret_persistence::{Environment, Recovery};
use secret_persistence_migrate::{
    Access, AllReferences, Cancellation, MigrateOptions, Migration, Observer, Shared,
};

use crate::cli::{CompareArgs, MoveArgs, Pace, RetireArgs, ShareArgs, SharedArgs, VerifyArgs};
use crate::configs;
use crate::differences::Differences;
use crate::interrupt;
use crate::journal;
use crate::observer::Shown;
use crate::output::Output;
use crate::role::Role;
use crate::status::{Failure, Result, Status};
use crate::store::{Described, IfMissing};

/// `plan`.
pub(crate) async fn plan(
    args: CompareArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let differences = Differences::of(&args)?;
    let run = Run::prepare(&args.moved, environment, output, Command::Plan).await?;
    let run = run.telling(differences.as_ref());
    let report = run.migration.plan().await;
    run.journal.close().await;
    let status = output.report(&report?);
    differences.map_or(Ok(()), |differences| differences.finish())?;
    Ok(status)
}

/// `copy`.
pub(crate) async fn copy(
    args: SharedArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let run = Run::prepare(&args.moved, environment, output, Command::Copy).await?;
    let run = run.sharing(&args.share);
    let report = run.migration.copy().await;
    run.journal.close().await;
    Ok(output.report(&report?))
}

/// `verify`.
pub(crate) async fn verify(
    args: VerifyArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let differences = Differences::of(&args.compared)?;
    let moved = &args.compared.moved;
    let run = Run::prepare(moved, environment, output, Command::Other).await?;
    let run = run.sharing(&args.share).telling(differences.as_ref());
    let report = run.migration.verify().await;
    run.journal.close().await;
    let status = output.report(&report?);
    differences.map_or(Ok(()), |differences| differences.finish())?;
    Ok(status)
}

/// `rollback`.
pub(crate) async fn rollback(
    args: SharedArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let run = Run::prepare(&args.moved, environment, output, Command::Other).await?;
    let run = run.sharing(&args.share);
    let report = run.migration.rollback().await;
    run.journal.close().await;
    Ok(output.report(&report?))
}

/// `retire`.
pub(crate) async fn retire(
    args: RetireArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    if !args.all_references {
        return Err(Failure::undecided(
            "retire deletes from the source everything that is equal in the target. A table or file that still \
            contains pointers and is not listed would lose its secrets: list each one with --configs \
            (the README has those of an Airbyte database), then confirm with --all-references",
        ));
    }
    let run = Run::prepare(&args.moved, environment, output, Command::Other).await?;
    let run = run.sharing(&args.share);
    let mut options = run.options.clone();
    if args.without_recovery {
        options = options.with_recovery(Recovery::Immediate);
    }
    let migration = run.migration.with_options(options);
    let report = migration.retire(AllReferences::confirmed()).await;
    run.journal.close().await;
    Ok(output.report(&report?))
}

/// The kind of command, as far as it affects how stores are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// Writes secrets, and therefore needs an owner. Creates a missing table.
    Copy,
    /// Works on the secrets of a copy.
    Other,
    /// Reports what a copy would do.
    Plan,
}

/// Everything that a command between two stores needs.
#[derive(Debug)]
struct Run {
    migration: Migration,
    journal: journal::Opened,
    options: MigrateOptions,
    cancellation: Cancellation,
}

impl Run {
    /// Opens everything, the stores last, so that the operator's mistakes show before any request.
    async fn prepare(
        args: &MoveArgs,
        environment: &Environment,
        output: &Output,
        command: Command,
    ) -> Result<Self> {
        let decisions = args.decisions.decisions();
        let unshare = decisions.shared == Some(Shared::Unshare) && command == Command::Copy;
        let access = if unshare && !args.dry_run {
            Access::Update
        } else {
            Access::ReadOnly
        };
        let rates = journal::rates(&args.journal.journal, environment)?;
        let from = Described::read(args.route.source(), Role::From, environment)?;
        let to = Described::read(args.route.target(), Role::To, environment)?;
        let (from, to) = (from.sharing(rates.as_ref()), to.sharing(rates.as_ref()));
        let sources = configs::open(&args.route.configs.sources, environment, access).await?;
        let references =
            configs::references(args.route.configs.references.as_deref(), environment).await?;
        let if_missing = match command {
            Command::Copy if !args.dry_run => IfMissing::Create,
            Command::Copy | Command::Plan => IfMissing::Empty,
            Command::Other => IfMissing::Refuse,
        };
        let mut from = from.open(args.pace.rate, IfMissing::Refuse).await?;
        let mut to = to.open(args.pace.rate, if_missing).await?;
        if command == Command::Copy && !args.dry_run {
            to = to.for_writing()?;
            if unshare {
                from = from.for_writing()?;
            }
        }
        let owner = to.owner.clone().or_else(|| from.owner.clone());
        let journal = if command != Command::Plan && !args.dry_run && !unshare {
            journal::open_shared(&args.journal.journal, environment).await?
        } else {
            journal::open(&args.journal.journal, environment).await?
        };
        let mut options = paced(&args.pace, output)
            .with_lag(args.lag)
            .with_without_probe(args.without_probe)
            .with_dry_run(args.dry_run)
            .with_decisions(decisions);
        if let Some(rates) = rates {
            options = options.with_shared_rates(rates);
        }
        let cancellation = interrupt::watch();
        let mut migration = Migration::new(
            from.with_points().store,
            to.with_points().store,
            journal.for_run(),
        )
        .with_workspaces(args.workspaces.iter().copied())
        .with_options(options.clone())
        .with_observer(Arc::new(Shown::default()))
        .with_cancellation(cancellation.clone());
        if let Some(owner) = owner {
            migration = migration.with_owner(owner);
        }
        if let Some(references) = references {
            migration = migration.with_references(references);
        }
        for source in sources {
            migration = migration.with_configs(source);
        }
        Ok(Self {
            migration,
            journal,
            options,
            cancellation,
        })
    }

    /// The same run, as other processes may share it.
    fn sharing(mut self, share: &ShareArgs) -> Self {
        self.options = self.options.with_lease(share.lease);
        self.migration = self.migration.with_options(self.options.clone());
        if share.stop_at_end_of_input {
            interrupt::at_end_of_input(self.cancellation.clone());
        }
        self
    }

    /// The same run, which writes differences to their file.
    fn telling(mut self, differences: Option<&Arc<Differences>>) -> Self {
        if let Some(differences) = differences {
            self.migration = self
                .migration
                .with_options(self.options.clone().with_unexpected(true))
                .with_observer(Arc::clone(differences) as Arc<dyn Observer>);
        }
        self
    }
}

/// The options, with the requested rate.
pub(super) fn paced(pace: &Pace, output: &Output) -> MigrateOptions {
    let mut options = MigrateOptions::default();
    if output.lists_all() {
        options = options.with_listed(usize::MAX);
    }
    if let Some(concurrency) = pace.concurrency {
        options = options.with_concurrency(concurrency);
    }
    if let Some(rate) = pace.rate {
        options = options.with_requests_per_second(rate);
    }
    options
}
