//! The result, for people or for programs.

use secret_persistence_migrate::{Class, Finding, Report, Stop};
use serde::Serialize;
use serde_json::{Value, json};

use crate::console::{remark, say};
use crate::status::{Failure, Status, chain};

/// How many names of a class people are shown; programs get as many as the engine lists.
const SHOWN: usize = 10;

/// Where the result goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// For programs, or for people.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a program reads it.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// A line for people, which programs do not get.
    pub(crate) fn line(self, text: impl AsRef<str>) {
        if !self.json {
            say(text);
        }
    }

    /// The one object for programs, which people do not get.
    pub(crate) fn object(self, status: Status, result: &impl Serialize) {
        if !self.json {
            return;
        }
        let mut object = serde_json::to_value(result).unwrap_or(Value::Null);
        if let Value::Object(fields) = &mut object {
            fields.insert("exit_status".into(), json!(status as u8));
        }
        say(object.to_string());
    }

    /// Why a command ended early.
    pub(crate) fn failure(self, failure: &Failure) -> Status {
        let status = failure.status();
        let text = chain(failure);
        remark(format!("migrate: {text}"));
        self.object(status, &json!({ "error": text }));
        status
    }

    /// What a migration has found and done.
    pub(crate) fn report(self, report: &Report) -> Status {
        let status = status_of(report);
        self.object(status, report);
        if !self.json {
            for line in lines(report) {
                say(line);
            }
        }
        status
    }
}

/// What a report means for the caller.
fn status_of(report: &Report) -> Status {
    match report.stopped {
        Some(Stop::Cancelled) => Status::Interrupted,
        Some(Stop::Undecided | Stop::Hydration) => Status::Undecided,
        Some(Stop::Conflict | Stop::Unverified) => Status::Found,
        Some(_) => Status::Failed,
        None if report.failed > 0 || report.tally.lost > 0 => Status::Found,
        None => Status::Done,
    }
}

fn lines(report: &Report) -> Vec<String> {
    let mut lines = vec![format!("{} {}", report.command, report.run)];
    lines.extend(tally(report));
    for (class, findings) in &report.findings {
        let remedy = if report.undecided.contains(class) {
            format!("  → {}", remedy(*class))
        } else {
            String::new()
        };
        lines.push(format!(
            "{:>10}  {}{remedy}",
            findings.count,
            meaning(*class)
        ));
        lines.extend(findings.listed.iter().take(SHOWN).map(finding));
        let more = findings.count.saturating_sub(SHOWN as u64);
        if more > 0 && !findings.listed.is_empty() {
            lines.push(format!("{:>12}… and {more} more (--json lists them)", ""));
        }
    }
    if report.failed > 0 {
        lines.push(format!("{:>10}  failed", report.failed));
        for failure in report.failures.iter().take(SHOWN) {
            let place = [&failure.configuration, &failure.place, &failure.coordinate];
            let place: Vec<&str> = place
                .into_iter()
                .flatten()
                .map(String::as_str)
                // A store's error names the coordinate itself.
                .filter(|part| !failure.message.contains(part))
                .collect();
            let place = place.join(" ");
            let separator = if place.is_empty() { "" } else { ": " };
            lines.push(format!("{:>12}{place}{separator}{}", "", failure.message));
        }
        let more = report.failed.saturating_sub(SHOWN as u64);
        if more > 0 {
            lines.push(format!("{:>12}… and {more} more (--json lists them)", ""));
        }
    }
    if report.unlisted {
        lines.push("the source cannot list: what no configuration mentions is not known".into());
    }
    lines.extend(
        report
            .unreachable
            .iter()
            .map(|place| format!("out of reach: {place}")),
    );
    lines.push(end(report));
    lines
}

/// Every number of the tally that is not zero, as the engine names them.
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
    format!("{:>12}{}", "", parts.join("  "))
}

fn end(report: &Report) -> String {
    let again = "the same command goes on from there";
    match report.stopped {
        None if report.failed > 0 => format!("{}: finished, with failures", report.command),
        None if report.tally.lost > 0 => format!(
            "{}: finished; the target has lost {}, run copy again",
            report.command, report.tally.lost
        ),
        None if report.dry_run => format!("{}: dry run, nothing was changed", report.command),
        None => format!("{}: done", report.command),
        Some(Stop::Cancelled) => format!("{}: stopped; {again}", report.command),
        Some(Stop::Conflict) => format!(
            "{}: stopped; the target has other values under these names, and nothing is overwritten",
            report.command
        ),
        Some(Stop::Hydration) => format!(
            "{}: refused; the configurations above would not hydrate, nothing was deleted",
            report.command
        ),
        Some(Stop::Unverified) => format!(
            "{}: found that the target lacks secrets that it had; run copy again",
            report.command
        ),
        Some(Stop::Undecided) => format!(
            "{}: waits for your decision about each class marked → above",
            report.command
        ),
        Some(_) => format!(
            "{}: stopped after too many failures; {again}",
            report.command
        ),
    }
}

fn meaning(class: Class) -> &'static str {
    match class {
        Class::Conflicting => "have another value in the target",
        Class::Expiring => "expire, and the target keeps no expiry",
        Class::External => "secrets of others, never copied",
        Class::Kept => "not deleted, because the two stores are not equal there",
        Class::Lost => "lost by the target; the next copy writes them again",
        Class::Missing => "mentioned by a configuration, missing in the source",
        Class::Orphaned => "in the source, mentioned by no configuration",
        Class::PendingDeletion => "scheduled for deletion in the target",
        Class::Present => "in the target already, equal",
        Class::Shared => "stand in more than one configuration",
        Class::Storage => "pointers with a storage id",
        Class::Unfit => "values that the target cannot hold",
        Class::Unreadable => "configurations that cannot be understood",
        _ => "others",
    }
}

fn remedy(class: Class) -> &'static str {
    match class {
        Class::Expiring => "--expiring drop-expiry or skip",
        Class::External => "--external expect or leave",
        Class::Missing => "--missing skip, or restore them",
        Class::Orphaned => "--orphaned copy or leave",
        Class::PendingDeletion => "--pending-deletion restore or skip",
        Class::Shared => "--unshare, or --shared keep",
        Class::Storage => "--storage <id>=move or <id>=leave for each",
        Class::Unfit => "--unfit skip, or another target",
        Class::Conflicting => "find out whose value is right; nothing is overwritten",
        Class::Unreadable => "correct them first",
        _ => "an option",
    }
}
