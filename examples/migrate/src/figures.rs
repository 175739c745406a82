//! Every figure of every report, for `--help` and for the table of the README.

use secret_persistence_migrate::Class;

use crate::console::wrapped;
use crate::output::meaning;

/// The columns that a line of the help takes.
const WIDTH: usize = 100;

/// The commands that print a report.
pub(crate) const COMMANDS: [&str; 21] = [
    "demo",
    "plan",
    "copy",
    "verify",
    "rollback",
    "retire",
    "split",
    "update",
    "settle",
    "check",
    "ages",
    "affected",
    "restore",
    "collect",
    "sweep",
    "ledger",
    "prepare",
    "encrypt",
    "rotate",
    "keygen",
    "conformance",
];

/// The commands of a migration.
const MOVES: &[&str] = &["plan", "copy", "verify", "rollback", "retire"];

/// The commands that list what configurations point at.
const LISTS: &[&str] = &["ages", "affected", "restore"];

/// Those of them that say who read a secret last.
const READS: &[&str] = &["ages", "affected"];

/// A figure with the name that it has in the JSON object; the screen has spaces for `_`.
struct Figure {
    name: &'static str,
    commands: &'static [&'static str],
    meaning: &'static str,
}

const fn figure(
    name: &'static str,
    commands: &'static [&'static str],
    meaning: &'static str,
) -> Figure {
    Figure {
        name,
        commands,
        meaning,
    }
}

/// The figures of a migration and a split: those of the engine's tally, in its order.
static TALLY: [Figure; 23] = [
    figure(
        "configurations",
        &["plan", "copy", "verify", "rollback", "retire", "split"],
        "configurations that were read",
    ),
    figure(
        "bare_coordinates",
        &["plan", "copy", "verify", "rollback", "retire", "split"],
        "coordinates that were read from a column of coordinates",
    ),
    figure(
        "pointers",
        MOVES,
        "pointers that were found in configurations",
    ),
    figure(
        "secrets",
        &["plan", "copy", "split"],
        "different secrets to be moved; for split, raw secrets to be written",
    ),
    figure(
        "present",
        &["plan", "copy"],
        "the target already had an equal value, which the migration did not write; rollback keeps it",
    ),
    figure(
        "written",
        &["plan", "copy"],
        "written to the target; `to be written` in a plan or a dry run",
    ),
    figure(
        "resumed",
        &["plan", "copy"],
        "already written by a run that was killed before it could note it",
    ),
    figure(
        "restored",
        &["plan", "copy"],
        "were scheduled for deletion in the target and are restored",
    ),
    figure(
        "withdrawn",
        &["copy"],
        "were deleted from the source during the copy, and therefore from the target",
    ),
    figure(
        "skipped",
        MOVES,
        "not moved because of a decision or because they have expired; for verify, rollback and retire, \
         configurations that were not hydrated",
    ),
    figure(
        "verified",
        &["verify"],
        "read back from both stores and equal",
    ),
    figure(
        "lost",
        &["verify"],
        "the target lacks them although they were copied or were about to be; run copy again",
    ),
    figure(
        "hydrated",
        &["verify", "rollback", "retire"],
        "configurations for which every secret could be read",
    ),
    figure(
        "deleted",
        &["rollback", "retire"],
        "deleted: by rollback from the target, by retire from the source; `to be deleted` in a dry run",
    ),
    figure(
        "kept",
        &["copy", "rollback", "retire", "split"],
        "not deleted, because the two stores do not have the same value or nothing proves who wrote it; for split \
         and `copy --unshare`, because an interrupted run has written it for a row that may still be saved",
    ),
    figure(
        "gone",
        &["plan", "copy", "verify", "retire"],
        "no longer in the source, because a service deleted or replaced them",
    ),
    figure(
        "foreign",
        MOVES,
        "of another installation according to the store's owner; left alone",
    ),
    figure(
        "split",
        &["split"],
        "configurations whose secrets were replaced by pointers",
    ),
    figure(
        "unshared",
        &["copy"],
        "own copies that --unshare made of shared secrets",
    ),
    figure(
        "remaining",
        &["retire"],
        "secrets of this installation that are still in the source; the exit status is 1",
    ),
    figure(
        "changed_since",
        MOVES,
        "changed after they were copied; the next copy updates them",
    ),
    figure(
        "changed",
        &["copy", "split"],
        "rows that another client changed meanwhile; they are unchanged, run the command again",
    ),
    figure(
        "unknown_properties",
        &["split"],
        "properties that a specification does not define; a secret in one stays in plain text",
    ),
];

