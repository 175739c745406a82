//! What a request may bring.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::Setup;

const BAD: (u16, &str, Option<&str>) = (400, "BadParameter", None);

#[tokio::test]
async fn the_version_of_the_protocol_is_required_and_known() {
    let setup = Setup::new().await;
    for version in ["7.4", "7.5", "7.6", "2025-07-01"] {
        setup
            .get(&format!("/secrets?api-version={version}"))
            .await
            .ok();
    }
    for query in ["", "api-version=", "api-version=1.0", "api-version=7.99"] {
        assert_eq!(
            setup.get(&format!("/secrets?{query}")).await.refusal(),
            BAD,
            "{query}"
        );
    }
}

#[tokio::test]
async fn names_follow_a_grammar() {
    let setup = Setup::new().await;
    let longest = "n".repeat(127);
    for name in [longest.as_str(), "-", "0", "A-z-9"] {
        setup.seed(name).await;
    }
    let longer = "n".repeat(128);
    for name in [
        longer.as_str(),
        "under_score",
        "do.t",
        "sp%20ace",
        "sl%2Fash",
        "%C3%A4",
    ] {
        let refused = setup.set(name, json!({"value": "tr0ub4dor"})).await;
        assert_eq!(refused.refusal(), BAD, "{name}");
        assert_eq!(
            setup.get(&format!("/secrets/{name}")).await.refusal(),
            BAD,
            "{name}"
        );
        assert_eq!(
            setup.delete(&format!("/secrets/{name}")).await.refusal(),
            BAD,
            "{name}"
        );
    }
}

#[tokio::test]
async fn values_have_a_limit_in_bytes() {
    let setup = Setup::new().await;
    for value in [String::new(), "v".repeat(25_600), "ä".repeat(12_800)] {
        setup.set("alpha", json!({"value": value})).await.ok();
        assert_eq!(setup.get("/secrets/alpha").await.ok()["value"], value);
    }
    for value in [
        json!("v".repeat(25_601)),
        json!("ä".repeat(12_801)),
        json!(7),
        Value::Null,
    ] {
        assert_eq!(
            setup.set("alpha", json!({"value": value})).await.refusal(),
            BAD
        );
    }
    assert_eq!(setup.set("alpha", json!([])).await.refusal(), BAD);
    let nothing = setup.call(Method::PUT, "/secrets/alpha", None).await;
    assert_eq!(nothing.refusal(), (415, "UnsupportedMediaType", None));
}

#[tokio::test]
async fn tags_and_content_types_have_limits() {
    let setup = Setup::new().await;
    let tags = |number: usize| -> Map<String, Value> {
        (0..number)
            .map(|at| (format!("tag{at}"), json!("v".repeat(512))))
            .collect()
    };
    let set = async |tags: Value, content_type: Value| {
        let body = json!({"value": "tr0ub4dor", "tags": tags, "contentType": content_type});
        setup.set("alpha", body).await
    };
    set(json!(tags(15)), json!("t".repeat(255))).await.ok();
    set(json!({"n".repeat(512): ""}), Value::Null).await.ok();
    for (tags, content_type) in [
        (json!(tags(16)), Value::Null),
        (json!({"n".repeat(513): "v"}), Value::Null),
        (json!({"n": "v".repeat(513)}), Value::Null),
        (json!({"": "v"}), Value::Null),
        (json!({"n": 7}), Value::Null),
        (json!("n=v"), Value::Null),
        (Value::Null, json!("t".repeat(256))),
    ] {
        assert_eq!(set(tags, content_type).await.refusal(), BAD);
    }
    for attributes in [json!({"exp": "soon"}), json!({"enabled": 1}), json!("none")] {
        let body = json!({"value": "tr0ub4dor", "attributes": attributes});
        assert_eq!(setup.set("alpha", body).await.refusal(), BAD);
    }
}

#[tokio::test]
async fn what_is_not_served_is_refused() {
    let setup = Setup::new().await;
    for (method, path) in [
        (Method::POST, "/secrets/alpha/backup"),
        (Method::POST, "/secrets/alpha"),
        (Method::GET, "/keys/alpha"),
    ] {
        assert_eq!(
            setup.call(method, path, None).await.refusal(),
            BAD,
            "{path}"
        );
    }
}
