//! The command line: every command and option. Nothing here needs a store.

mod collect;
mod configurations;
mod converting;
mod inventory;
mod ledger;
mod moving;
mod passwords;
mod policy;
mod run;
mod stores;
mod times;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use secret_persistence::FipsModule;

pub(crate) use self::collect::CollectArgs;
pub(crate) use self::configurations::{FilterArgs, HydrateArgs, MaskArgs, SplitArgs, UpdateArgs};
pub(crate) use self::converting::{ConvertArgs, EncryptArgs, KeygenArgs, PrepareArgs, RotateArgs};
pub(crate) use self::inventory::{AffectedArgs, AgesArgs, Format, InventoryArgs, RestoreArgs};
pub(crate) use self::ledger::{LedgerArgs, LedgerCommand, QueryArgs};
pub(crate) use self::moving::{
    CompareArgs, MoveArgs, RetireArgs, SharedArgs, StatusArgs, VerifyArgs,
};
pub(crate) use self::passwords::without_passwords;
pub(crate) use self::policy::{PolicyArgs, PolicyOf};
pub(crate) use self::run::{JournalArgs, Pace, ShareArgs};
pub(crate) use self::stores::{Configs, OneStore, Place, Route};
use self::times::duration;
use crate::figures;
use crate::status::EXIT_STATUSES;

const ENVIRONMENT: &str = "\
Stores are URLs without credentials; options of a store are query parameters:
  sqlite:///path/secrets.db?table=secrets&mode=encrypted
  postgres://host:5432/database?table=secrets&mode=encrypted     (--features postgres)

Environment (no option ever takes a secret):
  SECRETS_OWNER          the id of this installation, written with every secret; needed before anything is written
  SECRETS_KEYRING_FILE   the key ring of encrypted stores, or SECRETS_KEYRING with its text
  DATABASE_USER, DATABASE_PASSWORD
  Each may have the prefix FROM_, TO_, STORE_, CONFIG_, JOURNAL_ or LEDGER_; the prefixed variable takes precedence.";

/// The commands in the order of the help, with the heading of each group.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Begin", &["demo", "init", "check", "policy"]),
    (
        "Move between stores",
        &["plan", "copy", "verify", "rollback", "retire", "status"],
    ),
    (
        "Configurations",
        &["split", "update", "settle", "mask", "hydrate"],
    ),
    (
        "Look after a store",
        &[
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
        ],
    ),
    ("This program", &["completions", "man", "help"]),
];

/// Moves secrets of connector configurations between stores, and back.
#[derive(Debug, Parser)]
#[command(name = "secret-migrate", version = VERSION.as_str(), max_term_width = 120, after_help = AFTER_HELP.as_str())]
pub(crate) struct Cli {
    /// Print the result as one JSON object on standard output; progress goes to standard error.
    #[arg(long, global = true, help_heading = "Every command")]
    pub(crate) json: bool,
    /// Write every listed name and place to this new file, one per line; the screen shows ten of
    /// each kind.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Every command"
    )]
    pub(crate) list: Option<PathBuf>,
    /// Read options from this TOML file; an option of the command line takes precedence. `init`
    /// writes one.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Every command"
    )]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The version, and the FIPS module in a build that has one.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    FipsModule::of_process().map_or_else(
        || version.to_owned(),
        |module| format!("{version} ({module})"),
    )
});

static AFTER_HELP: LazyLock<String> = LazyLock::new(|| format!("{ENVIRONMENT}\n\n{EXIT_STATUSES}"));

