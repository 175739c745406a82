//! `ages`, `affected` and `restore`: after a leak, after a backup, and on an ordinary day.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use secret_gateway::{Grant, Role};
use secret_persistence::{
    Actor, AuditEvent, AuditMode, AuditSink, DeleteOptions, Error, ErrorKind, LastRead, LastReads,
    ManagedCoordinate, Operation, Result, SecretPersistenceExt as _, SecretValue, Timestamp, Write,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Known, World, name};

const AGES: &str = "/api/v1/ages";
const AFFECTED: &str = "/api/v1/affected";
const RESTORE: &str = "/api/v1/restore";

fn managed(workspace: u128, secret: u128) -> ManagedCoordinate {
    ManagedCoordinate::parse(&name(workspace, secret)).unwrap()
}

async fn write(world: &World, secret: u128, expires: Option<Timestamp>) {
    let value = SecretValue::new(format!("value-{secret}"));
    let write = Write::new(managed(1, secret), value).with_expires(expires);
    world.store.inner.write(write).await.unwrap();
}

async fn delete(world: &World, secret: u128) {
    let options = DeleteOptions::default();
    let name = managed(1, secret);
    world.store.inner.delete(&name, &options).await.unwrap();
}

/// One row for each standing: a secret that is there, one that expires tomorrow, one that is scheduled for
/// deletion, one that is gone, and those that the store is not asked about.
async fn rows(world: &World) -> Value {
    let tomorrow = Timestamp::now().saturating_add(Duration::from_secs(86_400));
    write(world, 1, None).await;
    write(world, 2, Some(tomorrow)).await;
    write(world, 3, None).await;
    delete(world, 3).await;
    json!([
        {
            "id": "source", "workspace": Uuid::from_u128(1),
            "configuration": {
                "host": "value-1",
                "password": {"_secret": name(1, 1)},
                "keys": [{"_secret": name(1, 2)}, {"_secret": name(1, 3)}, {"_secret": name(1, 4)}],
            },
        },
        {
            "id": "other", "workspace": Uuid::from_u128(2),
            "configuration": {
                "a": {"_secret": name(2, 1), "_secret_storage_id": "tenant"},
                "b": {"_secret": "vault/of/others"},
            },
        },
        {"id": "broken", "configuration": {"password": {"_secret": 7}}},
    ])
}

/// A request about these configurations.
fn body(configurations: &Value, more: Value) -> Value {
    let Value::Object(mut members) = more else {
        panic!("{more}")
    };
    members.insert("configurations".to_owned(), configurations.clone());
    Value::Object(members)
}

/// Place and standing of each secret of an answer.
fn standings(answer: &Value) -> Vec<(&str, &str)> {
    let secrets = answer["secrets"].as_array().unwrap().iter();
    secrets
        .map(|secret| {
            let text = |name: &str| secret[name].as_str().unwrap();
            (text("place"), text("standing"))
        })
        .collect()
}

