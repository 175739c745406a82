//! The key table: every setting with its name in URLs, its other names and its default.

use secret_persistence_core::settings::{KeyTable, Setting, invalid};

use crate::config::{API_VERSION, is_vault_name};

/// The key table: `azure://<vault host>[:port]?tags=…&purge=…`, where the host may be just the
/// vault's name, with the environment for settings that the URL lacks.
pub const SETTINGS: KeyTable = KeyTable::new(&["azure"], ROWS, |url, settings| {
    if !url.has_authority() || !matches!(url.path(), "" | "/") {
        return Err(invalid("this is not the URL of an Azure store")
            .with_hint("write azure://<name>.vault.azure.net?<setting>=<value>&…"));
    }
    let Some(host) = url.host() else {
        return Ok(());
    };
    let vault = match url.port() {
        Some(port) => format!("https://{host}:{port}"),
        None if is_vault_name(host) && host != "localhost" => host.to_owned(),
        None => format!("https://{host}"),
    };
    settings.set("vault-url", vault)
})
.with_reads(|explicit, variable, name| {
    // The webhook of workload identity sets these for federated logins. With our client secret, its
    // ids would belong to another application.
    let has_secret = || {
        explicit.is_set("client-secret")
            || variable("AB_AZURE_KEY_VAULT_CLIENT_SECRET").is_some_and(|value| !value.is_empty())
    };
    !matches!(name, "AZURE_TENANT_ID" | "AZURE_CLIENT_ID") || !has_secret()
});

