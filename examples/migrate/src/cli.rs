//! The command line: every command and option, and nothing that needs a store.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use secret_persistence_migrate::{
    Decisions, Expiring, External, Missing, Orphaned, OtherScope, PendingDeletion, Recoverable,
    Shared, Storage, Unfit,
};

use crate::status::EXIT_STATUSES;

const ENVIRONMENT: &str = "\
Stores are URLs without credentials; options of a store are query parameters:
  sqlite:///path/secrets.db?table=secrets&mode=encrypted
  postgres://host:5432/database?table=secrets&mode=encrypted     (--features postgres)

Environment (no option ever takes a secret):
  SECRETS_OWNER          the id of this installation, written with every secret; needed before anything is written
  SECRETS_KEYRING_FILE   the key ring of encrypted stores, or SECRETS_KEYRING with its text
  DATABASE_USER, DATABASE_PASSWORD
  Each may carry FROM_, TO_, STORE_, CONFIG_ or JOURNAL_, and the prefixed one wins.";

/// Moves the secrets of connector configurations between stores, and back.
#[derive(Debug, Parser)]
#[command(name = "migrate", version, max_term_width = 120, after_help = AFTER_HELP.as_str())]
pub(crate) struct Cli {
    /// Print the result as one JSON object on standard output; progress goes to standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write every name and place that is listed to this new file, one a line; the screen shows ten of a kind.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) list: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

static AFTER_HELP: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| format!("{ENVIRONMENT}\n\n{EXIT_STATUSES}"));

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole idea on connectors of its own: split, store, move, verify, roll back. Needs nothing.
    Demo(DemoArgs),
    /// Say what a copy would do, and what has to be decided before.
    Plan(MoveArgs),
    /// Copy every secret to the target; resumable, repeatable, deletes nothing.
    Copy(MoveArgs),
    /// Read everything back, compare, and hydrate every configuration from the target.
    Verify(MoveArgs),
    /// Delete from the target what copy wrote there, once every configuration hydrates from the source.
    Rollback(MoveArgs),
    /// Delete from the source what is equal in the target at that moment.
    Retire(RetireArgs),
    /// Take raw secrets out of configurations: write them to a store, leave pointers.
    Split(SplitArgs),
    /// Prove a store end to end with a test secret: who we are, write, read, list, delete.
    Check(CheckArgs),
    /// Delete what has expired and belongs to this installation.
    Sweep(SweepArgs),
    /// Show the SQL that gives a table our own columns, and run it on request.
    Prepare(PrepareArgs),
    /// Convert a plain table to an encrypted one, in place. Give the store as it is to be: with
    /// mode=encrypted.
    Encrypt(EncryptArgs),
    /// Wrap every data key with the active key, or make new data keys.
    Rotate(RotateArgs),
    /// Make a key ring, add a key to one, or remove a key that no row uses.
    Keygen(KeygenArgs),
    /// Print the least policy that a store's credentials need.
    Policy(PolicyArgs),
    /// Run the conformance suite against a store: under random names, cleaning up after itself.
    Conformance(ConformanceArgs),
}

/// From where to where, for which configurations.
#[derive(Args, Clone, Debug)]
pub(crate) struct Route {
    /// The store to copy from.
    #[arg(long, value_name = "URL", required_unless_present = "from_settings")]
    from: Option<String>,
    /// The same, as a file of settings: Helm values, the JSON for external secret management, or
    /// environment variables.
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    from_settings: Option<PathBuf>,
    /// The store to copy to.
    #[arg(long, value_name = "URL", required_unless_present = "to_settings")]
    to: Option<String>,
    /// The same, as a file of settings.
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    to_settings: Option<PathBuf>,
    /// A Kubernetes Secret that Helm values refer to: its manifest, or the folder it is mounted in.
    /// Repeatable.
    #[arg(long = "kubernetes-secret", value_name = "PATH")]
    kubernetes_secrets: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) configs: Configs,
}