#[tokio::test]
async fn ages_tell_of_every_place_what_is_known() {
    let world = World::new().await;
    let configurations = rows(&world).await;
    let ask = |more| world.call("POST", AGES, Some(body(&configurations, more)));
    let all = ask(json!({})).await;
    assert!(!all.text.contains("value-"), "{}", all.text);
    let all = all.expect(200);
    assert_eq!(
        standings(&all),
        [
            ("/password", "present"),
            ("/keys/0", "present"),
            ("/keys/1", "pending_deletion"),
            ("/keys/2", "missing"),
            ("/a", "elsewhere"),
            ("/b", "external"),
            ("/password", "unreadable"),
        ]
    );
    let first = &all["secrets"][0];
    assert_eq!(first["configuration"], "source");
    assert_eq!(first["workspace"], json!(Uuid::from_u128(1)));
    assert_eq!(first["coordinate"], json!(name(1, 1)));
    assert!(first["age_seconds"].is_u64() && first["created"].is_string());
    assert_eq!(all["secrets"][4]["storage"], "tenant");
    let counts = &all["counts"];
    assert_eq!(
        (
            &counts["configurations"],
            &counts["places"],
            &counts["listed"]
        ),
        (&json!(3), &json!(7), &json!(7))
    );
    for (name, count) in [
        ("missing", 1),
        ("pending_deletion", 1),
        ("elsewhere", 1),
        ("external", 1),
        ("unreadable", 1),
        ("restored", 0),
        ("unknown_age", 4),
    ] {
        assert_eq!(counts[name], count, "{name}");
    }

    // What is known to be younger, or never to expire, is left out; what nobody knows is not.
    let old = ask(json!({"older_than_seconds": 3600})).await.expect(200);
    assert!(
        !standings(&old).contains(&("/password", "present")),
        "{old}"
    );
    assert!(standings(&old).contains(&("/keys/2", "missing")), "{old}");
    let soon = ask(json!({"expiring_within_seconds": 2 * 86_400})).await;
    let soon = soon.expect(200);
    assert!(standings(&soon).contains(&("/keys/0", "present")), "{soon}");
    assert!(
        !standings(&soon).contains(&("/password", "present")),
        "{soon}"
    );
    let one = ask(json!({"workspaces": [Uuid::from_u128(2)]})).await;
    let one = one.expect(200);
    // A place that nobody understands may be anybody's.
    assert_eq!(
        standings(&one),
        [
            ("/a", "elsewhere"),
            ("/b", "external"),
            ("/password", "unreadable")
        ]
    );
}

#[tokio::test]
async fn affected_secrets_are_those_that_were_there_at_the_time() {
    let world = World::new().await;
    let configurations = rows(&world).await;
    let ask = |more| world.call("POST", AFFECTED, Some(body(&configurations, more)));
    let (hour, now) = (Duration::from_secs(3600), Timestamp::now());
    let (before, after) = (now.saturating_sub(hour), now.saturating_add(hour));
    for (members, is_listed) in [
        (json!({"until": before}), false),
        (json!({"until": after}), true),
        (json!({"since": before}), true),
        (json!({"since": after}), false),
        (json!({"since": before, "until": after}), true),
    ] {
        let answer = ask(members.clone()).await.expect(200);
        let listed = standings(&answer).contains(&("/password", "present"));
        assert_eq!(listed, is_listed, "{members}");
    }
    let here = ask(json!({"in_store": true})).await.expect(200);
    assert!(!standings(&here).contains(&("/a", "elsewhere")), "{here}");
    let wrong = ask(json!({"since": after, "until": before})).await;
    let problem = wrong.expect_kind(400, "invalid_field");
    assert_eq!(problem["field"], "since");
}

#[tokio::test]
async fn restore_brings_back_what_a_backup_names_and_says_what_is_beyond_it() {
    let world = World::new().await;
    let configurations = rows(&world).await;
    let body = |dry_run: bool| Some(json!({"configurations": configurations, "dry_run": dry_run}));
    let dry = world.call("POST", RESTORE, body(true)).await.expect(200);
    assert!(standings(&dry).contains(&("/keys/1", "pending_deletion")));
    assert!(
        !standings(&dry).contains(&("/password", "present")),
        "{dry}"
    );
    let gone = world.store.inner.read(&managed(1, 3).into()).await;
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::PendingDeletion);

    let done = world.call("POST", RESTORE, body(false)).await.expect(200);
    assert!(
        standings(&done).contains(&("/keys/1", "restored")),
        "{done}"
    );
    assert!(standings(&done).contains(&("/keys/2", "missing")), "{done}");
    assert_eq!(
        (&done["counts"]["restored"], &done["counts"]["missing"]),
        (&json!(1), &json!(1))
    );
    let back = world.store.inner.read(&managed(1, 3).into()).await.unwrap();
    assert_eq!(back.value.expose(), "value-3");
    // Nothing is left to do.
    let again = world.call("POST", RESTORE, body(false)).await.expect(200);
    assert_eq!(again["counts"]["restored"], 0);
}