const ROWS: &[Setting] = &[
    Setting::new(
        "vault-url",
        "the URL of the vault, like https://my-vault.vault.azure.net, or its name; the host of the \
         URL",
    )
    .with_env(&["AB_AZURE_KEY_VAULT_VAULT_URL"])
    .with_helm(&["vaultUrl"])
    .with_json(&["vaultUrl"]),
    Setting::new(
        "tenant-id",
        "the directory (tenant) of the application: its id or its domain",
    )
    .with_env(&["AB_AZURE_KEY_VAULT_TENANT_ID", "AZURE_TENANT_ID"])
    .with_helm(&["tenantId"])
    .with_json(&["tenantId"]),
    Setting::new(
        "client-id",
        "the application (client) id, or the client id of a user-assigned managed identity",
    )
    .with_env(&["AB_AZURE_KEY_VAULT_CLIENT_ID", "AZURE_CLIENT_ID"])
    .with_helm(&["clientId"])
    .with_helm_secret(&["azure-key-vault-client-id", "AB_AZURE_KEY_VAULT_CLIENT_ID"])
    .with_json(&["clientId"]),
    Setting::new(
        "client-secret",
        "the value of the application's client secret; requires tenant and client id",
    )
    .with_env(&["AB_AZURE_KEY_VAULT_CLIENT_SECRET"])
    .with_helm(&["clientSecret"])
    .with_helm_secret(&[
        "azure-key-vault-client-secret",
        "AB_AZURE_KEY_VAULT_CLIENT_SECRET",
    ])
    .with_json(&["clientSecret"])
    .secret(),
    Setting::new(
        "credentials",
        "the source of credentials: `client-secret`, `workload-identity` (a federated service \
         account of Kubernetes), `managed-identity`, `developer-tools` (`az login`, `azd auth \
         login`), or `auto`, the first configured one of the first three",
    )
    .with_default("auto")
    .operator_only(),
    Setting::new(
        "federated-token-file",
        "the file with the service account's token, read at every login",
    )
    .with_env(&["AZURE_FEDERATED_TOKEN_FILE"])
    .operator_only(),
    Setting::new(
        "tags",
        "tags of new secrets, as `name=value,name=value`; a value may contain `=`",
    )
    .with_env(&["AB_AZURE_KEY_VAULT_TAGS"])
    .with_helm(&["tags"])
    .with_json(&["tags"]),
    Setting::new(
        "purge",
        "which deletes also purge: `never`, `on-request` (those that ask for an immediate delete) \
        or `always`",
    )
    .with_default("never"),
    Setting::new(
        "on-deleted",
        "what a write does if its name is soft-deleted: `refuse`, `recover` or `purge`",
    )
    .with_default("refuse"),
    Setting::new(
        "wait-seconds",
        "how long restores, purges and recovering writes wait for the vault, from 1 to 300",
    )
    .with_default("20"),
    Setting::new(
        "timeout-seconds",
        "how long one request may take, from 1 to 300",
    )
    .with_default("15"),
    Setting::new(
        "authority-host",
        "the token issuer, like https://login.microsoftonline.us; by default derived from the \
        vault's host",
    )
    .with_env(&["AZURE_AUTHORITY_HOST"])
    .operator_only(),
    Setting::new(
        "api-version",
        "the version of Key Vault's API, for clouds without the newest",
    )
    .with_default(API_VERSION)
    .operator_only(),
    Setting::new(
        "vault-suffix",
        "the domain of vaults, if vault-url is just a name; by default vault.azure.net",
    )
    .operator_only(),
    Setting::new(
        "ca-file",
        "PEM certificates to trust instead of the system's",
    )
    .with_env(&["AB_AZURE_KEY_VAULT_CA_FILE"])
    .with_helm(&["caFile"])
    .with_json(&["caFile"])
    .operator_only(),
    Setting::new(
        "verify-challenge",
        "`false` requests tokens for any resource that the vault names, which emulators need",
    )
    .with_default("true")
    .operator_only(),
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secret_persistence_core::settings::{SettingMap, StoreUrl, Trust};
    use secret_persistence_core::{ErrorKind, Result};

    use super::*;
    use crate::config::{Config, Credentials, OnDeleted, Purge, Reach};

    fn from_env(pairs: &[(&str, &str)]) -> Result<Config> {
        Config::from_settings(&SETTINGS.from_env(&|name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        }))
    }

    fn from_url(text: &str) -> Result<Config> {
        Config::from_settings(&SETTINGS.from_url(&StoreUrl::parse(text)?, &|_| None)?)
    }

    const VAULT: (&str, &str) = (
        "AB_AZURE_KEY_VAULT_VAULT_URL",
        "https://my-vault.vault.azure.net/",
    );
    const TENANT: (&str, &str) = ("AB_AZURE_KEY_VAULT_TENANT_ID", "tenant");
    const CLIENT: (&str, &str) = ("AB_AZURE_KEY_VAULT_CLIENT_ID", "client");
    const SECRET: (&str, &str) = ("AB_AZURE_KEY_VAULT_CLIENT_SECRET", "canary");

    #[test]
    fn the_environment_is_read_under_its_documented_names() {
        let tags = ("AB_AZURE_KEY_VAULT_TAGS", "team=data, cost=a=b");
        let config = from_env(&[VAULT, TENANT, CLIENT, SECRET, tags]).unwrap();
        assert_eq!(config.place(), "my-vault.vault.azure.net");
        let Credentials::ClientSecret(secret) = &config.credentials else {
            panic!("{config:?}");
        };
        assert_eq!(
            (&*secret.tenant_id, &*secret.client_id),
            ("tenant", "client")
        );
        assert_eq!(secret.secret.expose(), "canary");
        assert_eq!(config.tags["team"], "data");
        assert_eq!(config.tags["cost"], "a=b");
        assert!(!format!("{config:?}").contains("canary"));
        let missing = from_env(&[]).unwrap_err();
        assert!(
            missing
                .hint()
                .unwrap()
                .contains("AB_AZURE_KEY_VAULT_VAULT_URL")
        );
    }

    #[test]
    fn the_first_credentials_that_are_configured_are_taken() {
        let own = [("AZURE_TENANT_ID", "tenant"), ("AZURE_CLIENT_ID", "client")];
        let file = ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token");
        let name = |more: &[(&'static str, &'static str)]| {
            let config = from_env(&[&[VAULT], more].concat()).unwrap();
            (
                config.credentials.name(),
                config.credentials.client_id().map(str::to_owned),
            )
        };
        let client = Some("client".to_owned());
        assert_eq!(name(&[]), ("managed-identity", None));
        assert_eq!(name(&own), ("managed-identity", client.clone()));
        assert_eq!(
            name(&[own[0], own[1], file]),
            ("workload-identity", client.clone())
        );
        // Our client secret is not combined with ids that the webhook injects.
        assert_eq!(
            name(&[
                own[0],
                ("AZURE_CLIENT_ID", "other"),
                file,
                TENANT,
                CLIENT,
                SECRET
            ]),
            ("client-secret", client)
        );
        for (half, lacks) in [
            (vec![VAULT, SECRET], "tenant-id"),
            (vec![VAULT, SECRET, TENANT, own[1]], "client-id"),
            (vec![VAULT, file], "tenant-id"),
        ] {
            let error = from_env(&half).unwrap_err();
            assert!(error.message().contains(lacks), "{error}");
            assert!(error.hint().unwrap().contains("AB_AZURE_KEY_VAULT_"));
        }
    }

    #[test]
    fn urls_carry_every_option_and_no_credential() {
        let config = from_url(
            "azure://my-vault.vault.usgovcloudapi.net?purge=always&on-deleted=recover&wait-seconds=5\
             &timeout-seconds=7&tags=a=b&credentials=developer-tools&ca-file=/ca.pem\
             &verify-challenge=false&authority-host=https://login.example",
        )
        .unwrap();
        assert_eq!(config.place(), "my-vault.vault.usgovcloudapi.net");
        assert_eq!(
            (config.purge, config.on_deleted),
            (Purge::Always, OnDeleted::Recover)
        );
        assert_eq!(config.wait, Duration::from_secs(5));
        assert_eq!(config.timeout, Duration::from_secs(7));
        assert!(!config.verify_challenge && config.ca_file.is_some());
        assert_eq!(config.credentials.name(), "developer-tools");
        assert_eq!(config.authority.as_str(), "https://login.example/");
        for (url, place) in [
            ("azure://my-vault", "my-vault.vault.azure.net"),
            ("azure://my-vault/", "my-vault.vault.azure.net"),
            ("azure://localhost:8443", "localhost:8443"),
            ("azure://localhost", "localhost"),
            ("azure://[::1]:8443", "[::1]:8443"),
            (
                "azure://my-vault?vault-suffix=kv.example",
                "my-vault.kv.example",
            ),
        ] {
            assert_eq!(from_url(url).unwrap().place(), place, "{url}");
        }
        for (url, expected) in [
            ("azure://my-vault?client-secret=canary", "secret"),
            ("azure://my-vault?purges=always", "unknown setting"),
            ("azure://my-vault?purge=canary", "never, on-request, always"),
            (
                "azure://my-vault?on-deleted=canary",
                "refuse, recover, purge",
            ),
            ("azure://my-vault/path", "not the URL"),
            ("azure:my-vault", "not the URL"),
            ("azure://", "vault"),
            ("azure://my-vault?vault-url=other", "twice"),
            ("azure://my-vault?credentials=env", "`auto`"),
            ("azure://my-vault?wait-seconds=0", "1 to 300"),
            ("azure://my-vault?timeout-seconds=301", "1 to 300"),
            ("azure://my-vault?wait-seconds=soon", "cannot be understood"),
            (
                "azure://my-vault?verify-challenge=no",
                "cannot be understood",
            ),
            ("azure://my-vault?tags=a", "cannot be understood"),
            ("azure://my-vault?authority-host=http://x", "https"),
        ] {
            let error = from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(error.to_string().contains(expected), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{url}");
        }
    }

    fn of_tenant(trust: Trust, more: &[(&str, &str)]) -> Result<Config> {
        let mut settings = SettingMap::with_trust(SETTINGS.rows(), trust);
        let defaults = [
            ("vault-url", "https://my-vault.vault.azure.net"),
            ("tenant-id", "tenant"),
            ("client-id", "client"),
            ("client-secret", "secret"),
        ];
        for (name, value) in more {
            settings.set(name, *value)?;
        }
        for (name, value) in defaults {
            if settings.secret(name).is_none() {
                settings.set(name, value)?;
            }
        }
        Config::from_settings(&settings)
    }

    #[test]
    fn a_tenant_brings_a_client_secret_and_nothing_of_the_operators() {
        let config = of_tenant(Trust::tenant(), &[("tags", "a=b"), ("purge", "always")]).unwrap();
        assert_eq!(config.reach, Reach::Public { allowed: None });
        assert_eq!(config.credentials.name(), "client-secret");
        for (name, value) in [
            ("credentials", "managed-identity"),
            ("federated-token-file", "/var/run/token"),
            ("authority-host", "https://login.example"),
            ("vault-suffix", "kv.example"),
            ("api-version", "7.4"),
            ("ca-file", "/ca.pem"),
            ("verify-challenge", "false"),
        ] {
            let error = of_tenant(Trust::tenant(), &[(name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{name}");
            assert!(error.message().contains("operator"), "{error}");
        }
    }

    #[test]
    fn a_tenant_without_a_client_secret_is_not_lent_the_platforms_identity() {
        let error = of_tenant(Trust::tenant(), &[("client-secret", "")]).unwrap_err();
        assert!(error.message().contains("client secret"), "{error}");
    }

    #[test]
    fn a_tenants_vault_is_one_of_azures() {
        for host in [
            "https://kv.example",
            "https://my-vault.vault.azure.net.example",
            "https://a.b.vault.azure.net",
            "https://169.254.169.254",
            "https://[::1]",
            "https://localhost",
        ] {
            let error = of_tenant(Trust::tenant(), &[("vault-url", host)]).unwrap_err();
            assert!(
                error.message().contains("allowed by the operator"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_tenants_vault_is_https() {
        let error = of_tenant(
            Trust::tenant(),
            &[("vault-url", "http://my-vault.vault.azure.net")],
        )
        .unwrap_err();
        assert!(error.message().contains("https"), "{error}");
    }

    #[test]
    fn a_tenants_vault_has_no_port() {
        let error = of_tenant(
            Trust::tenant(),
            &[("vault-url", "https://my-vault.vault.azure.net:8443")],
        )
        .unwrap_err();
        assert!(error.message().contains("443"), "{error}");
    }

    #[test]
    fn a_host_that_the_operator_allowed_may_be_anywhere() {
        let trust = Trust::Tenant {
            allowed_hosts: vec!["kv.example".to_owned()],
        };
        let config = of_tenant(trust, &[("vault-url", "https://kv.example:8443")]).unwrap();
        assert_eq!(
            config.reach,
            Reach::Public {
                allowed: Some("kv.example".to_owned())
            }
        );
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
            settings.set("vault-url", "my-vault").unwrap();
            settings.set(setting.name, default).unwrap();
            let explicit = Config::from_settings(&settings).unwrap();
            let vault = SETTINGS.from_pairs([("vault-url", "my-vault")]).unwrap();
            let implicit = Config::from_settings(&vault).unwrap();
            assert_eq!(
                format!("{explicit:?}"),
                format!("{implicit:?}"),
                "{}",
                setting.name
            );
        }
        for (name, env, key) in [
            ("vault-url", "AB_AZURE_KEY_VAULT_VAULT_URL", "vaultUrl"),
            ("tenant-id", "AB_AZURE_KEY_VAULT_TENANT_ID", "tenantId"),
            ("client-id", "AB_AZURE_KEY_VAULT_CLIENT_ID", "clientId"),
            (
                "client-secret",
                "AB_AZURE_KEY_VAULT_CLIENT_SECRET",
                "clientSecret",
            ),
            ("tags", "AB_AZURE_KEY_VAULT_TAGS", "tags"),
        ] {
            let setting = ROWS.iter().find(|row| row.name == name).unwrap();
            assert_eq!(setting.env[0], env);
            assert_eq!((setting.helm, setting.json), (&[key][..], &[key][..]));
        }
    }
}
