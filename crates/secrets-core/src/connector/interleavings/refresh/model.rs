//! The caller's database and the provider, and who works on them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, LocalBoxFuture};
use serde_json::{Value, json};
use uuid::Uuid;

use super::handle::{Handle, LEASE, READS_ROW, SAVES};
use crate::connector::interleavings::explorer::{Scene, Touches, World};
use crate::connector::{
    ActingSecrets, ConnectorOptions, ConnectorSecrets, Ended, Lease, Place, PlacedValues, Problem,
    Record, RecordState, Refresh, RefreshError, RefreshRecord, RefreshRows, pointers,
};
use crate::{
    Actor, Coordinate, Location, ManagedCoordinate, Memory, Scope, SecretPersistence, SecretValue,
    Stores, Timestamp,
};

/// What an implementation of `RefreshRows` must do, unless a test shows what it is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// A lease that has not expired is not given to another.
    pub(super) lease_is_exclusive: bool,
    /// A release compares the epoch.
    pub(super) release_compares: bool,
    /// The record is stored before the exchange.
    pub(super) record_is_stored: bool,
    /// A save compares the row's revision.
    pub(super) row_is_compared: bool,
    /// Opening a record compares the epoch.
    pub(super) open_compares: bool,
}

impl Rules {
    pub(super) const ALL: Self = Self {
        lease_is_exclusive: true,
        release_compares: true,
        record_is_stored: true,
        row_is_compared: true,
        open_compares: true,
    };
}

/// The participants besides the healer's last rounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cast {
    pub(super) callers: usize,
    pub(super) heal: bool,
    /// Another change of the row: of its host, or a new login.
    pub(super) edit: Option<Edit>,
    /// How often the time of a lease runs out.
    pub(super) expiries: usize,
    /// Whether the store has yet to take a write of this process.
    pub(super) probes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    Host,
    LogIn,
}

/// One run: the caller's database, the provider, the store.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) world: Arc<World>,
    pub(super) rules: Rules,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) memory: Arc<Memory>,
    pub(super) refresh: Refresh,
    pub(super) probes: bool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) row: (i64, String),
    pub(super) epoch: i64,
    pub(super) held: bool,
    pub(super) record: Option<RefreshRecord>,
    pub(super) outbox: Vec<Ended>,
    /// Epochs whose time ran out after their holder had last made sure of them.
    pub(super) stale: HashSet<i64>,
    /// Epochs by actor: the one that it has now, or had last.
    pub(super) epochs: HashMap<usize, i64>,
    pub(super) ended: HashSet<usize>,
    /// The token that the provider accepts, and which epoch and actor it was given to.
    pub(super) current: String,
    pub(super) given: Option<(i64, usize)>,
    /// Tokens that were written while the writer's epoch was the last one.
    pub(super) written: HashSet<String>,
    pub(super) exchanges: usize,
    /// The grant is lost in the window.
    pub(super) lost: bool,
    pub(super) edited: bool,
    /// Only the healer's last rounds are left.
    pub(super) over: bool,
    pub(super) broken: Option<String>,
}

impl State {
    pub(super) fn holds(&self, lease: &Lease) -> bool {
        self.epoch == lease.epoch
    }

    /// Whether the last token that was given is one that its holder could not keep.
    pub(super) fn is_in_window(&self) -> bool {
        self.given.is_none_or(|(epoch, actor)| {
            !self.written.contains(&self.current)
                && (self.stale.contains(&epoch) || !self.ended.contains(&actor))
        })
    }

    pub(super) fn breaks(&mut self, what: &str) {
        self.broken.get_or_insert_with(|| what.to_owned());
    }
}

pub(super) fn scope() -> Scope {
    Scope::workspace(Uuid::from_u128(1))
}

pub(super) fn place() -> Place {
    Place::root().child("token")
}

pub(super) fn secret(text: &str) -> SecretValue {
    SecretValue::new(text.to_owned())
}

