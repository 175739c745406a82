//! `split -`, `update -`, `settle -`, `mask -` and `hydrate -`: JSON lines in, JSON lines out.
//!
//! Every line of input gives one line of output in the same order: the result, or `error` with every
//! place that is wrong. There is no journal: the caller saves what comes out.

mod pipe;

use std::io::IsTerminal as _;

use secret_persistence::{Actor, Environment, Scope, Stores};
use secret_persistence_core::connector::{
    ActingSecrets, ConnectorOptions, ConnectorSecrets, ConnectorSpec, Policy, Record, RecordState,
    SecretJson, Staged,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use self::pipe::{Answer, Line, pipe};
use super::split::policy;
use crate::cli::{FilterArgs, HydrateArgs, OneStore, Pace, SplitArgs, UpdateArgs};
use crate::configs;
use crate::role::Role;
use crate::status::{Failure, Result, Status};
use crate::store::{Described, IfMissing};

/// How many lines are worked on at once. Each store limits its requests itself.
const LINES: usize = 16;

/// `split -`: raw secrets of new configurations go to the store.
pub(crate) async fn split(args: SplitArgs, environment: &Environment) -> Result<Status> {
    if args.dry_run {
        return Err(Failure::input(
            "--dry-run is for --configs; a filter has no report: `mask -` shows what a specification marks",
        ));
    }
    let policy = policy(
        args.strings_only,
        args.refuse_unknown_properties,
        &args.allow_external,
    );
    let store = Opening {
        at: &args.at,
        pace: &args.pace,
        references: args.configs.references.as_deref(),
        policy,
        writes: true,
    };
    let secrets = store.open(environment, IfMissing::Create).await?;
    pipe(concurrency(&args.pace), async |mut line: Line| {
        let (spec, scope) = (line.specification()?, line.scope()?);
        let configuration = line.take("configuration")?;
        let staged = secrets.stage_create(&spec, &scope, configuration).await;
        changed(staged, &line)
    })
    .await
}

/// `update -`: an edited configuration replaces a saved one.
pub(crate) async fn update(args: UpdateArgs, environment: &Environment) -> Result<Status> {
    let policy = policy(
        args.strings_only,
        args.refuse_unknown_properties,
        &args.allow_external,
    );
    let secrets = Opening::of(&args.filter, policy, true)
        .open(environment, IfMissing::Refuse)
        .await?;
    pipe(concurrency(&args.filter.pace), async |mut line: Line| {
        let (spec, scope) = (line.specification()?, line.scope()?);
        let (saved, edited) = (line.take("configuration")?, line.take("edited")?);
        let staged = secrets.stage_update(&spec, &scope, saved, edited).await;
        changed(staged, &line)
    })
    .await
}

/// `settle -`: ends changes whose fate the caller knows.
pub(crate) async fn settle(args: FilterArgs, environment: &Environment) -> Result<Status> {
    let secrets = Opening::of(&args, Policy::default(), true)
        .open(environment, IfMissing::Refuse)
        .await?;
    pipe(concurrency(&args.pace), async |mut line: Line| {
        let record: Record = serde_json::from_value(line.take("record")?)
            .map_err(|cause| format!("`record` is not one of split or update: {cause}"))?;
        let state = match line.take("saved")? {
            Value::Bool(true) => RecordState::Saved,
            Value::Bool(false) => RecordState::Abandoned,
            _ => return Err("`saved` is true or false".into()),
        };
        let cleanup = secrets
            .heal(&record, state)
            .await
            .map_err(|error| error.to_string())?;
        let cleanup = serde_json::to_value(&cleanup).map_err(|error| error.to_string())?;
        Ok(Answer::of(line.id(), cleanup))
    })
    .await
}

/// `mask -`: what may be shown to people.
pub(crate) async fn mask() -> Result<Status> {
    pipe(1, async |mut line: Line| {
        let spec = line.specification()?;
        let masked = spec
            .mask(line.take("configuration")?)
            .map_err(|error| error.to_string())?;
        Ok(Answer::of(line.id(), json!({ "configuration": masked })))
    })
    .await
}

/// `hydrate -`: what a connector needs.
pub(crate) async fn hydrate(args: HydrateArgs, environment: &Environment) -> Result<Status> {
    if std::io::stdout().is_terminal() && !args.to_terminal {
        return Err(Failure::undecided(
            "standard output is a terminal, which keeps secrets in its scrollback; redirect it to the program \
            that needs them, or use --to-terminal",
        ));
    }
    let secrets = Opening::of(&args.filter, Policy::default(), false)
        .open(environment, IfMissing::Refuse)
        .await?;
    pipe(concurrency(&args.filter.pace), async |mut line: Line| {
        let full = secrets
            .hydrate(line.take("configuration")?)
            .await
            .map_err(|error| error.to_string())?;
        let full = full.into_inner();
        Ok(Answer::of(line.id(), json!({ "configuration": full })))
    })
    .await
}

/// The store of a filter.
struct Opening<'a> {
    at: &'a OneStore,
    pace: &'a Pace,
    references: Option<&'a str>,
    policy: Policy,
    writes: bool,
}

