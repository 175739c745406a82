//! The result, for people or for programs.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use secret_persistence::ErrorKind;
use secret_persistence_migrate::{Class, Finding, Report, Stop};
use serde::Serialize;
use serde_json::{Value, json};

use crate::console::{escaped, remark, say, say_text};
use crate::status::{Failure, Result, Status, chain};

/// How many names of a class are printed for people. Programs get as many as the engine lists.
const SHOWN: usize = 10;

/// The destination of the result.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    json: bool,
    /// The file of `--list`.
    list: Option<Arc<File>>,
}

impl Output {
    /// Creates the output for programs or for people, with a new file for names if requested.
    ///
    /// # Errors
    /// If the file already exists or cannot be created.
    pub(crate) fn new(json: bool, list: Option<&Path>) -> Result<Self> {
        let create = |path: &Path| {
            File::create_new(path).map(Arc::new).map_err(|cause| {
                Failure::input("cannot be created; choose a new file name")
                    .at(format!("--list {}", path.display()))
                    .with_source(cause)
            })
        };
        Ok(Self {
            json,
            list: list.map(create).transpose()?,
        })
    }

    /// Output for people, without a file.
    pub(crate) fn for_people() -> Self {
        Self {
            json: false,
            list: None,
        }
    }

    /// Whether to list every name instead of the first ones.
    pub(crate) fn lists_all(&self) -> bool {
        self.list.is_some()
    }

    /// Whether a program reads the output.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a line for people, not for programs.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            say(text);
        }
    }

    /// Prints text that people copy, line by line and unchanged; programs do not get it.
    pub(crate) fn text(&self, text: impl AsRef<str>) {
        if !self.json {
            say_text(text);
        }
    }

    /// Names and places of one kind: the first ones for people, all of them for the file of
    /// `--list`.
    pub(crate) fn names(&self, names: &[String]) {
        self.names_of(names, names.len() as u64);
    }

    /// The first names for people alone.
    pub(crate) fn first_names(&self, names: &[String]) {
        for name in names.iter().take(SHOWN) {
            self.line(format!("{:>12}{name}", ""));
        }
    }

    /// A name for the file of `--list` alone.
    pub(crate) fn list_only(&self, name: &str) {
        if let Some(mut file) = self.list.as_deref() {
            // If the disk is full, names are missing, as in `names`.
            let _ = writeln!(file, "{}", escaped(name));
        }
    }

    fn names_of(&self, names: &[String], count: u64) {
        if let Some(mut file) = self.list.as_deref() {
            for name in names {
                // If the disk is full, the number of missing names is reported at the end.
                let _ = writeln!(file, "{}", escaped(name));
            }
        }
        self.first_names(names);
        let more = count.saturating_sub(SHOWN as u64);
        if more > 0 && !names.is_empty() {
            let where_ = if self.lists_all() {
                "in the file"
            } else {
                "--list FILE writes all of them"
            };
            self.line(format!("{:>12}… and {more} more ({where_})", ""));
        }
    }

    /// Prints the JSON object for programs, which people do not get.
    pub(crate) fn object(&self, status: Status, result: &impl Serialize) {
        if !self.json {
            return;
        }
        let mut object = serde_json::to_value(result).unwrap_or(Value::Null);
        if let Value::Object(fields) = &mut object {
            fields.insert("exit_status".into(), json!(status as u8));
        }
        say(object.to_string());
    }

    /// Prints why a command ended early.
    pub(crate) fn failure(&self, failure: &Failure) -> Status {
        let status = failure.status();
        let text = chain(failure);
        remark(format!("secret-migrate: {text}"));
        self.object(status, &json!({ "error": text }));
        status
    }

    /// Prints what a migration found and did.
    pub(crate) fn report(&self, report: &Report) -> Status {
        let status = status_of(report);
        self.object(status, report);
        self.line(format!("{} {}", report.command, report.run));
        if let Some(line) = tally(report) {
            self.line(line);
        }
        for (class, findings) in &report.findings {
            let remedy = if report.undecided.contains(class) {
                format!("  → {}", remedy(*class))
            } else {
                String::new()
            };
            let (count, meaning) = (findings.count, meaning(*class));
            self.line(format!("{count:>10}  {meaning}{remedy}"));
            if *class == Class::Unknown && !self.lists_all() {
                continue;
            }
            let names: Vec<String> = findings.listed.iter().map(finding).collect();
            self.names_of(&names, count);
        }
        for class in &report.undecided {
            // Another process that shares the journal has found it, and lists it.
            if report.count(*class) == 0 {
                let (meaning, remedy) = (meaning(*class), remedy(*class));
                self.line(format!("{:>10}  {meaning}  → {remedy}", "others"));
            }
        }
        if report.failed > 0 {
            self.line(format!("{:>10}  failed", report.failed));
            let names: Vec<String> = report.failures.iter().map(failure).collect();
            self.names_of(&names, report.failed);
        }
        if report.unlisted {
            self.line("the source cannot list its secrets: those that no configuration mentions are unknown");
        }
        for place in &report.unreachable {
            self.line(format!("out of reach: {place}"));
        }
        self.line(end(report));
        status
    }
}

