//! The key table: every setting with its name in URLs, its environment variables and its default.

use secret_persistence_core::settings::{KeyTable, Setting, invalid};

/// The key table: `gcp://<project>[/<region>]?kms-key=…&labels=…`, with the environment for
/// settings that the URL lacks.
pub const SETTINGS: KeyTable = KeyTable::new(&["gcp"], ROWS, |url, settings| {
    let region = url.path().trim_matches('/');
    if url.port().is_some() || region.contains('/') {
        return Err(invalid("this is not the URL of a Google store")
            .with_hint("write gcp://<project>[/<region>]?<setting>=<value>&…"));
    }
    if !url.has_authority() {
        return Err(invalid("this is not the URL of a Google store")
            .with_hint("write gcp://<project>, with two slashes"));
    }
    if let Some(project) = url.host() {
        settings.set("project-id", project)?;
    }
    match region {
        "" => Ok(()),
        region => settings.set("region", region),
    }
});

const ROWS: &[Setting] = &[
    Setting::new(
        "project-id",
        "the project of the secrets, by id or number; the host of the URL",
    )
    .with_env(&["SECRET_STORE_GCP_PROJECT_ID"])
    .with_helm(&["projectId"])
    .with_json(&["gcpProjectId"]),
    Setting::new(
        "region",
        "the region of the secrets; the path of the URL. Without a region, Google replicates them \
        automatically",
    )
    .with_env(&["SECRET_STORE_GCP_REGION"])
    .with_helm(&["region"])
    .with_json(&["region"]),
    Setting::new(
        "replication",
        "what a region means: `regional`, regional secrets with the region's own endpoint and names, \
        as Airbyte writes them, or `user-managed`, global secrets with their only replica in the region; \
        without a region it is `automatic`",
    )
    .with_env(&["SECRET_STORE_GCP_REPLICATION"]),
    Setting::new(
        "credentials",
        "the JSON text of a credentials file, plain or in base64: a service account key, or a \
         configuration of workload identity federation or impersonation",
    )
    .with_env(&["SECRET_STORE_GCP_CREDENTIALS"])
    .with_helm(&["credentials"])
    .with_helm_secret(&["gcp.json", "SECRET_STORE_GCP_CREDENTIALS"])
    .with_json(&["gcpCredentialsJson"])
    .secret(),
    Setting::new(
        "credentials-file",
        "the path of a credentials file, reread when it changes or is refused",
    )
    .with_env(&["SECRET_STORE_GCP_CREDENTIALS_FILE"])
    .operator_only(),
    Setting::new(
        "credentials-source",
        "the source of credentials if neither text nor file is set: `default`, the application \
         default credentials (GOOGLE_APPLICATION_CREDENTIALS, gcloud's login, metadata server), \
         `metadata`, the metadata server only, or `anonymous`, no credentials, for an emulator on loopback",
    )
    .with_env(&["SECRET_STORE_GCP_CREDENTIALS_SOURCE"])
    .with_default("default")
    .operator_only(),
    Setting::new(
        "impersonate-service-account",
        "the email of a service account to impersonate with these credentials",
    )
    .with_env(&["SECRET_STORE_GCP_IMPERSONATE_SERVICE_ACCOUNT"])
    .operator_only(),
    Setting::new(
        "kms-key",
        "the Cloud KMS key that encrypts new secrets, by its resource name; by default a key of Google",
    )
    .with_env(&["SECRET_STORE_GCP_KMS_KEY"]),
    Setting::new(
        "labels",
        "labels of new secrets, as `key=value,key=value`",
    )
    .with_env(&["SECRET_STORE_GCP_LABELS"]),
    Setting::new(
        "endpoint-url",
        "another endpoint of Secret Manager, such as a Private Service Connect endpoint",
    )
    .with_env(&["SECRET_STORE_GCP_ENDPOINT_URL"])
    .operator_only(),
];

#[cfg(test)]
mod tests {
    use secret_persistence_core::settings::{SettingMap, StoreUrl, Trust};
    use secret_persistence_core::{ErrorKind, Result};

