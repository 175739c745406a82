//! Writes the list while it is read, so that its length is not a matter of memory.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Stdout, Write};

use secret_persistence_core::Timestamp;
use secret_persistence_migrate::{InventoryReport, Reads, SecretAt};
use serde_json::json;

use crate::cli::Format;
use crate::console::escaped;
use crate::output::Output;
use crate::status::{Failure, Result, Status};

/// The name of each column of a CSV file: that of the field in JSON.
const COLUMNS: &str =
    "configuration,place,base_id,coordinate,storage,standing,created,age_seconds,expires,owner,";

/// The columns of reads, where there is a ledger.
const READ_COLUMNS: &str = "last_read,last_reader,last_read_genuine,reads_since,";

/// The metrics, with their help.
const CREATED: (&str, &str) = (
    "secret_migrate_created_timestamp_seconds",
    "When the value of the secret at this place was written.",
);
const EXPIRES: (&str, &str) = (
    "secret_migrate_expires_timestamp_seconds",
    "When the secret at this place expires.",
);
const PLACES: (&str, &str) = (
    "secret_migrate_places",
    "Listed places, by what is known about their secrets.",
);
const LAST_READ: (&str, &str) = (
    "secret_migrate_last_read_timestamp_seconds",
    "When the secret at this place was last read, if the ledger knows.",
);
const NEVER_READ: (&str, &str) = (
    "secret_migrate_never_read_places",
    "Listed places whose secret was not read since secret_migrate_reads_since_timestamp_seconds.",
);
const READS_SINCE: (&str, &str) = (
    "secret_migrate_reads_since_timestamp_seconds",
    "How far back the ledger goes.",
);

/// The list on standard output, and the names for `--list`.
pub(super) struct List<'o> {
    command: &'static str,
    form: Form,
    out: BufWriter<Stdout>,
    output: &'o Output,
    listed: u64,
    /// Whether a ledger says who read a secret.
    has_history: bool,
}

enum Form {
    Csv,
    JsonLines,
    /// The one object of `--json`.
    JsonObject,
    /// The samples of a metric must be together: those of expiries and of reads wait in files.
    Prometheus(BufWriter<File>, BufWriter<File>),
    Table,
}

impl<'o> List<'o> {
    /// Begins a list.
    ///
    /// # Errors
    /// If there is no place for a temporary file.
    pub(super) fn begin(
        command: &'static str,
        format: Format,
        has_history: bool,
        output: &'o Output,
    ) -> Result<Self> {
        let form = match format {
            _ if output.is_json() => Form::JsonObject,
            Format::Csv => Form::Csv,
            Format::JsonLines => Form::JsonLines,
            Format::Prometheus => Form::Prometheus(waiting()?, waiting()?),
            Format::Table => Form::Table,
        };
        Ok(Self {
            command,
            form,
            out: BufWriter::new(io::stdout()),
            output,
            listed: 0,
            has_history,
        })
    }

    /// Adds a secret.
    pub(super) fn add(&mut self, secret: &SecretAt) -> io::Result<()> {
        if self.listed == 0 {
            self.head()?;
        }
        self.listed += 1;
        self.output.list_only(&words(secret));
        let out = &mut self.out;
        match &mut self.form {
            Form::Csv => writeln!(out, "{}", csv(secret)),
            Form::JsonLines => writeln!(out, "{}", json(secret)),
            Form::JsonObject => {
                let comma = if self.listed > 1 { "," } else { "" };
                write!(out, "{comma}{}", json(secret))
            }
            Form::Prometheus(expiries, reads) => {
                if let Some(created) = secret.created {
                    sample(out, CREATED.0, secret, created)?;
                }
                if let Some(expires) = secret.expires {
                    sample(expiries, EXPIRES.0, secret, expires)?;
                }
                match secret.reads.as_ref().and_then(|reads| reads.last_read) {
                    Some(read) => sample(reads, LAST_READ.0, secret, read),
                    None => Ok(()),
                }
            }
            Form::Table => writeln!(out, "{}", row(secret)),
        }
    }