impl Route {
    /// The store to copy from.
    pub(crate) fn source(&self) -> Place<'_> {
        self.place(self.from.as_deref(), self.from_settings.as_deref())
    }

    /// The store to copy to.
    pub(crate) fn target(&self) -> Place<'_> {
        self.place(self.to.as_deref(), self.to_settings.as_deref())
    }

    fn place<'a>(&'a self, url: Option<&'a str>, file: Option<&'a Path>) -> Place<'a> {
        Place::new(url, file, &self.kubernetes_secrets)
    }
}

/// The one store of a command.
#[derive(Args, Clone, Debug)]
pub(crate) struct OneStore {
    /// The store.
    #[arg(long, value_name = "URL", required_unless_present = "store_settings")]
    store: Option<String>,
    /// The same, as a file of settings: Helm values, the JSON for external secret management, or
    /// environment variables.
    #[arg(long, value_name = "FILE", conflicts_with = "store")]
    store_settings: Option<PathBuf>,
    /// A Kubernetes Secret that Helm values refer to: its manifest, or the folder it is mounted in.
    /// Repeatable.
    #[arg(long = "kubernetes-secret", value_name = "PATH")]
    kubernetes_secrets: Vec<PathBuf>,
}

impl OneStore {
    /// Where it is.
    pub(crate) fn place(&self) -> Place<'_> {
        Place::new(
            self.store.as_deref(),
            self.store_settings.as_deref(),
            &self.kubernetes_secrets,
        )
    }
}

/// Where a store is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// As a file of settings says, with the Kubernetes Secrets that it may refer to.
    Settings {
        /// The file.
        file: &'a Path,
        /// Manifests and folders.
        secrets: &'a [PathBuf],
    },
    /// At a URL.
    Url(&'a str),
}

impl<'a> Place<'a> {
    /// Of a URL and a file, of which the command line has one.
    fn new(url: Option<&'a str>, file: Option<&'a Path>, secrets: &'a [PathBuf]) -> Self {
        match file {
            Some(file) => Self::Settings { file, secrets },
            None => Self::Url(url.unwrap_or_default()),
        }
    }
}

/// The configurations, and what resolves their references.
#[derive(Args, Clone, Debug)]
pub(crate) struct Configs {
    /// Where configurations are: `<database URL>?table=…&id=…&configuration=…[&base_id=…][&prefix=…]
    /// [&specification=…][&where=…]`, `…&coordinate=<column>`, `<database URL>?query-file=…`, or a
    /// file of JSON lines. Repeatable.
    #[arg(long = "configs", value_name = "URL or FILE", required = true)]
    pub(crate) sources: Vec<String>,
    /// The table that says what reference ids stand for: `<database URL>?table=…[&id=…][&coordinate=…]
    /// [&storage_id=…]`, or `?query-file=…`.
    #[arg(long, value_name = "URL")]
    pub(crate) references: Option<String>,
}

/// Where the journal is.
#[derive(Args, Clone, Debug)]
pub(crate) struct JournalArgs {
    /// The journal: a file, or a Postgres URL.
    #[arg(long, value_name = "PATH or URL", default_value = "migrate-journal.db")]
    pub(crate) journal: String,
}

/// How fast.
#[derive(Args, Clone, Debug)]
pub(crate) struct Pace {
    /// The most requests in flight at each store. As the store advises unless given.
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<NonZeroUsize>,
    /// The most requests per second to each store. Unless given, what its provider documents, if anything.
    #[arg(long, value_name = "PER SECOND")]
    pub(crate) rate: Option<NonZeroU32>,
}

/// `demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Keep the databases in this folder, which must be empty or new; a temporary one otherwise.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,
}