/// The figures beside the tally.
static OTHERS: &[Figure] = &[
    figure(
        "failed",
        &[
            "demo", "plan", "copy", "verify", "rollback", "retire", "split", "settle",
        ],
        "secrets or configurations that failed, each listed with its reason",
    ),
    figure(
        "storages",
        MOVES,
        "pointers per storage id; the empty id is the default storage (`… in storage ID` on the screen)",
    ),
    figure(
        "states",
        &["plan", "copy", "verify", "rollback", "retire", "split"],
        "secrets per state of the journal at the end (JSON only)",
    ),
    figure("connectors", &["demo"], "made-up connectors"),
    figure(
        "secrets",
        &["demo"],
        "secrets that were moved, verified and moved back",
    ),
    figure(
        "record",
        &["split", "update"],
        "of a filter: the names that the change wrote and superseded, for `settle -`",
    ),
    figure("deleted", &["settle"], "secrets that were deleted, by name"),
    figure(
        "foreign",
        &["settle"],
        "kept, because the store says that another installation wrote them",
    ),
    figure(
        "again",
        &["settle"],
        "when to settle the same record again, because a write may still arrive",
    ),
    figure(
        "milliseconds",
        &["check"],
        "how long the step took, with every retry",
    ),
    figure(
        "left_behind",
        &["check"],
        "whether the test secret is still in the store",
    ),
    figure("configurations", LISTS, "configurations that were read"),
    figure(
        "places",
        LISTS,
        "places with a pointer, and bare coordinates",
    ),
    figure(
        "listed",
        LISTS,
        "secrets that meet the conditions, once for each place; the figures below are of these",
    ),
    figure(
        "unknown_age",
        LISTS,
        "the store does not tell when they were written, or is not asked",
    ),
    figure(
        "never_read",
        READS,
        "not read since `reads_since`, as far as the ledger knows; only with --ledger",
    ),
    figure(
        "not_genuine",
        READS,
        "the ledger's line of the last read is not genuine; only with --ledger; the exit status is 1",
    ),
    figure(
        "reads_since",
        READS,
        "how far back the ledger goes: its oldest line, or the newest that was pruned",
    ),
    figure("elsewhere", LISTS, "in another storage, which is not asked"),
    figure(
        "external",
        LISTS,
        "names that others manage, which are not asked about",
    ),
    figure(
        "missing",
        LISTS,
        "the store does not have them; for restore, enter them again, and the exit status is 1",
    ),
    figure(
        "pending_deletion",
        LISTS,
        "scheduled for deletion; for restore, they could not be restored, or a dry run did not, and the exit status \
         is 1",
    ),
    figure(
        "restored",
        &["restore"],
        "were scheduled for deletion, and are there again",
    ),
    figure(
        "undescribed",
        LISTS,
        "the store failed to describe them; the exit status is 1",
    ),
    figure(
        "unreadable",
        LISTS,
        "places that do not say which secret it is; the exit status is 1",
    ),
    figure(
        "owned",
        &["collect"],
        "secrets of this installation in the store, without those that are scheduled for deletion",
    ),
    figure(
        "configurations",
        &["collect"],
        "rows of configurations and records that were read",
    ),
    figure("names", &["collect"], "managed names in them"),
    figure(
        "orphaned",
        &["collect"],
        "that no configuration names, and that are due or were deleted",
    ),
    figure("expired", &["collect"], "that have expired, due or deleted"),
    figure(
        "ephemeral",
        &["collect"],
        "short-lived secrets of no workspace that no configuration names, due or deleted",
    ),
    figure(
        "waiting",
        &["collect"],
        "that no configuration names, but not for long enough yet",
    ),
    figure(
        "young",
        &["collect"],
        "younger than the grace period, and therefore not looked for in configurations",
    ),
    figure(
        "unowned",
        &["collect"],
        "that no configuration names and of which the store tells no owner; kept",
    ),
    figure(
        "undated",
        &["collect"],
        "that no configuration names and of which the store tells no time; kept",
    ),
    figure(
        "foreign",
        &["collect"],
        "of other installations; left alone",
    ),
    figure(
        "deleted",
        &["collect"],
        "deleted, or in the store's recovery window",
    ),
    figure(
        "failed",
        &["collect"],
        "secrets that could not be deleted; the exit status is 1",
    ),
    figure(
        "unreadable",
        &["collect"],
        "places that do not say which secret they name; nothing is deleted",
    ),
    figure(
        "deleted",
        &["sweep"],
        "expired secrets of this owner that were deleted, or would be",
    ),
    figure(
        "foreign",
        &["sweep"],
        "expired secrets of another installation, kept",
    ),
    figure("failures", &["sweep"], "secrets that could not be deleted"),
    figure(
        "lines",
        &["ledger"],
        "lines of the ledger: verified, found by a query, or pruned",
    ),
    figure(
        "chains",
        &["ledger"],
        "chains of lines, one for each process",
    ),
    figure(
        "pruned",
        &["ledger"],
        "lines that prunes have removed, as their marks say",
    ),
    figure(
        "unfinished",
        &["ledger"],
        "lines at the end of files that are cut off: by a crash, a write under way, or somebody",
    ),
    figure(
        "found",
        &["ledger"],
        "what is wrong with a ledger; the exit status is 1",
    ),
    figure(
        "not_genuine",
        &["ledger"],
        "lines of a query whose digest is not theirs; the exit status is 1",
    ),
    figure(
        "sql",
        &["prepare"],
        "the statements that the table lacks; empty if it has every column",
    ),
    figure("converted", &["encrypt"], "plain rows that were encrypted"),
    figure(
        "rewritten",
        &["encrypt"],
        "whether the table's files were rewritten, so that they no longer contain plain text; null in the report of \
         a process that did not end the work",
    ),
    figure(
        "out_of_reach",
        &["encrypt"],
        "where old plain text may remain: backups, replicas, write-ahead logs",
    ),
    figure(
        "rotated",
        &["rotate"],
        "rows whose data key was wrapped with the active key, or that were encrypted again",
    ),
    figure(
        "damaged",
        &["encrypt", "rotate"],
        "rows that are neither plain nor encrypted, or do not decrypt; they were not changed, and the exit status is 1",
    ),
    figure("keys", &["keygen"], "ids of the keys in the ring"),
    figure("active", &["keygen"], "the key that encrypts new values"),
    figure(
        "cases",
        &["conformance"],
        "the promises of the contract, each passed, failed or not applicable",
    ),
];