    /// Ends the list with what was counted.
    pub(super) fn end(mut self, status: Status, report: &InventoryReport) -> io::Result<()> {
        if self.listed == 0 {
            self.head()?;
        }
        let out = &mut self.out;
        match &mut self.form {
            Form::Csv | Form::JsonLines | Form::Table => {}
            Form::JsonObject => {
                let mut rest = serde_json::to_value(report).unwrap_or_default();
                rest["exit_status"] = json!(status as u8);
                let rest = rest.to_string();
                // The fields continue those of the open object.
                writeln!(out, "],{}", rest.strip_prefix('{').unwrap_or("}"))?;
            }
            Form::Prometheus(expiries, reads) => {
                metric(out, EXPIRES)?;
                expiries.rewind()?;
                io::copy(expiries.get_mut(), out)?;
                if let Some(never_read) = report.never_read {
                    metric(out, LAST_READ)?;
                    reads.rewind()?;
                    io::copy(reads.get_mut(), out)?;
                    // Without the time, nobody could tell what the number is about.
                    if let Some(since) = report.reads_since {
                        metric(out, NEVER_READ)?;
                        writeln!(out, "{} {never_read}", NEVER_READ.0)?;
                        metric(out, READS_SINCE)?;
                        writeln!(out, "{} {}", READS_SINCE.0, since.unix_seconds())?;
                    }
                }
                metric(out, PLACES)?;
                let present = report.listed
                    - (report.elsewhere
                        + report.external
                        + report.missing
                        + report.pending_deletion
                        + report.restored
                        + report.undescribed
                        + report.unreadable);
                for (standing, places) in [
                    ("elsewhere", report.elsewhere),
                    ("external", report.external),
                    ("missing", report.missing),
                    ("pending_deletion", report.pending_deletion),
                    ("present", present),
                    ("restored", report.restored),
                    ("undescribed", report.undescribed),
                    ("unreadable", report.unreadable),
                ] {
                    writeln!(out, "{}{{standing=\"{standing}\"}} {places}", PLACES.0)?;
                }
            }
        }
        out.flush()
    }

    /// Ends a list that something cut off. Only the JSON object says so itself.
    pub(super) fn fail(mut self, status: Status, text: &str) -> io::Result<()> {
        if matches!(self.form, Form::JsonObject) {
            if self.listed == 0 {
                self.head()?;
            }
            let (text, status) = (json!(text), status as u8);
            writeln!(self.out, "],\"error\":{text},\"exit_status\":{status}}}")?;
        }
        self.out.flush()
    }

    fn head(&mut self) -> io::Result<()> {
        let out = &mut self.out;
        let has_history = self.has_history;
        match self.form {
            Form::Csv => {
                let reads = if has_history { READ_COLUMNS } else { "" };
                writeln!(out, "{COLUMNS}{reads}detail")
            }
            Form::JsonLines => Ok(()),
            Form::JsonObject => write!(out, "{{\"command\":\"{}\",\"secrets\":[", self.command),
            Form::Prometheus(..) => metric(out, CREATED),
            Form::Table => {
                let reads = if has_history {
                    format!("{:26}  ", "LAST READ, BY")
                } else {
                    String::new()
                };
                writeln!(
                    out,
                    "{:>6}  {:20}  {:20}  {:16}  {:12}  {reads}SECRET, CONFIGURATION, PLACE, STORAGE",
                    "AGE", "CREATED", "EXPIRES", "STANDING", "OWNER"
                )
            }
        }
    }
}

/// A file for samples that come after others.
fn waiting() -> Result<BufWriter<File>> {
    let file = tempfile::tempfile()
        .map_err(|cause| Failure::failed("cannot create a temporary file").with_source(cause))?;
    Ok(BufWriter::new(file))
}

/// How a command ends whose list could not be written. A reader that has seen enough closes the
/// pipe.
pub(super) fn unwritten(cause: io::Error) -> Result<Status> {
    if cause.kind() == io::ErrorKind::BrokenPipe {
        return Ok(Status::Done);
    }
    Err(Failure::failed("the list could not be written").with_source(cause))
}

fn metric(out: &mut impl Write, (name, help): (&str, &str)) -> io::Result<()> {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge")
}

/// A sample whose labels stay the same when the secret is replaced.
fn sample(out: &mut impl Write, name: &str, secret: &SecretAt, time: Timestamp) -> io::Result<()> {
    writeln!(
        out,
        "{name}{{configuration=\"{}\",place=\"{}\",storage=\"{}\"}} {}",
        label(&secret.configuration),
        label(&secret.place),
        label(secret.storage.as_deref().unwrap_or_default()),
        time.unix_seconds()
    )
}

