//! The connector API: changes from plan to end, whatever fails in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use secret_gateway::{Grant, Role, State, heal};
use secret_persistence::{ErrorKind, Operation, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Answer, Faulty, World, kv_path, name, specification, workspace};

fn create(password: &str) -> Value {
    json!({
        "kind": "create", "specification": specification(), "scope": workspace(1),
        "edited": {"host": "db", "password": password},
    })
}

async fn with_key(world: &World, key: &str, body: Value) -> Answer {
    let headers = [("idempotency-key", key)];
    world
        .call_with(&headers, "POST", "/api/v1/changes", Some(body))
        .await
}

async fn post(world: &World, body: Value) -> Value {
    world
        .call("POST", "/api/v1/changes", Some(body))
        .await
        .expect(201)
}

async fn end(world: &World, change: &Value, how: &str, status: u16) -> Value {
    let path = format!("/api/v1/changes/{}/{how}", change["id"].as_str().unwrap());
    world.call("POST", &path, None).await.expect(status)
}

async fn settle(world: &World, change: &Value, current: &Value) -> Value {
    let path = format!("/api/v1/changes/{}/settle", change["id"].as_str().unwrap());
    world
        .call("POST", &path, Some(json!({"current": current})))
        .await
        .expect(200)
}

async fn hydrated(world: &World, configurations: Value) -> Value {
    let body = Some(json!({"configurations": configurations}));
    world
        .call("POST", "/api/v1/hydrate", body)
        .await
        .expect(200)["configurations"]
        .clone()
}

#[tokio::test]
async fn a_connector_from_its_creation_to_its_end() {
    let world = World::new().await;
    let created = post(&world, create("hunter2")).await;
    assert_eq!(
        (
            &created["state"],
            created["writes"].as_array().unwrap().len()
        ),
        (&json!("open"), 1)
    );
    let saved = created["configuration"].clone();
    assert!(!saved.to_string().contains("hunter2"));
    assert_eq!(
        saved["password"]["_secret"],
        created["writes"][0]["coordinate"]
    );
    end(&world, &created, "commit", 200).await;
    end(&world, &created, "commit", 200).await;
    end(&world, &created, "abort", 409).await;
    assert_eq!(
        hydrated(&world, json!([saved])).await,
        json!([{"configuration": {"host": "db", "password": "hunter2"}}])
    );

    // Edited through a mask: nothing is written.
    let masked = json!({"specification": specification(), "configuration": saved});
    let masked = world
        .call("POST", "/api/v1/mask", Some(masked))
        .await
        .expect(200)["configuration"]
        .clone();
    assert_eq!(masked, json!({"host": "db", "password": "**********"}));
    let update = |edited: Value| {
        json!({
            "kind": "update", "specification": specification(), "scope": workspace(1), "saved": saved, "edited": edited,
        })
    };
    let kept = post(&world, update(masked.clone())).await;
    assert_eq!(
        (&kept["writes"], &kept["supersedes"], &kept["configuration"]),
        (&json!([]), &json!([]), &saved)
    );
    end(&world, &kept, "abort", 200).await;
    end(&world, &kept, "commit", 409).await;

    // A new value: the old one is deleted once the change is committed, and not before.
    let changed = post(
        &world,
        update(json!({"host": "db", "password": "correct horse"})),
    )
    .await;
    assert_eq!(
        changed["supersedes"][0]["coordinate"],
        saved["password"]["_secret"]
    );
    assert_eq!(
        hydrated(&world, json!([saved])).await[0]["configuration"]["password"],
        "hunter2"
    );
    end(&world, &changed, "commit", 200).await;
    let gone = hydrated(&world, json!([saved, changed["configuration"]])).await;
    assert_eq!(gone[0]["problem"]["kind"], "secret_missing");
    assert_eq!(gone[0]["problem"]["problems"][0]["place"], "/password");
    assert_eq!(gone[1]["configuration"]["password"], "correct horse");

    let deleted = post(
        &world,
        json!({"kind": "delete", "scope": workspace(1), "saved": changed["configuration"]}),
    )
    .await;
    assert_eq!(deleted["configuration"], Value::Null);
    end(&world, &deleted, "commit", 200).await;
    assert!(world.store.inner.is_empty());
}

