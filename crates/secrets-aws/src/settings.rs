//! The key table: every setting with its name in URLs, its environment variables and its default.

use secret_persistence_core::settings::{KeyTable, Setting, invalid};

use crate::config::{DESCRIPTION, SESSION_NAME};

/// The key table: `aws://<region>?kms-key-arn=…&tag-key=…`, with the environment for settings that
/// the URL lacks.
pub const SETTINGS: KeyTable = KeyTable::new(&["aws"], ROWS, |url, settings| {
    if url.port().is_some() || !url.has_authority() || !matches!(url.path(), "" | "/") {
        return Err(invalid("this is not the URL of an AWS store")
            .with_hint("write aws://<region>?<setting>=<value>&…"));
    }
    match url.host() {
        Some(region) => settings.set("region", region),
        None => Ok(()),
    }
})
.with_reads(|explicit, variable, name| {
    // An older name of this variable. Without our key id, the SDK's chain reads it together with
    // `AWS_ACCESS_KEY_ID`.
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    name != "AWS_SECRET_ACCESS_KEY"
        || explicit.is_set("access-key-id")
        || is_set("AWS_SECRET_MANAGER_ACCESS_KEY_ID")
        || is_set("AWS_ACCESS_KEY")
});

const ROWS: &[Setting] = &[
    Setting::new(
        "region",
        "the AWS region of the secrets; the host of the URL",
    )
    .with_env(&["AWS_SECRET_MANAGER_REGION"])
    .with_helm(&["region"])
    .with_json(&["awsRegion"]),
    Setting::new(
        "access-key-id",
        "the id of an access key; together with the secret access key",
    )
    .with_env(&["AWS_SECRET_MANAGER_ACCESS_KEY_ID", "AWS_ACCESS_KEY"])
    .with_helm(&["accessKeyId"])
    .with_helm_secret(&[
        "aws-secret-manager-access-key-id",
        "AWS_SECRET_MANAGER_ACCESS_KEY_ID",
    ])
    .with_json(&["awsAccessKey"])
    .secret(),
    Setting::new("secret-access-key", "the secret half of the access key")
        .with_env(&[
            "AWS_SECRET_MANAGER_SECRET_ACCESS_KEY",
            "AWS_SECRET_ACCESS_KEY",
        ])
        .with_helm(&["secretAccessKey"])
        .with_helm_secret(&[
            "aws-secret-manager-secret-access-key",
            "AWS_SECRET_MANAGER_SECRET_ACCESS_KEY",
        ])
        .with_json(&["awsSecretAccessKey"])
        .secret(),
    Setting::new(
        "session-token",
        "the session token of a temporary access key",
    )
    .with_env(&["AWS_SECRET_MANAGER_SESSION_TOKEN"])
    .secret(),
    Setting::new(
        "credentials",
        "the source of credentials if no access key is set: `default`, the chain of the AWS SDK \
         (environment, profile, SSO, web identity, container, instance metadata), or `imds`, the \
         instance metadata service only",
    )
    .with_default("default")
    .operator_only(),
    Setting::new("profile", "the profile of the AWS configuration files").operator_only(),
    Setting::new(
        "role-arn",
        "a role to assume with these credentials",
    )
    .with_env(&["AWS_ASSUME_ROLE_ARN"])
    .with_json(&["roleArn"]),
    Setting::new(
        "external-id",
        "the external id that the role's trust policy requires",
    )
    .with_env(&["AWS_ASSUME_ROLE_EXTERNAL_ID"])
    .with_json(&["externalId"])
    // Otherwise, a tenant could use another tenant's role with that tenant's external id.
    .operator_only(),
    Setting::new(
        "session-name",
        "the name of the role's sessions in CloudTrail",
    )
    .with_env(&["AWS_ASSUME_ROLE_SESSION_NAME"])
    .with_default(SESSION_NAME),
    Setting::new(
        "assume-role-access-key-id",
        "the id of the access key that assumes the role, if it differs from the store's access key",
    )
    .with_env(&["AWS_ASSUME_ROLE_ACCESS_KEY_ID"])
    .secret()
    .operator_only(),
    Setting::new(
        "assume-role-secret-access-key",
        "the secret half of that access key",
    )
    .with_env(&["AWS_ASSUME_ROLE_SECRET_ACCESS_KEY"])
    .secret()
    .operator_only(),
    Setting::new(
        "kms-key-arn",
        "the KMS key that encrypts new secrets: ARN, id or alias; by default the key of Secrets Manager",
    )
    .with_env(&["AWS_KMS_KEY_ARN"])
    .with_helm(&["kmsKeyArn", "kmsArn", "kms"])
    .with_json(&["kmsKeyArn"]),
    Setting::new(
        "tags",
        "tags of new secrets, as `key=value,key=value`; a value may contain `=`",
    )
    .with_env(&["AWS_SECRET_MANAGER_SECRET_TAGS"])
    .with_helm(&["tags"]),
    Setting::new(
        "tag-key",
        "a tag with the value `true` on every new secret, for policies that are scoped by it; \
        listings omit secrets without it",
    )
    .with_env(&["AWS_SECRET_MANAGER_TAG_KEY"])
    .with_json(&["tagKey"]),
    Setting::new(
        "description",
        "the description of every new secret in the console",
    )
    .with_default(DESCRIPTION),
    Setting::new(
        "recovery-window-days",
        "how many days a deleted secret can be restored, 7 to 30; by default AWS's 30",
    ),
    Setting::new(
        "force-delete",
        "`true` deletes immediately, without recovery window",
    )
    .with_default("false"),
    Setting::new(
        "unversioned-names",
        "`true` looks up a secret that is not found again without the version in its name, as old \
        Airbyte versions stored it",
    )
    .with_default("false"),
    Setting::new(
        "endpoint-url",
        "another endpoint of Secrets Manager, such as a VPC endpoint",
    )
    .with_env(&["AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL"])
    .operator_only(),
    Setting::new(
        "sts-endpoint-url",
        "another endpoint of STS; if endpoint-url is on loopback, by default the same",
    )
    .with_env(&["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"])
    .operator_only(),
    Setting::new("use-fips", "`true` uses the FIPS endpoints")
        .with_env(&["AWS_USE_FIPS_ENDPOINT"])
        .with_default("false"),
    Setting::new(
        "use-dualstack",
        "`true` uses endpoints with IPv6",
    )
    .with_env(&["AWS_USE_DUALSTACK_ENDPOINT"])
    .with_default("false"),
];

