//! `demo`: shows split, copy, verify and rollback on one screen, on made-up connectors.

mod connectors;
mod show;
mod world;

use std::path::PathBuf;

use secret_persistence_core::SecretPersistenceExt;
use secret_persistence_migrate::Report;
use serde_json::json;

use self::connectors::connectors;
use self::show::{shortened, table};
use self::world::{Saved, World};
use crate::cli::DemoArgs;
use crate::console::wrapped;
use crate::output::Output;
use crate::status::{Failure, Result, Status};

/// The minimum width of a terminal in columns.
const WIDTH: usize = 80;

/// The column where the text of a step begins.
const INDENT: usize = 12;

/// Runs it.
pub(crate) async fn run(args: DemoArgs, output: &Output) -> Result<Status> {
    let temporary = match args.folder {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("secret-migrate-demo-")
                .tempdir()
                .map_err(|cause| {
                    Failure::failed("cannot create a temporary folder").with_source(cause)
                })?,
        ),
    };
    let folder = match (&args.folder, &temporary) {
        (Some(folder), _) => empty(folder.clone())?,
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => return Err(Failure::failed("no folder")),
    };
    let mut demo = Demo {
        world: World::create(&folder).await?,
        output: output.clone(),
        failed: Vec::new(),
    };
    let moved = demo.tell().await?;
    demo.world.close().await;
    let connectors = demo.world.names().len();
    for failure in &demo.failed {
        output.line(format!("FAILED  {failure}"));
    }
    if args.folder.is_some() {
        output.line(format!("(the databases are in {})", folder.display()));
    }
    let failed = demo.failed.len();
    output.line(format!(
        "demo: {connectors} connectors, {moved} secrets moved, verified and rolled back; {failed} failed"
    ));
    let status = if failed == 0 {
        Status::Done
    } else {
        Status::Found
    };
    output.object(
        status,
        &json!({ "command": "demo", "connectors": connectors, "secrets": moved, "failed": failed, "failures": demo.failed }),
    );
    Ok(status)
}

/// The demo, with a line printed for each step.
struct Demo {
    world: World,
    output: Output,
    failed: Vec<String>,
}

impl Demo {
    /// Runs every step and returns the number of secrets that were moved.
    async fn tell(&mut self) -> Result<u64> {
        let all = connectors()?;
        self.say(
            "Connector configurations contain secrets. Here are a dozen, with made-up values:",
        );
        let names: Vec<&str> = all
            .iter()
            .map(|connector| connector.name.as_str())
            .collect();
        for line in names.chunks(4) {
            self.say(format!("    {}", line.join("  ")));
        }

        // Split.
        let mut secrets = 0;
        for connector in all {
            secrets += self.world.create_connector(connector).await?;
        }
        let shown = self.world.saved("source-postgres").await?;
        self.say("");
        self.say("1 SPLIT     Each secret goes to a store; the configuration keeps a pointer (→).");
        for line in table(self.world.original(&shown.name)?, &shown.configuration) {
            self.say(format!("    {line}"));
        }
        self.say(format!(
            "            {} configurations split, {secrets} secrets stored in plain text, as in an unprotected installation",
            self.world.names().len()
        ));
        let clear = self.world.values_in_clear(World::SOURCE)?;
        self.expect(
            clear == secrets,
            "the plain store contains every value in plain text",
        );

        self.update(&shown).await?;

        // Move.
        let secrets = self.world.values();
        let plan = self
            .world
            .migration(&self.world.source, &self.world.target)
            .await?
            .plan()
            .await?;
        self.say("");
        self.say("3 PLAN      What a copy would do, before it changes anything.");
        self.say(format!(
            "            {} configurations, {} pointers, {} secrets to copy; {} missing, {} shared, {} to decide",
            plan.tally.configurations,
            plan.tally.pointers,
            plan.tally.secrets,
            plan.count(secret_persistence_migrate::Class::Missing),
            plan.count(secret_persistence_migrate::Class::Shared),
            plan.undecided.len()
        ));
        self.complete(&plan);
        let copy = self
            .world
            .migration(&self.world.source, &self.world.target)
            .await?
            .copy()
            .await?;
        self.complete(&copy);
        let moved = copy.tally.written;
        self.expect(moved == secrets, "every secret is copied once");
        self.say("4 COPY      To another store, here an encrypted one: a data key per value, AES-256-GCM.");
        let encrypted = self.world.values_in_clear(World::TARGET)?;
        self.expect(encrypted == 0, "the encrypted store shows no value");
        self.say(format!(
            "            {moved} copied. Searching the files for the values: plain store {clear} found, encrypted store {encrypted}"
        ));
        let verify = self
            .world
            .migration(&self.world.source, &self.world.target)
            .await?
            .verify()
            .await?;
        self.complete(&verify);
        self.expect(verify.tally.verified == moved, "every secret is verified");
        self.say(format!(
            "5 VERIFY    {} read back and equal; {} configurations hydrate",
            verify.tally.verified, verify.tally.hydrated
        ));
        let exact = self.hydrate_all(false).await?;
        self.say(format!(
            "6 HYDRATE   from the new store: {exact} of {} identical to the original. The move changed no configuration.",
            self.world.names().len()
        ));

        // And back.
        let rollback = self
            .world
            .migration(&self.world.source, &self.world.target)
            .await?
            .rollback()
            .await?;
        self.complete(&rollback);
        self.expect(
            rollback.tally.deleted == moved,
            "rollback removes what copy wrote",
        );
        let left = self
            .world
            .target
            .read_many(&self.world.coordinates().await?)
            .await;
        self.expect(
            left.iter().all(Result::is_err),
            "nothing is left in the target",
        );
        self.say(format!(
            "7 ROLLBACK  {} deleted from the new store, after every configuration hydrated from the old one",
            rollback.tally.deleted
        ));
        let exact = self.hydrate_all(true).await?;
        self.say(format!(
            "8 HYDRATE   from the old store: {exact} of {} identical to the original",
            self.world.names().len()
        ));
        self.say("");
        Ok(moved)
    }

