//! The document of the connector API says what is served.

use std::path::Path;

use secret_gateway::{Grant, ProblemKind, Role};
use serde_json::{Value, json};

use crate::world::{Faulty, World, configurations, specification, workspace};

async fn document_of(world: &World) -> Value {
    let answer = world.send("GET", "/api/v1/openapi.json", &[], None).await;
    answer.expect(200)
}

/// The document with the default limits is in the docs, for readers and for generators of clients.
#[tokio::test]
async fn the_document_of_the_docs_is_the_codes() {
    let document = document_of(&World::new().await).await;
    let text = format!("{}\n", serde_json::to_string_pretty(&document).unwrap());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).is_ok_and(|known| known == text),
        "docs/openapi.json is not made from the code; set UPDATE_EXPECTED=1"
    );
}

/// The role that an operation says is the only one that it lets in.
#[tokio::test]
async fn every_operation_needs_the_role_that_the_document_says() {
    let world = World::new().await;
    let document = document_of(&world).await;
    let mut refused = 0;
    for role in Role::ALL {
        let token = world.token(Grant::new(role.as_str(), [role]));
        for (path, methods) in document["paths"].as_object().unwrap() {
            let path = path.replace("{id}", "00000000-0000-4000-8000-000000000001");
            for (method, operation) in methods.as_object().unwrap() {
                let method = method.to_ascii_uppercase();
                let body = operation.get("requestBody").map(|_| json!({}));
                let answer = world.call_as(Some(&token), &method, &path, body).await;
                let needs = operation["description"].as_str().unwrap_or_default();
                let is_let_in = needs.is_empty() || needs == format!("Needs the role `{role}`.");
                assert_eq!(
                    answer.body["kind"] != "missing_role",
                    is_let_in,
                    "{method} {path} with {role}: {}",
                    answer.text
                );
                refused += usize::from(!is_let_in);
            }
        }
    }
    // 20 operations need one of five roles.
    assert_eq!(refused, 20 * 4);
}

/// A body with every member that the schema has.
fn full(path: &str) -> Value {
    let secret = json!({"host": "h", "password": "x"});
    let id = "00000000-0000-4000-8000-000000000001";
    let rows = json!([{"id": "1", "workspace": id, "configuration": secret}]);
    match path {
        "/api/v1/changes" => json!({
            "kind": "update", "specification": specification(), "scope": workspace(1),
            "saved": {"host": "h"}, "edited": secret, "guarded": ["/host"],
            "expires": "2099-01-01T00:00:00Z",
        }),
        "/api/v1/ages" => json!({
            "configurations": rows, "older_than_seconds": 0, "expiring_within_seconds": 0,
            "never_read": false, "reads": true, "workspaces": [id],
        }),
        "/api/v1/affected" => json!({
            "configurations": rows, "since": "2001-01-01T00:00:00Z",
            "until": "2099-01-01T00:00:00Z", "in_store": true, "reads": true, "workspaces": [id],
        }),
        "/api/v1/restore" => {
            json!({"configurations": rows, "dry_run": true, "workspaces": [id]})
        }
        "/api/v1/collect" => {
            json!({"grace_seconds": 3600, "max_percent": 10, "workspaces": [id]})
        }
        "/api/v1/collect/{id}/delete" => json!({"all_references": true}),
        "/api/v1/hydrate" => json!({"configurations": [{"host": "h"}]}),
        "/api/v1/changes/{id}/settle" => json!({"current": null}),
        _ => json!({"specification": specification(), "configuration": secret}),
    }
}