#[cfg(test)]
mod tests {
    use secret_persistence_core::settings::{SettingMap, StoreUrl, Trust};
    use secret_persistence_core::{ErrorKind, Result};

    use super::*;
    use crate::config::{Config, Credentials, Deletion};

    fn from_env(pairs: &[(&str, &str)]) -> Result<Config> {
        Config::from_settings(&SETTINGS.from_env(&|name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        }))
    }

    fn from_url(text: &str) -> Result<Config> {
        Config::from_settings(&SETTINGS.from_url(&StoreUrl::parse(text)?, &|_| None)?)
    }

    const REGION: (&str, &str) = ("AWS_SECRET_MANAGER_REGION", "eu-west-1");

    fn key_of(config: &Config) -> Option<(&str, &str)> {
        match &config.credentials {
            Credentials::AccessKey(key) => Some((key.id.expose(), key.secret.expose())),
            _ => None,
        }
    }

    #[test]
    fn the_environment_is_read_under_its_documented_names() {
        let config = from_env(&[
            REGION,
            ("AWS_SECRET_MANAGER_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_MANAGER_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SECRET_MANAGER_SECRET_TAGS", "team=data, cost=a=b"),
            (
                "AWS_KMS_KEY_ARN",
                "arn:aws:kms:eu-west-1:123456789012:key/1234",
            ),
        ])
        .unwrap();
        assert_eq!(config.region.as_str(), "eu-west-1");
        assert_eq!(key_of(&config), Some(("id", "secret")));
        assert_eq!(config.tags["team"], "data");
        assert_eq!(config.tags["cost"], "a=b");
        assert!(config.kms_key.is_some() && config.deletion == Deletion::Default);

        let old = from_env(&[
            REGION,
            ("AWS_ACCESS_KEY", "id"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ]);
        assert_eq!(key_of(&old.unwrap()), Some(("id", "s")));
        // The SDK's chain reads its own pair.
        let chain = from_env(&[
            REGION,
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ]);
        assert_eq!(key_of(&chain.unwrap()), None);
        let half = from_env(&[REGION, ("AWS_SECRET_MANAGER_ACCESS_KEY_ID", "id")]).unwrap_err();
        assert!(half.message().contains("together"));
        let missing = from_env(&[]).unwrap_err();
        assert!(missing.message().contains("region is missing"), "{missing}");
        assert!(
            missing
                .hint()
                .unwrap()
                .contains("AWS_SECRET_MANAGER_REGION")
        );
    }

    #[test]
    fn a_role_is_assumed_with_keys_of_its_own_where_there_are_any() {
        let role = (
            "AWS_ASSUME_ROLE_ARN",
            "arn:aws:iam::123456789012:role/airbyte/secrets",
        );
        let own = [
            ("AWS_SECRET_MANAGER_ACCESS_KEY_ID", "own"),
            ("AWS_SECRET_MANAGER_SECRET_ACCESS_KEY", "own secret"),
        ];
        let base = [
            ("AWS_ASSUME_ROLE_ACCESS_KEY_ID", "base"),
            ("AWS_ASSUME_ROLE_SECRET_ACCESS_KEY", "base secret"),
        ];
        let with = |pairs: &[&[(&'static str, &'static str)]]| {
            let config = from_env(&[&[REGION], pairs.concat().as_slice()].concat()).unwrap();
            (
                config.role.is_some(),
                key_of(&config).map(|(id, _)| id.to_owned()),
            )
        };
        assert_eq!(
            with(&[&[role], &own, &base]),
            (true, Some("base".to_owned()))
        );
        assert_eq!(with(&[&[role], &own]), (true, Some("own".to_owned())));
        assert_eq!(with(&[&[role]]), (true, None));
        assert_eq!(with(&[&own, &base]), (false, Some("own".to_owned())));
        let stray = from_env(&[REGION, ("AWS_ASSUME_ROLE_EXTERNAL_ID", "ext")]);
        assert!(stray.unwrap_err().message().contains("role-arn"));
    }

    #[test]
    fn urls_carry_every_option_and_no_credential() {
        let config = from_url(
            "aws://us-gov-west-1?tag-key=AirbyteManaged&recovery-window-days=7&credentials=imds\
             &unversioned-names=true&use-fips=true&description=ours\
             &role-arn=arn:aws-us-gov:iam::123456789012:role/x&external-id=ext-1",
        )
        .unwrap();
        assert_eq!(config.deletion, Deletion::Window(7));
        assert!(config.unversioned_names && config.use_fips && !config.use_dualstack);
        assert!(matches!(config.credentials, Credentials::InstanceMetadata));
        assert_eq!(config.tags["AirbyteManaged"], "true");
        assert_eq!(config.description, "ours");
        let role = config.role.unwrap();
        assert_eq!(role.session_name, "secret-persistence");
        assert_eq!(role.external_id.as_deref(), Some("ext-1"));
        for (url, expected) in [
            ("aws://eu-west-1?secret-access-key=canary", "secret"),
            ("aws://eu-west-1?kms-key=x", "unknown setting"),
            ("aws://eu-west-1:443", "not the URL"),
            ("aws://eu-west-1/path", "not the URL"),
            ("aws://", "region"),
            ("aws:eu-west-1", "not the URL"),
            ("aws://eu-west-1?region=us-east-1", "twice"),
            ("aws://eu-west-1?credentials=env", "`default` or `imds`"),
            ("aws://eu-west-1?credentials=imds&profile=x", "excludes"),
            (
                "aws://eu-west-1?recovery-window-days=7&force-delete=true",
                "exclude",
            ),
            ("aws://eu-west-1?recovery-window-days=6", "7 to 30"),
            ("aws://eu-west-1?recovery-window-days=31", "7 to 30"),
            ("aws://eu-west-1?force-delete=yes", "cannot be understood"),
            ("aws://eu-west-1?tags=a", "cannot be understood"),
            ("aws://eu-west-1?role-arn=airbyte", "not the ARN"),
            ("aws://eu-west-1?endpoint-url=http://vpce.example", "https"),
            (
                "aws://eu-west-1?endpoint-url=https://u:canary@vpce.example",
                "credentials",
            ),
            (
                "aws://eu-west-1?endpoint-url=https://vpce.example/?x=canary",
                "may contain only",
            ),
            ("aws://eu-west-1?endpoint-url=ftp://localhost", "https"),
        ] {
            let error = from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(error.to_string().contains(expected), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{url}");
        }
    }

    fn tenant(pairs: &[(&str, &str)]) -> Result<SettingMap> {
        let mut settings = SettingMap::with_trust(SETTINGS.rows(), Trust::tenant());
        settings.set("region", "eu-west-1")?;
        for (name, value) in pairs {
            settings.set(name, *value)?;
        }
        Ok(settings)
    }

    const TENANT_KEY: [(&str, &str); 2] = [("access-key-id", "id"), ("secret-access-key", "s")];

    #[test]
    fn a_tenant_brings_an_access_key() {
        Config::from_settings(&tenant(&TENANT_KEY).unwrap()).unwrap();
    }

    #[test]
    fn a_tenant_may_not_use_the_default_chain() {
        let error = Config::from_settings(&tenant(&[]).unwrap()).unwrap_err();
        assert!(error.message().contains("access key"), "{error}");
    }

    #[test]
    fn a_tenant_may_not_name_a_source_of_credentials_or_a_profile() {
        for pair in [
            ("credentials", "imds"),
            ("credentials", "default"),
            ("profile", "x"),
        ] {
            assert!(tenant(&[pair]).unwrap_err().message().contains("operator"));
        }
    }

    #[test]
    fn a_tenant_may_not_choose_an_endpoint() {
        for name in ["endpoint-url", "sts-endpoint-url"] {
            let error = tenant(&[(name, "https://attacker.example")]).unwrap_err();
            assert!(error.message().contains("operator"), "{error}");
        }
    }

    #[test]
    fn a_tenant_may_not_smuggle_a_host_into_the_region() {
        for region in [
            "attacker.example/",
            "eu-west-1.attacker.example",
            "eu-west-1#",
            "eu-west-1@attacker.example",
            "x",
        ] {
            let mut settings = SettingMap::with_trust(SETTINGS.rows(), Trust::tenant());
            settings.set("region", region).unwrap();
            for (name, value) in TENANT_KEY {
                settings.set(name, value).unwrap();
            }
            let error = Config::from_settings(&settings).unwrap_err();
            assert!(error.message().contains("region"), "{region}: {error}");
        }
    }

    #[test]
    fn a_tenant_does_not_choose_the_external_id_of_a_role() {
        const ROLE: (&str, &str) = ("role-arn", "arn:aws:iam::123456789012:role/x");
        let chosen = tenant(&[ROLE, ("external-id", "another-tenants")]).unwrap_err();
        assert!(chosen.message().contains("operator"), "{chosen}");
        let base = |settings: &mut SettingMap| {
            for name in ["assume-role-access-key-id", "assume-role-secret-access-key"] {
                settings.set_by_operator(name, "base".to_owned()).unwrap();
            }
        };
        let mut settings = tenant(&[ROLE]).unwrap();
        let error = Config::from_settings(&settings).unwrap_err();
        assert!(error.message().contains("access key"), "{error}");
        base(&mut settings);
        let error = Config::from_settings(&settings).unwrap_err();
        assert!(error.message().contains("external id"), "{error}");
        settings
            .set_by_operator("external-id", "tenant-7".to_owned())
            .unwrap();
        let config = Config::from_settings(&settings).unwrap();
        assert_eq!(
            config.role.unwrap().external_id.as_deref(),
            Some("tenant-7")
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
            let role = match setting.name {
                "session-name" => Some(("role-arn", "arn:aws:iam::123456789012:role/x")),
                _ => None,
            };
            let base = [("region", "eu-west-1")].into_iter().chain(role);
            let with = base.clone().chain([(setting.name, default)]);
            let implicit = Config::from_settings(&SETTINGS.from_pairs(base).unwrap()).unwrap();
            let explicit = Config::from_settings(&SETTINGS.from_pairs(with).unwrap());
            assert_eq!(
                format!("{:?}", explicit.unwrap()),
                format!("{implicit:?}"),
                "{}",
                setting.name
            );
        }
    }
}