/// Nothing is asked where the request is not understood.
#[tokio::test]
async fn what_is_not_understood_is_refused_by_name() {
    let world = World::new().await;
    let row = json!({"id": "1", "configuration": {}});
    for (body, kind, field) in [
        (
            json!({"configurations": [row, row]}),
            "invalid_field",
            "configurations",
        ),
        (
            json!({"configurations": [1]}),
            "invalid_field",
            "configurations",
        ),
        (
            json!({"configurations": [{"id": "1"}]}),
            "missing_field",
            "configuration",
        ),
        (
            json!({"configurations": [{"configuration": {}}]}),
            "missing_field",
            "id",
        ),
        (
            json!({"configurations": [{"id": "1", "workspace": "x", "configuration": {}}]}),
            "invalid_field",
            "workspace",
        ),
        (
            json!({"configurations": vec![row.clone(); 1001]}),
            "invalid_field",
            "configurations",
        ),
        (
            json!({"configurations": [], "workspaces": ["x"]}),
            "invalid_field",
            "workspaces",
        ),
    ] {
        for path in [AGES, AFFECTED, RESTORE] {
            let answer = world.call("POST", path, Some(body.clone())).await;
            assert_eq!(answer.expect_kind(400, kind)["field"], field, "{path}");
        }
    }
    for (path, member, value) in [
        (AGES, "older_than_seconds", json!(-1)),
        (AGES, "expiring_within_seconds", json!("1")),
        (AFFECTED, "since", json!("yesterday")),
        (AGES, "never_read", json!("true")),
        (AFFECTED, "reads", json!(1)),
        (AFFECTED, "in_store", json!(1)),
        (RESTORE, "dry_run", json!("true")),
    ] {
        let mut body = json!({"configurations": []});
        body[member] = value;
        let answer = world.call("POST", path, Some(body)).await;
        assert_eq!(answer.expect_kind(400, "invalid_field")["field"], member);
    }
}

#[tokio::test]
async fn a_store_that_is_down_is_a_problem_and_not_a_list_of_unknowns() {
    let world = World::new().await;
    let body = json!({"configurations": rows(&world).await});
    world
        .store
        .fail(Operation::Describe, ErrorKind::Unavailable);
    for path in [AGES, AFFECTED, RESTORE] {
        let answer = world.call("POST", path, Some(body.clone())).await;
        assert!(answer.headers.contains_key("retry-after"));
        answer.expect_kind(503, "store_unavailable");
    }
}

