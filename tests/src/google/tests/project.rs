//! What concerns the project, and what the caller may do in it.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{Answer, Bench, reason};
use crate::google::{Grant, Quota};

#[tokio::test]
async fn another_project() {
    let bench = Bench::new().await;
    let refused = bench
        .get("/v1/projects/nobodys-project/secrets")
        .await
        .refused(
            403,
            "PERMISSION_DENIED",
            "on resource project nobodys-project.",
        );
    assert_eq!(reason(&refused), "CONSUMER_INVALID");

    let charged = |project: &str| {
        let url = format!("{}{}", bench.google.endpoint(), bench.path(""));
        let request = bench.client.get(url).bearer_auth(&bench.token);
        Answer::of(request.header("x-goog-user-project", project))
    };
    charged(bench.google.project()).await.expect(200);
    let refused = charged("nobodys-project").await.refused(
        403,
        "PERMISSION_DENIED",
        "to use project nobodys-project",
    );
    assert_eq!(reason(&refused), "USER_PROJECT_DENIED");
}

#[tokio::test]
async fn what_is_not_switched_on() {
    let bench = Bench::new().await;
    bench
        .google
        .switches(|switches| switches.billing_disabled = true);
    let refused = bench.get(&bench.path("")).await.refused(
        403,
        "PERMISSION_DENIED",
        "requires billing to be enabled",
    );
    assert_eq!(reason(&refused), "BILLING_DISABLED");
    bench
        .google
        .switches(|switches| switches.api_disabled = true);
    let refused = bench.get(&bench.path("")).await.refused(
        403,
        "PERMISSION_DENIED",
        "has not been used in project",
    );
    assert_eq!(reason(&refused), "SERVICE_DISABLED");
}

#[tokio::test]
async fn permissions() {
    let bench = Bench::new().await;
    let number = bench.google.project_number();
    bench.secret("airbyte_a", &["one"]).await;
    bench.secret("other", &["two"]).await;
    bench
        .google
        .switches(|switches| switches.deny("secretmanager.versions.access"));
    let path = bench.path("/airbyte_a/versions/latest:access");
    let refused = bench.get(&path).await.refused(
        403,
        "PERMISSION_DENIED",
        "Permission 'secretmanager.versions.access' denied for resource \
         'projects/stand-in-project/secrets/airbyte_a/versions/latest' (or it may not exist).",
    );
    assert_eq!(reason(&refused), "IAM_PERMISSION_DENIED");
    // What does not exist is no different.
    let missing = bench.path("/nobody/versions/latest:access");
    bench
        .get(&missing)
        .await
        .refused(403, "PERMISSION_DENIED", "(or it may not exist)");

    let access = Grant::new([
        "secretmanager.versions.access",
        "secretmanager.secrets.delete",
    ]);
    let grants = [
        Grant::new(["secretmanager.secrets.create", "secretmanager.secrets.list"]),
        access.on_names_beginning(format!("projects/{number}/secrets/airbyte_")),
    ];
    bench.google.switches(|switches| {
        switches.denied.clear();
        switches.granted = Some(grants.into());
    });
    bench.get(&path).await.expect(200);
    bench.get(&bench.path("")).await.expect(200);
    for path in ["/other/versions/1:access", "/airbyte_a"] {
        let answer = bench.get(&bench.path(path)).await;
        answer.refused(403, "PERMISSION_DENIED", "denied for resource");
    }
    let asked =
        json!({"permissions": ["secretmanager.secrets.delete", "secretmanager.secrets.get"]});
    let path = bench.path("/airbyte_a:testIamPermissions");
    let held = bench.post(&path, asked).await.expect(200);
    assert_eq!(
        held,
        json!({"permissions": ["secretmanager.secrets.delete"]})
    );
    bench
        .send(Method::DELETE, &bench.path("/other"), None)
        .await
        .refused(403, "PERMISSION_DENIED", "secrets.delete");
}

#[tokio::test]
async fn policies_are_kept() {
    let bench = Bench::new().await;
    bench.secret("a", &[]).await;
    let bindings = json!([{"role": "roles/secretmanager.secretAccessor", "members": ["allUsers"]}]);
    let set = json!({"policy": {"bindings": bindings}});
    bench
        .post(&bench.path("/a:setIamPolicy"), set)
        .await
        .expect(200);
    let policy = bench.get(&bench.path("/a:getIamPolicy")).await.expect(200);
    assert_eq!(policy["bindings"], bindings);
    let stale = json!({"policy": {"bindings": [], "etag": "ACAB"}});
    bench
        .post(&bench.path("/a:setIamPolicy"), stale)
        .await
        .refused(400, "FAILED_PRECONDITION", "etag");
}

#[tokio::test]
async fn quotas() {
    let bench = Bench::new().await;
    bench.google.switches(|switches| {
        switches.throttle_every = Some(3);
        switches.retry_after = Some(Duration::from_millis(1500));
    });
    let mut throttled = 0;
    for _ in 0..9 {
        let answer = bench.get(&bench.path("")).await;
        if answer.status == 429 {
            throttled += 1;
            assert_eq!(answer.headers["retry-after"], "2");
            let refused = answer.refused(429, "RESOURCE_EXHAUSTED", "Quota exceeded");
            assert_eq!(reason(&refused), "RATE_LIMIT_EXCEEDED");
            assert!(
                refused.to_string().contains("\"retryDelay\":\"1.5s\""),
                "{refused}"
            );
        }
    }
    assert_eq!(throttled, 3);

    bench.google.switches(|switches| {
        switches.throttle_every = None;
        switches.quota = Quota::per_second(5);
        switches.quota.write = None;
    });
    let mut throttled = 0;
    for _ in 0..20 {
        let answer = bench.get(&bench.path("")).await;
        throttled += u32::from(answer.status == 429);
    }
    // All of them came within two seconds at most, the first of which has been made use of.
    assert!((10..=20).contains(&throttled), "{throttled}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.get(&bench.path("")).await.expect(200);
    // Another class has its own.
    bench.secret("a", &["one"]).await;
}

#[tokio::test]
async fn latency_and_concurrency() {
    let bench = Bench::new().await;
    bench
        .google
        .switches(|switches| switches.latency = Duration::from_millis(50));
    let path = bench.path("");
    let (a, b) = tokio::join!(bench.get(&path), bench.get(&path));
    a.expect(200);
    b.expect(200);
    assert_eq!(bench.google.in_flight_maximum(), 2);
    bench.google.reset();
    assert_eq!(bench.google.count("ListSecrets"), 0);
}
