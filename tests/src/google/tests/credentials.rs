//! Credentials of every kind, good and bad.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use super::{Answer, Bench, CLOUD_PLATFORM, reason, stranger};

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

impl Bench {
    /// Asks for something with this token, or none.
    async fn with_token(&self, token: Option<&str>) -> Answer {
        let url = format!("{}{}", self.google.endpoint(), self.path(""));
        let request = self.client.get(url);
        Answer::of(match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
        .await
    }

    async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body: String = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let url = format!("{}{path}", self.google.endpoint());
        let request = self.client.post(url).body(body);
        Answer::of(request.header("content-type", "application/x-www-form-urlencoded")).await
    }

    async fn assertion(&self, change: impl FnOnce(&mut Value)) -> Answer {
        let assertion = self.signed(|claims| {
            claims["aud"] = Value::from(self.google.token_url());
            change(claims);
        });
        let fields = [
            ("grant_type", JWT_BEARER),
            ("assertion", assertion.as_str()),
        ];
        self.form("/token", &fields).await
    }
}

impl Answer {
    #[track_caller]
    fn oauth_error(&self, status: u16, error: &str, description: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.body["error"], error, "{}", self.text);
        let text = self.body["error_description"].as_str().unwrap();
        assert!(text.contains(description), "{text}");
    }
}

#[tokio::test]
async fn tokens_that_are_none() {
    let bench = Bench::new().await;
    let answer = bench.with_token(None).await;
    assert!(
        answer.headers["www-authenticate"]
            .to_str()
            .unwrap()
            .starts_with("Bearer")
    );
    let refused = answer.refused(
        401,
        "UNAUTHENTICATED",
        "missing required authentication credential",
    );
    assert_eq!(reason(&refused), "CREDENTIALS_MISSING");

    let now = bench.google.shared.now().unix_timestamp();
    let email = bench.google.service_account().to_owned();
    let forged = stranger().sign(
        &json!({"iss": email, "sub": email, "scope": CLOUD_PLATFORM, "iat": now, "exp": now + 60}),
    );
    let unsigned = {
        let good = bench.signed(|_| {});
        format!("{}.", good.rsplit_once('.').unwrap().0)
    };
    for (what, token) in [
        ("garbage", "ya29.garbage".to_owned()),
        ("forged", forged),
        ("unsigned", unsigned),
        (
            "another account",
            bench.signed(|claims| claims["iss"] = json!("a@b.c")),
        ),
        (
            "acting for a user",
            bench.signed(|claims| claims["sub"] = json!("a@b.c")),
        ),
        (
            "of the future",
            bench.signed(|claims| claims["iat"] = json!(now + 120)),
        ),
        (
            "too long",
            bench.signed(|claims| claims["exp"] = json!(now + 7200)),
        ),
        (
            "for nothing",
            bench.signed(|claims| claims["scope"] = json!(null)),
        ),
        (
            "for both",
            bench.signed(|claims| claims["aud"] = json!("https://secretmanager.googleapis.com/")),
        ),
        (
            "for another service",
            bench.signed(|claims| {
                claims["scope"] = json!(null);
                claims["aud"] = json!("https://storage.googleapis.com/");
            }),
        ),
    ] {
        let refused = bench.with_token(Some(&token)).await.refused(
            401,
            "UNAUTHENTICATED",
            "invalid authentication credentials",
        );
        assert_eq!(reason(&refused), "ACCESS_TOKEN_TYPE_UNSUPPORTED", "{what}");
    }
    let old = bench.signed(|claims| {
        claims["iat"] = json!(now - 3600);
        claims["exp"] = json!(now - 1);
    });
    let refused = bench.with_token(Some(&old)).await.expect(401);
    assert_eq!(reason(&refused), "ACCESS_TOKEN_EXPIRED");
    let narrow =
        bench.signed(|claims| claims["scope"] = json!("https://www.googleapis.com/auth/pubsub"));
    let refused = bench.with_token(Some(&narrow)).await.refused(
        403,
        "PERMISSION_DENIED",
        "insufficient authentication scopes",
    );
    assert_eq!(reason(&refused), "ACCESS_TOKEN_SCOPE_INSUFFICIENT");
    // And two that are good.
    bench.with_token(Some(&bench.token)).await.expect(200);
    let audience = bench.signed(|claims| {
        claims["scope"] = json!(null);
        claims["aud"] = json!("https://secretmanager.googleapis.com/");
    });
    bench.with_token(Some(&audience)).await.expect(200);
}

