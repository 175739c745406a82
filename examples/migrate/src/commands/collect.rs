//! `collect`: deletes what no configuration points at, and what has expired.

use std::sync::Arc;

use secret_persistence::Environment;
use secret_persistence::rates::named;
use secret_persistence_migrate::sources::StorageSettings;
use secret_persistence_migrate::{
    Access, AllReferences, Collect, CollectJournal, CollectReport, CollectRules, CollectStop, Fate,
    Superfluous,
};
use serde_json::{Value, json};

use super::moving::paced;
use crate::cli::CollectArgs;
use crate::configs;
use crate::interrupt;
use crate::journal;
use crate::output::{Output, failure};
use crate::role::Role;
use crate::status::{Failure, Result, Status};
use crate::store::{Described, IfMissing};

/// How many secrets the JSON object names; `--list` writes all of them.
const LISTED: usize = 1000;

/// Runs it.
pub(crate) async fn run(
    args: CollectArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    if args.delete && !args.all_references {
        return Err(Failure::undecided(
            "collect deletes what --configs does not point at. A table or file that contains pointers and is not \
             listed would lose its secrets: list each one with --configs, and the outbox of open changes, give the \
             storages-file of every gateway with --storages-file, then confirm with --all-references",
        ));
    }
    let rates = journal::rates(&args.journal, environment)?;
    let store = Described::read(args.at.place(), Role::Store, environment)?;
    let store = store.sharing(rates.as_ref());
    let sources = configs::open(&args.configs.sources, environment, Access::ReadOnly).await?;
    let references = configs::references(args.configs.references.as_deref(), environment).await?;
    let storages: Vec<StorageSettings> = args
        .storages_files
        .iter()
        .map(|file| {
            let opened = StorageSettings::of_file(file);
            opened.map_err(|error| Failure::from(error).at("--storages-file"))
        })
        .collect::<Result<_>>()?;
    // Whoever has no owner owns nothing that could be deleted.
    let store = store.open(args.pace.rate, IfMissing::Refuse).await?;
    let Some(owner) = store.owner.clone() else {
        return Err(Failure::input(
            "collect deletes only what this installation has written; set SECRETS_OWNER (or STORE_SECRETS_OWNER) \
             to its id",
        ));
    };
    let variables = Role::Journal.variables(environment);
    let journal = match args.delete {
        true => CollectJournal::open_shared(&args.journal, &variables).await,
        false => CollectJournal::open(&args.journal, &variables).await,
    };
    let journal = Arc::new(journal.map_err(|error| Failure::from(error).at("--journal"))?);
    let mut rules = CollectRules::default();
    rules.grace = args.grace;
    rules.retention = args.retention;
    rules.most_percent = args.max_share;
    rules.workspaces = args.workspaces.iter().copied().collect();
    let mut options = paced(&args.pace, output).with_lease(args.share.lease);
    if let Some(rates) = rates {
        options = options.with_shared_rates(named(rates, "store"));
    }
    let cancellation = interrupt::watch();
    if args.share.stop_at_end_of_input {
        interrupt::at_end_of_input(cancellation.clone());
    }
    let mut collect = Collect::new(store.with_points().store, owner, Arc::clone(&journal))
        .with_rules(rules)
        .with_options(options)
        .with_cancellation(cancellation);
    if let Some(references) = references {
        collect = collect.with_references(references);
    }
    for source in sources {
        collect = collect.with_configs(source);
    }
    for storages in storages {
        collect = collect.with_configs(Arc::new(storages));
    }
    let mut told = Told::default();
    let mut each = |secret: &Superfluous| told.add(secret, output);
    let report = if args.delete {
        collect.run(AllReferences::confirmed(), &mut each).await
    } else {
        collect.preview(&mut each).await
    };
    journal.close().await;
    let report = report?;
    let status = status_of(&report);
    told.show(&report, args.max_share, output);
    let mut object = serde_json::to_value(&report).unwrap_or_default();
    object["command"] = json!("collect");
    object["secrets"] = told.secrets.into();
    output.object(status, &object);
    Ok(status)
}

/// The first secrets of the run.
#[derive(Default)]
struct Told {
    secrets: Vec<Value>,
    names: Vec<String>,
}

impl Told {
    fn add(&mut self, secret: &Superfluous, output: &Output) {
        let name = format!(
            "{}  {}, {}",
            secret.coordinate,
            secret.reason,
            secret.fate.as_str()
        );
        output.list_only(&name);
        if self.secrets.len() < LISTED {
            // A map of strings always becomes JSON.
            self.secrets.push(json!(secret));
            if secret.fate != Fate::Waiting {
                self.names.push(name);
            }
        }
    }

    fn show(&self, report: &CollectReport, share: u8, output: &Output) {
        let how = if report.dry_run {
            "collect: dry run, nothing was deleted"
        } else {
            "collect"
        };
        output.line(format!(
            "{how}; {} of this installation, {} names in {} configurations",
            report.owned, report.names, report.configurations
        ));
        for (count, meaning) in [
            (report.orphaned, "that no configuration names"),
            (report.expired, "that have expired"),
            (report.ephemeral, "that were short-lived"),
            (
                report.waiting,
                "that no configuration names, not for long enough yet",
            ),
            (report.young, "that are too young"),
            (report.unowned, "unreferenced and without an owner, kept"),
            (report.undated, "unreferenced and without a time, kept"),
            (report.foreign, "of other installations"),
            (report.deleted, "deleted"),
            (report.failed, "could not be deleted"),
            (report.unreadable, "places that cannot be understood"),
        ] {
            if count > 0 {
                output.line(format!("{count:>10}  {meaning}"));
            }
        }
        output.first_names(&self.names);
        let failures: Vec<String> = report.failures.iter().map(failure).collect();
        output.names(&failures);
        if report.others_failed {
            output.line("another process could not delete some");
        }
        if report.stopped_by_another {
            output.line("found by another process, whose report has the details");
        }
        output.line(match report.stopped {
            None if report.dry_run => {
                "nothing was deleted; --delete --all-references deletes what is due".to_owned()
            }
            None => "done".to_owned(),
            Some(CollectStop::Cancelled) => "stopped; run the same command again".to_owned(),
            Some(CollectStop::Failures) => {
                "stopped after too many failures; run the same command again".to_owned()
            }
            Some(CollectStop::Share) => format!(
                "stopped before anything was deleted: more than {share} % of the secrets would go. Check that \
                 --configs has every table, or allow more with --max-share"
            ),
            Some(_) => "stopped before anything was deleted: correct the places that cannot be understood, because \
                        they may name any secret"
                .to_owned(),
        });
    }
}

fn status_of(report: &CollectReport) -> Status {
    match report.stopped {
        Some(CollectStop::Cancelled) => Status::Interrupted,
        Some(CollectStop::Failures) => Status::Failed,
        Some(_) => Status::Undecided,
        None if report.is_complete() => Status::Done,
        None => Status::Found,
    }
}