/// The exit status of a report.
fn status_of(report: &Report) -> Status {
    let nothing_done =
        matches!(report.stopped, None | Some(Stop::Failures)).then(|| shared(report));
    if let Some(status) = nothing_done.flatten() {
        return status;
    }
    match report.stopped {
        Some(Stop::Cancelled) => Status::Interrupted,
        // Verify refuses nothing: it has found configurations that would not work.
        Some(Stop::Hydration) if report.command == "verify" => Status::Found,
        Some(Stop::Undecided | Stop::Hydration) => Status::Undecided,
        Some(Stop::Conflict | Stop::Linked | Stop::Remaining | Stop::Unverified) => Status::Found,
        Some(_) => Status::Failed,
        None if report.failed > 0 || report.tally.lost > 0 => Status::Found,
        None => Status::Done,
    }
}

/// The exit status if nothing was done and every secret failed for the same reason: some stores ask
/// for credentials and permissions when they open, others with each request.
fn shared(report: &Report) -> Option<Status> {
    let tally = &report.tally;
    let done = tally.written
        + tally.resumed
        + tally.restored
        + tally.present
        + tally.verified
        + tally.hydrated
        + tally.deleted
        + tally.split;
    let known = [
        ErrorKind::PermissionDenied,
        ErrorKind::Unauthenticated,
        ErrorKind::Unavailable,
    ];
    let kind_of = |name: &str| known.into_iter().find(|kind| kind.as_str() == name);
    let kinds: Option<Vec<ErrorKind>> = report
        .failures
        .iter()
        .map(|failure| kind_of(&failure.kind))
        .collect();
    Status::of_all(&kinds.filter(|_| done == 0)?)
}

/// Every nonzero number of the tally, with the engine's names.
fn tally(report: &Report) -> Option<String> {
    let Ok(Value::Object(numbers)) = serde_json::to_value(report.tally) else {
        return None;
    };
    let nothing_done = report.dry_run || report.command == "plan";
    let mut parts: Vec<String> = numbers
        .iter()
        .filter(|(_, number)| number.as_u64().is_some_and(|number| number > 0))
        .map(|(name, number)| match name.as_str() {
            "written" | "deleted" | "restored" | "split" | "unshared" if nothing_done => {
                format!("{number} to be {name}")
            }
            _ => format!("{number} {}", name.replace('_', " ")),
        })
        .collect();
    for (id, pointers) in &report.storages {
        if !id.is_empty() {
            parts.push(format!("{pointers} in storage {id}"));
        }
    }
    let text = if parts.is_empty() {
        "nothing to do".to_owned()
    } else {
        parts.join(", ")
    };
    Some(format!("  {text}"))
}

fn finding(finding: &Finding) -> String {
    let parts = [
        &finding.coordinate,
        &finding.configuration,
        &finding.place,
        &finding.storage,
        &finding.detail,
    ];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    parts.join("  ")
}

/// Prints the failure of one secret or place.
pub(crate) fn failure(failure: &secret_persistence_migrate::Failure) -> String {
    let place = [&failure.configuration, &failure.place, &failure.coordinate];
    let place: Vec<&str> = place
        .into_iter()
        .flatten()
        .map(String::as_str)
        // A store's error already names the coordinate.
        .filter(|part| !failure.message.contains(part))
        .collect();
    let place = place.join(" ");
    let separator = if place.is_empty() { "" } else { ": " };
    format!("{place}{separator}{}", failure.message)
}