/// The members of the schema are those that are parsed: each is taken, what is required is missed,
/// and others are refused by name. A value in the wrong place is never shown.
#[tokio::test]
async fn the_members_of_every_body_are_those_of_its_schema() {
    const CANARY: &str = "canary-5be1";
    let folder = tempfile::tempdir().unwrap();
    // What a body may leave out, this gateway has.
    let file = configurations(folder.path(), &[("1", json!({}))]);
    let settings = [("configurations-file", file.as_str())];
    let world = World::over(Faulty::owned(), folder, &settings).await;
    let document = document_of(&world).await;
    let mut bodies = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let content = &methods["post"]["requestBody"]["content"]["application/json"];
        let Some(reference) = content["schema"]["$ref"].as_str() else {
            continue;
        };
        bodies += 1;
        let schema = document.pointer(&reference[1..]).unwrap();
        assert_eq!(schema["additionalProperties"], false, "{reference}");
        let asked = path.replace("{id}", "00000000-0000-4000-8000-000000000001");
        let post = |body: Value| {
            let (world, asked) = (&world, &asked);
            async move { world.call("POST", asked, Some(body)).await }
        };
        let all = full(path);
        // The settled change and the run do not exist, which is known after the body is parsed.
        let parsed = |status: u16| matches!(status, 200 | 201 | 202 | 404);
        let taken = post(all.clone()).await;
        assert!(parsed(taken.status.as_u16()), "{path}: {}", taken.text);

        let names: Vec<&String> = all.as_object().unwrap().keys().collect();
        let known = schema["properties"].as_object().unwrap();
        assert_eq!(names.len(), known.len(), "{reference}");
        let none = Vec::new();
        let required = schema["required"].as_array().unwrap_or(&none);
        for member in names {
            assert!(known.contains_key(member), "{reference}: {member}");
            let mut without = all.clone();
            without.as_object_mut().unwrap().shift_remove(member);
            let answer = post(without).await;
            if required.iter().any(|name| name == member) {
                let problem = answer.expect_kind(400, "missing_field");
                assert_eq!(problem["field"], *member);
            } else if path != "/api/v1/changes" {
                // What a change needs depends on its kind.
                assert!(answer.status.is_success(), "{path}: {}", answer.text);
            }
            for wrong in [
                json!(CANARY),
                json!([CANARY, {CANARY: CANARY}]),
                json!({CANARY: {CANARY: CANARY}}),
                json!(15_935_742),
            ] {
                let mut body = all.clone();
                body[member] = wrong;
                let answer = post(body).await;
                let is_error = !answer.status.is_success();
                let is_shown = answer.text.contains(CANARY) || answer.text.contains("15935742");
                assert!(!is_error || !is_shown, "{path} {member}: {}", answer.text);
            }
        }
        let mut more = all.clone();
        more["more"] = json!(CANARY);
        let problem = post(more).await.expect_kind(400, "unknown_field");
        assert_eq!(problem["fields"], json!(["more"]));
        assert!(!problem.to_string().contains(CANARY));
    }
    assert_eq!(bodies, 11);
}

/// What is no member is refused, wherever a member's type has members of its own.
#[tokio::test]
async fn members_of_a_wrong_type_are_named() {
    let world = World::new().await;
    let id = "00000000-0000-4000-8000-000000000001";
    for (member, value, detail) in [
        ("kind", json!(1), "`kind` is not a string"),
        (
            "kind",
            json!("x"),
            "`kind` must be create, update or delete",
        ),
        (
            "scope",
            json!({"workspace": id, "more": 1}),
            "`scope` must be {",
        ),
        ("scope", json!({"prefix": "p"}), "`scope` must be {"),
        ("scope", json!({"prefix": 1, "id": id}), "`scope` must be {"),
        ("scope", json!({"workspace": "x"}), "`scope` must be {"),
        ("scope", json!([]), "`scope` must be {"),
        ("guarded", json!({}), "`guarded` is not a list"),
        ("guarded", json!(null), "`guarded` is not a list"),
        (
            "guarded",
            json!([1]),
            "`guarded` has an entry that is not a JSON Pointer",
        ),
        (
            "guarded",
            json!(["x"]),
            "`guarded` has an entry that is not a JSON Pointer",
        ),
        ("expires", json!(1), "`expires` is not an RFC 3339 time"),
        (
            "expires",
            json!("2001-01-01T00:00:00Z"),
            "`expires` is not in the future",
        ),
    ] {
        let mut body = full("/api/v1/changes");
        body[member] = value;
        let answer = world.call("POST", "/api/v1/changes", Some(body)).await;
        let problem = answer.expect_kind(400, "invalid_field");
        assert_eq!(problem["field"], member);
        let text = problem["detail"].as_str().unwrap();
        assert!(text.starts_with(detail), "{text}");
    }
    // The last of two members with one name counts, as in every JSON parser of callers.
    let twice = r#"{"configurations": 1, "configurations": []}"#;
    let token = world.token(Grant::new("twice", [Role::Hydrate]));
    let headers = [("x-vault-token", token.expose())];
    let answer = world.send("POST", "/api/v1/hydrate", &headers, Some(twice.to_owned()));
    answer.await.expect(200);

    for (query, kind, member) in [
        ("state=staging", "invalid_field", "state"),
        ("before=now", "invalid_field", "before"),
        ("after=x", "invalid_field", "after"),
        ("limit=0", "invalid_field", "limit"),
        ("limit=x", "invalid_field", "limit"),
        ("more=1&limit=1", "unknown_field", "more"),
    ] {
        let path = format!("/api/v1/changes?{query}");
        let problem = world.call("GET", &path, None).await.expect_kind(400, kind);
        let named = problem.get("field").unwrap_or(&problem["fields"][0]);
        assert_eq!(named, member, "{query}");
    }
}

