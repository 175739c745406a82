//! `--config`: options that every command repeats, from a TOML file.
//!
//! Keys at the top apply to every command that has the option; a table named like a command applies
//! to that command alone. An option of the command line takes precedence. Options that confirm
//! something are not accepted, because a file would confirm it for ever.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use toml::{Table, Value};

use crate::cli;
use crate::status::{Failure, Result};

/// The options that a file may set.
pub(crate) const KEYS: [&str; 34] = [
    "allow-external",
    "concurrency",
    "configs",
    "expiring",
    "expiring-within",
    "external",
    "from",
    "from-settings",
    "grace",
    "journal",
    "kubernetes-secret",
    "lag",
    "ledger",
    "list-lag",
    "max-share",
    "missing",
    "older-than",
    "orphaned",
    "other-scope",
    "pending-deletion",
    "rate",
    "recoverable",
    "references",
    "refuse-unknown-properties",
    "retention",
    "shared",
    "storage",
    "storage-id",
    "storages-file",
    "store",
    "store-settings",
    "strings-only",
    "to",
    "to-settings",
];

/// The commands that read options from a file. In the others, an option of the same name means something else.
const COMMANDS: [&str; 19] = [
    "affected",
    "ages",
    "check",
    "collect",
    "conformance",
    "copy",
    "encrypt",
    "hydrate",
    "plan",
    "prepare",
    "restore",
    "retire",
    "rollback",
    "rotate",
    "settle",
    "split",
    "sweep",
    "update",
    "verify",
];

/// The arguments of the process, followed by the options of its file.
///
/// # Errors
/// If the file cannot be read, or sets what it may not.
pub(crate) fn applied(mut arguments: Vec<OsString>) -> Result<Vec<OsString>> {
    let mut definition = cli::definition().ignore_errors(true);
    // Help and mistakes are reported when the arguments are parsed for good.
    let Ok(matches) = definition.try_get_matches_from_mut(&arguments) else {
        return Ok(arguments);
    };
    let Some((name, given)) = matches.subcommand() else {
        return Ok(arguments);
    };
    let Some(file) = given.get_one::<PathBuf>("config") else {
        return Ok(arguments);
    };
    let at = |failure: Failure| failure.at(format!("--config {}", file.display()));
    let table = read(file).map_err(at)?;
    let command = definition.find_subcommand(name).ok_or_else(|| {
        Failure::input("the command is unknown").at(format!("--config {}", file.display()))
    })?;
    arguments.extend(options(&definition, command, given, &table).map_err(at)?);
    Ok(arguments)
}

fn read(file: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(file)
        .map_err(|cause| Failure::input("cannot be read").with_source(cause))?;
    toml::from_str(&text).map_err(|error| {
        // The error would quote the line, which may contain what does not belong there.
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map_or(1, |before| before.matches('\n').count() + 1);
        Failure::input(format!("line {line}: {}", error.message()))
    })
}

/// The options of the file that the command has and the operator did not give.
fn options(
    definition: &Command,
    command: &Command,
    given: &ArgMatches,
    table: &Table,
) -> Result<Vec<OsString>> {
    let name = command.get_name();
    for (key, value) in table {
        let Value::Table(own) = value else {
            known(key)?;
            continue;
        };
        let Some(of) = definition.find_subcommand(key) else {
            return Err(Failure::input(format!("[{key}]: there is no such command")));
        };
        if !COMMANDS.contains(&key.as_str()) {
            return Err(Failure::input(format!(
                "[{key}]: this command takes its options from the command line only"
            )));
        }
        for key in own.keys() {
            known(key)?;
            if argument(of, key).is_none() {
                return Err(Failure::input(format!(
                    "[{}]: the command has no option `{key}`",
                    of.get_name()
                )));
            }
        }
    }
    if !COMMANDS.contains(&name) {
        return Ok(Vec::new());
    }
    let empty = Table::new();
    let own = table.get(name).and_then(Value::as_table).unwrap_or(&empty);
    let shared = table.iter().filter(|(key, value)| {
        // The journal of a migration is not that of a split or a collector.
        let of_others = ["collect", "split"].contains(&name) && *key == "journal";
        !value.is_table() && !own.contains_key(*key) && !of_others
    });
    let mut options = Vec::new();
    for (key, value) in shared.chain(own) {
        let Some(argument) = argument(command, key) else {
            continue;
        };
        if is_decided(command, argument, given) {
            continue;
        }
        options.extend(written(key, value)?);
    }
    Ok(options)
}

fn known(key: &str) -> Result<()> {
    if KEYS.contains(&key) {
        return Ok(());
    }
    Err(Failure::input(format!(
        "`{key}` is not an option of this file; it may have {}, and a table for each command",
        KEYS.join(", ")
    )))
}

fn argument<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    command
        .get_arguments()
        .find(|argument| argument.get_long() == Some(key))
}