#[tokio::test]
async fn with_a_ledger_each_place_says_who_read_its_secret_last() {
    let mut known = LastReads::default();
    let (since, read) = (
        Timestamp::from_unix_seconds(1_700_000_000).unwrap(),
        Timestamp::from_unix_seconds(1_750_000_000).unwrap(),
    );
    known.since = Some(since);
    for (secret, genuine) in [(1, true), (4, false)] {
        let read = LastRead::new(read, Some(Actor::new("maria")), genuine);
        known.reads.insert(managed(1, secret).into(), read);
    }
    let world = World::knowing(Arc::new(Known(Ok(known)))).await;
    let configurations = rows(&world).await;
    let status = world.call("GET", "/api/v1/status", None).await.expect(200);
    assert_eq!(status["ledger"], true);
    for path in [AGES, AFFECTED] {
        let body = json!({"configurations": configurations});
        let answer = world.call("POST", path, Some(body)).await.expect(200);
        let reads = |place: usize| answer["secrets"][place]["reads"].clone();
        let (since, read) = (since.to_string(), read.to_string());
        assert_eq!(
            reads(0),
            json!({"last": read, "actor": "maria", "genuine": true, "since": since})
        );
        let unread = json!({"last": null, "actor": null, "genuine": null, "since": since});
        assert_eq!(reads(1), unread, "{path}");
        assert_eq!(reads(3)["genuine"], false, "{path}");
        // Of a place that does not say its secret, nobody knows anything.
        assert_eq!(reads(6)["since"], json!(null), "{path}");
        let counts = &answer["counts"];
        assert_eq!(
            (&counts["never_read"], &counts["not_genuine"]),
            (&json!(4), &json!(1)),
            "{path}"
        );
        assert_eq!(counts["reads_since"], json!(since), "{path}");

        let body = json!({"configurations": configurations, "reads": false});
        let answer = world.call("POST", path, Some(body)).await;
        assert!(!answer.text.contains("reads") && !answer.text.contains("never_read"));
        answer.expect(200);
    }
    let body = json!({"configurations": configurations, "never_read": true});
    let answer = world.call("POST", AGES, Some(body)).await.expect(200);
    assert_eq!(
        standings(&answer),
        [
            ("/keys/0", "present"),
            ("/keys/1", "pending_deletion"),
            ("/keys/2", "missing"),
            ("/a", "elsewhere"),
            ("/b", "external"),
            ("/password", "unreadable"),
        ]
    );
    // A forged read takes no secret off the list.
    assert_eq!(answer["counts"]["not_genuine"], 1);
    // What was restored is about the store.
    let body = json!({"configurations": configurations});
    let answer = world.call("POST", RESTORE, Some(body)).await;
    assert!(!answer.text.contains("reads"), "{}", answer.text);
    answer.expect(200);
}

#[tokio::test]
async fn without_a_ledger_nothing_is_said_about_reads() {
    let world = World::new().await;
    let status = world.call("GET", "/api/v1/status", None).await.expect(200);
    assert_eq!(status["ledger"], false);
    let configurations = rows(&world).await;
    let body = json!({"configurations": configurations, "reads": true});
    let answer = world.call("POST", AGES, Some(body)).await;
    assert!(!answer.text.contains("reads") && !answer.text.contains("never_read"));
    answer.expect(200);
    let body = json!({"configurations": configurations, "never_read": true});
    let refused = world.call("POST", AGES, Some(body)).await;
    assert_eq!(
        refused.expect_kind(400, "invalid_field")["field"],
        "never_read"
    );
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_is_a_problem_and_not_a_secret_that_nobody_reads() {
    let failing = Error::new(ErrorKind::PermissionDenied, "no SELECT").with_store("ledger x");
    let world = World::knowing(Arc::new(Known(Err(failing)))).await;
    let configurations = rows(&world).await;
    for path in [AGES, AFFECTED] {
        let body = json!({"configurations": configurations});
        let answer = world.call("POST", path, Some(body)).await;
        assert!(answer.headers.contains_key("retry-after"));
        let problem = answer.expect_kind(503, "ledger_unavailable");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("no SELECT") && detail.contains("ledger x"),
            "{detail}"
        );
        let body = json!({"configurations": configurations, "reads": false});
        world.call("POST", path, Some(body)).await.expect(200);
    }
}

