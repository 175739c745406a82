//! The document of the connector API says what is served.

use serde_json::Value;

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
                    answer.body["detail"], "there is no such route",
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