    use super::*;
    use crate::config::{Config, Credentials, Replication};

    const KEY: &str = r#"{"type": "service_account", "project_id": "cloud-proj",
        "private_key_id": "canary-id", "private_key": "canary-key",
        "client_email": "x@cloud-proj.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token"}"#;

    fn from_env(pairs: &[(&str, &str)]) -> Result<Config> {
        Config::from_settings(&SETTINGS.from_env(&|name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        }))
    }

    fn from_url(text: &str) -> Result<Config> {
        Config::from_settings(&SETTINGS.from_url(&StoreUrl::parse(text)?, &|_| None)?)
    }

    const PROJECT: (&str, &str) = ("SECRET_STORE_GCP_PROJECT_ID", "cloud-proj");

    #[test]
    fn the_environment_is_read_under_its_documented_names() {
        let config = from_env(&[
            PROJECT,
            ("SECRET_STORE_GCP_CREDENTIALS", KEY),
            ("SECRET_STORE_GCP_REGION", "us-central1"),
        ])
        .unwrap();
        assert_eq!(
            config.place.parent(),
            "projects/cloud-proj/locations/us-central1"
        );
        assert_eq!(config.replication, Replication::Regional);
        assert!(matches!(config.credentials, Credentials::Key(_)));

        let config = from_env(&[PROJECT, ("SECRET_STORE_GCP_REGION", "")]).unwrap();
        assert_eq!(config.place.parent(), "projects/cloud-proj");
        assert!(matches!(
            config.credentials,
            Credentials::ApplicationDefault
        ));

        let missing = from_env(&[]).unwrap_err();
        assert!(
            missing.message().contains("project is missing"),
            "{missing}"
        );
        let hint = missing.hint().unwrap();
        assert!(hint.contains("SECRET_STORE_GCP_PROJECT_ID"), "{hint}");
    }

    #[test]
    fn urls_carry_every_option_and_no_credential() {
        let config = from_url(
            "gcp://my-project/europe-west3?replication=user-managed&labels=team=data,env=prod\
             &kms-key=projects/my-project/locations/europe-west3/keyRings/r/cryptoKeys/k\
             &credentials-source=metadata\
             &impersonate-service-account=x@my-project.iam.gserviceaccount.com\
             &endpoint-url=https://secretmanager-psc.p.googleapis.com",
        )
        .unwrap();
        assert_eq!(config.place.parent(), "projects/my-project");
        assert!(matches!(config.replication, Replication::UserManaged(_)));
        assert!(matches!(config.credentials, Credentials::Metadata));
        assert_eq!(config.labels["env"], "prod");
        assert!(config.impersonate.is_some() && config.kms_key.is_some());
        assert!(
            from_url("gcp://my-project/")
                .unwrap()
                .place
                .region
                .is_none()
        );
        assert_eq!(
            from_url("gcp://?project-id=example.com:my-project")
                .unwrap()
                .place
                .parent(),
            "projects/example.com:my-project"
        );
        for (url, expected) in [
            ("gcp://my-project?credentials=canary", "secret"),
            ("gcp://my-project?project=x", "unknown setting"),
            ("gcp://my-project:443", "not the URL"),
            ("gcp://my-project/a/b", "not the URL"),
            ("gcp:my-project", "not the URL"),
            ("gcp://", "project is missing"),
            ("gcp://my_project", "is not valid"),
            ("gcp://my-project/us-central1-a", "region"),
            ("gcp://my-project?project-id=other-project", "twice"),
            ("gcp://my-project?replication=regional", "requires a region"),
            (
                "gcp://my-project?replication=user-managed",
                "requires a region",
            ),
            (
                "gcp://my-project/us-central1?replication=automatic",
                "excludes",
            ),
            ("gcp://my-project?replication=both", "`automatic`"),
            ("gcp://my-project?credentials-source=env", "`default`"),
            ("gcp://my-project?credentials-source=anonymous", "emulator"),
            (
                "gcp://my-project?credentials-file=/k.json&credentials-source=metadata",
                "exclude",
            ),
            ("gcp://my-project?labels=a", "cannot be understood"),
            ("gcp://my-project?labels=A=b", "lowercase letters"),
            ("gcp://my-project?kms-key=k", "resource name"),
            ("gcp://my-project?endpoint-url=http://psc.example", "https"),
            (
                "gcp://my-project?endpoint-url=https://u:canary@psc.example",
                "credentials",
            ),
            (
                "gcp://my-project?endpoint-url=https://psc.example/?x=canary",
                "may contain only",
            ),
            ("gcp://my-project?endpoint-url=ftp://localhost", "https"),
        ] {
            let error = from_url(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(error.to_string().contains(expected), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{url}");
        }
    }

    #[test]
    fn a_tenant_brings_a_key_of_its_own_and_nothing_of_the_operators() {
        let settings = |pairs: &[(&str, &str)]| {
            let mut settings = SettingMap::with_trust(SETTINGS.rows(), Trust::tenant());
            for (name, value) in pairs {
                settings.set(name, *value)?;
            }
            Config::from_settings(&settings)
        };
        let good = [("project-id", "cloud-proj"), ("credentials", KEY)];
        settings(&good).unwrap();
        let user = r#"{"type": "authorized_user", "client_id": "x", "client_secret": "x",
            "refresh_token": "x", "token_uri": "https://oauth2.googleapis.com/token"}"#;
        let external = r#"{"type": "external_account", "audience": "x",
            "subject_token_type": "x", "token_url": "https://sts.googleapis.com/v1/token"}"#;
        let impersonated = r#"{"type": "impersonated_service_account",
            "service_account_impersonation_url": "https://iamcredentials.googleapis.com/x"}"#;
        let elsewhere = KEY.replace("oauth2.googleapis.com", "oauth2.example");
        let universe = KEY.replacen('{', r#"{"universe_domain": "example.com","#, 1);
        let project = ("project-id", "cloud-proj");
        let refused: &[&[(&str, &str)]] = &[
            &[project],
            &[project, ("credentials", " ")],
            &[project, ("credentials", user)],
            &[project, ("credentials", external)],
            &[project, ("credentials", impersonated)],
            &[project, ("credentials", &elsewhere)],
            &[project, ("credentials", &universe)],
            &[good[1], project, ("credentials-file", "/etc/key.json")],
            &[good[1], project, ("credentials-source", "metadata")],
            &[good[1], project, ("endpoint-url", "https://evil.example")],
            &[
                good[1],
                project,
                ("impersonate-service-account", "x@y.iam.gserviceaccount.com"),
            ],
            &[good[1], ("project-id", "x/../../evil")],
            &[good[1], ("project-id", "evil.example/")],
            &[good[1], project, ("region", "evil.example/")],
            &[good[1], project, ("region", "us-central1.evil.example")],
        ];
        for pairs in refused {
            let error = settings(pairs).expect_err(&format!("{pairs:?}"));
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{pairs:?}");
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
        // The environment belongs to the operator, so a tenant's settings do not use it.
        let mut from_environment = SettingMap::with_trust(SETTINGS.rows(), Trust::tenant());
        from_environment.set("project-id", "cloud-proj").unwrap();
        from_environment.set_env(|_| Some(KEY.to_owned()));
        assert!(Config::from_settings(&from_environment).is_err());
    }

    /// Every setting is documented, and every default in the table is the one in effect.
    #[test]
    fn the_key_table_is_complete_and_true() {
        for setting in ROWS {
            assert!(
                !setting.doc.is_empty() && !setting.doc.ends_with('.'),
                "{}",
                setting.name
            );
            let Some(default) = setting.default else {
                continue;
            };
            let mut settings = SettingMap::new(SETTINGS.rows());
            settings.set("project-id", "my-project").unwrap();
            settings.set(setting.name, default).unwrap();
            let explicit = Config::from_settings(&settings).unwrap();
            let project = SETTINGS.from_pairs([("project-id", "my-project")]);
            let implicit = Config::from_settings(&project.unwrap()).unwrap();
            assert_eq!(
                format!("{explicit:?}"),
                format!("{implicit:?}"),
                "{}",
                setting.name
            );
        }
    }
}