#[tokio::test]
async fn keys_that_are_revoked() {
    let bench = Bench::new().await;
    let old = bench.google.service_account_json();
    let new = bench.google.rotate_key().unwrap();
    assert_ne!(old, new);
    bench.with_token(Some(&bench.token)).await.expect(401);
    let token = bench.signed(|_| {});
    bench.with_token(Some(&token)).await.expect(200);
    bench
        .google
        .switches(|switches| switches.revoked_keys = true);
    bench.with_token(Some(&token)).await.expect(401);
    let answer = bench.assertion(|_| {}).await;
    answer.oauth_error(400, "invalid_grant", "Invalid JWT Signature.");
    let file = bench.google.service_account_file().unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap(), new);
}

#[tokio::test]
async fn a_clock_that_is_wrong() {
    let bench = Bench::new().await;
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let token = bench.signed(|_| {});
    for offset in [-600, 4000] {
        bench
            .google
            .switches(|switches| switches.clock_offset = offset);
        let answer = bench.with_token(Some(&token)).await;
        // The client can tell that it is the clock.
        let date = answer.headers["date"]
            .to_str()
            .unwrap()
            .replace("GMT", "+0000");
        let format = &time::format_description::well_known::Rfc2822;
        let date = time::OffsetDateTime::parse(&date, format).unwrap();
        assert!((date.unix_timestamp() - now - offset).abs() < 60, "{date}");
        answer.refused(401, "UNAUTHENTICATED", "");
    }
}

#[tokio::test]
async fn assertions() {
    let bench = Bench::new().await;
    let issued = bench.assertion(|_| {}).await.expect(200);
    assert_eq!(issued["token_type"], "Bearer");
    assert_eq!(issued["expires_in"], 3599);
    let token = issued["access_token"].as_str().unwrap().to_owned();
    bench.with_token(Some(&token)).await.expect(200);

    let now = bench.google.shared.now().unix_timestamp();
    let wrong = |change: fn(&mut Value, i64)| bench.assertion(move |claims| change(claims, now));
    wrong(|claims, _| claims["aud"] = json!("https://oauth2.googleapis.com/token"))
        .await
        .oauth_error(400, "invalid_grant", "audience");
    wrong(|claims, _| claims["iss"] = json!("nobody@example.com"))
        .await
        .oauth_error(400, "invalid_grant", "account not found");
    wrong(|claims, now| claims["exp"] = json!(now + 7200))
        .await
        .oauth_error(400, "invalid_grant", "short-lived token (60 minutes)");
    wrong(|claims, now| claims["iat"] = json!(now + 300))
        .await
        .oauth_error(400, "invalid_grant", "short-lived token (60 minutes)");
    wrong(|claims, _| claims["scope"] = json!(""))
        .await
        .oauth_error(400, "invalid_scope", "");
    wrong(|claims, _| claims["sub"] = json!("user@example.com"))
        .await
        .oauth_error(401, "unauthorized_client", "");
    for (fields, error) in [
        (&[][..], "invalid_request"),
        (&[("grant_type", "password")], "unsupported_grant_type"),
        (&[("grant_type", JWT_BEARER)], "invalid_request"),
        (
            &[("grant_type", JWT_BEARER), ("assertion", "a.b.c")],
            "invalid_grant",
        ),
    ] {
        bench
            .form("/token", fields)
            .await
            .oauth_error(400, error, "");
    }
    // It expires.
    bench
        .google
        .switches(|switches| switches.clock_offset = 3601);
    let refused = bench.with_token(Some(&token)).await.expect(401);
    assert_eq!(reason(&refused), "ACCESS_TOKEN_EXPIRED");
}

#[tokio::test]
async fn refresh_tokens() {
    let bench = Bench::new().await;
    let file: Value = serde_json::from_str(&bench.google.user_credentials_json()).unwrap();
    let field = |name: &str| file[name].as_str().unwrap().to_owned();
    let ask = |client: String, secret: String, token: String| {
        let bench = &bench;
        async move {
            let fields = [
                ("grant_type", "refresh_token"),
                ("client_id", &client),
                ("client_secret", &secret),
                ("refresh_token", &token),
            ];
            bench.form("/token", &fields).await
        }
    };
    let (id, secret, token) = (
        field("client_id"),
        field("client_secret"),
        field("refresh_token"),
    );
    let issued = ask(id.clone(), secret.clone(), token.clone())
        .await
        .expect(200);
    let access = issued["access_token"].as_str().unwrap();
    bench.with_token(Some(access)).await.expect(200);
    ask("x".to_owned(), secret.clone(), token.clone())
        .await
        .oauth_error(401, "invalid_client", "");
    ask(id.clone(), "x".to_owned(), token)
        .await
        .oauth_error(401, "invalid_client", "");
    ask(id, secret, "x".to_owned())
        .await
        .oauth_error(400, "invalid_grant", "expired or revoked");
}