impl<'a> Opening<'a> {
    fn of(args: &'a FilterArgs, policy: Policy, writes: bool) -> Self {
        Self {
            at: &args.at,
            pace: &args.pace,
            references: args.references.as_deref(),
            policy,
            writes,
        }
    }

    async fn open(self, environment: &Environment, if_missing: IfMissing) -> Result<ActingSecrets> {
        let described = Described::read(self.at.place(), Role::Store, environment)?;
        let references = configs::references(self.references, environment).await?;
        let mut store = described.open(self.pace.rate, if_missing).await?;
        if self.writes {
            store = store.for_writing()?;
        }
        let mut stores = Stores::new(store.store);
        if let Some(owner) = store.owner {
            stores = stores.with_owner(owner);
        }
        // A filter hands out values as a service does.
        let stores = described.audited(stores).await?;
        let mut options = ConnectorOptions::default().with_policy(self.policy);
        if let Some(references) = references {
            options = options.with_references(references);
        }
        Ok(ConnectorSecrets::new(stores, options).acting_as(&Actor::new("secret-migrate")))
    }
}

fn concurrency(pace: &Pace) -> usize {
    pace.concurrency.map_or(LINES, usize::from)
}

/// The answer of a staged change, which its output ends: a change that nobody gets is undone.
fn changed(
    staged: std::result::Result<Staged, secret_persistence_core::connector::ConnectorError>,
    line: &Line,
) -> std::result::Result<Answer, String> {
    let staged = staged.map_err(|error| error.to_string())?;
    let content = json!({ "configuration": staged.config(), "record": staged.record() });
    Ok(Answer::of(line.id(), content).with_change(staged))
}

impl Line {
    /// Compiles the line's specification.
    fn specification(&mut self) -> std::result::Result<ConnectorSpec, String> {
        ConnectorSpec::compile(&self.take("connectionSpecification")?)
            .map_err(|error| error.to_string())
    }

    /// The scope of new secrets.
    fn scope(&mut self) -> std::result::Result<Scope, String> {
        let Value::String(base_id) = self.take("baseId")? else {
            return Err("`baseId` is a UUID".into());
        };
        let base_id = Uuid::parse_str(&base_id).map_err(|_| "`baseId` is a UUID".to_owned())?;
        match self.optional("prefix") {
            None | Some(Value::Null) => Ok(Scope::workspace(base_id)),
            Some(Value::String(prefix)) => {
                Scope::new(&prefix, base_id).map_err(|error| error.to_string())
            }
            Some(_) => Err("`prefix` is a string".into()),
        }
    }
}

impl Answer {
    fn of(id: Option<Value>, content: Value) -> Self {
        let mut members = Map::new();
        if let Some(id) = id {
            members.insert("id".into(), id);
        }
        if let Value::Object(content) = content {
            members.extend(content);
        }
        Self::new(SecretJson::new(Value::Object(members)))
    }
}
