//! Files of settings with a trap, each based on a file that an operator had: every file in
//! `settings/cases` is compared with the text in `settings/cases/expected`. `UPDATE_EXPECTED=1`
//! updates the texts; read the diff before committing.

// Clippy recognises only functions with the test attribute as tests, which helpers lack.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use secret_persistence::{Environment, KubernetesSecrets, SettingMap, Settings};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/settings/cases")
}

/// The Secrets of the files, with each value under every key that one of the files names.
const SECRETS: &str = "
kind: Secret
metadata: {name: pg}
stringData:
  DATABASE_PASSWORD: of-the-secret
  database-host: host.of.the.secret
  database-port: '5433'
  database-name: of-the-secret
  database-user: user-of-the-secret
  database-password: of-the-secret
  password: of-the-secret
---
kind: Secret
metadata: {name: gcp-cred-secrets}
stringData: {gcp.json: '{\"type\":\"authorized_user\",\"client_id\":\"a\",\"client_secret\":\"b\",\"refresh_token\":\"c\"}'}
---
kind: Secret
metadata: {name: airbyte-config-secrets}
stringData:
  vault-token: hvs.of-the-secret
  AB_AZURE_KEY_VAULT_CLIENT_ID: 22222222-2222-2222-2222-222222222222
  AB_AZURE_KEY_VAULT_CLIENT_SECRET: of-the-secret
";

/// A shell with other identities and stores, none of which may be used.
fn shell() -> Environment {
    Environment::from_iter([
        ("AWS_ACCESS_KEY_ID", "of-the-shell"),
        ("AWS_SECRET_ACCESS_KEY", "of-the-shell"),
        ("AWS_SECRET_MANAGER_REGION", "of-the-shell"),
        ("AZURE_CLIENT_SECRET", "of-the-shell"),
        (
            "DATABASE_URL",
            "postgres://of-the-shell@of-the-shell/of-the-shell",
        ),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/of-the-shell"),
        ("SECRETS_OWNER", "ours"),
        ("VAULT_ADDRESS", "https://of-the-shell"),
        ("VAULT_AUTH_TOKEN", "of-the-shell"),
    ])
}

fn read(path: &Path, secrets: &KubernetesSecrets) -> String {
    let settings = match Settings::from_file(path, secrets, &shell()) {
        Ok(settings) => settings,
        Err(error) => return format!("error: {error}\n"),
    };
    let mut text = format!("store: {}\n", settings.kind());
    values(&mut text, settings.store());
    for warning in settings.warnings() {
        writeln!(text, "warning: {warning}").unwrap();
    }
    match settings.check() {
        Ok(()) => writeln!(text, "check: fine").unwrap(),
        Err(error) => writeln!(text, "check: {error}").unwrap(),
    }
    text
}

/// With secrets: all of them are invented, and the test is about them.
fn values(text: &mut String, values: &SettingMap) {
    for name in values.names() {
        let value = values.secret(name).unwrap();
        writeln!(text, "  {name} = {:?}", value.expose()).unwrap();
    }
}