#[tokio::test]
async fn the_metadata_server() {
    let bench = Bench::new().await;
    let ask = |path: &str, header: Option<(&'static str, &'static str)>| {
        let request = bench
            .client
            .get(format!("http://{}{path}", bench.google.metadata_host()));
        Answer::of(match header {
            Some((name, value)) => request.header(name, value),
            None => request,
        })
    };
    let flavor = Some(("Metadata-Flavor", "Google"));
    let account = "/computeMetadata/v1/instance/service-accounts/default";
    for header in [None, Some(("Metadata-Flavor", "Amazon"))] {
        let answer = ask(&format!("{account}/token"), header).await;
        assert_eq!(answer.status, 403);
    }
    let issued = ask(&format!("{account}/token"), flavor).await;
    assert_eq!(issued.headers["metadata-flavor"], "Google");
    let token = issued.expect(200)["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    bench.with_token(Some(&token)).await.expect(200);
    let narrow = ask(
        &format!("{account}/token?scopes=https://www.googleapis.com/auth/pubsub"),
        flavor,
    );
    let narrow = narrow.await.expect(200)["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    bench.with_token(Some(&narrow)).await.expect(403);
    for (path, expected) in [
        (
            "/computeMetadata/v1/project/project-id",
            bench.google.project(),
        ),
        (&format!("{account}/email"), bench.google.service_account()),
        (
            "/computeMetadata/v1/universe/universe-domain",
            "googleapis.com",
        ),
    ] {
        assert_eq!(ask(path, flavor).await.text, expected);
    }
    assert_eq!(
        ask("/computeMetadata/v1/instance/nothing", flavor)
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn workload_identity() {
    let bench = Bench::new().await;
    let text = bench.google.external_account_json(Path::new("token"));
    let file: Value = serde_json::from_str(&text).unwrap();
    let audience = file["audience"].as_str().unwrap().to_owned();
    let good = bench.google.subject_token();
    let other = audience.replace("providers/workloads", "providers/others");
    let short = audience.replace("//iam", "iam");
    let old = {
        let past = bench.google.shared.now() - Duration::from_secs(7200);
        bench
            .google
            .shared
            .accounts
            .subject_token(past, Duration::from_secs(60))
    };
    let forged = bench.signed(|claims| claims["iss"] = json!("https://workloads.example.com"));
    let ask = |audience: &str, token: &str| {
        let fields = [
            (
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ),
            (
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:access_token",
            ),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("scope", CLOUD_PLATFORM),
            ("audience", audience),
            ("subject_token", token),
        ]
        .map(|(name, value)| (name, value.to_owned()));
        let bench = &bench;
        async move {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            bench.form("/v1/token", &fields).await
        }
    };
    let issued = ask(&audience, &good).await.expect(200);
    let token = issued["access_token"].as_str().unwrap();
    bench.with_token(Some(token)).await.expect(200);
    ask(&short, &good)
        .await
        .oauth_error(400, "invalid_request", "Invalid value for \"audience\"");
    ask(&other, &good)
        .await
        .oauth_error(400, "invalid_target", "audience");
    ask(&audience, &forged)
        .await
        .oauth_error(400, "invalid_grant", "signature");
    ask(&audience, &old)
        .await
        .oauth_error(400, "invalid_grant", "stale");
    ask(&audience, "x")
        .await
        .oauth_error(400, "invalid_grant", "parse");
}

#[tokio::test]
async fn impersonation() {
    let bench = Bench::new().await;
    let path = |email: &str| format!("/v1/projects/-/serviceAccounts/{email}:generateAccessToken");
    let target = path(bench.google.impersonated_account());
    let body = json!({"scope": [CLOUD_PLATFORM], "lifetime": "3600s"});
    let issued = bench.post(&target, body.clone()).await.expect(200);
    let token = issued["accessToken"].as_str().unwrap();
    bench.with_token(Some(token)).await.expect(200);
    assert!(issued["expireTime"].as_str().unwrap().contains('T'));

    bench
        .post(&path("nobody@example.com"), body.clone())
        .await
        .refused(404, "NOT_FOUND", "Gaia id not found");
    bench
        .post(
            &target,
            json!({"scope": [CLOUD_PLATFORM], "lifetime": "7200s"}),
        )
        .await
        .refused(400, "INVALID_ARGUMENT", "3600");
    bench
        .post(&target, json!({"scope": []}))
        .await
        .refused(400, "INVALID_ARGUMENT", "");
    bench
        .google
        .switches(|switches| switches.deny("iam.serviceAccounts.getAccessToken"));
    bench.post(&target, body.clone()).await.refused(
        403,
        "PERMISSION_DENIED",
        "iam.serviceAccounts.getAccessToken",
    );
    let url = format!("{}{target}", bench.google.endpoint());
    Answer::of(bench.client.post(url).json(&body))
        .await
        .refused(401, "UNAUTHENTICATED", "");
}