/// The escapes of <https://prometheus.io/docs/instrumenting/exposition_formats/>.
fn label(text: &str) -> String {
    escaped(&text.replace('\\', "\\\\").replace('"', "\\\"")).into_owned()
}

/// JSON without a character that controls a terminal.
fn json(secret: &SecretAt) -> String {
    // A map of strings and numbers always becomes JSON.
    escaped(&serde_json::to_string(secret).unwrap_or_default()).into_owned()
}

fn csv(secret: &SecretAt) -> String {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    let age = secret.age_seconds.map(|age| age.to_string());
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut fields = vec![
        secret.configuration.clone(),
        secret.place.clone(),
        optional(&secret.base_id),
        optional(&secret.coordinate),
        optional(&secret.storage),
        secret.standing.as_str().to_owned(),
        time(secret.created),
        age.unwrap_or_default(),
        time(secret.expires),
        optional(&secret.owner),
    ];
    if let Some(reads) = &secret.reads {
        let genuine = reads.last_read_genuine.map(|genuine| genuine.to_string());
        fields.extend([
            time(reads.last_read),
            optional(&reads.last_reader),
            genuine.unwrap_or_default(),
            time(reads.reads_since),
        ]);
    }
    fields.push(optional(&secret.detail));
    let fields: Vec<String> = fields.iter().map(|text| field(text)).collect();
    fields.join(",")
}

/// A quoted field. An apostrophe keeps spreadsheets from running what others wrote as a formula:
/// <https://owasp.org/www-community/attacks/CSV_Injection>.
fn field(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@']) {
        "'"
    } else {
        ""
    };
    format!("\"{guard}{}\"", escaped(text).replace('"', "\"\""))
}

fn row(secret: &SecretAt) -> String {
    let time = |time: Option<Timestamp>, none: &'static str| {
        time.map_or(Cow::Borrowed(none), |time| time.to_string().into())
    };
    let never = if ["present", "restored"].contains(&secret.standing.as_str()) {
        "never"
    } else {
        "?"
    };
    format!(
        "{:>6}  {:20}  {:20}  {:16}  {:12}  {}",
        secret.age_seconds.map_or_else(|| "?".to_owned(), age),
        time(secret.created, "?"),
        time(secret.expires, never),
        secret.standing.as_str(),
        escaped(secret.owner.as_deref().unwrap_or("?")),
        escaped(&match &secret.reads {
            Some(reads) => format!("{:26}  {}", read(reads), words(secret)),
            None => words(secret),
        }),
    )
}

/// When and by whom. No secret is called never read: its time may be that of a copy, and the ledger
/// knows nothing of the store that it was copied from.
fn read(reads: &Reads) -> String {
    match (reads.last_read, reads.reads_since) {
        (Some(at), _) => format!(
            "{at}, {}{}",
            reads.last_reader.as_deref().unwrap_or("?"),
            match reads.last_read_genuine {
                Some(false) => " (NOT GENUINE)",
                _ => "",
            }
        ),
        (None, Some(since)) => format!("not since {since}"),
        (None, None) => "?".to_owned(),
    }
}

/// The names of a secret.
fn words(secret: &SecretAt) -> String {
    let storage = secret.storage.as_ref().map(|id| format!("storage {id}"));
    let parts = [
        secret.coordinate.as_deref(),
        Some(&*secret.configuration),
        Some(&*secret.place).filter(|place| !place.is_empty()),
        storage.as_deref(),
        secret.detail.as_deref(),
    ];
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    parts.join("  ")
}

/// In the largest unit of which there are two.
fn age(seconds: u64) -> String {
    match seconds {
        172_800.. => format!("{}d", seconds / 86_400),
        7_200.. => format!("{}h", seconds / 3_600),
        120.. => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_never_formulas() {
        for (text, written) in [
            ("", r#""""#),
            ("a,b", r#""a,b""#),
            (r#"say "x""#, r#""say ""x""""#),
            ("=HYPERLINK(1)", r#""'=HYPERLINK(1)""#),
            ("two\nlines", r#""two\nlines""#),
        ] {
            assert_eq!(field(text), written);
        }
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(label("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
    }

    #[test]
    fn ages_have_the_largest_unit_of_which_there_are_two() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7_199, "119m"),
            (7_200, "2h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (7_776_000, "90d"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }
}