#[tokio::test]
async fn what_a_caller_does_not_know_is_settled_by_the_row() {
    let world = World::new().await;
    let created = post(&world, create("one")).await;
    let saved = created["configuration"].clone();
    // The save never happened: there is no row.
    let lost = post(&world, create("lost")).await;
    assert_eq!(
        settle(&world, &lost, &Value::Null).await["state"],
        "aborted"
    );
    // It did.
    assert_eq!(settle(&world, &created, &saved).await["state"], "committed");
    let update = json!({
        "kind": "update", "specification": specification(), "scope": workspace(1),
        "saved": saved, "edited": {"host": "db", "password": "two"},
    });
    let changed = post(&world, update.clone()).await;
    let undecided = settle(&world, &changed, &json!({"host": "somebody else's"})).await;
    assert_eq!(
        (&undecided["state"], &undecided["undecided"]),
        (&json!("open"), &json!(true))
    );
    // The members in another order are the same row.
    let reordered: Value = serde_json::from_str(&format!(
        r#"{{"password": {}, "host": "db"}}"#,
        saved["password"]
    ))
    .unwrap();
    assert_eq!(
        settle(&world, &changed, &reordered).await["state"],
        "aborted"
    );
    let again = post(&world, update).await;
    assert_eq!(
        settle(&world, &again, &again["configuration"]).await["state"],
        "committed"
    );
    let path = format!("/api/v1/changes/{}/settle", again["id"].as_str().unwrap());
    world
        .call("POST", &path, Some(json!({"current": saved})))
        .await
        .expect_kind(409, "change_ended_otherwise");
}