/// A problem's kind is in the answer that the document has for its status.
#[tokio::test]
async fn every_kind_of_the_connector_api_is_in_the_answer_of_its_status() {
    let document = document_of(&World::new().await).await;
    let responses = &document["components"]["responses"];
    let of_vault = [
        "name_not_managed",
        "unsupported",
        "value_exists",
        "version_mismatch",
    ];
    for kind in ProblemKind::ALL {
        let status = kind.status().as_u16();
        let text = responses[format!("Problem{status}")]["description"].as_str();
        let named = text.is_some_and(|text| text.contains(&format!("- `{}`: ", kind.as_str())));
        let is_ours = !of_vault.contains(&kind.as_str());
        // A method that a route does not have is in no operation.
        let is_served = is_ours && status != 405;
        assert_eq!(named, is_served, "{}", kind.as_str());
    }
}

#[tokio::test]
async fn every_operation_of_the_document_is_served_and_every_reference_leads_somewhere() {
    let world = World::new().await;
    let document = world
        .send("GET", "/api/v1/openapi.json", &[], None)
        .await
        .expect(200);
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let asked = path.replace("{id}", "00000000-0000-4000-8000-000000000001");
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            let answer = world.call(&method.to_ascii_uppercase(), &asked, None).await;
            // Served: what it answers is about the request, and in the document.
            assert_ne!(answer.status.as_u16(), 405, "{method} {path}");
            if answer.status.as_u16() == 404 {
                assert_ne!(
                    answer.body["detail"], "the route does not exist",
                    "{method} {path}"
                );
            }
            let status = answer.status.as_str();
            assert!(
                operation["responses"].get(status).is_some(),
                "{method} {path}: {status}"
            );
        }
        // What the document does not name is not served.
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            if methods.get(method.to_ascii_lowercase()).is_none() {
                world
                    .call(method, &asked, None)
                    .await
                    .expect_kind(405, "method_not_allowed");
            }
        }
    }
    assert_eq!(operations, 21);
    references(&document, &document);
}

/// The document lists the kinds of problems, and its limits are those that the gateway enforces.
#[tokio::test]
async fn the_document_has_the_kinds_and_the_limits() {
    let settings = [
        ("max-body-bytes", "10000"),
        ("request-timeout-seconds", "7"),
        ("concurrency", "11"),
    ];
    let world = World::with(&settings).await;
    let document = world
        .send("GET", "/api/v1/openapi.json", &[], None)
        .await
        .expect(200);
    let kinds = &document["components"]["schemas"]["Problem"]["properties"]["kind"]["enum"];
    let all: Vec<&str> = ProblemKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(kinds, &json!(all));
    assert!(all.is_sorted(), "{all:?}");

    let text = document["info"]["description"].as_str().unwrap();
    let depth = world.gateway.settings().limits.depth;
    for limit in [
        "10000 bytes".to_owned(),
        format!("{depth} levels"),
        "7 seconds".to_owned(),
        "10 seconds".to_owned(),
        "11 requests".to_owned(),
    ] {
        assert!(text.contains(&limit), "{limit}: {text}");
    }
    assert!(!document.to_string().contains("{max"));

    // Those of a field are in its schema and in the problem.
    let most = |pointer: &str| document.pointer(pointer).unwrap().as_u64().unwrap();
    let configurations = most("/components/schemas/Hydrate/properties/configurations/maxItems");
    let body = json!({"configurations": vec![0; usize::try_from(configurations).unwrap() + 1]});
    let problem = world.call("POST", "/api/v1/hydrate", Some(body)).await;
    let problem = problem.expect_kind(400, "invalid_field");
    assert_eq!(
        (&problem["field"], problem["limit"].as_u64()),
        (&json!("configurations"), Some(configurations))
    );

    let guarded = most("/components/schemas/ChangeRequest/properties/guarded/maxItems");
    let body = json!({
        "kind": "delete", "scope": {"workspace": uuid::Uuid::nil()}, "saved": {},
        "guarded": vec![""; usize::try_from(guarded).unwrap() + 1],
    });
    let problem = world.call("POST", "/api/v1/changes", Some(body)).await;
    let problem = problem.expect_kind(400, "invalid_field");
    assert_eq!(problem["limit"], guarded);

    let parameters = "/paths/~1api~1v1~1changes";
    let key = most(&format!("{parameters}/post/parameters/0/schema/maxLength"));
    let long = "k".repeat(usize::try_from(key).unwrap() + 1);
    let headers = [("idempotency-key", long.as_str())];
    let problem = world
        .call_with(&headers, "POST", "/api/v1/changes", Some(json!({})))
        .await;
    let problem = problem.expect_kind(400, "invalid_field");
    assert_eq!(problem["limit"], key);

    let list = most(&format!("{parameters}/get/parameters/3/schema/maximum"));
    let path = format!("/api/v1/changes?limit={}", list + 1);
    let problem = world.call("GET", &path, None).await;
    let problem = problem.expect_kind(400, "invalid_field");
    assert_eq!(problem["limit"], list);
}

fn references(document: &Value, value: &Value) {
    match value {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
            }
            members
                .values()
                .for_each(|member| references(document, member));
        }
        Value::Array(items) => items.iter().for_each(|item| references(document, item)),
        _ => {}
    }
}