/// Whether the command line has this option, or one that excludes it.
fn is_decided(command: &Command, argument: &Arg, given: &ArgMatches) -> bool {
    let excludes = |one: &Arg, other: &Arg| {
        command
            .get_arg_conflicts_with(one)
            .iter()
            .any(|excluded| excluded.get_id() == other.get_id())
    };
    command
        .get_arguments()
        .filter(|other| {
            given.value_source(other.get_id().as_str()) == Some(ValueSource::CommandLine)
        })
        .any(|other| {
            other.get_id() == argument.get_id()
                || excludes(argument, other)
                || excludes(other, argument)
        })
}

/// A value as arguments.
fn written(key: &str, value: &Value) -> Result<Vec<OsString>> {
    let option = |text: &dyn std::fmt::Display| OsString::from(format!("--{key}={text}"));
    match value {
        Value::Boolean(true) => Ok(vec![format!("--{key}").into()]),
        Value::Boolean(false) => Ok(Vec::new()),
        Value::Integer(number) => Ok(vec![option(number)]),
        Value::String(text) => Ok(vec![option(text)]),
        Value::Array(items) => {
            let mut options = Vec::new();
            for item in items {
                let Value::String(text) = item else {
                    return Err(Failure::input(format!("`{key}` lists strings")));
                };
                options.push(option(text));
            }
            Ok(options)
        }
        _ => Err(Failure::input(format!(
            "`{key}` is a string, a number, true, false, or a list of strings"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a command line becomes with the text of a file.
    fn with(text: &str, line: &str) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("options.toml");
        std::fs::write(&file, text).unwrap();
        let mut arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        arguments.extend(["--config".into(), file.into_os_string()]);
        let before = arguments.len();
        Ok(applied(arguments)?
            .split_off(before)
            .into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect())
    }

    const FILE: &str = r#"
from = "sqlite:a"
to = "sqlite:b"
store = "sqlite:b"
configs = ["c", "d"]
journal = "moves.db"
rate = 5
missing = "skip"
external = "leave"

[split]
journal = "splits.db"
strings-only = true
"#;

    #[test]
    fn each_command_gets_the_options_that_it_has() {
        let plan = [
            "--configs=c",
            "--configs=d",
            "--external=leave",
            "--from=sqlite:a",
            "--journal=moves.db",
            "--missing=skip",
            "--rate=5",
            "--to=sqlite:b",
        ];
        let sorted = |line| {
            let mut options = with(FILE, line).unwrap();
            options.sort();
            options
        };
        assert_eq!(sorted("secret-migrate plan"), plan);
        assert_eq!(sorted("secret-migrate check"), ["--store=sqlite:b"]);
        let split = [
            "--configs=c",
            "--configs=d",
            "--journal=splits.db",
            "--rate=5",
            "--store=sqlite:b",
            "--strings-only",
        ];
        assert_eq!(sorted("secret-migrate split"), split);
        let collect = ["--configs=c", "--configs=d", "--rate=5", "--store=sqlite:b"];
        assert_eq!(sorted("secret-migrate collect"), collect);
        // `--external` of policy is a prefix, and `--store` of keygen needs --remove.
        let none: [&str; 0] = [];
        assert_eq!(sorted("secret-migrate policy aws --region r"), none);
        assert_eq!(sorted("secret-migrate keygen --file f"), none);
    }

    #[test]
    fn the_command_line_takes_precedence() {
        for (line, absent) in [
            ("secret-migrate plan --from sqlite:z", "--from="),
            ("secret-migrate plan --from-settings f", "--from="),
            ("secret-migrate plan --configs=z", "--configs="),
            ("secret-migrate split -", "--configs="),
            ("secret-migrate --json check --store sqlite:z", "--store="),
        ] {
            let options = with(FILE, line).unwrap();
            assert!(
                !options.iter().any(|option| option.starts_with(absent)),
                "{line}: {options:?}"
            );
        }
    }

    #[test]
    fn what_a_file_may_not_set_is_refused_and_never_quoted() {
        for (text, says) in [
            ("all-references = true", "`all-references` is not an option"),
            ("form = 'sqlite:a'", "`form` is not an option"),
            ("[moves]\nfrom = 'a'", "[moves]: there is no such command"),
            ("[check]\nfrom = 'a'", "the command has no option `from`"),
            (
                "[keygen]\nstore = ['a']",
                "takes its options from the command line only",
            ),
            ("rate = 1.5", "`rate` is a string"),
            ("configs = [1]", "`configs` lists strings"),
            ("\nfrom = hunter2", "line 2: "),
        ] {
            let failure = with(text, "secret-migrate plan").unwrap_err();
            let message = failure.to_string();
            assert!(message.contains(says), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn every_key_is_an_option_of_a_command() {
        let definition = cli::definition();
        for key in KEYS {
            assert!(
                COMMANDS.iter().any(|name| {
                    let command = definition.find_subcommand(name).unwrap();
                    argument(command, key).is_some()
                }),
                "{key}"
            );
        }
    }
}
