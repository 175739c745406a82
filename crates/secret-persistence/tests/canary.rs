//! No secret in any form of settings is ever shown: canaries in every setting, searched for in
//! errors, `Debug` and logs.

// Clippy recognises only functions with the test attribute as tests, which helpers lack.
#![allow(clippy::unwrap_used)]

use e2e::Logs;
use secret_persistence::{
    Environment, Error, Kind, KubernetesSecrets, Result, Settings, Storage, Tenant, connect,
    key_table,
};

/// Not part of any legitimate message. Several lines, each searched for.
const CANARY: [&str; 2] = ["c4n4ryOne7f3a", "c4n4ryTwo9b1d"];

/// Everything that was shown.
#[derive(Default)]
struct Shown {
    texts: Vec<String>,
    refused: usize,
}

impl Shown {
    fn error(&mut self, error: &Error) {
        self.refused += 1;
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = cause {
            self.texts.push(format!("{error} {error:?}"));
            cause = error.source();
        }
    }

    async fn settings(&mut self, settings: Result<Settings>) {
        match settings {
            Err(error) => self.error(&error),
            Ok(settings) => {
                self.texts
                    .push(format!("{settings:?} {:?}", settings.warnings()));
                if let Err(error) = settings.check() {
                    self.error(&error);
                    return;
                }
                // Nothing listens at these addresses. Stores that need no connection open.
                let opening =
                    tokio::time::timeout(std::time::Duration::from_secs(5), connect(settings));
                match opening.await {
                    Ok(Ok(store)) => self.texts.push(format!("{store} {store:?}")),
                    Ok(Err(error)) => self.error(&error),
                    Err(_) => {}
                }
            }
        }
    }
}

/// The canary in an environment.
fn canary() -> String {
    CANARY.join("\n")
}

/// Every kind, with canaries as secrets, and everything else valid or invalid.
fn environments() -> Vec<Environment> {
    let mut environments = Vec::new();
    for kind in Kind::ALL {
        let mut right = vec![(String::from("SECRET_PERSISTENCE"), kind.as_str().to_owned())];
        for row in key_table(kind).unwrap() {
            let value = match row.name {
                _ if row.secret => canary(),
                "region" if kind == Kind::Aws => String::from("eu-west-1"),
                "address" => String::from("https://127.0.0.1:1"),
                "vault-url" => String::from("https://my-vault.vault.azure.net"),
                "tenant-id" | "client-id" => String::from("3fc863e9-4740-4871-bdd4-456903a04d4e"),
                "project-id" => String::from("cloud-proj"),
                "host" => String::from("127.0.0.1"),
                "port" => String::from("1"),
                "database" | "user" => String::from("airbyte"),
                _ => continue,
            };
            for name in row.env {
                right.push(((*name).to_owned(), value.clone()));
            }
        }
        // Each once without one of its variables, and once with each one in the place of a setting.
        for left_out in 0..right.len() {
            let mut fewer = right.clone();
            fewer.remove(left_out);
            environments.push(fewer.into_iter().collect());
        }
        for misplaced in 1..right.len() {
            let mut wrong = right.clone();
            wrong[misplaced].1 = canary();
            environments.push(wrong.into_iter().collect());
        }
        environments.push(right.into_iter().collect());
    }
    environments.push([("SECRET_PERSISTENCE", canary())].into_iter().collect());
    environments
}

