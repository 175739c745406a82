//! `split`: moves raw secrets out of configurations that were never split.

use std::sync::Arc;

use secret_persistence::Environment;
use secret_persistence::rates::named;
use secret_persistence_core::connector::{ConnectorOptions, Policy};
use secret_persistence_migrate::{Access, Decisions, Split};

use super::moving::paced;
use crate::cli::SplitArgs;
use crate::configs;
use crate::interrupt;
use crate::journal;
use crate::observer::Shown;
use crate::output::Output;
use crate::role::Role;
use crate::status::{Result, Status};
use crate::store::{Described, IfMissing};

/// Runs it.
pub(crate) async fn run(
    args: SplitArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let rates = journal::rates(&args.journal, environment)?;
    let store = Described::read(args.at.place(), Role::Store, environment)?;
    let store = store.sharing(rates.as_ref());
    let sources = configs::open(&args.configs.sources, environment, Access::Update).await?;
    let references = configs::references(args.configs.references.as_deref(), environment).await?;
    let if_missing = if args.dry_run {
        IfMissing::Empty
    } else {
        IfMissing::Create
    };
    let mut store = store.open(args.pace.rate, if_missing).await?;
    if !args.dry_run {
        store = store.for_writing()?;
    }
    let owner = store.owner.clone();
    let is_shared = !args.dry_run && sources.iter().all(|source| source.admits_others());
    let journal = match is_shared {
        true => journal::open_shared(&args.journal, environment).await?,
        false => journal::open(&args.journal, environment).await?,
    };
    let mut decisions = Decisions::default();
    decisions.other_scope = args.other_scope;
    let mut options = paced(&args.pace, output)
        .with_dry_run(args.dry_run)
        .with_decisions(decisions)
        .with_lease(args.share.lease);
    if let Some(rates) = rates {
        options = options.with_shared_rates(named(rates, "store"));
    }
    let cancellation = interrupt::watch();
    if args.share.stop_at_end_of_input {
        interrupt::at_end_of_input(cancellation.clone());
    }
    let mut split = Split::new(store.with_points().store, journal.for_run())
        .with_options(options)
        .with_observer(Arc::new(Shown::default()))
        .with_cancellation(cancellation);
    let policy = policy(
        args.strings_only,
        args.refuse_unknown_properties,
        &args.allow_external,
    );
    let mut connector = ConnectorOptions::default().with_policy(policy);
    if let Some(references) = references {
        connector = connector.with_references(references);
    }
    split = split.with_connector_options(connector);
    if let Some(owner) = owner {
        split = split.with_owner(owner);
    }
    for source in sources {
        split = split.with_configs(source);
    }
    let report = split.run().await;
    journal.close().await;
    Ok(output.report(&report?))
}

/// Whether one process alone can run it: nothing is to be changed, or a file is.
pub(super) fn is_alone(args: &SplitArgs) -> bool {
    let mut sources = args.configs.sources.iter();
    args.dry_run || sources.any(|source| !source.starts_with("postgres"))
}

/// What a split or an update accepts.
pub(super) fn policy(
    strings_only: bool,
    refuse_unknown_properties: bool,
    external: &[String],
) -> Policy {
    external.iter().fold(
        Policy::default()
            .with_strings_only(strings_only)
            .with_refuse_unknown_properties(refuse_unknown_properties),
        |policy, prefix| policy.with_external_prefix(None, prefix),
    )
}