impl Model {
    pub(super) fn new(world: &Arc<World>, rules: Rules, probes: bool) -> Self {
        let memory = Memory::new();
        let name = ManagedCoordinate::new(&scope(), Uuid::from_u128(1), 1).unwrap();
        memory.insert(name.as_str(), secret("token 0"));
        let config = json!({"host": "h", "token": {"_secret": name.as_str()}});
        let refresh = Refresh::new("row", &scope(), &config, [place()]).unwrap();
        let state = State {
            row: (1, config.to_string()),
            current: "token 0".to_owned(),
            ..State::default()
        };
        Self {
            world: Arc::clone(world),
            rules,
            state: Arc::new(Mutex::new(state)),
            memory: Arc::new(memory),
            refresh: refresh.with_patience(Duration::ZERO),
            probes,
        }
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn handle(&self, actor: usize) -> (ActingSecrets, Arc<dyn RefreshRows>) {
        let store = Handle {
            model: self.clone(),
            actor,
        };
        let rows = Handle {
            model: self.clone(),
            actor,
        };
        // In the last rounds, nothing is in flight any more.
        let deadline = if self.locked().over { 0 } else { 3600 };
        let options = ConnectorOptions::default().with_deadline(Duration::from_secs(deadline));
        let secrets = ConnectorSecrets::new(Stores::new(Arc::new(store)), options)
            .acting_as(&Actor::new("model"));
        if !self.probes {
            secrets.proofs().note(None, true);
        }
        (secrets, Arc::new(rows))
    }

    pub(super) async fn call(self, actor: usize) {
        let (secrets, rows) = self.handle(actor);
        let provider = self.clone();
        let exchange = move |old: PlacedValues| -> BoxFuture<'static, _> {
            async move { provider.exchange(actor, old).await }.boxed()
        };
        let refreshed = secrets.refresh_here(&rows, &self.refresh, exchange).await;
        let mut state = self.locked();
        state.ended.insert(actor);
        match refreshed {
            Ok(refreshed) => {
                let has = refreshed
                    .value(&place())
                    .map(|value| value.expose().to_owned());
                let is_new = has.as_deref() != Some("token 0");
                if !is_new {
                    state.breaks("a caller got the old token as a new one");
                }
            }
            // Another one is at it, or the provider has told it.
            Err(RefreshError::Busy | RefreshError::Interrupted | RefreshError::Exchange(())) => {}
            Err(error) => {
                let gone = matches!(&error, RefreshError::Connector(error)
                    if error.problems().iter().all(Problem::is_gone));
                if !gone {
                    state.breaks(&format!("a caller got {error:?}"));
                }
            }
        }
    }

    pub(super) async fn exchange(
        self,
        actor: usize,
        old: PlacedValues,
    ) -> Result<PlacedValues, ()> {
        self.world.step("asks the provider", LEASE).await;
        let new = {
            let mut state = self.locked();
            let epoch = state.epochs[&actor];
            if old[0].1.expose() != state.current {
                // Either it asks too late, or what was given before was lost.
                let late = state.stale.contains(&epoch);
                if late || state.is_in_window() {
                    state.lost = true;
                } else {
                    state.breaks("a token was used twice");
                }
                return Err(());
            }
            state.exchanges += 1;
            state.current = format!("token {}", state.exchanges);
            state.given = Some((epoch, actor));
            state.current.clone()
        };
        self.world.step("gets the answer", Touches::NOTHING).await;
        Ok(vec![(place(), secret(&new))])
    }

    pub(super) async fn heal(self, actor: usize) {
        let (secrets, rows) = self.handle(actor);
        let healed = secrets.heal_refreshes(&rows).await;
        match healed {
            Ok(healed) if healed.open.is_empty() && healed.failed.is_empty() => {}
            healed => self.locked().breaks(&format!("the healer got {healed:?}")),
        }
    }

    /// The time of the lease is over, whoever has it.
    pub(super) async fn expire(self, times: usize) {
        for _ in 0..times {
            self.world.step("the lease runs out", LEASE).await;
            let mut state = self.locked();
            if state.held {
                state.held = false;
                let epoch = state.epoch;
                state.stale.insert(epoch);
            }
        }
    }