/// The whole way: the gateway writes its ledger, and reads it.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_gateway_tells_what_its_own_ledger_knows() {
    use secret_persistence::Environment;
    use secret_persistence::database::KeyRingFile;

    use crate::world::{ask, kv_path, texts, written};

    let folder = tempfile::tempdir().unwrap();
    let ring = folder.path().join("ledger-ring");
    KeyRingFile::create(&ring, "1".parse().unwrap()).unwrap();
    let ledger = format!("sqlite://{}", folder.path().join("ledger.db").display());
    let environment = Environment::from_iter([
        ("SECRETS_LEDGER", ledger),
        ("LEDGER_SECRETS_KEYRING_FILE", ring.display().to_string()),
    ]);
    let settings = texts(&folder.path().join("data"), &[]).parse().unwrap();
    let started = secret_gateway::start(settings, &environment, None).await;
    let started = started.unwrap();
    let router = secret_gateway::router(started.gateway);
    let token = |role: Role| {
        let (_, file) = started.tokens.iter().find(|(of, _)| *of == role).unwrap();
        std::fs::read_to_string(file).unwrap()
    };
    let call = async |role, method, path: String, body: Option<Value>| {
        let token = token(role);
        let headers = [("x-vault-token", token.trim())];
        let body = body.map(|body| body.to_string());
        ask(&router, method, &path, &headers, body)
            .await
            .expect(200)
    };
    for secret in [1, 2] {
        let path = kv_path(1, secret);
        call(Role::KvWrite, "POST", path, written("value")).await;
    }
    call(Role::KvRead, "GET", kv_path(1, 1), None).await;
    let configuration = json!({"a": {"_secret": name(1, 1)}, "b": {"_secret": name(1, 2)}});
    let body = json!({"configurations": [{"id": "1", "configuration": configuration}]});
    let answer = call(Role::Operate, "POST", AGES.to_owned(), Some(body)).await;
    let [read, unread] = [0, 1].map(|index| answer["secrets"][index]["reads"].clone());
    assert_eq!(read["actor"], "first-kv-read", "{answer}");
    assert_eq!(read["genuine"], true);
    assert_eq!(unread["last"], json!(null));
    assert!(unread["since"].is_string());
    assert_eq!(answer["counts"]["never_read"], 1);
}

/// A sink that records, until it fails.
#[derive(Debug, Default)]
struct Sink {
    events: std::sync::Mutex<Vec<AuditEvent>>,
    fails: AtomicBool,
}

#[async_trait]
impl AuditSink for Sink {
    async fn record(&self, events: &[AuditEvent]) -> Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "told to fail"));
        }
        self.events.lock().unwrap().extend_from_slice(events);
        Ok(())
    }
}

#[tokio::test]
async fn each_description_and_each_restore_is_an_event_of_the_caller() {
    let sink: Arc<Sink> = Arc::default();
    let recording = Arc::clone(&sink);
    let folder = tempfile::tempdir().unwrap();
    let world = World::of(Arc::default(), folder, &[], |stores| {
        stores.with_audit(recording, AuditMode::Required)
    })
    .await;
    let body = json!({"configurations": rows(&world).await});
    let token = world.token(Grant::new("operator", [Role::Operate]));
    let mut events = Vec::new();
    for (id, path) in [("first", RESTORE), ("second", AGES), ("third", AFFECTED)] {
        let headers = [("x-vault-token", token.expose()), ("x-request-id", id)];
        let answer = world.send("POST", path, &headers, Some(body.to_string()));
        answer.await.expect(200);
        let recorded = std::mem::take(&mut *sink.events.lock().unwrap());
        assert!(!recorded.is_empty(), "{path}");
        for event in &recorded {
            assert_eq!(event.request.as_deref(), Some(id), "{path}");
        }
        if path == RESTORE {
            events = recorded;
        }
    }
    let mut told: Vec<_> = events
        .iter()
        .map(|event| {
            assert_eq!(event.actor.as_str(), "operator");
            let name = event.location.coordinate.to_string();
            (event.operation.as_str(), name, event.failure)
        })
        .collect();
    told.sort();
    let gone = Some(ErrorKind::NotFound);
    let mut expected = vec![
        ("describe", name(1, 1), None),
        ("describe", name(1, 2), None),
        // Before it is restored, and after.
        ("describe", name(1, 3), None),
        ("describe", name(1, 3), None),
        ("describe", name(1, 4), gone),
        ("restore", name(1, 3), None),
    ];
    expected.sort();
    assert_eq!(told, expected);

    // Where the audit is required, nothing is told that it did not record.
    sink.fails.store(true, Ordering::SeqCst);
    for path in [AGES, AFFECTED, RESTORE] {
        let answer = world.call("POST", path, Some(body.clone())).await;
        assert!(!answer.text.contains(&name(1, 1)), "{}", answer.text);
        answer.expect_kind(503, "audit_failed");
    }
}