/// What to do with what a plan finds: one option per class, each needed only where there is something
/// of its class.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Decisions")]
pub(crate) struct DecisionArgs {
    /// Secrets that expire, where the target keeps no expiry.
    #[arg(long, value_enum)]
    expiring: Option<Expiring>,
    /// Secrets of others, which are never copied: the target has them too, or they stay where they are.
    #[arg(long, value_enum)]
    external: Option<External>,
    /// Coordinates that configurations mention and the source has not.
    #[arg(long, value_enum)]
    missing: Option<Missing>,
    /// Pointers at secrets of another scope than their configuration's: of another workspace.
    #[arg(long, value_enum)]
    other_scope: Option<OtherScope>,
    /// Secrets that configurations mention and the source has scheduled for deletion.
    #[arg(long, value_enum)]
    recoverable: Option<Recoverable>,
    /// Coordinates of the source that no configuration mentions.
    #[arg(long, value_enum)]
    orphaned: Option<Orphaned>,
    /// Names that are scheduled for deletion in the target.
    #[arg(long, value_enum)]
    pending_deletion: Option<PendingDeletion>,
    /// Coordinates that stand in more than one configuration.
    #[arg(long, value_enum, conflicts_with = "unshare")]
    shared: Option<Shared>,
    /// Give each configuration its own copy of what it shares; the same as --shared unshare.
    #[arg(long)]
    pub(crate) unshare: bool,
    /// Pointers with a storage id: the id is another store and they stay there (leave), or it means
    /// the source and they are moved (move). Repeatable.
    #[arg(long, value_name = "ID=leave|move", value_parser = storage)]
    storage: Vec<(String, Storage)>,
    /// Values that the target cannot hold: too large, empty, with a NUL.
    #[arg(long, value_enum)]
    unfit: Option<Unfit>,
}

impl DecisionArgs {
    /// The decisions in the engine's terms.
    pub(crate) fn decisions(&self) -> Decisions {
        let mut decisions = Decisions::default();
        decisions.expiring = self.expiring;
        decisions.external = self.external;
        decisions.missing = self.missing;
        decisions.other_scope = self.other_scope;
        decisions.recoverable = self.recoverable;
        decisions.orphaned = self.orphaned;
        decisions.pending_deletion = self.pending_deletion;
        decisions.shared = if self.unshare {
            Some(Shared::Unshare)
        } else {
            self.shared
        };
        decisions.unfit = self.unfit;
        for (id, choice) in &self.storage {
            decisions = decisions.with_storage(id, *choice);
        }
        decisions
    }
}

/// `plan`, `copy`, `verify` and `rollback`.
#[derive(Args, Debug)]
pub(crate) struct MoveArgs {
    #[command(flatten)]
    pub(crate) route: Route,
    #[command(flatten)]
    pub(crate) journal: JournalArgs,
    /// The longest time after which one store shows what was done to the other, if it follows it:
    /// rollback and retire wait so long, three times, before they delete more than one secret.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    pub(crate) lag: Duration,
    #[command(flatten)]
    pub(crate) pace: Pace,
    #[command(flatten)]
    pub(crate) decisions: DecisionArgs,
    /// Say what would be done, change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `retire`.
#[derive(Args, Debug)]
pub(crate) struct RetireArgs {
    #[command(flatten)]
    pub(crate) moved: MoveArgs,
    /// State that every place that holds coordinates was given with --configs.
    #[arg(long)]
    pub(crate) all_references: bool,
    /// Delete without the recovery window that the source has.
    #[arg(long)]
    pub(crate) without_recovery: bool,
}

/// `split`.
#[derive(Args, Debug)]
pub(crate) struct SplitArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    #[command(flatten)]
    pub(crate) configs: Configs,
    /// The journal of the split: a file, or a Postgres URL. Not the journal of a migration.
    #[arg(
        long,
        value_name = "PATH or URL",
        default_value = "migrate-split-journal.db"
    )]
    pub(crate) journal: String,
    #[command(flatten)]
    pub(crate) pace: Pace,
    /// Say how many secrets would be written, change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Refuse secrets that are no text, for installations that may go back to Airbyte.
    #[arg(long)]
    pub(crate) strings_only: bool,
    /// Refuse properties that the specification does not know.
    #[arg(long)]
    pub(crate) refuse_unknown_properties: bool,
    /// Pointers at secrets of another scope than their configuration's: of another workspace.
    #[arg(long, value_enum)]
    pub(crate) other_scope: Option<OtherScope>,
    /// Allow raw references to secrets of others whose names begin with this. Repeatable.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) allow_external: Vec<String>,
}

/// `check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// Leave the test secret, so that it can be seen in the provider's console.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Take steps that lack rights again for so long: 90s, 10m, 1h. New rights take minutes to arrive on Azure.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
}

/// `sweep`.
#[derive(Args, Debug)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// Say what would be deleted, delete nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `prepare`.
#[derive(Args, Debug)]
pub(crate) struct PrepareArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// Run the SQL; it is only shown otherwise.
    #[arg(long)]
    pub(crate) run: bool,
}