/// The definition of the command line, with what derive cannot express: groups of commands, and the
/// figures of each report.
pub(crate) fn definition() -> clap::Command {
    let mut definition = Cli::command();
    let width = GROUPS
        .iter()
        .flat_map(|(_, names)| *names)
        .map(|name| name.len())
        .max()
        .unwrap_or_default();
    let mut commands = String::new();
    for (heading, names) in GROUPS {
        commands += &format!("{heading}:\n");
        for name in names {
            let about = definition
                .find_subcommand(name)
                .and_then(clap::Command::get_about)
                .map_or_else(
                    || "Print the help of a command".to_owned(),
                    ToString::to_string,
                );
            commands += &format!("  {name:width$}  {}\n", about.trim_end_matches('.'));
        }
        commands.push('\n');
    }
    definition = definition.help_template(format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{commands}Options:\n{{options}}{{after-help}}"
    ));
    for name in figures::COMMANDS {
        definition =
            definition.mut_subcommand(name, |command| command.after_long_help(figures::help(name)));
    }
    definition
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show split, copy, verify and rollback on made-up connectors. Needs no store.
    Demo(DemoArgs),
    /// Write a configuration file for --config, by asking or from the environment.
    Init(InitArgs),
    /// Report what a copy would do, and what needs a decision first.
    Plan(CompareArgs),
    /// Copy every secret to the target. Resumable and repeatable; deletes nothing.
    Copy(SharedArgs),
    /// Read everything back, compare it, and hydrate every configuration from the target.
    Verify(VerifyArgs),
    /// Delete from the target what copy wrote there, after every configuration has hydrated from
    /// the source.
    Rollback(SharedArgs),
    /// Delete from the source what is equal in the target at that moment.
    Retire(RetireArgs),
    /// Show how far the processes with one journal are, from any machine.
    Status(StatusArgs),
    /// Move raw secrets out of configurations: write them to a store and leave pointers.
    Split(SplitArgs),
    /// Apply edited configurations: write new secrets, keep the masked ones, delete nothing yet.
    Update(UpdateArgs),
    /// End changes of `split -` and `update -` after the save: delete what is no longer needed.
    Settle(FilterArgs),
    /// Replace every secret of configurations with a mask. Needs no store.
    Mask(MaskArgs),
    /// Insert the values into configurations. Refuses a terminal as output unless told.
    Hydrate(HydrateArgs),
    /// Check a store end to end with a test secret: identity, write, read, list, delete.
    Check(CheckArgs),
    /// List the age, expiry and owner of each connector's secrets, without values.
    Ages(AgesArgs),
    /// List which connectors' secrets to issue again after a store, a copy or a log leaked.
    Affected(AffectedArgs),
    /// Undelete what configurations point at after they were restored from a backup, and list what is lost.
    Restore(RestoreArgs),
    /// Delete secrets of this installation that no configuration points at, and expired ones.
    Collect(CollectArgs),
    /// Delete secrets of this installation that have expired.
    Sweep(SweepArgs),
    /// Verify, search, checkpoint or prune the ledger of who read which secret.
    Ledger(LedgerArgs),
    /// Print the SQL that adds our columns to a table, and run it on request.
    Prepare(PrepareArgs),
    /// Convert a plain table to an encrypted one in place.
    ///
    /// Give the store with the settings it will have: with mode=encrypted.
    Encrypt(EncryptArgs),
    /// Wrap every data key with the active key, or generate new data keys.
    Rotate(RotateArgs),
    /// Create a key ring, add or activate a key, or remove a key that no row uses.
    Keygen(KeygenArgs),
    /// Print the minimal policy for a store's credentials.
    Policy(PolicyArgs),
    /// Run the conformance suite against a store, under random names. It cleans up after itself.
    Conformance(ConformanceArgs),
    /// Print the completions for a shell.
    Completions(CompletionsArgs),
    /// Write the manual pages to a folder.
    Man(ManArgs),
}

/// `demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Keep the databases in this folder, which must be new or empty. Default: a temporary folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,
}

/// `init`.
#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// The new file.
    #[arg(long, value_name = "FILE", default_value = "secret-migrate.toml")]
    pub(crate) file: PathBuf,
}

/// `completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `man`.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The folder, which is created if it is missing.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

/// `check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// Keep the test secret, so that you can see it in the provider's console.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Retry steps that lack permissions for this long: 90s, 10m, 1h. New permissions take minutes
    /// to take effect on Azure.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
}

/// `sweep`.
#[derive(Args, Debug)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// Report what would be deleted; delete nothing.
    #[arg(long, help_heading = "Run")]
    pub(crate) dry_run: bool,
}

/// `conformance`.
#[derive(Args, Debug)]
pub(crate) struct ConformanceArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// How long a listing that may lag is waited for; cases for which it did not catch up are reported
    /// as not applicable.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    pub(crate) list_lag: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn every_command_is_in_one_group_of_the_help() {
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        grouped.sort_unstable();
        let mut definition = definition();
        definition.build();
        let mut commands: Vec<&str> = definition
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        commands.sort_unstable();
        assert_eq!(grouped, commands);
        let help = definition.render_help().to_string();
        assert!(help.contains("\nMove between stores:\n  plan "), "{help}");
        let (_, commands) = help.split_once("Begin:").unwrap();
        let (commands, _) = commands.split_once("Options:").unwrap();
        assert!(
            commands.lines().all(|line| line.chars().count() <= 120),
            "{commands}"
        );
    }

    #[test]
    fn nothing_that_contradicts_itself_is_understood() {
        for line in [
            "secret-migrate plan --from sqlite:a --configs c",
            "secret-migrate plan --from sqlite:a --to sqlite:b",
            "secret-migrate plan --from sqlite:a --from-settings f --to sqlite:b --configs c",
            "secret-migrate plan --from-settings f --configs c",
            "secret-migrate plan --from sqlite:a --to sqlite:b --configs c --unshare --shared keep",
            "secret-migrate plan --from sqlite:a --to sqlite:b --configs c --storage x",
            "secret-migrate copy --from sqlite:a --to sqlite:b --configs c --rate 0",
            "secret-migrate copy --from sqlite:a --to sqlite:b --configs c --concurrency 0",
            "secret-migrate keygen --file f --add a --activate b",
            "secret-migrate keygen --file f --remove a",
            "secret-migrate keygen --file f --store sqlite:a",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