fn end(report: &Report) -> String {
    let again = "the same command continues from there";
    if let (Some(stop), true) = (report.stopped, report.stopped_by_another) {
        return format!(
            "{}: ended; another process of this run found what its report says ({stop})",
            report.command
        );
    }
    match report.stopped {
        None if report.failed > 0 => format!("{}: finished, with failures", report.command),
        None if report.tally.lost > 0 => format!(
            "{}: finished; the target lacks {}; run copy again",
            report.command, report.tally.lost
        ),
        None if report.tally.changed_since > 0 && !report.dry_run => format!(
            "{}: finished; {} changed in the meantime; run copy again",
            report.command, report.tally.changed_since
        ),
        None if report.dry_run => format!("{}: dry run, nothing was changed", report.command),
        None => format!("{}: done", report.command),
        Some(Stop::Cancelled) => format!("{}: stopped; {again}", report.command),
        Some(Stop::Conflict) => format!(
            "{}: stopped; the target has other values under these names. Nothing was overwritten",
            report.command
        ),
        Some(Stop::Hydration) if report.command == "verify" => {
            "verify: finished; the configurations above do not hydrate from the target".to_owned()
        }
        Some(Stop::Hydration) => format!(
            "{}: refused; the configurations above would not hydrate, nothing was deleted",
            report.command
        ),
        Some(Stop::Linked) => format!(
            "{}: stopped; a delete in one store also deleted from the other, and the secret was written back: \
            end the replication between the two first",
            report.command
        ),
        Some(Stop::Remaining) => format!(
            "{}: finished; {} secrets of this installation remain in the source: those above, and \
            those there that need a decision",
            report.command, report.tally.remaining
        ),
        Some(Stop::Unverified) => format!(
            "{}: a copy was not finished, or the target lacks the secrets above; run copy again",
            report.command
        ),
        Some(Stop::Undecided) => {
            format!("{}: decide about each class marked → above", report.command)
        }
        Some(_) => format!(
            "{}: stopped after too many failures; {again}",
            report.command
        ),
    }
}

pub(crate) fn meaning(class: Class) -> &'static str {
    match class {
        Class::Changed => "changed since they were copied; the next copy updates them",
        Class::Conflicting => "have another value in the target",
        Class::Expiring => "expire, and the target does not store expiry",
        Class::External => "external secrets, never copied",
        Class::Kept => "not deleted from the store, for the given reason",
        Class::Lost => "missing in the target; the next copy writes them",
        Class::Missing => "in a configuration, missing in the source",
        Class::OtherScope => "secrets of another scope than their configuration",
        Class::Orphaned => "in the source, in no configuration",
        Class::PendingDeletion => "scheduled for deletion in the target",
        Class::Present => "already in the target, equal",
        Class::Recoverable => "in a configuration, scheduled for deletion in the source",
        Class::Skipped => "secrets of configurations that were not verified",
        Class::Shared => "in more than one configuration",
        Class::Storage => "pointers with a storage id",
        Class::Unfit => "values that the target cannot store",
        Class::Unknown => {
            "properties that are not in the specification; a secret in one stays in plain text (--list FILE \
             names them, --refuse-unknown-properties refuses them)"
        }
        Class::Unreadable => "places in configurations that cannot be understood",
        Class::Unresolved => "places in configurations that name a secret by a reference",
        _ => "others",
    }
}

fn remedy(class: Class) -> &'static str {
    match class {
        Class::Expiring => "--expiring drop-expiry or skip",
        Class::External => "--external expect or leave",
        Class::Missing => "--missing skip, or restore them",
        Class::OtherScope => "--other-scope keep, or correct the configurations",
        Class::Recoverable => "restore them in the source, or use --recoverable skip",
        Class::Orphaned => "--orphaned copy or leave",
        Class::PendingDeletion => "--pending-deletion restore or skip",
        Class::Shared => "--unshare, or --shared keep",
        Class::Storage => "--storage <id>=move or <id>=leave for each",
        Class::Unfit => "--unfit skip, or use another target",
        Class::Conflicting => "find out which value is right; nothing is overwritten",
        Class::Unreadable => "correct them first",
        Class::Unresolved => "--references <the table that resolves them>",
        _ => "an option",
    }
}
