//! The connector API, under `/api/v1`: changes, full configurations, presentable ones, stores.

mod api;
mod changes;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod collect;
mod configs;
mod document;
mod ending;
mod hydrate;
mod inventory;
mod listing;
mod members;
mod present;
mod request;
mod sight;
mod stores;

use axum::Router;
use serde_json::{Value, json};

use self::api::Api;
use self::document::Operation;
use crate::gateway::Gateway;
use crate::tokens::Role;

pub use ending::heal;

pub(crate) fn routes() -> Router<Gateway> {
    api().router
}

fn api() -> Api {
    let api = about_changes(Api::new());
    let api = about_configurations(api);
    let api = about_secrets(api);
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    let api = about_the_collector(api);
    about_the_gateway(api)
}

fn about_changes(api: Api) -> Api {
    let list = Operation::of(Role::Change, "listChanges", "What is open, oldest first")
        .answers("One page.");
    let create = Operation::of(
        Role::Change,
        "createChange",
        "Plans a change, records it and writes its secrets",
    )
    .answers("Staged: save `configuration`, then commit.")
    .conflicts()
    .with_body(json!({
        "kind": "create",
        "specification": specification(),
        "scope": {"workspace": "00000000-0000-4000-8000-000000000001"},
        "edited": {"host": "db.example", "password": "hunter2"},
    }))
    .with_links(of_a_change());
    let show = Operation::of(Role::Change, "showChange", "One change").answers("The change.");
    let commit = Operation::of(
        Role::Change,
        "commitChange",
        "The row is saved: deletes what the change superseded. Idempotent",
    )
    .answers("Committed.")
    .conflicts();
    let abort = Operation::of(
        Role::Change,
        "abortChange",
        "The row is certainly not saved and never will be: deletes what the change wrote. Idempotent",
    )
    .answers("Aborted.")
    .conflicts();
    let settle = Operation::of(
        Role::Change,
        "settleChange",
        "Decides by the row as it is now, read with a lock",
    )
    .answers("Ended, or still open and `undecided`.")
    .conflicts();
    api.get("/api/v1/changes", list, listing::list)
        .post("/api/v1/changes", create, changes::create)
        .get("/api/v1/changes/{id}", show, changes::show)
        .post("/api/v1/changes/{id}/commit", commit, ending::commit)
        .post("/api/v1/changes/{id}/abort", abort, ending::abort)
        .post("/api/v1/changes/{id}/settle", settle, ending::settle)
}

fn about_configurations(api: Api) -> Api {
    let specified = || {
        json!({
            "specification": specification(),
            "configuration": {"host": "db.example", "password": "hunter2"},
        })
    };
    let hydrate = Operation::of(
        Role::Hydrate,
        "hydrate",
        "Full configurations, one batch of reads for all of them",
    )
    .answers("One answer per configuration, in order. One that fails fails alone, wholly.")
    .with_body(json!({"configurations": [{"host": "db.example"}]}));
    let mask = Operation::of(Role::Change, "mask", "A configuration for people")
        .answers("`**********` at every secret place.")
        .with_body(specified());
    let scrub = Operation::of(Role::Change, "scrub", "A configuration for an export")
        .answers("Pointers made unreadable; with a specification raw secrets too.")
        .with_body(json!({
            "configuration": {"host": "db.example", "password": {"_secret": NAME}},
        }));
    let places = Operation::of(
        Role::Change,
        "places",
        "Which places of a configuration are secret",
    )
    .answers("JSON Pointers.")
    .with_body(specified());
    api.post("/api/v1/hydrate", hydrate, hydrate::hydrate)
        .post("/api/v1/mask", mask, present::mask)
        .post("/api/v1/scrub", scrub, present::scrubbed)
        .post("/api/v1/places", places, present::places)
}

