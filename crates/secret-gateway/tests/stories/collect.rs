//! The collector: what no configuration names goes, after a dry run and not before its time.

use std::time::Duration;

use secret_persistence::{
    AuditMode, ErrorKind, ManagedCoordinate, Operation, SecretPersistenceExt as _, SecretValue,
    Timestamp, Write,
};
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::audit::Sink;
use crate::world::{Faulty, World, configurations, name, specification, workspace};

const COLLECT: &str = "/api/v1/collect";
const DAY: Duration = Duration::from_secs(86_400);

async fn write(world: &World, secret: u128, expires: Option<Timestamp>) {
    let name = ManagedCoordinate::parse(&name(1, secret)).unwrap();
    let value = SecretValue::new("canary-41d7".to_owned());
    let write = Write::new(name, value).with_expires(expires);
    world.store.inner.write(write).await.unwrap();
}

/// Which of the secrets are in the store.
async fn there(world: &World, secrets: &[u128]) -> Vec<u128> {
    let mut found = Vec::new();
    for secret in secrets {
        let name = ManagedCoordinate::parse(&name(1, *secret)).unwrap();
        if world.store.inner.read(&name.into()).await.is_ok() {
            found.push(*secret);
        }
    }
    found
}

/// A gateway that knows of a connector with the secrets 1 to 9.
async fn world() -> World {
    world_with(None).await
}

async fn world_with(sink: Option<std::sync::Arc<Sink>>) -> World {
    let folder = tempfile::tempdir().unwrap();
    let pointers: Vec<Value> = (1..=9).map(|id| json!({"_secret": name(1, id)})).collect();
    let file = configurations(folder.path(), &[("7", json!({"keys": pointers}))]);
    let settings = [("configurations-file", file.as_str())];
    let world = World::of(Faulty::owned(), folder, &settings, |stores| match sink {
        Some(sink) => stores.with_audit(sink, AuditMode::Required),
        None => stores,
    })
    .await;
    for secret in 1..=10 {
        write(&world, secret, None).await;
    }
    world
}

async fn ended(world: &World, mut run: Value) -> Value {
    while run["state"] == "running" {
        tokio::time::sleep(Duration::from_millis(10)).await;
        run = world.call("GET", COLLECT, None).await.expect(200)["run"].take();
    }
    run
}

/// Begins a run, and waits for its end.
async fn finished(world: &World, body: Value) -> Value {
    let run = world.call("POST", COLLECT, Some(body)).await.expect(202);
    ended(world, run).await
}

async fn preview(world: &World, body: Value) -> Value {
    let run = finished(world, body).await;
    assert_eq!(
        (&run["dry_run"], &run["counts"]["deleted"]),
        (&json!(true), &json!(0)),
        "{run}"
    );
    run
}

async fn delete(world: &World, preview: &Value) -> Value {
    let path = format!("{COLLECT}/{}/delete", preview["id"].as_str().unwrap());
    let body = Some(json!({"all_references": true}));
    let run = world.call("POST", &path, body).await.expect(202);
    let run = ended(world, run).await;
    assert_eq!(run["dry_run"], false, "{run}");
    run
}

