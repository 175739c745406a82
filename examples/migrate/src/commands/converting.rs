//! What `encrypt` and `rotate` have in common: processes that share them, and their report.

use std::sync::Arc;

use secret_persistence::database::Ended;
use secret_persistence::{Environment, Error};
use secret_persistence_migrate::{
    Convert, ConvertJournal, ConvertReport, ConvertStop, MigrateOptions,
};

use crate::cli::ConvertArgs;
use crate::console::Progress;
use crate::interrupt;
use crate::output::Output;
use crate::role::Role;
use crate::status::{Failure, Result, Status};

/// Opens the journal, if processes are to share the command.
pub(super) async fn journal(
    args: &ConvertArgs,
    environment: &Environment,
) -> Result<Option<Arc<ConvertJournal>>> {
    let url = args.journal.as_deref();
    let Some(url) = url.filter(|url| url.starts_with("postgres")) else {
        return Ok(None);
    };
    let journal = ConvertJournal::open(url, &Role::Journal.variables(environment)).await;
    let journal = journal.map_err(|error| Failure::from(error).at(Role::Journal.option()))?;
    Ok(Some(Arc::new(journal)))
}

/// Takes part with others.
pub(super) async fn take_part(
    convert: Convert,
    args: &ConvertArgs,
    phase: &str,
    output: &Output,
) -> Result<ConvertReport> {
    let cancellation = interrupt::watch();
    if args.share.stop_at_end_of_input {
        interrupt::at_end_of_input(cancellation.clone());
    }
    let mut options = MigrateOptions::default().with_lease(args.share.lease);
    if output.lists_all() {
        options = options.with_listed(usize::MAX);
    }
    let progress = Progress::begin(phase, None);
    let report = convert
        .with_options(options)
        .with_cancellation(cancellation)
        .run(&|rows| progress.advance(rows))
        .await;
    progress.finish();
    Ok(report?)
}

/// The report of one process that shares nothing.
pub(super) fn alone(converted: u64, damaged: &[Error], ended: Ended) -> ConvertReport {
    let mut report = ConvertReport::default();
    report.converted = converted;
    report.damaged = damaged.len() as u64;
    report.failures = damaged.iter().map(ToString::to_string).collect();
    report.ended = Some(ended);
    report
}

/// Prints what both commands report, and returns the status.
pub(super) fn show(report: &ConvertReport, output: &Output) -> Status {
    if report.damaged > 0 {
        output.line(format!("{:>10}  damaged and unchanged", report.damaged));
        output.names(&report.failures);
    }
    if report.others_damaged {
        output.line("another process met damaged rows, which its report names");
    }
    match report.stopped {
        Some(ConvertStop::Cancelled) => {
            output.line("stopped; the others go on, and the same command takes part again");
            return Status::Interrupted;
        }
        Some(_) => {
            output.line(
                "stopped: another process found that rows are changed faster than they are converted, and its \
                 message says what to do",
            );
            return Status::Failed;
        }
        None => {}
    }
    if report.ended.is_none() {
        output.line("another process has ended it");
    }
    if report.damaged > 0 || report.others_damaged {
        Status::Found
    } else {
        Status::Done
    }
}