/// `encrypt`.
#[derive(Args, Debug)]
pub(crate) struct EncryptArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// Confirm that nothing else reads the table: a reader that expects plain text fails from now on.
    #[arg(long)]
    pub(crate) nothing_else_reads_it: bool,
    /// On Postgres, rewrite the table with VACUUM FULL at the end; it is locked meanwhile.
    #[arg(long)]
    pub(crate) vacuum_full: bool,
}

/// `rotate`.
#[derive(Args, Debug)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// Make new data keys and encrypt the values again: for a key that has leaked.
    #[arg(long)]
    pub(crate) reencrypt: bool,
}

/// `keygen`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("step").multiple(false))]
pub(crate) struct KeygenArgs {
    /// The key ring's file. Without another option it is made, with one active key.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The id of the first key of a new ring; today's date unless given.
    #[arg(long, value_name = "ID", group = "step")]
    pub(crate) id: Option<String>,
    /// Add a key, not active yet: hand the file to every process that reads the store first.
    #[arg(long, value_name = "ID", group = "step")]
    pub(crate) add: Option<String>,
    /// Make a key the active one: what is written from now on, and what rotate wraps with.
    #[arg(long, value_name = "ID", group = "step")]
    pub(crate) activate: Option<String>,
    /// Remove a key that no row of any --store uses.
    #[arg(long, value_name = "ID", group = "step", requires = "store")]
    pub(crate) remove: Option<String>,
    /// Every store that this key ring opens; --remove looks into each. Repeatable.
    #[arg(long, value_name = "URL", requires = "remove")]
    pub(crate) store: Vec<String>,
}

/// `policy`.
#[derive(Args, Debug)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) of: PolicyOf,
}

