//! Listings of secrets and versions.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::Bench;

fn ids(listed: &Value, field: &str) -> Vec<String> {
    let items = listed[field].as_array().into_iter().flatten();
    items
        .map(|item| {
            let name = item["name"].as_str().unwrap();
            name.rsplit('/').next().unwrap().to_owned()
        })
        .collect()
}

#[tokio::test]
async fn pages() {
    let bench = Bench::new().await;
    for id in ["e", "b", "d", "a", "c"] {
        bench.secret(id, &[]).await;
    }
    let first = bench.get(&bench.path("?pageSize=2")).await.expect(200);
    assert_eq!(ids(&first, "secrets"), ["a", "b"]);
    assert_eq!(first["totalSize"], 5);
    let token = |page: &Value| {
        let token = page["nextPageToken"].as_str().unwrap();
        url::form_urlencoded::byte_serialize(token.as_bytes()).collect::<String>()
    };
    // What the token stands at is deleted: the next page still begins after it.
    bench
        .send(Method::DELETE, &bench.path("/b"), None)
        .await
        .expect(200);
    let path = bench.path(&format!("?pageSize=2&pageToken={}", token(&first)));
    let second = bench.get(&path).await.expect(200);
    assert_eq!(ids(&second, "secrets"), ["c", "d"]);
    let path = bench.path(&format!("?pageToken={}", token(&second)));
    let third = bench.get(&path).await.expect(200);
    assert_eq!(ids(&third, "secrets"), ["e"]);
    assert!(third.get("nextPageToken").is_none());

    for query in [
        "pageToken=x".to_owned(),
        "pageSize=-1".to_owned(),
        "pageSize=many".to_owned(),
        format!("filter=name:a&pageToken={}", token(&first)),
        "filter=name".to_owned(),
        "filter=colour:red".to_owned(),
    ] {
        let answer = bench.get(&bench.path(&format!("?{query}"))).await;
        answer.refused(400, "INVALID_ARGUMENT", "");
    }
}

#[tokio::test]
async fn filters() {
    let bench = Bench::new().await;
    for (id, label) in [("airbyte_a", "x"), ("airbyte_b", "y"), ("other", "x")] {
        let body = json!({"replication": {"automatic": {}}, "labels": {"owner": label}});
        let path = bench.path(&format!("?secretId={id}"));
        bench.post(&path, body).await.expect(200);
    }
    for (filter, expected) in [
        ("name:airbyte_", &["airbyte_a", "airbyte_b"][..]),
        ("name:airbyte_ AND labels.owner=x", &["airbyte_a"]),
        ("labels.owner:*", &["airbyte_a", "airbyte_b", "other"]),
        ("NOT labels.owner=x", &["airbyte_b"]),
    ] {
        let filter: String = url::form_urlencoded::byte_serialize(filter.as_bytes()).collect();
        let path = bench.path(&format!("?filter={filter}"));
        let listed = bench.get(&path).await.expect(200);
        assert_eq!(ids(&listed, "secrets"), expected, "{filter}");
        assert!(listed.get("totalSize").is_none());
    }
}

#[tokio::test]
async fn lag() {
    let bench = Bench::new().await;
    bench.secret("old", &[]).await;
    bench.google.age(Duration::from_secs(100));
    bench
        .google
        .switches(|switches| switches.list_lag = Duration::from_secs(60));
    bench.secret("new", &[]).await;
    bench
        .send(Method::DELETE, &bench.path("/old"), None)
        .await
        .expect(200);
    let listed = bench.get(&bench.path("")).await.expect(200);
    assert_eq!(ids(&listed, "secrets"), ["old"]);
    bench.google.age(Duration::from_secs(61));
    let listed = bench.get(&bench.path("")).await.expect(200);
    assert_eq!(ids(&listed, "secrets"), ["new"]);
}

#[tokio::test]
async fn versions() {
    let bench = Bench::new().await;
    bench.secret("a", &["one", "two", "three"]).await;
    let disable = bench.path("/a/versions/2:disable");
    bench.post(&disable, json!({})).await.expect(200);
    let listed = bench
        .get(&bench.path("/a/versions?pageSize=2"))
        .await
        .expect(200);
    assert_eq!(ids(&listed, "versions"), ["3", "2"]);
    let token = listed["nextPageToken"].as_str().unwrap();
    let token: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
    let path = bench.path(&format!("/a/versions?pageSize=2&pageToken={token}"));
    assert_eq!(ids(&bench.get(&path).await.expect(200), "versions"), ["1"]);
    let path = bench.path("/a/versions?filter=state:ENABLED");
    assert_eq!(
        ids(&bench.get(&path).await.expect(200), "versions"),
        ["3", "1"]
    );
}
