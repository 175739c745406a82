//! `ledger`: verifies, searches and prunes a read ledger, and makes checkpoints.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use secret_persistence::database::{
    Checkpoint, Finding, LEDGER_SETTINGS, LedgerConfig, LedgerQuery, LedgerReader, Verified,
};
use secret_persistence::{Coordinate, Environment, StoreUrl, Timestamp};
use serde_json::{Value, json};

use crate::cli::{LedgerArgs, LedgerCommand, QueryArgs};
use crate::output::Output;
use crate::role::Role;
use crate::status::{Failure, Result, Status};

/// Runs it.
pub(crate) async fn run(
    args: LedgerArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    match args.command {
        LedgerCommand::Verify(args) => {
            let reader = open(&args.at.ledger, environment).await?;
            let checkpoints = read_checkpoints(&reader, &args.checkpoints)?;
            let verified = reader.verify(&checkpoints).await?;
            Ok(report(&verified, checkpoints.len(), output))
        }
        LedgerCommand::Query(args) => query(args, environment, output).await,
        LedgerCommand::Checkpoint(args) => {
            let reader = open(&args.at.ledger, environment).await?;
            let checkpoints = read_checkpoints(&reader, &args.checkpoints)?;
            let checkpoint = reader.checkpoint(&checkpoints).await?;
            write(&checkpoint, args.output, output)
        }
        LedgerCommand::Prune(args) => {
            let reader = open(&args.at.ledger, environment).await?;
            let checkpoints = read_checkpoints(&reader, &args.checkpoints)?;
            let before = Timestamp::now().saturating_sub(args.keep);
            let pruned = reader.prune(before, &checkpoints).await?;
            output.line(format!(
                "ledger: {} lines before {before} pruned from {} chains",
                pruned.lines, pruned.chains
            ));
            output.object(
                Status::Done,
                &json!({
                    "command": "ledger prune",
                    "before": before,
                    "lines": pruned.lines,
                    "chains": pruned.chains,
                }),
            );
            Ok(Status::Done)
        }
    }
}

/// Opens the ledger of `--ledger`.
///
/// # Errors
/// For wrong settings, and if it cannot be opened.
pub(super) async fn open(ledger: &str, environment: &Environment) -> Result<LedgerReader> {
    let at_option = |error| Failure::from(error).at(Role::Ledger.option());
    let config = StoreUrl::parse(ledger)
        .and_then(|url| LEDGER_SETTINGS.from_url(&url, &Role::Ledger.variables(environment)))
        .and_then(|settings| LedgerConfig::from_settings(&settings))
        .map_err(at_option)?;
    Ok(LedgerReader::open(&config).await?)
}

fn read_checkpoints(reader: &LedgerReader, files: &[PathBuf]) -> Result<Vec<Checkpoint>> {
    let read = |file: &PathBuf| {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::input("cannot be read").with_source(error));
        text.and_then(|text| Ok(reader.read_checkpoint(&text)?))
            .map_err(|failure| failure.at(file.display()))
    };
    files.iter().map(read).collect()
}

fn report(verified: &Verified, checkpoints: usize, output: &Output) -> Status {
    let status = match verified.is_intact() {
        true => Status::Done,
        false => Status::Found,
    };
    output.names(&verified.findings.iter().map(told).collect::<Vec<_>>());
    output.line(format!(
        "ledger: {} lines in {} chains, {} pruned, {} findings; compared with {checkpoints} checkpoints",
        verified.lines, verified.chains, verified.pruned, verified.found
    ));
    if verified.unfinished > 0 {
        output.line(format!(
            "ledger: {} unfinished lines at the end of files, cut off by a crash, a write under way, or somebody; only a checkpoint tells",
            verified.unfinished
        ));
    }
    if checkpoints == 0 {
        output.line(
            "ledger: without a checkpoint, what was cut off at the end of a chain is not found",
        );
    }
    let findings: Vec<Value> = verified
        .findings
        .iter()
        .map(|finding| {
            json!({
                "kind": finding.kind.as_str(),
                "writer": finding.writer,
                "sequence": finding.sequence,
            })
        })
        .collect();
    output.object(
        status,
        &json!({
            "command": "ledger verify",
            "lines": verified.lines,
            "chains": verified.chains,
            "pruned": verified.pruned,
            "unfinished": verified.unfinished,
            "checkpoints": checkpoints,
            "found": verified.found,
            "findings": findings,
        }),
    );
    status
}

fn told(finding: &Finding) -> String {
    format!(
        "{} line {} of {}",
        finding.kind, finding.sequence, finding.writer
    )
}

async fn query(args: QueryArgs, environment: &Environment, output: &Output) -> Result<Status> {
    let coordinate = args
        .coordinate
        .as_deref()
        .map(Coordinate::parse)
        .transpose();
    let coordinate = coordinate.map_err(|error| Failure::from(error).at("--coordinate"))?;
    let reader = open(&args.at.ledger, environment).await?;
    let wanted = LedgerQuery::default()
        .with_since(args.since)
        .with_until(args.until)
        .with_actor(args.actor)
        .with_coordinate(coordinate)
        .with_operation(args.operation.map(Into::into))
        .with_request(args.request);
    let (mut lines, mut forged) = (Vec::new(), 0_u64);
    let is_json = output.is_json();
    reader
        .search(&wanted, &mut |line, genuine| {
            forged += u64::from(!genuine);
            if is_json {
                lines.push(json!({ "line": line, "genuine": genuine }));
                return;
            }
            let or_none = |text: &Option<String>| text.as_deref().unwrap_or("-").to_owned();
            output.line(format!(
                "{}{} {} {} {} {}{} {} {}",
                if genuine { "" } else { "NOT GENUINE " },
                line.at,
                or_none(&line.actor),
                or_none(&line.operation),
                or_none(&line.coordinate),
                if line.places.is_empty() {
                    "-".to_owned()
                } else {
                    line.places.join(",")
                },
                match line.places_omitted {
                    0 => String::new(),
                    omitted => format!(" and {omitted} more places"),
                },
                or_none(&line.outcome),
                or_none(&line.request),
            ));
        })
        .await?;
    let status = match forged {
        0 => Status::Done,
        _ => Status::Found,
    };
    output.object(
        status,
        &json!({ "command": "ledger query", "not_genuine": forged, "lines": lines }),
    );
    Ok(status)
}

fn write(checkpoint: &Checkpoint, file: Option<PathBuf>, output: &Output) -> Result<Status> {
    let text = checkpoint.to_text()?;
    let chains = checkpoint.chains();
    match &file {
        None if !output.is_json() => output.line(&text),
        None => {}
        Some(file) => {
            let written = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(file)
                .and_then(|mut open| {
                    open.write_all(text.as_bytes())?;
                    open.write_all(b"\n")?;
                    open.sync_all()
                });
            written.map_err(|error| {
                Failure::input("cannot be created")
                    .with_source(error)
                    .at(file.display())
            })?;
            output.line(format!(
                "ledger: checkpoint of {chains} chains written to {}",
                file.display()
            ));
        }
    }
    output.object(
        Status::Done,
        &json!({
            "command": "ledger checkpoint",
            "chains": chains,
            "file": file,
            "checkpoint": checkpoint,
        }),
    );
    Ok(Status::Done)
}