#[test]
fn files_with_a_trap() {
    let secrets = KubernetesSecrets::none().with_manifests(SECRETS).unwrap();
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_file() {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let shown = read(&path, &secrets);
        assert!(!shown.contains("of-the-shell"), "{name}: {shown}");
        let expected = folder().join("expected").join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected, &shown).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != shown {
            wrong.push(format!("{name}:\n{shown}"));
        }
        seen.push(format!("{name}.txt"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for entry in fs::read_dir(folder().join("expected")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(seen.contains(&name), "{name} has no file");
    }
}

/// Secrets that are passed as files, and other resources that are passed instead.
#[test]
fn manifests_with_a_trap() {
    let of = |name: &str| KubernetesSecrets::none().with_file(&folder().join(name));
    let read = |name: &str, secrets: &KubernetesSecrets| read(&folder().join(name), secrets);
    let secrets = of("utf16-secret.yaml").unwrap();
    assert!(read("v2-defaults.yaml", &secrets).contains("password = \"made-up-1\""));
    let torn = of("secret-torn.yaml").unwrap_err().to_string();
    assert!(
        torn.contains("line 7") && torn.contains("comment"),
        "{torn}"
    );
    for (name, kind) in [
        ("sealed-secret.yaml", "SealedSecret"),
        ("external-secret.yaml", "ExternalSecret"),
    ] {
        let shown = read("vault-default-secret.yaml", &of(name).unwrap());
        assert!(
            shown.contains(kind) && shown.contains("kubectl get secret"),
            "{shown}"
        );
    }
    for name in ["sops.yaml", "sops-whole.yaml"] {
        let error = of(name).unwrap_err().to_string();
        assert!(error.contains("sops -d"), "{error}");
    }
}

/// The Secret that the chart creates for a release, if no other is named.
#[test]
fn the_secret_of_the_release_is_found() {
    let manifest = |names: &[&str]| {
        let documents = names.iter().map(|name| {
            format!(
                "kind: Secret\nmetadata: {{name: {name}}}\nstringData: {{vault-token: of-{name}}}\n"
            )
        });
        documents.collect::<Vec<_>>().join("---\n")
    };
    for (names, expected) in [
        (
            &["ab-airbyte-secrets"][..],
            "token = \"of-ab-airbyte-secrets\"",
        ),
        (
            &["dp-airbyte-data-plane-secrets"],
            "token = \"of-dp-airbyte-data-plane-secrets\"",
        ),
        (
            &["ab-airbyte-secrets", "airbyte-config-secrets"],
            "token = \"of-airbyte-config-secrets\"",
        ),
        (
            &["a-airbyte-secrets", "b-airbyte-secrets"],
            "Secret airbyte-config-secrets, which was not passed",
        ),
        (
            &["other"],
            "Secret airbyte-config-secrets, which was not passed",
        ),
    ] {
        let secrets = KubernetesSecrets::none()
            .with_manifests(&manifest(names))
            .unwrap();
        let shown = read(&folder().join("vault-default-secret.yaml"), &secrets);
        assert!(shown.contains(expected), "{names:?}: {shown}");
    }
}

/// The identities in a file that are refused, with what to write. The shell contains others.
#[test]
fn an_identity_for_an_sdk_is_the_files_or_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let read = |text: &str| {
        fs::write(file.path(), text).unwrap();
        read(file.path(), &KubernetesSecrets::none())
    };
    let aws = "SECRET_PERSISTENCE=AWS_SECRET_MANAGER\nAWS_SECRET_MANAGER_REGION=eu-west-1\n";
    let azure = "SECRET_PERSISTENCE=AZURE_KEY_VAULT\nAB_AZURE_KEY_VAULT_VAULT_URL=https://v.vault.azure.net\n";
    let google =
        "SECRET_PERSISTENCE=GOOGLE_SECRET_MANAGER\nSECRET_STORE_GCP_PROJECT_ID=cloud-proj\n";
    let database = "DATABASE_HOST=h\nDATABASE_DB=d\n";
    let vault = "SECRET_PERSISTENCE=VAULT\nVAULT_ADDRESS=https://v\n";
    for (start, line, remedy) in [
        (
            aws,
            "AWS_ACCESS_KEY_ID=canary",
            "set AWS_SECRET_MANAGER_ACCESS_KEY_ID",
        ),
        (
            aws,
            "AWS_SESSION_TOKEN=canary",
            "set AWS_SECRET_MANAGER_SESSION_TOKEN",
        ),
        (aws, "AWS_PROFILE=canary", "where the process runs"),
        (aws, "AWS_ROLE_ARN=canary", "where the process runs"),
        (
            aws,
            "AWS_WEB_IDENTITY_TOKEN_FILE=canary",
            "where the process runs",
        ),
        (
            aws,
            "AWS_SHARED_CREDENTIALS_FILE=canary",
            "where the process runs",
        ),
        (
            azure,
            "AZURE_CLIENT_SECRET=canary",
            "set AB_AZURE_KEY_VAULT_CLIENT_SECRET",
        ),
        (
            azure,
            "AZURE_CLIENT_CERTIFICATE_PATH=canary",
            "set AB_AZURE_KEY_VAULT_CLIENT_SECRET",
        ),
        (
            azure,
            "AZURE_PASSWORD=canary",
            "set AB_AZURE_KEY_VAULT_CLIENT_SECRET",
        ),
        (
            google,
            "GOOGLE_APPLICATION_CREDENTIALS=canary",
            "set SECRET_STORE_GCP_CREDENTIALS_FILE",
        ),
        (database, "PGPASSWORD=canary", "set DATABASE_PASSWORD"),
        (vault, "VAULT_TOKEN=canary", "set VAULT_AUTH_TOKEN"),
    ] {
        let shown = read(&format!("{start}{line}\n"));
        let name = line.split('=').next().unwrap();
        assert!(
            shown.starts_with("error: ") && shown.contains(&format!("`{name}`")),
            "{line}: {shown}"
        );
        assert!(
            shown.contains(remedy) && !shown.contains("canary"),
            "{line}: {shown}"
        );
    }
    // Beside one of our identities, they are for something else, such as the logs.
    let key = "AWS_SECRET_MANAGER_ACCESS_KEY_ID=a\nAWS_SECRET_MANAGER_SECRET_ACCESS_KEY=b\n";
    for (start, line) in [
        (
            format!("{aws}{key}"),
            "AWS_ACCESS_KEY_ID=logs\nAWS_SESSION_TOKEN=logs",
        ),
        (
            format!("{database}DATABASE_PASSWORD=p\nDATABASE_USER=u\n"),
            "PGPASSWORD=other\nPGUSER=other",
        ),
        (
            format!("{google}SECRET_STORE_GCP_CREDENTIALS_FILE=/k.json\n"),
            "GOOGLE_APPLICATION_CREDENTIALS=/logs.json",
        ),
        (
            format!("{vault}VAULT_AUTH_TOKEN=t\n"),
            "VAULT_TOKEN=other\nAWS_PROFILE=logs",
        ),
        (
            aws.to_owned(),
            "AWS_REGION=eu-west-1\nGOOGLE_APPLICATION_CREDENTIALS=/logs.json",
        ),
        (aws.to_owned(), "AWS_ACCESS_KEY_ID="),
    ] {
        let shown = read(&format!("{start}{line}\n"));
        assert!(shown.starts_with("store: "), "{line}: {shown}");
        assert!(
            !shown.contains("logs") && !shown.contains("other"),
            "{line}: {shown}"
        );
    }
    // The same if a values file passes it to a component.
    let values = "global: {secretsManager: {type: AWS_SECRET_MANAGER, awsSecretManager: {region: eu-west-1, \
                  authenticationType: instanceProfile}}}\n";
    let shown = read(&format!(
        "{values}server: {{extraEnv: [{{name: AWS_ACCESS_KEY_ID, value: canary}}]}}\n"
    ));
    assert!(
        shown.contains("`server.extraEnv.AWS_ACCESS_KEY_ID`"),
        "{shown}"
    );
    assert!(
        shown.contains("set `global.secretsManager.awsSecretManager.accessKeyId`"),
        "{shown}"
    );
    let shown = read(&format!(
        "{values}global2: {{env_vars: {{AWS_REGION: eu-west-1}}}}\n"
    ));
    assert!(shown.starts_with("store: "), "{shown}");
}

/// Files of another kind, in forms that have no case above.
#[test]
fn a_file_says_what_it_is() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let secrets = KubernetesSecrets::none().with_manifests(SECRETS).unwrap();
    let read = |text: &str| {
        fs::write(file.path(), text).unwrap();
        read(file.path(), &secrets)
    };
    let vault = r#"{"address": "https://v", "token": "canary", "prefix": "p/"}"#;
    for (text, expected) in [
        (String::new(), "the file is empty"),
        ("# nothing\n\n".into(), "the file is empty"),
        ("[Service]\nEnvironment=VAULT_AUTH_TOKEN=canary\n".into(), "EnvironmentFile="),
        (format!("[{vault}]"), "the settings are a list"),
        (format!(r#"{{"config": {vault}}}"#), "are under `config`"),
        (format!(r#"{{"items": [{vault}]}}"#), "are under `items`"),
        (format!(r#"{{"data": {{"configuration": {vault}}}}}"#), "are under `data.configuration`"),
        (r#"{"SECRET_PERSISTENCE": "VAULT", "VAULT_AUTH_TOKEN": "canary"}"#.into(), "`SECRET_PERSISTENCE` is not read"),
        (format!("{{\"secret\": {}}}", serde_json::Value::from(vault)), "are under `secret`"),
        ("- VAULT_AUTH_TOKEN: canary\n".into(), "the file is a list"),
        ("canary\n".into(), "a single value"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: canary}\n".into(), "--kubernetes-secret"),
        ("apiVersion: apps/v1\nkind: Deployment\nspec: {a: canary}\n".into(), "a manifest of Kubernetes"),
        ("apiVersion: v1\nkind: List\nitems: []\n".into(), "a list of manifests"),
        (r#"{"apiVersion": "v1", "kind": "ConfigMap", "data": {"A": "canary"}}"#.into(), "a ConfigMap"),
        ("apiVersion: a/v1\nkind: HelmRelease\nspec: {valuesFrom: [{kind: Secret}]}\n".into(), "spec.valuesFrom"),
        ("apiVersion: a/v1\nkind: Application\nspec: {source: {helm: {valueFiles: [v.yaml]}}}\n".into(), "valueFiles"),
        (
            "apiVersion: a/v1\nkind: Application\nspec: {source: {helm: {values: 'a: 1', parameters: [{name: a}]}}}\n".into(),
            "helm.parameters",
        ),
        ("services: {web: {env_file: a.env}}\n".into(), "`env_file` names"),
        ("helmCharts: [{valuesInline: {a: canary}}]\n".into(), "`helmCharts[].valuesInline`"),
        ("releases: [{values: [{a: canary}]}]\n".into(), "`releases[].values`"),
        ("{\"global\": {\"secretsManager\": {\"type\": \"NONE\"}}}".into(), "no store to open"),
        ("{\"a\": canary}".into(), "not valid JSON"),
        ("platform: {airbyte: {global: {secretsManager: {type: VAULT}}}}\n".into(), "`platform.airbyte`"),
    ] {
        let shown = read(&text);
        assert!(shown.starts_with("error: ") && shown.contains(expected), "{text}: {shown}");
        assert!(!shown.contains("canary"), "{text}: {shown}");
    }
    let values = r#"{"global": {"secretsManager": {"type": "VAULT", "vault": {"address": "https://v", "authToken": "t"}}}}"#;
    for fine in [
        values.to_owned(),
        values.replace('"', ""),
        format!(
            "apiVersion: a/v1\nkind: Application\nspec: {{source: {{helm: {{valuesObject: {values}, values: 'a: 1'}}}}}}\n"
        ),
        format!(
            "apiVersion: a/v1\nkind: Application\nspec: {{sources: [{{ref: v}}, {{helm: {{valuesObject: {values}}}}}]}}\n"
        ),
        // Another chart's database beside one of our stores.
        format!(
            "{}\nkeycloak: {{externalDatabase: {{host: h}}}}",
            values.replace('"', "").trim_matches(['{', '}']).to_owned() + "}}}"
        ),
    ] {
        let shown = read(&fine);
        assert!(shown.contains("address = \"https://v\""), "{fine}: {shown}");
    }
}

/// Hints use the names of the file.
#[test]
fn what_is_missing_is_called_as_the_file_calls_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let read = |text: &str| {
        fs::write(file.path(), text).unwrap();
        read(file.path(), &KubernetesSecrets::none())
    };
    for (text, key) in [
        (
            "global: {secretsManager: {type: VAULT, vault: {authToken: t}}}",
            "set `global.secretsManager.vault.address`",
        ),
        (
            "global: {secretsManager: {type: GOOGLE_SECRET_MANAGER, googleSecretManager: {credentials: '{}', region: x}}}",
            "`global.secretsManager.googleSecretManager.projectId`",
        ),
        (
            "SECRET_PERSISTENCE=VAULT\nVAULT_AUTH_TOKEN=t\n",
            "set VAULT_ADDRESS",
        ),
    ] {
        let shown = read(text);
        assert!(shown.contains(key), "{text}: {shown}");
    }
}