    /// Another change, by compare-and-swap like every save.
    pub(super) async fn edit(self, edit: Edit) {
        let new = ManagedCoordinate::new(&scope(), Uuid::from_u128(2), 1).unwrap();
        loop {
            self.world.step("reads the row", READS_ROW).await;
            let (revision, text) = self.locked().row.clone();
            let mut config: Value = serde_json::from_str(&text).unwrap();
            let old = config["token"]["_secret"].as_str().unwrap().to_owned();
            match edit {
                Edit::Host => config["host"] = json!("elsewhere"),
                Edit::LogIn => config["token"] = json!({"_secret": new.as_str()}),
            }
            self.world.step("saves an edit", SAVES).await;
            let mut state = self.locked();
            if state.row.0 != revision {
                continue;
            }
            state.row = (revision + 1, config.to_string());
            state.edited = true;
            if edit == Edit::LogIn {
                // Its own change is the other model's: here it is one step, with a record.
                self.memory.insert(new.as_str(), secret("their token"));
                let old = Location::new(ManagedCoordinate::parse(&old).unwrap());
                let record = Record::new(Timestamp::now(), Vec::new(), vec![old]);
                let ended = Ended::new(Uuid::from_u128(2), record, RecordState::Saved);
                state.outbox.push(ended);
            }
            return;
        }
    }

    /// The row's token; `None` if its pointer leads nowhere.
    pub(super) fn token(&self) -> Option<String> {
        let config: Value = serde_json::from_str(&self.locked().row.1).unwrap();
        let name = Coordinate::parse(config["token"]["_secret"].as_str()?).unwrap();
        let mut reads = self.memory.read_batch(&[name]).now_or_never().unwrap();
        Some(reads.remove(0).ok()?.value.expose().to_owned())
    }

    pub(super) fn always(&self, edit: Option<Edit>) -> Result<(), String> {
        if let Some(broken) = &self.locked().broken {
            return Err(broken.clone());
        }
        let Some(token) = self.token() else {
            return Err("the row points to a missing secret".to_owned());
        };
        let config: Value = serde_json::from_str(&self.locked().row.1).unwrap();
        let edited = self.locked().edited;
        match edit {
            Some(Edit::Host) if edited && config["host"] != "elsewhere" => {
                Err("an edit was overwritten".to_owned())
            }
            Some(Edit::LogIn) if edited && token != "their token" => {
                Err("a login was overwritten".to_owned())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn finally(&self, edit: Option<Edit>) -> Result<(), String> {
        let token = self.token();
        let state = self.locked();
        let config: Value = serde_json::from_str(&state.row.1).unwrap();
        if state.record.is_some() || !state.outbox.is_empty() {
            return Err("the healer has left something".to_owned());
        }
        if self.memory.len() != pointers(&config).unwrap().len() {
            return Err("a secret will never be found".to_owned());
        }
        let logged_in = edit == Some(Edit::LogIn) && state.edited;
        if logged_in || state.lost || token.as_deref() == Some(state.current.as_str()) {
            return Ok(());
        }
        if state.is_in_window() {
            return Ok(());
        }
        Err("the new token is lost".to_owned())
    }

    pub(super) fn scene(&self, cast: Cast) -> Scene {
        let mut actors: Vec<(&'static str, LocalBoxFuture<'static, ()>)> = Vec::new();
        for (actor, name) in ["first", "second", "third"]
            .into_iter()
            .take(cast.callers)
            .enumerate()
        {
            actors.push((name, Box::pin(self.clone().call(actor))));
        }
        if cast.heal {
            actors.push(("healer", Box::pin(self.clone().heal(9))));
        }
        if let Some(edit) = cast.edit {
            actors.push(("person", Box::pin(self.clone().edit(edit))));
        }
        if cast.expiries > 0 {
            actors.push(("time", Box::pin(self.clone().expire(cast.expiries))));
        }
        let (always, finally, healer) = (self.clone(), self.clone(), self.clone());
        Scene {
            actors,
            always: Box::new(move || always.always(cast.edit)),
            afterwards: Box::pin(async move {
                for _ in 0..2 {
                    healer.locked().held = false;
                    healer.locked().over = true;
                    healer.clone().heal(9).await;
                }
            }),
            finally: Box::new(move || finally.finally(cast.edit)),
        }
    }
}