/// The classes of findings: a number of secrets or places, with their names below it.
const CLASSES: [Class; 18] = [
    Class::Changed,
    Class::Conflicting,
    Class::Expiring,
    Class::External,
    Class::Kept,
    Class::Lost,
    Class::Missing,
    Class::OtherScope,
    Class::Orphaned,
    Class::PendingDeletion,
    Class::Present,
    Class::Recoverable,
    Class::Shared,
    Class::Skipped,
    Class::Storage,
    Class::Unfit,
    Class::Unknown,
    Class::Unreadable,
];

/// Commands that list findings.
const FINDERS: &[&str] = &["plan", "copy", "verify", "rollback", "retire", "split"];

/// The figures of a command's report, as its help prints them.
pub(crate) fn help(command: &str) -> String {
    let figures: Vec<&Figure> = TALLY
        .iter()
        .chain(OTHERS)
        .filter(|figure| figure.commands.contains(&command))
        .collect();
    let width = figures
        .iter()
        .map(|figure| figure.name.len())
        .max()
        .unwrap_or_default();
    let mut lines = vec!["Figures of the report:".to_owned()];
    for figure in figures {
        let line = format!("  {:width$}  {}", figure.name, figure.meaning);
        lines.extend(wrapped(&line, WIDTH, width + 4));
    }
    if FINDERS.contains(&command) {
        lines.push(
            "Findings: a number, and names or places below it. `→` marks what needs a decision."
                .into(),
        );
        for class in CLASSES {
            let line = format!("  {:width$}  {}", class.as_str(), meaning(class));
            lines.extend(wrapped(&line, WIDTH, width + 4));
        }
    }
    lines.join("\n")
}

/// The same for all commands, as a table for the README.
#[cfg(test)]
fn table() -> String {
    let mut text = String::from("| figure | commands | what it counts |\n|---|---|---|\n");
    for figure in TALLY.iter().chain(OTHERS) {
        text += &format!(
            "| `{}` | {} | {} |\n",
            figure.name,
            figure.commands.join(", "),
            figure.meaning
        );
    }
    for class in CLASSES {
        text += &format!(
            "| finding `{class}` | {} | {} |\n",
            FINDERS.join(", "),
            meaning(class)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use secret_persistence_migrate::Tally;
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_number_of_the_engine_is_explained_in_its_order() {
        let Value::Object(numbers) = serde_json::to_value(Tally::default()).unwrap() else {
            panic!("not an object");
        };
        let numbers: Vec<&str> = numbers.keys().map(String::as_str).collect();
        let explained: Vec<&str> = TALLY.iter().map(|figure| figure.name).collect();
        assert_eq!(explained, numbers);
    }

    #[test]
    fn every_class_is_explained_once() {
        let mut names: Vec<&str> = CLASSES.iter().map(|class| class.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CLASSES.len());
        for class in CLASSES {
            assert_ne!(meaning(class), "others", "{class}");
        }
    }

    #[test]
    fn figures_are_of_commands_with_a_report_and_each_has_one() {
        for figure in TALLY.iter().chain(OTHERS) {
            for command in figure.commands {
                assert!(COMMANDS.contains(command), "{command}");
            }
        }
        for command in COMMANDS {
            assert!(help(command).lines().count() > 1, "{command}");
        }
    }

    /// `UPDATE_EXPECTED=1` writes the table.
    #[test]
    fn the_readme_has_the_same_table() {
        const BEGIN: &str = "<!-- figures -->\n";
        const END: &str = "<!-- end -->";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let start = text.find(BEGIN).unwrap() + BEGIN.len();
        let end = start + text[start..].find(END).unwrap();
        let expected = table();
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&path, text[..start].to_owned() + &expected + &text[end..]).unwrap();
            return;
        }
        assert_eq!(text[start..end], expected, "UPDATE_EXPECTED=1 updates it");
    }
}