#[tokio::test]
async fn a_retry_with_the_same_key_is_the_same_change() {
    let world = World::new().await;
    let send = |key, body| with_key(&world, key, body);
    let first = send("k1", create("hunter2")).await.expect(201);
    assert_eq!(send("k1", create("hunter2")).await.expect(201), first);
    send("k1", create("another"))
        .await
        .expect_kind(422, "idempotency_key_reused");
    assert_ne!(
        send("k2", create("hunter2")).await.expect(201)["id"],
        first["id"]
    );
    // The key is the caller's own: another caller's is another.
    let other = world.token(Grant::new("other", [Role::Change]));
    let headers = [("x-vault-token", other.expose()), ("idempotency-key", "k1")];
    let theirs = world
        .send(
            "POST",
            "/api/v1/changes",
            &headers,
            Some(create("another").to_string()),
        )
        .await
        .expect(201);
    assert_ne!(theirs["id"], first["id"]);
    // And it is still the same after the end, whose saved secrets may be gone.
    end(&world, &first, "commit", 200).await;
    let again = send("k1", create("hunter2")).await.expect(201);
    assert_eq!(
        (&again["id"], &again["configuration"], &again["state"]),
        (&first["id"], &first["configuration"], &json!("committed"))
    );
    send("", create("x"))
        .await
        .expect_kind(400, "invalid_field");
    // Nothing that values could be guessed from is in the outbox.
    for file in ["outbox.db", "outbox.db-wal"] {
        let bytes = std::fs::read(world.folder.path().join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        for value in ["hunter2", "another", "\"k1\""] {
            assert!(!text.contains(value), "{value} in {file}");
        }
    }
}

#[tokio::test]
async fn many_at_once_with_one_key_make_one_change() {
    let world = Arc::new(World::new().await);
    let calls = (0..20).map(|_| {
        let world = Arc::clone(&world);
        tokio::spawn(async move { with_key(&world, "k", create("x")).await })
    });
    let mut ids = std::collections::BTreeSet::new();
    for call in futures::future::join_all(calls).await {
        let answer = call.unwrap();
        match answer.status.as_u16() {
            201 => {
                ids.insert(answer.body["id"].as_str().unwrap().to_owned());
            }
            _ => {
                answer.expect_kind(409, "change_in_progress");
            }
        }
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(world.store.inner.len(), 1);
}

#[tokio::test]
async fn one_of_two_ends_wins() {
    let world = Arc::new(World::new().await);
    for _ in 0..20 {
        let change = post(&world, create("x")).await;
        let path = |how: &str| format!("/api/v1/changes/{}/{how}", change["id"].as_str().unwrap());
        let (commit, abort) = (path("commit"), path("abort"));
        let (commit, abort) = futures::join!(
            world.call("POST", &commit, None),
            world.call("POST", &abort, None)
        );
        let mut statuses = [commit.status.as_u16(), abort.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
    }
}

#[tokio::test]
async fn a_change_that_cannot_be_staged_leaves_nothing_and_is_counted() {
    let world = World::new().await;
    world.store.fail(Operation::Write, ErrorKind::Unavailable);
    let problem = world
        .call("POST", "/api/v1/changes", Some(create("x")))
        .await;
    assert!(problem.headers.contains_key("retry-after"));
    let problem = problem.expect_kind(503, "store_unavailable");
    assert_eq!(
        (
            &problem["problems"][0]["place"],
            &problem["problems"][0]["store"]
        ),
        (&json!("/password"), &json!("faulty"))
    );
    assert_eq!(world.gateway.failed_writes().seen().0, 1);
    world.store.mend();
    assert!(world.store.inner.is_empty());
    // A retry with a key is a new attempt: nobody was told of the first.
    world.store.fail(Operation::Write, ErrorKind::Throttled);
    let send = || with_key(&world, "k", create("x"));
    send().await.expect_kind(429, "store_throttled");
    world.store.mend();
    send().await.expect(201);
    let open = world
        .call("GET", "/api/v1/changes?state=open", None)
        .await
        .expect(200);
    assert_eq!(open["changes"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_deleted_now_is_deleted_later() {
    let world = World::new().await;
    let change = post(&world, create("x")).await;
    world.store.fail(Operation::Delete, ErrorKind::Unavailable);
    end(&world, &change, "abort", 200).await;
    assert!(!world.store.inner.is_empty());
    world.store.mend();
    // The wait after a failure is the outbox's; a gateway that starts again begins with what is due.
    let due = world.gateway.clone();
    heal(&due).await.unwrap();
    let folder = world.folder.path().join("outbox.db");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", folder.display()))
        .await
        .unwrap();
    sqlx::query("UPDATE gateway_changes SET due = 0")
        .execute(&pool)
        .await
        .unwrap();
    heal(&world.gateway).await.unwrap();
    assert!(world.store.inner.is_empty());
}

/// The process is killed while a store is being written to: what it wrote is named by the record.
#[tokio::test]
async fn a_kill_while_staging_leaves_nothing_behind() {
    let store: Arc<Faulty> = Arc::default();
    let world = World::over(Arc::clone(&store), tempfile::tempdir().unwrap(), &[]).await;
    store.hang();
    {
        let call = with_key(&world, "k", create("x"));
        let _ = tokio::time::timeout(Duration::from_millis(300), call).await;
    }
    assert_eq!(store.inner.len(), 1);
    let open = world.call("GET", "/api/v1/changes", None).await.expect(200);
    assert_eq!(open["changes"], json!([]), "nobody was told of it");
    let retry = with_key(&world, "k", create("x")).await;
    retry.expect_kind(409, "change_in_progress");
    // The process is gone: its lock with it, and the change that it was staging.
    let folder = killed(world);
    store.mend();
    let world = World::over(Arc::clone(&store), folder, &[]).await;
    heal(&world.gateway).await.unwrap();
    assert!(store.inner.is_empty());
    with_key(&world, "k", create("x")).await.expect(201);
}

/// Copies a gateway's folder: what the disk of a killed process has.
fn killed(world: World) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(world.folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

#[tokio::test]
async fn open_changes_are_listed_oldest_first_and_paged() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(
            post(&world, create("x")).await["id"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = world
            .call(
                "GET",
                &format!("/api/v1/changes?state=open&limit=3{after}"),
                None,
            )
            .await
            .expect(200);
        let changes = page["changes"].as_array().unwrap();
        assert!(changes.len() <= 3);
        found.extend(
            changes
                .iter()
                .map(|change| change["id"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    found.sort_unstable();
    ids.sort_unstable();
    assert_eq!(found, ids);
    let before = world
        .call("GET", "/api/v1/changes?before=2020-01-01T00:00:00Z", None)
        .await
        .expect(200);
    assert_eq!(before["changes"], json!([]));
    for query in [
        "limit=0",
        "limit=x",
        "before=yesterday",
        "after=x",
        "state=staging",
    ] {
        world
            .call("GET", &format!("/api/v1/changes?{query}"), None)
            .await
            .expect_kind(400, "invalid_field");
    }
    world
        .call("GET", "/api/v1/changes?stat=open", None)
        .await
        .expect_kind(400, "unknown_field");
    world
        .call("GET", &format!("/api/v1/changes/{}", Uuid::new_v4()), None)
        .await
        .expect_kind(404, "not_found");
    world
        .call("GET", "/api/v1/changes/x", None)
        .await
        .expect_kind(404, "not_found");
}

#[tokio::test]
async fn many_configurations_are_hydrated_with_one_batch_and_fail_alone() {
    let world = World::new().await;
    for secret in 1..=4 {
        let path = kv_path(1, secret);
        world
            .call(
                "POST",
                &path,
                Some(json!({"data": {"value": format!("v{secret}")}})),
            )
            .await
            .expect(200);
    }
    let pointer = |secret: u128| json!({"_secret": name(1, secret)});
    world.store.reads.store(0, Ordering::SeqCst);
    let answers = hydrated(
        &world,
        json!([
            {"z": pointer(1), "a": pointer(2)},
            {"x": pointer(9), "y": pointer(3)},
            {"x": {"_secret": 5}},
            {"x": pointer(4)},
            null,
        ]),
    )
    .await;
    assert_eq!(world.store.reads.load(Ordering::SeqCst), 1);
    // The order of keys is kept.
    assert_eq!(
        answers[0].to_string(),
        r#"{"configuration":{"z":"v1","a":"v2"}}"#
    );
    assert_eq!(
        answers[1]["problem"]["problems"],
        json!([{
            "place": "/x", "kind": "store", "detail": "the store failed", "coordinate": name(1, 9),
            "error": "not_found", "store": answers[1]["problem"]["problems"][0]["store"],
        }])
    );
    assert_eq!(answers[2]["problem"]["problems"][0]["place"], "/x");
    assert_eq!(answers[3]["configuration"], json!({"x": "v4"}));

    world.store.fail(Operation::Read, ErrorKind::Unavailable);
    let body = json!({"configurations": [{"x": pointer(1)}]});
    let answer = world.call("POST", "/api/v1/hydrate", Some(body)).await;
    assert!(answer.headers.contains_key("retry-after"));
    let problem = answer.expect_kind(503, "store_unavailable");
    assert_eq!(problem["problems"][0]["store"], "faulty");
}

#[tokio::test]
async fn guarded_places_refuse_masks_and_kept_pointers() {
    let world = World::with(&[("guarded-places", "/port")]).await;
    let saved = post(&world, create("x")).await["configuration"].clone();
    let update = |edited: Value, guarded: Value| {
        json!({
            "kind": "update", "specification": specification(), "scope": workspace(1),
            "saved": saved, "edited": edited, "guarded": guarded,
        })
    };
    let moved = json!({"host": "evil", "password": "**********"});
    let problem = world
        .call(
            "POST",
            "/api/v1/changes",
            Some(update(moved.clone(), json!(["/host"]))),
        )
        .await;
    let problem = problem.expect_kind(422, "configuration_refused");
    assert_eq!(problem["problems"][0]["kind"], "guarded_place_changed");
    post(&world, update(moved, json!([]))).await;
    // The operator's own are guarded whatever the caller says.
    let moved = json!({"host": "db", "port": 1, "password": saved["password"]});
    world
        .call("POST", "/api/v1/changes", Some(update(moved, json!([]))))
        .await
        .expect_kind(422, "configuration_refused");
}

#[tokio::test]
async fn a_request_that_cannot_be_taken_names_what_is_wrong() {
    let world = World::new().await;
    let with = |name: &str, value: Value| {
        let mut body = create("x");
        body[name] = value;
        body
    };
    let without = |name: &str| {
        let mut body = create("x");
        body.as_object_mut().unwrap().remove(name);
        body
    };
    for (body, kind, field) in [
        (with("more", json!(1)), "unknown_field", None),
        (without("kind"), "missing_field", Some("kind")),
        (without("scope"), "missing_field", Some("scope")),
        (
            without("specification"),
            "missing_field",
            Some("specification"),
        ),
        (without("edited"), "missing_field", Some("edited")),
        (with("kind", json!("upsert")), "invalid_field", Some("kind")),
        (
            with("kind", json!("update")),
            "missing_field",
            Some("saved"),
        ),
        (with("saved", json!({})), "invalid_field", Some("saved")),
        (
            with("scope", json!({"workspace": "x"})),
            "invalid_field",
            Some("scope"),
        ),
        (
            with("scope", json!({"prefix": "a b", "id": Uuid::nil()})),
            "invalid_field",
            Some("scope"),
        ),
        (
            with("guarded", json!(["host"])),
            "invalid_field",
            Some("guarded"),
        ),
        (
            with("expires", json!("soon")),
            "invalid_field",
            Some("expires"),
        ),
        (json!([]), "invalid_field", Some("body")),
    ] {
        let shown = body.to_string();
        let problem = world.call("POST", "/api/v1/changes", Some(body)).await;
        let problem = problem.expect_kind(400, kind);
        assert_eq!(
            problem.get("field").and_then(Value::as_str),
            field,
            "{shown}"
        );
    }
    let refused = with("specification", json!({"$ref": "https://example.com/x"}));
    world
        .call("POST", "/api/v1/changes", Some(refused))
        .await
        .expect_kind(422, "configuration_refused");
    assert!(world.store.inner.is_empty());
}

/// A connector whose secret has expired when it is saved could never sync.
#[tokio::test]
async fn a_secret_that_has_expired_already_is_not_written() {
    let world = World::new().await;
    let path = "/api/v1/changes";
    let until = |expires: String| {
        let mut body = create("x");
        body["expires"] = json!(expires);
        body
    };
    for past in [
        "0001-01-01T00:00:00Z".to_owned(),
        "2001-02-03T04:05:06+07:00".to_owned(),
        Timestamp::now().to_string(),
    ] {
        let refused = world.call("POST", path, Some(until(past.clone()))).await;
        let refused = refused.expect_kind(400, "invalid_field");
        assert_eq!(refused["field"], "expires", "{past}");
    }
    assert!(world.store.inner.is_empty());

    // A retry is about the change that was made, so it is answered after the expiry too.
    let soon = Timestamp::now().saturating_add(Duration::from_secs(2));
    let make = || with_key(&world, "k", until(soon.to_string()));
    let made = make().await.expect(201);
    while Timestamp::now() <= soon {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(make().await.expect(201)["id"], made["id"]);
}

#[tokio::test]
async fn configurations_for_people_and_exports() {
    let world = World::new().await;
    let configuration = json!({"host": "h", "password": {"_secret": name(1, 1)}});
    let body = json!({"specification": specification(), "configuration": configuration});
    assert_eq!(
        world
            .call("POST", "/api/v1/places", Some(body.clone()))
            .await
            .expect(200)["places"],
        json!(["/password"])
    );
    let scrubbed = world
        .call(
            "POST",
            "/api/v1/scrub",
            Some(json!({"configuration": configuration})),
        )
        .await
        .expect(200);
    assert!(!scrubbed.to_string().contains(&name(1, 1)));
    let raw = json!({"specification": specification(), "configuration": {"host": "h", "password": "raw"}});
    let scrubbed = world
        .call("POST", "/api/v1/scrub", Some(raw))
        .await
        .expect(200);
    assert!(!scrubbed.to_string().contains("raw"));
}

#[tokio::test]
async fn states_are_counted_for_the_page() {
    let world = World::new().await;
    let first = post(&world, create("x")).await;
    post(&world, create("y")).await;
    end(&world, &first, "commit", 200).await;
    let status = world.call("GET", "/api/v1/status", None).await.expect(200);
    let count = |state: State| {
        let changes = status["changes"].as_array().unwrap();
        let found = changes
            .iter()
            .find(|count| count["state"] == state.as_str());
        found.map_or(0, |count| count["changes"].as_u64().unwrap())
    };
    assert_eq!((count(State::Open), count(State::Committed)), (1, 1));
}
