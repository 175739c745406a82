//! `--workers N`: starts processes of this program that share the work.
//!
//! Each has a pipe as its standard input, whose end tells it to stop as Ctrl-C does. The pipes end when
//! this process is asked to stop, and also when it is killed.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::{Value, json};

use crate::cli::{ConvertArgs, MoveArgs, ShareArgs};
use crate::console::{remark, say_text};
use crate::interrupt;
use crate::output::Output;
use crate::status::{Failure, Result, Status};

/// How often to look whether this process was asked to stop.
const LOOK: std::time::Duration = std::time::Duration::from_millis(100);

/// A command of several processes.
pub(crate) struct Together<'a> {
    command: &'static str,
    workers: NonZeroUsize,
    journal: &'a str,
    is_alone: bool,
    writes: bool,
}

impl<'a> Together<'a> {
    /// The command, if it is to run in more than one process. `is_alone` says that it has its journal
    /// alone with these options.
    pub(crate) fn of(
        command: &'static str,
        share: &ShareArgs,
        journal: &'a str,
        is_alone: bool,
    ) -> Option<Self> {
        let workers = share.workers.filter(|workers| workers.get() > 1)?;
        Some(Self {
            command,
            workers,
            journal,
            is_alone,
            writes: false,
        })
    }

    /// The same for a command between two stores.
    pub(crate) fn moving(
        command: &'static str,
        share: &ShareArgs,
        moved: &'a MoveArgs,
    ) -> Option<Self> {
        let unshares = command == "copy" && moved.decisions.unshare;
        let journal = &moved.journal.journal;
        Self::of(command, share, journal, moved.dry_run || unshares)
    }

    /// The same for a command that converts a table.
    pub(crate) fn converting(command: &'static str, args: &'a ConvertArgs) -> Option<Self> {
        let journal = args.journal.as_deref().unwrap_or_default();
        Self::of(command, &args.share, journal, false)
    }

    /// Sets whether each process would write a file of the same name.
    pub(crate) fn writing(mut self, writes: bool) -> Self {
        self.writes = writes;
        self
    }

    /// Runs the same command in so many processes and prints what each reports.
    pub(crate) async fn run(self, arguments: &[OsString], output: &Output) -> Result<Status> {
        if !self.journal.starts_with("postgres") || self.is_alone {
            return Err(Failure::input(
                "--workers needs --journal postgres://…, and neither --dry-run nor --unshare; collect also needs \
                 --delete, and split needs tables",
            ));
        }
        if output.lists_all() || self.writes {
            return Err(Failure::input(
                "--workers cannot be combined with --list or --differences: start each process with its own file",
            ));
        }
        together(self.command, self.workers, arguments, output).await
    }
}

async fn together(
    command: &str,
    workers: NonZeroUsize,
    arguments: &[OsString],
    output: &Output,
) -> Result<Status> {
    let mut stdins = Vec::new();
    let mut ends = Vec::new();
    for number in 1..=workers.get() {
        let mut child = start(arguments)
            .map_err(|cause| Failure::failed("a process does not start").with_source(cause))?;
        stdins.push(child.stdin.take());
        let stderr = child.stderr.take();
        std::thread::spawn(move || forward(number, stderr));
        ends.push(tokio::task::spawn_blocking(move || {
            child.wait_with_output()
        }));
    }
    let cancellation = interrupt::watch();
    let mut reports = Vec::new();
    let mut statuses = Vec::new();
    for (number, mut end) in (1..).zip(ends) {
        let ended = loop {
            tokio::select! {
                ended = &mut end => break ended,
                () = tokio::time::sleep(LOOK) => {
                    if cancellation.is_cancelled() {
                        stdins.clear();
                    }
                }
            }
        };
        let ended = ended
            .map_err(|cause| Failure::failed("a thread ended").with_source(cause))?
            .map_err(|cause| Failure::failed("a process is lost").with_source(cause))?;
        let text = String::from_utf8_lossy(&ended.stdout);
        statuses.push(ended.status.code());
        if ended.status.code().is_none() {
            remark(format!("{number}: was killed ({})", ended.status));
        }
        if output.is_json() {
            reports.push(serde_json::from_str(&text).unwrap_or(Value::Null));
        } else {
            say_text(format!("process {number}:"));
            say_text(&text);
        }
    }
    let status = status_of(&statuses);
    output.object(status, &json!({ "command": command, "workers": reports }));
    Ok(status)
}

fn start(arguments: &[OsString]) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(arguments.iter().skip(1))
        .args(["--workers", "1", "--stop-at-end-of-input"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// Shows the remarks of a process, with its number.
fn forward(number: usize, stderr: Option<ChildStderr>) {
    let lines = stderr.map(|stderr| BufReader::new(stderr).lines());
    for line in lines.into_iter().flatten().map_while(std::io::Result::ok) {
        remark(format!("{number}: {line}"));
    }
}

/// The status of all: what one finds is found, and if one has come to the end, the pages of those that
/// were stopped or killed are done.
fn status_of(statuses: &[Option<i32>]) -> Status {
    let order = [
        Status::Undecided,
        Status::Input,
        Status::Found,
        Status::Done,
        Status::Interrupted,
    ];
    let has = |status: &Status| statuses.contains(&Some(*status as i32));
    order.into_iter().find(has).unwrap_or(Status::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_comes_to_the_end_does_the_work_of_those_that_do_not() {
        for (statuses, expected) in [
            (&[Some(0), Some(0)][..], Status::Done),
            (&[Some(0), None], Status::Done),
            (&[Some(4), Some(0)], Status::Done),
            (&[Some(130), Some(0)], Status::Done),
            (&[Some(130), None], Status::Interrupted),
            (&[Some(0), Some(1)], Status::Found),
            (&[Some(0), Some(3)], Status::Undecided),
            (&[Some(2), Some(2)], Status::Input),
            (&[Some(4), None], Status::Failed),
            (&[None, None], Status::Failed),
        ] {
            assert_eq!(status_of(statuses), expected, "{statuses:?}");
        }
    }
}
