//! The document of the connector API says what is served.

use secret_gateway::ProblemKind;
use serde_json::{Value, json};

use crate::world::World;

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
    assert_eq!(operations, 14);
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
        "11 requests".to_owned(),
    ] {
        assert!(text.contains(&limit), "{limit}: {text}");
    }
    assert!(!document.to_string().contains("{max"));

    // Those of a field are in its schema and in the problem.
    let most = |pointer: &str| document.pointer(pointer).unwrap().as_u64().unwrap();
    let configurations = most(
        "/paths/~1api~1v1~1hydrate/post/requestBody/content/application~1json/schema/properties/configurations/maxItems",
    );
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