    /// Edits a connector through a form, which shows masks and sends them back.
    async fn update(&mut self, shown: &Saved) -> Result<()> {
        let masked = self.world.mask(shown)?;
        self.say("");
        self.say(format!(
            "2 EDIT      Users see masks: \"password\": {}. A mask that is sent back keeps the saved value.",
            masked["password"]
        ));
        let kept = self.world.update(shown, masked.clone()).await?;
        self.expect(
            kept.written == 0 && kept.deleted == 0,
            "a masked update writes nothing",
        );
        self.say(format!(
            "            sent back unchanged: {} secrets written, {} deleted",
            kept.written, kept.deleted
        ));
        let shown = self.world.saved(&shown.name).await?;
        let mut edited = masked;
        edited["password"] = json!("made-up-N3w-Pa55word");
        let changed = self.world.update(&shown, edited).await?;
        self.expect(
            changed.written == 1 && changed.deleted == 1,
            "one value changed",
        );
        let now = self.world.saved(&shown.name).await?;
        self.say(format!(
            "            with a new password: {} written ({}), {} superseded and deleted",
            changed.written,
            shortened(
                now.configuration["password"]["_secret"]
                    .as_str()
                    .unwrap_or_default()
            ),
            changed.deleted
        ));
        Ok(())
    }

    /// Hydrates every configuration and counts those that equal their original.
    async fn hydrate_all(&mut self, from_source: bool) -> Result<usize> {
        let mut exact = 0;
        for name in self.world.names() {
            let saved = self.world.saved(&name).await?;
            let full = self.world.hydrate(&saved, from_source).await?;
            let original = self.world.original(&name)?.to_string();
            // Compare as text, so that the order of keys matters too.
            if full == original {
                exact += 1;
            } else {
                self.failed
                    .push(format!("{name} does not hydrate to the original"));
            }
        }
        Ok(exact)
    }

    fn complete(&mut self, report: &Report) {
        let clean = report.is_complete() && report.undecided.is_empty() && report.tally.lost == 0;
        self.expect(clean, &format!("{} finds nothing wrong", report.command));
        for failure in &report.failures {
            self.failed.push(failure.message.clone());
        }
    }

    fn expect(&mut self, holds: bool, what: &str) {
        if !holds {
            self.failed.push(format!("expected: {what}"));
        }
    }

    /// Wraps a line to the minimum width of a terminal, and indents the following lines below its
    /// text.
    fn say(&self, line: impl AsRef<str>) {
        for part in wrapped(line.as_ref(), WIDTH, INDENT) {
            self.output.line(part);
        }
    }
}

/// Returns the folder if it is new or empty, so that the demo never overwrites files.
fn empty(folder: PathBuf) -> Result<PathBuf> {
    let failed =
        |cause| Failure::input(format!("{} cannot be used", folder.display())).with_source(cause);
    std::fs::create_dir_all(&folder).map_err(failed)?;
    if std::fs::read_dir(&folder).map_err(failed)?.next().is_some() {
        return Err(Failure::input(format!(
            "{} is not empty; name a new folder",
            folder.display()
        )));
    }
    std::fs::canonicalize(&folder).map_err(failed)
}