/// Values files, JSON and URLs: valid, invalid and broken, with a canary wherever a value may be.
fn texts() -> Vec<String> {
    let [one, two] = CANARY;
    let mut texts = vec![
        format!(
            "global: {{secretsManager: {{type: VAULT, vault: {{address: 'https://127.0.0.1:1', token: {one}}}}}}}"
        ),
        format!("global: {{secretsManager: {{type: {one}, vault: {{token: {two}}}}}}}"),
        format!("global: {{secretsManager: {{type: VAULT, {one}: {two}}}}}"),
        format!(
            "global: {{secretsManager: {{type: VAULT, vault: {{address: {one}, token: {two}}}}}}}"
        ),
        format!(
            "global: {{secretsManager: {{type: VAULT, vault: {{address: 'https://v', tokn: {one}}}}}}}"
        ),
        format!(
            "global: {{secretsManager: {{type: VAULT, vault: {{authToken: {one}, authTokenSecretKey: {two}}}}}}}"
        ),
        format!("global: {{secretsManager: {{type: VAULT, vault: {one}}}}}"),
        format!(
            "global: {{secretsManager: {{type: AWS_SECRET_MANAGER, awsSecretManager: {{region: {one}, accessKeyId: {one}, secretAccessKey: {two}}}}}}}"
        ),
        format!(
            "global: {{secretsManager: {{type: AWS_SECRET_MANAGER, awsSecretManager: {{region: eu-west-1, accessKeyId: {one}, secretAccessKey: {two}, tags: [{{key: a, value: [{one}]}}]}}}}}}"
        ),
        format!(
            "global: {{secretsManager: {{type: AZURE_KEY_VAULT, azureKeyVault: {{vaultUrl: '{one}', clientId: {one}, clientSecret: {two}}}}}}}"
        ),
        format!(
            "global: {{secretsManager: {{type: GOOGLE_SECRET_MANAGER, googleSecretManager: {{projectId: p-{one}, credentials: '{{\"private_key\": \"{two}\"}}'}}}}}}"
        ),
        format!("externalDatabase: {{jdbcUrl: 'jdbc:postgresql://airbyte:{one}@127.0.0.1:1/d'}}"),
        format!("externalDatabase: {{jdbcUrl: 'jdbc:mysql://airbyte:{one}@h/d'}}"),
        format!("externalDatabase: {{jdbcUrl: '{one}', password: {two}}}"),
        format!("externalDatabase: {{host: h, password: {one}, pasword: {two}}}"),
        format!("a: [{one}"),
        format!("a: '{one}\nb: {two}"),
        format!("{one}: *{two}"),
        format!(
            "{{\"address\": \"https://127.0.0.1:1\", \"token\": \"{one}\", \"prefix\": \"{two}\"}}"
        ),
        format!("{{\"address\": \"{one}\", \"token\": \"{two}\", \"prefix\": \"x\"}}"),
        format!("{{\"{one}\": \"{two}\"}}"),
        format!("{{\"auth_type\": \"{one}\"}}"),
        format!(
            "{{\"awsAccessKey\": \"{one}\", \"awsSecretAccessKey\": \"{two}\", \"awsRegion\": \"eu-west-1\", \"tagKey\": \"T\"}}"
        ),
        format!(
            "{{\"awsAccessKey\": \"{one}\", \"awsSecretAccessKey\": \"{two}\", \"awsRegion\": \"eu-west-1\", \"tagKey\": \"T\", \"kmsKeyArn\": \"{one}\"}}"
        ),
        format!(
            "{{\"vaultUrl\": \"https://v.vault.azure.net\", \"tenantId\": \"3fc863e9-4740-4871-bdd4-456903a04d4e\", \"clientId\": \"3fc863e9-4740-4871-bdd4-456903a04d4e\", \"clientSecret\": \"{two}\"}}"
        ),
        format!(
            "{{\"gcpProjectId\": \"cloud-proj\", \"gcpCredentialsJson\": {{\"type\": \"service_account\", \"private_key\": \"{one}\", \"client_email\": \"{two}\"}}}}"
        ),
        format!("{{\"gcpProjectId\": \"cloud-proj\", \"gcpCredentialsJson\": \"{one}\"}}"),
        format!("{{\"address\": {one}"),
        format!("vault://user:{one}@host/{two}"),
        format!("vault://host/secret/?token={one}"),
        format!("vault://host/secret/?{one}={two}"),
        format!("vault://host/secret/?cache={one}&owner={two}"),
        format!("aws://eu-west-1?mirror=vault://user:{one}@host/"),
        format!("aws://eu-west-1?secret-access-key={one}"),
        format!("postgres://airbyte:{one}@host/{two}"),
        format!("{one}://{two}"),
        canary(),
    ];
    let manifest =
        |data: &str| format!("kind: Secret\nmetadata: {{name: airbyte-config-secrets}}\n{data}");
    texts.push(manifest(&format!(
        "stringData: {{VAULT_AUTH_TOKEN: {one}}}"
    )));
    texts.push(manifest(&format!(
        "stringData: {{VAULT_AUTH_TOKEN: [{one}]}}"
    )));
    texts.push(manifest(&format!("data: {{VAULT_AUTH_TOKEN: '{one}!'}}")));
    texts
}

#[test]
fn no_secret_of_any_form_is_ever_shown() {
    let logs = Logs::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut shown = Shown::default();
    tracing::dispatcher::with_default(&logs.dispatch(), || {
        runtime.block_on(async {
            for environment in environments() {
                shown.texts.push(format!("{environment:?}"));
                shown.settings(Settings::from_env(&environment)).await;
            }
            let (none, nothing) = (KubernetesSecrets::none(), Environment::empty());
            for text in texts() {
                shown.settings(Settings::from_helm(&text, &none, &nothing)).await;
                shown.settings(Settings::from_json(&text, &nothing)).await;
                shown.settings(Settings::from_url(&text, &nothing)).await;
                let tenant = Tenant::new().with_external_id(CANARY[0]);
                shown.texts.push(format!("{tenant:?}"));
                shown.settings(Settings::from_tenant_json(&text, &tenant)).await;
                match KubernetesSecrets::none().with_manifests(&text) {
                    Err(error) => shown.error(&error),
                    Ok(secrets) => {
                        shown.texts.push(format!("{secrets:?}"));
                        let values = "global: {secretsManager: {type: VAULT, vault: {address: 'https://127.0.0.1:1'}}}";
                        shown.settings(Settings::from_helm(values, &secrets, &nothing)).await;
                    }
                }
                if let Ok(value) = serde_json::from_str(&text) {
                    shown.texts.push(format!("{:?}", Storage::of_operator(value)));
                }
            }
        });
    });
    assert!(shown.refused > 150, "only {} were refused", shown.refused);
    let logs = logs.text();
    assert!(logs.contains("secret_persistence"), "nothing was logged");
    shown.texts.push(logs);
    let around = |text: &str, at: usize| {
        let window = text
            .char_indices()
            .filter(|(n, _)| (at.saturating_sub(150)..at + 40).contains(n));
        window.map(|(_, char)| char).collect::<String>()
    };
    let leaks: Vec<String> = shown
        .texts
        .iter()
        .flat_map(|text| {
            CANARY
                .iter()
                .filter_map(|canary| Some(around(text, text.find(canary)?)))
        })
        .collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}