fn about_secrets(api: Api) -> Api {
    let configurations = || {
        json!({"configurations": [{
            "id": "7",
            "workspace": "00000000-0000-4000-8000-000000000001",
            "configuration": {"host": "db.example", "password": {"_secret": NAME}},
        }]})
    };
    let ages = Operation::of(
        Role::Operate,
        "ages",
        "How old the secrets of configurations are, and when they expire",
    )
    .answers("The secrets, and no value.")
    .with_body(configurations());
    let affected = Operation::of(
        Role::Operate,
        "affected",
        "Which secrets of configurations to issue again after a leak",
    )
    .answers("The secrets, and no value.")
    .with_body(configurations());
    let restore = Operation::of(
        Role::Operate,
        "restore",
        "Restores the secrets that configurations from a backup name and that are scheduled for deletion",
    )
    .answers(
        "The secrets that were not there. `missing` ones are beyond recovery: enter them again.",
    )
    .with_body(configurations());
    api.post("/api/v1/ages", ages, inventory::ages)
        .post("/api/v1/affected", affected, inventory::affected)
        .post("/api/v1/restore", restore, inventory::restore)
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn about_the_collector(api: Api) -> Api {
    let latest = Operation::of(
        Role::Operate,
        "latestCollect",
        "The latest run of the collector in this process",
    )
    .answers("What it counted, and the first secrets that it found.");
    let preview = Operation::of(
        Role::Operate,
        "previewCollect",
        "Finds what no configuration of `configurations-file` names, and what has expired; deletes nothing",
    )
    .answers("The run, which may be under way.")
    .conflicts()
    .with_body(json!({"grace_seconds": 86_400}))
    .with_links(of_a_run());
    let delete = Operation::of(
        Role::Operate,
        "deleteCollect",
        "Deletes what is superfluous, with the rules of this dry run, which is the latest run",
    )
    .answers("The run, which may be under way.")
    .conflicts()
    .with_body(json!({"all_references": true}));
    let stop = Operation::of(
        Role::Operate,
        "stopCollect",
        "Stops a run after its page; the next one continues",
    )
    .answers("The run.");
    api.get("/api/v1/collect", latest, collect::latest)
        .post("/api/v1/collect", preview, collect::preview)
        .post("/api/v1/collect/{id}/delete", delete, collect::delete)
        .post("/api/v1/collect/{id}/stop", stop, collect::stop)
}

/// What can be done with a run.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn of_a_run() -> Value {
    let link = |operation: &str| json!({"operationId": operation, "parameters": {"id": "$response.body#/id"}});
    let mut delete = link("deleteCollect");
    delete["requestBody"] = json!({"all_references": true});
    json!({"delete": delete, "stop": link("stopCollect")})
}

fn about_the_gateway(api: Api) -> Api {
    let stores = Operation::of(
        Role::Operate,
        "listStores",
        "The stores as they were when they were last asked",
    )
    .answers("All of them.");
    let check = Operation::of(
        Role::Operate,
        "checkStore",
        "Writes, reads, lists and deletes a test secret; `default` is the default store",
    )
    .answers("Each step with what it did.")
    .with_id("default");
    let status = Operation::of(
        Role::Operate,
        "status",
        "What the page shows beside the stores",
    )
    .answers("Failed writes, changes by state, audit events lost.");
    let document = Operation::public("document", "This document").answers("This document.");
    api.get("/api/v1/stores", stores, stores::list)
        .post("/api/v1/stores/{id}/check", check, stores::check)
        .get("/api/v1/status", status, stores::status)
        .get("/api/v1/openapi.json", document, document::document)
}

/// The name of the examples.
const NAME: &str = "airbyte_workspace_00000000-0000-4000-8000-000000000001_secret_00000000-0000-4000-8000-000000000002_v1";

/// The specification of the examples.
fn specification() -> Value {
    json!({
        "type": "object",
        "properties": {
            "host": {"type": "string"},
            "password": {"type": "string", "airbyte_secret": true},
        },
    })
}

/// What can be done with a change that was just made.
fn of_a_change() -> Value {
    let link = |operation: &str| json!({"operationId": operation, "parameters": {"id": "$response.body#/id"}});
    let mut settle = link("settleChange");
    settle["requestBody"] = json!({"current": "$response.body#/configuration"});
    json!({
        "show": link("showChange"),
        "commit": link("commitChange"),
        "abort": link("abortChange"),
        "settle": settle,
    })
}