/// The store whose policy is meant.
#[derive(Subcommand, Debug)]
pub(crate) enum PolicyOf {
    /// The IAM policy, and the trust policy of a role where a principal is given.
    Aws {
        /// The region of the secrets.
        #[arg(long)]
        region: String,
        /// The account of the secrets: twelve digits.
        #[arg(long)]
        account: String,
        /// The tag key whose value `true` marks our secrets, such as AirbyteManaged.
        #[arg(long)]
        tag_key: Option<String>,
        /// The ARN of the customer key that the secrets are encrypted with.
        #[arg(long, value_name = "ARN")]
        kms: Option<String>,
        /// Names of external secrets that may be read begin with this. Repeatable.
        #[arg(long, value_name = "PREFIX")]
        external: Vec<String>,
        /// For credentials that only read.
        #[arg(long)]
        read_only: bool,
        /// Prints the trust policy too: who may assume the role.
        #[arg(long, value_name = "ARN")]
        principal: Option<String>,
        /// The external id that assuming the role asks for.
        #[arg(long, value_name = "ID", requires = "principal")]
        external_id: Option<String>,
    },
    /// The role definition with the commands that assign it, and the access policy for older vaults.
    Azure {
        /// The vault's name; a vault of its own, since Azure cannot scope rights by a secret's name.
        #[arg(long)]
        vault: String,
        /// The id of the subscription that holds it.
        #[arg(long, value_name = "ID")]
        subscription: String,
        /// The resource group that holds it.
        #[arg(long, value_name = "NAME")]
        resource_group: String,
        /// The object id of the service principal or managed identity, which is not its client id.
        #[arg(long, value_name = "ID")]
        principal: Option<String>,
        /// The role's name.
        #[arg(long, value_name = "NAME")]
        role_name: Option<String>,
        /// For stores that purge what they delete.
        #[arg(long)]
        purge: bool,
        /// For credentials that only read.
        #[arg(long)]
        read_only: bool,
    },
    /// Two custom roles, their bindings, the grant on a customer's key, and the gcloud commands.
    Gcp {
        /// The number of the project that holds the secrets: conditions name it, and not the id.
        #[arg(long, value_name = "NUMBER")]
        project_number: String,
        /// The id of that project; the commands ask gcloud for it unless given.
        #[arg(long, value_name = "ID")]
        project: Option<String>,
        /// The region, where secrets stay in one.
        #[arg(long)]
        region: Option<String>,
        /// The resource name of the Cloud KMS key that the secrets are encrypted with.
        #[arg(long, value_name = "NAME")]
        kms_key: Option<String>,
        /// Who gets the roles, such as serviceAccount:NAME@PROJECT.iam.gserviceaccount.com.
        #[arg(long)]
        member: Option<String>,
        /// Ids of external secrets that may be read begin with this. Repeatable.
        #[arg(long, value_name = "PREFIX")]
        external: Vec<String>,
        /// For credentials that only read.
        #[arg(long)]
        read_only: bool,
    },
    /// The policy in HCL.
    Vault {
        /// Mount and path in one, as in the store's URL: secret/airbyte/
        #[arg(long)]
        prefix: String,
        /// The mount, where it is not the first part of the prefix.
        #[arg(long)]
        mount: Option<String>,
        /// 1 or 2; both unless given.
        #[arg(long)]
        kv_version: Option<u8>,
        /// For a token that only reads.
        #[arg(long)]
        read_only: bool,
    },
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

/// A whole number of seconds, minutes or hours, up to a day.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write it as 90s, 10m or 1h, up to a day".to_owned();
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
        .filter(|seconds| (1..=86_400).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// Hides what stands between `://` and `@` in text that other people's code made of our arguments.
pub(crate) fn without_passwords(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        clean.push_str(before);
        let end = after
            .find(|char: char| char.is_whitespace() || char == '\'')
            .unwrap_or(after.len());
        let (word, after) = after.split_at(end);
        match word.rfind('@') {
            Some(at) if word[..at].contains(':') => {
                clean.push('…');
                clean.push_str(&word[at..]);
            }
            _ => clean.push_str(word),
        }
        rest = after;
    }
    clean.push_str(rest);
    clean
}

fn storage(text: &str) -> Result<(String, Storage), String> {
    text.rsplit_once('=')
        .filter(|(id, _)| !id.is_empty())
        .and_then(|(id, choice)| Some((id.to_owned(), Storage::from_str(choice, false).ok()?)))
        .ok_or_else(|| "write it as <storage id>=leave or <storage id>=move".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn foreign_messages_lose_their_passwords() {
        assert_eq!(
            without_passwords("unexpected 'postgres://u:p@ss@h/db' and http://h/x@y"),
            "unexpected 'postgres://…@h/db' and http://h/x@y"
        );
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("1h", 3600), ("24h", 86_400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in [
            "",
            "m",
            "10",
            "-1m",
            "0s",
            "1.5h",
            "10 m",
            "25h",
            "1é",
            "99999999999999999999h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn decisions_are_what_was_said() {
        let cli = Cli::parse_from([
            "migrate",
            "plan",
            "--from",
            "sqlite:a",
            "--to",
            "sqlite:b",
            "--configs",
            "c",
            "--unshare",
            "--missing",
            "skip",
            "--storage",
            "s1=move",
            "--storage",
            "s=2=leave",
        ]);
        let Command::Plan(plan) = cli.command else {
            panic!("not a plan");
        };
        let expected = Decisions::default()
            .with_shared(Shared::Unshare)
            .with_missing(Missing::Skip)
            .with_storage("s1", Storage::Move)
            .with_storage("s=2", Storage::Leave);
        assert_eq!(plan.decisions.decisions(), expected);
    }

    #[test]
    fn nothing_that_contradicts_itself_is_understood() {
        for line in [
            "migrate plan --from sqlite:a --configs c",
            "migrate plan --from sqlite:a --to sqlite:b",
            "migrate plan --from sqlite:a --from-settings f --to sqlite:b --configs c",
            "migrate plan --from-settings f --configs c",
            "migrate plan --from sqlite:a --to sqlite:b --configs c --unshare --shared keep",
            "migrate plan --from sqlite:a --to sqlite:b --configs c --storage x",
            "migrate copy --from sqlite:a --to sqlite:b --configs c --rate 0",
            "migrate copy --from sqlite:a --to sqlite:b --configs c --concurrency 0",
            "migrate keygen --file f --add a --activate b",
            "migrate keygen --file f --remove a",
            "migrate keygen --file f --store sqlite:a",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