/// The journal remembers the first run as one of long ago.
async fn wait(world: &World, days: i64) {
    let path = world.folder.path().join("collect.db");
    let url = format!("sqlite://{}", path.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("UPDATE collect_secret SET since = since - $1")
        .bind(days * 86_400)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn an_orphan_goes_after_its_time_and_what_is_named_stays() {
    let world = world().await;
    let young = preview(&world, json!({})).await;
    assert_eq!(
        (
            &young["state"],
            &young["counts"]["young"],
            &young["secrets"]
        ),
        (&json!("done"), &json!(10), &json!([])),
        "{young}"
    );

    // Old enough, but this is the first run that misses it.
    world.store.age(2 * DAY);
    let first = preview(&world, json!({})).await;
    assert_eq!(first["counts"]["waiting"], 1, "{first}");
    assert_eq!(first["counts"]["names"], 9, "{first}");
    let secret = &first["secrets"][0];
    assert_eq!(
        (&secret["coordinate"], &secret["reason"], &secret["fate"]),
        (&json!(name(1, 10)), &json!("orphaned"), &json!("waiting"))
    );
    let run = delete(&world, &first).await;
    assert_eq!(
        (&run["state"], &run["counts"]["deleted"]),
        (&json!("done"), &json!(0))
    );

    // A day later.
    wait(&world, 2).await;
    let due = preview(&world, json!({})).await;
    assert_eq!(
        (&due["counts"]["orphaned"], &due["secrets"][0]["fate"]),
        (&json!(1), &json!("due"))
    );
    assert_eq!(there(&world, &[1, 9, 10]).await, [1, 9, 10]);
    let run = delete(&world, &due).await;
    assert_eq!(
        (&run["state"], &run["counts"]["deleted"]),
        (&json!("done"), &json!(1)),
        "{run}"
    );
    assert_eq!(run["secrets"][0]["fate"], "deleted");
    assert_eq!(
        there(&world, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).await.len(),
        9
    );
    assert!(!run.to_string().contains("canary-41d7"));
}

#[tokio::test]
async fn no_more_goes_than_is_allowed_and_what_has_expired_does_not_wait() {
    let world = world().await;
    let past = Timestamp::now().saturating_sub(DAY);
    for secret in 11..=12 {
        write(&world, secret, Some(past)).await;
    }
    world.store.age(2 * DAY);
    // Two of twelve are more than a tenth.
    let stopped = preview(&world, json!({})).await;
    assert_eq!(
        (&stopped["state"], &stopped["counts"]["expired"]),
        (&json!("share"), &json!(2))
    );
    let path = format!("{COLLECT}/{}/delete", stopped["id"].as_str().unwrap());
    let confirmed = json!({"all_references": true});
    let refused = world.call("POST", &path, Some(confirmed)).await;
    refused.expect_kind(409, "collect_not_previewed");

    let allowed = preview(&world, json!({"max_percent": 20})).await;
    assert_eq!(allowed["state"], "done", "{allowed}");
    let run = delete(&world, &allowed).await;
    assert_eq!(
        (&run["max_percent"], &run["counts"]["deleted"]),
        (&json!(20), &json!(2))
    );
    assert_eq!(there(&world, &[10, 11, 12]).await, [10]);
}

/// The journal fails after a delete, which is told all the same.
#[tokio::test]
async fn a_run_that_fails_says_what_it_had_deleted() {
    let world = world().await;
    world.store.age(2 * DAY);
    preview(&world, json!({})).await;
    wait(&world, 2).await;
    let due = preview(&world, json!({})).await;
    let path = world.folder.path().join("collect.db");
    let url = format!("sqlite://{}", path.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let refuse = format!(
        "CREATE TRIGGER refuse BEFORE DELETE ON collect_secret WHEN OLD.coordinate = '{}' \
         BEGIN SELECT RAISE(ABORT, 'told to fail'); END",
        name(1, 10)
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(refuse))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let run = delete(&world, &due).await;
    assert_eq!(
        (&run["state"], &run["failure"]["deleted"], &run["counts"]),
        (&json!("failed"), &json!(1), &Value::Null),
        "{run}"
    );
    let told = &run["secrets"][0];
    assert_eq!(
        (&told["coordinate"], &told["fate"]),
        (&json!(name(1, 10)), &json!("deleted"))
    );
    assert_eq!(there(&world, &[9, 10]).await, [9]);
}

/// The gateway itself points at them, and no connector does.
#[tokio::test]
async fn the_credentials_of_further_stores_stay() {
    let folder = tempfile::tempdir().unwrap();
    let pointers: Vec<Value> = (1..=9).map(|id| json!({"_secret": name(1, id)})).collect();
    let configurations = configurations(folder.path(), &[("7", json!({"keys": pointers}))]);
    let storages = folder.path().join("storages.json");
    let further = json!({
        "tenant": {"address": "http://127.0.0.1:9", "token": {"_secret": name(1, 10)}},
        "whole": {"_secret": name(1, 11)},
    });
    std::fs::write(&storages, further.to_string()).unwrap();
    let settings = [
        ("configurations-file", configurations.as_str()),
        ("storages-file", storages.to_str().unwrap()),
    ];
    let world = World::over(Faulty::owned(), folder, &settings).await;
    for secret in 1..=12 {
        write(&world, secret, None).await;
    }
    world.store.age(2 * DAY);
    let first = preview(&world, json!({})).await;
    assert_eq!(
        (&first["counts"]["names"], &first["counts"]["waiting"]),
        (&json!(11), &json!(1)),
        "{first}"
    );
    wait(&world, 2).await;
    let due = preview(&world, json!({})).await;
    let run = delete(&world, &due).await;
    assert_eq!(run["counts"]["deleted"], 1, "{run}");
    assert_eq!(there(&world, &[9, 10, 11, 12]).await, [9, 10, 11]);

    // They leak and grow old like others, and come after all connectors.
    let page = world.call("POST", "/api/v1/ages", Some(json!({}))).await;
    let next = page.expect(200)["next"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/ages?after={next}");
    let page = world.call("POST", &path, Some(json!({}))).await.expect(200);
    let place = |index: usize| {
        let secret = &page["secrets"][index];
        json!([secret["configuration"], secret["place"], secret["standing"]])
    };
    assert_eq!(
        (place(0), place(1), &page["next"]),
        (
            json!([
                format!("{}#tenant", storages.display()),
                "/token",
                "present"
            ]),
            json!([format!("{}#whole", storages.display()), "", "present"]),
            &Value::Null
        )
    );

    // What cannot be read or understood may name anything.
    std::fs::write(&storages, json!({"tenant": {"_secret": 7}}).to_string()).unwrap();
    let run = preview(&world, json!({})).await;
    assert_eq!(
        (&run["state"], &run["failures"][0]["configuration"]),
        (
            &json!("unreadable"),
            &json!(format!("{}#tenant", storages.display()))
        ),
        "{run}"
    );
    for text in [Some("{"), None] {
        match text {
            Some(text) => std::fs::write(&storages, text).unwrap(),
            None => std::fs::remove_file(&storages).unwrap(),
        }
        let run = finished(&world, json!({})).await;
        assert_eq!(
            (&run["state"], &run["failure"]["kind"]),
            (&json!("failed"), &json!("configurations")),
            "{run}"
        );
        let detail = run["failure"]["detail"].as_str().unwrap();
        assert!(detail.contains("storages.json"), "{detail}");
    }

    // Nor is it silently left out, here by another replica.
    let journal = world.folder.path().join("collect.db");
    let settings = [settings[0], ("collect-journal", journal.to_str().unwrap())];
    let folder = tempfile::tempdir().unwrap();
    let without = World::over(world.store.clone(), folder, &settings).await;
    let run = finished(&without, json!({})).await;
    assert_eq!(run["failure"]["kind"], "undecided", "{run}");
}

/// What an open change has written is in no configuration yet.
#[tokio::test]
async fn an_open_change_keeps_what_it_has_written() {
    let world = world().await;
    let create = json!({
        "kind": "create", "specification": specification(), "scope": workspace(1),
        "edited": {"host": "h", "password": "canary-41d7"},
    });
    let change = world
        .call("POST", "/api/v1/changes", Some(create))
        .await
        .expect(201);
    world.store.age(2 * DAY);
    let run = preview(&world, json!({})).await;
    assert_eq!(run["counts"]["waiting"], 1, "{run}");
    assert_eq!(run["secrets"][0]["coordinate"], json!(name(1, 10)), "{run}");
    // The record of the change, and the connector.
    assert_eq!(run["counts"]["configurations"], 2, "{run}");

    // Committed, and in no row: it is an orphan like any other.
    let path = format!("/api/v1/changes/{}/commit", change["id"].as_str().unwrap());
    world.call("POST", &path, None).await.expect(200);
    let run = preview(&world, json!({})).await;
    assert_eq!(run["counts"]["waiting"], 2, "{run}");
}

#[tokio::test]
async fn what_nobody_understands_stops_it() {
    let world = world().await;
    world.store.age(2 * DAY);
    let lines = world.folder.path().join("configurations.jsonl");
    let text = std::fs::read_to_string(&lines).unwrap();
    let broken = json!({"id": "8", "configuration": {"key": {"_secret": 7}}});
    std::fs::write(&lines, format!("{text}\n{broken}\n")).unwrap();
    let run = preview(&world, json!({})).await;
    assert_eq!(
        (&run["state"], &run["failures"][0]["place"]),
        (&json!("unreadable"), &json!("/key"))
    );
    // The source is gone.
    std::fs::remove_file(&lines).unwrap();
    let run = finished(&world, json!({})).await;
    assert_eq!(
        (&run["state"], &run["failure"]["kind"]),
        (&json!("failed"), &json!("configurations"))
    );
    // So is the store.
    std::fs::write(&lines, text).unwrap();
    world.store.fail(Operation::List, ErrorKind::Unavailable);
    let run = finished(&world, json!({})).await;
    assert_eq!(
        (&run["state"], &run["failure"]["kind"]),
        (&json!("failed"), &json!("store"))
    );
}

#[tokio::test]
async fn it_asks_for_a_dry_run_a_confirmation_and_something_to_collect_from() {
    let world = world().await;
    let seen = preview(&world, json!({})).await;
    let path = format!("{COLLECT}/{}/delete", seen["id"].as_str().unwrap());
    for body in [
        json!({"all_references": false}),
        json!({"all_references": "yes"}),
    ] {
        let answer = world.call("POST", &path, Some(body)).await;
        answer.expect_kind(400, "invalid_field");
    }
    let answer = world.call("POST", &path, Some(json!({}))).await;
    answer.expect_kind(400, "missing_field");
    for (member, value) in [("grace_seconds", 3599), ("max_percent", 101)] {
        let answer = world
            .call("POST", COLLECT, Some(json!({member: value})))
            .await;
        assert_eq!(answer.expect_kind(400, "invalid_field")["field"], member);
    }
    // An earlier run is none that anybody has seen last.
    preview(&world, json!({})).await;
    let confirmed = || Some(json!({"all_references": true}));
    let answer = world.call("POST", &path, confirmed()).await;
    answer.expect_kind(404, "not_found");

    let bare = World::new().await;
    for (method, path, body) in [
        ("GET", COLLECT, None),
        ("POST", COLLECT, Some(json!({}))),
        ("POST", path.as_str(), confirmed()),
    ] {
        let problem = bare
            .call(method, path, body)
            .await
            .expect_kind(404, "not_found");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("configurations-file"), "{detail}");
    }
    let status = bare.call("GET", "/api/v1/status", None).await.expect(200);
    assert_eq!(
        (&status["sources"], &status["collects"]),
        (&json!(0), &json!(false))
    );
    let status = world.call("GET", "/api/v1/status", None).await.expect(200);
    assert_eq!(
        (&status["sources"], &status["collects"]),
        (&json!(1), &json!(true))
    );
}

#[tokio::test]
async fn each_delete_is_an_event_of_the_caller() {
    let sink: std::sync::Arc<Sink> = std::sync::Arc::default();
    let world = world_with(Some(std::sync::Arc::clone(&sink))).await;
    let past = Timestamp::now().saturating_sub(DAY);
    write(&world, 11, Some(past)).await;
    world.store.age(2 * DAY);
    let token = world.token(secret_gateway::Grant::new(
        "operator",
        [secret_gateway::Role::Operate],
    ));
    let call = |path: String, body: Value| {
        let (world, token) = (&world, &token);
        async move {
            // The sink asserts the id.
            let headers = [
                ("x-vault-token", token.expose()),
                ("x-request-id", "request-1"),
            ];
            world
                .send("POST", &path, &headers, Some(body.to_string()))
                .await
                .expect(202)
        }
    };
    let seen = ended(&world, call(COLLECT.to_owned(), json!({})).await).await;
    assert!(sink.take("operator").is_empty());
    let path = format!("{COLLECT}/{}/delete", seen["id"].as_str().unwrap());
    let run = ended(&world, call(path, json!({"all_references": true})).await).await;
    assert_eq!(
        (&run["actor"], &run["counts"]["deleted"]),
        (&json!("operator"), &json!(1)),
        "{run}"
    );
    assert_eq!(
        sink.take("operator"),
        [(Operation::Delete, name(1, 11), None)]
    );
}

/// The gateway's own configurations are read a page at a time.
#[tokio::test]
async fn ages_of_the_gateways_configurations_come_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<(String, Value)> = (1..=250)
        .map(|id| (id.to_string(), json!({"key": {"_secret": name(1, id)}})))
        .collect();
    let rows: Vec<(&str, Value)> = rows
        .iter()
        .map(|(id, row)| (id.as_str(), row.clone()))
        .collect();
    let file = configurations(folder.path(), &rows);
    let settings = [("configurations-file", file.as_str())];
    let world = World::over(Faulty::owned(), folder, &settings).await;
    write(&world, 250, None).await;
    for path in ["/api/v1/ages", "/api/v1/affected", "/api/v1/restore"] {
        let mut query = String::new();
        let mut seen = Vec::new();
        loop {
            let page = world
                .call("POST", &format!("{path}{query}"), Some(json!({})))
                .await;
            let page = page.expect(200);
            for secret in page["secrets"].as_array().unwrap() {
                seen.push(secret["coordinate"].as_str().unwrap().to_owned());
            }
            let Some(next) = page["next"].as_str() else {
                break;
            };
            query = format!("?after={next}");
            // Nobody else's, and nobody's for a request with configurations of its own.
            let wrong = next.replacen('0', "1", 1);
            for (query, body) in [
                (format!("?after={wrong}"), json!({})),
                ("?after=0.x.0:0".to_owned(), json!({})),
                ("?after=x".to_owned(), json!({})),
                (query.clone(), json!({"configurations": []})),
            ] {
                let answer = world
                    .call("POST", &format!("{path}{query}"), Some(body))
                    .await;
                assert_eq!(answer.expect_kind(400, "invalid_field")["field"], "after");
            }
        }
        // What is there needs no restoring.
        let count = if path.ends_with("restore") { 249 } else { 250 };
        assert_eq!(seen.len(), count, "{path}");
        assert!(seen.contains(&name(1, 1)) && seen.contains(&name(1, 249)));
    }
    let bare = World::new().await;
    let answer = bare.call("POST", "/api/v1/ages", Some(json!({}))).await;
    assert_eq!(
        answer.expect_kind(400, "missing_field")["field"],
        "configurations"
    );
}

/// The journal belongs to one run at a time, whichever replica began it.
#[tokio::test]
async fn a_second_replica_is_refused_the_journal() {
    let first = world().await;
    let journal = first.folder.path().join("collect.db").display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = configurations(folder.path(), &[("7", json!({}))]);
    let settings = [
        ("configurations-file", file.as_str()),
        ("collect-journal", journal.as_str()),
    ];
    let second = World::over(Faulty::owned(), folder, &settings).await;
    first.store.list_slowly();
    let begun = first.call("POST", COLLECT, Some(json!({})));
    let refused = async {
        while first.call("GET", COLLECT, None).await.expect(200)["run"].is_null()
            || !std::path::Path::new(&journal).exists()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The first run opens it before it lists.
        let mut run = Value::Null;
        for _ in 0..100 {
            let answer = second.call("POST", COLLECT, Some(json!({}))).await;
            run = ended(&second, answer.expect(202)).await;
            if run["state"] == "failed" {
                break;
            }
        }
        first.store.mend();
        run
    };
    let (begun, refused) = tokio::join!(begun, refused);
    assert_eq!(
        (&refused["state"], &refused["failure"]["kind"]),
        (&json!("failed"), &json!("journal")),
        "{refused}"
    );
    let run = ended(&first, begun.expect(202)).await;
    assert_eq!(run["state"], "done", "{run}");
    let run = preview(&second, json!({})).await;
    assert_eq!(run["state"], "done", "{run}");
}

#[tokio::test]
async fn a_run_stops_when_it_is_told_to_and_when_the_gateway_ends() {
    let world = world().await;
    world.store.list_slowly();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (end, ending) = tokio::sync::oneshot::channel::<()>();
    let served = secret_gateway::serve(world.gateway.clone(), listener, async {
        let _ = ending.await;
    });
    let story = async {
        let begun = world.call("POST", COLLECT, Some(json!({})));
        let ended_by_us = async {
            while world.call("GET", COLLECT, None).await.expect(200)["run"].is_null() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            end.send(()).unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            world.store.mend();
        };
        tokio::join!(begun, ended_by_us)
    };
    let (served, _) = tokio::join!(served, story);
    served.unwrap();
    let run = world.call("GET", COLLECT, None).await.expect(200)["run"].take();
    assert_eq!(ended(&world, run).await["state"], "cancelled");
}
