//! Documented files and others.

use super::*;

const SECRET: &str = "
kind: Secret
metadata: {name: airbyte-config-secrets}
stringData:
  aws-secret-manager-access-key-id: AKIAEXAMPLE
  aws-secret-manager-secret-access-key: canary-secret
  vault-token: canary-token
  VAULT_AUTH_TOKEN: canary-default-token
  database-password: canary-password
  DATABASE_PASSWORD: canary-default-password
";

fn read(values: &str) -> Result<Settings> {
    let secrets = KubernetesSecrets::none().with_manifests(SECRET)?;
    Settings::from_helm(values, &secrets, &Environment::empty())
}

/// A block within `global.secretsManager`.
fn manager(kind: &str, block: &str) -> String {
    format!("global: {{secretsManager: {{type: {kind}, {block}}}}}")
}

fn aws(block: &str) -> Result<Settings> {
    read(&manager(
        "awsSecretManager",
        &format!("awsSecretManager: {{{block}}}"),
    ))
}

fn vault(block: &str) -> Result<Settings> {
    read(&manager(
        "VAULT",
        &format!("vault: {{address: 'https://v', {block}}}"),
    ))
}

fn secret(settings: &Settings, name: &str) -> Option<String> {
    settings
        .store()
        .secret(name)
        .map(|value| value.expose().to_owned())
}

fn refused(result: Result<Settings>, expected: &str) {
    let error = result.expect_err(expected);
    assert!(error.to_string().contains(expected), "{expected}: {error}");
    assert!(
        !format!("{error} {error:?}").contains("canary"),
        "{error:?}"
    );
}

#[test]
fn null_and_empty_text_are_unset() {
    let settings = aws("region: us-east-1, tags:, kms: '', kmsArn: null, accessKeyId: ''").unwrap();
    let names: Vec<_> = settings.store().names().collect();
    assert_eq!(names, ["access-key-id", "region", "secret-access-key"]);
}

#[test]
fn a_credential_stands_in_the_file_or_in_the_secret() {
    let inline = vault("authToken: inline, authTokenSecretKey: ''").unwrap();
    assert_eq!(secret(&inline, "token").as_deref(), Some("inline"));
    let alias = vault("token: inline").unwrap();
    assert_eq!(secret(&alias, "token").as_deref(), Some("inline"));
    let named = vault("authToken: '', authTokenSecretKey: vault-token").unwrap();
    assert_eq!(secret(&named, "token").as_deref(), Some("canary-token"));
    let documented = vault("prefix: secret/").unwrap();
    assert_eq!(
        secret(&documented, "token").as_deref(),
        Some("canary-default-token")
    );
    for both in [
        "authToken: canary, authTokenSecretKey: vault-token",
        "token: canary, authTokenSecretKey: vault-token",
    ] {
        refused(vault(both), "exclude each other");
    }
    refused(vault("authToken: canary, token: other"), "two values");
    refused(vault("authTokenSecretKey: missing"), "missing or empty");
    refused(vault("authTokenSecretKey: ../token"), "not a valid key");
}

#[test]
fn a_secret_that_is_not_at_hand_is_named() {
    let values = manager(
        "VAULT",
        "secretName: elsewhere, vault: {address: 'https://v', authTokenSecretKey: t}",
    );
    refused(read(&values), "Secret elsewhere");
    let values = manager(
        "awsSecretManager",
        "secretName: elsewhere, awsSecretManager: {region: us-east-1}",
    );
    refused(read(&values), "Secret elsewhere");
    let values = manager(
        "VAULT",
        "secretName: a, secretsManagerSecretName: b, vault: {address: 'https://v'}",
    );
    refused(read(&values), "different Secrets");
}

#[test]
fn a_secret_that_a_database_refers_to_has_its_password() {
    let database = |more: &str| {
        read(&format!(
            "externalDatabase: {{host: h, user: u, database: d, {more}}}"
        ))
    };
    refused(
        database("existingSecret: other"),
        "Secret other, which was not passed",
    );
    let empty = KubernetesSecrets::none()
        .with_manifests("kind: Secret\nmetadata: {name: other}\nstringData: {password: canary}")
        .unwrap();
    let values = "externalDatabase: {host: h, user: u, database: d, existingSecret: other}";
    let result = Settings::from_helm(values, &empty, &Environment::empty());
    refused(result, "DATABASE_PASSWORD");
    let settings = database("existingSecret: airbyte-config-secrets").unwrap();
    assert_eq!(
        secret(&settings, "password").as_deref(),
        Some("canary-default-password")
    );
}

#[test]
fn an_instance_profile_needs_no_key_and_takes_none() {
    let settings = aws("region: us-east-1, authenticationType: instanceProfile").unwrap();
    assert_eq!(settings.store().names().collect::<Vec<_>>(), ["region"]);
    refused(
        aws("region: us-east-1, authenticationType: instanceProfile, accessKeyId: canary"),
        "contradicts",
    );
    refused(
        aws("region: us-east-1, authenticationType: canary"),
        "credentials or instanceProfile",
    );
}

#[test]
fn every_name_of_the_key_is_understood() {
    const KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/1234";
    for name in ["kms", "kmsArn", "kmsKeyArn"] {
        let settings = aws(&format!("region: us-east-1, {name}: '{KEY}'")).unwrap();
        assert_eq!(settings.store().text("kms-key-arn"), Some(KEY));
    }
    refused(
        aws("region: us-east-1, kms: a, kmsArn: canary"),
        "two values",
    );
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    for (values, expected) in [
        (manager("VAULT", "valut: {}"), "did you mean `vault`?"),
        (
            manager("VAULT", "secretname: x, vault: {address: 'https://v'}"),
            "`secretName`",
        ),
        (
            manager("VAULT", "vault: {adress: 'https://v'}"),
            "`address`",
        ),
        (
            manager(
                "VAULT",
                "vault: {address: 'https://v', authTokenSecretkey: x}",
            ),
            "`authTokenSecretKey`",
        ),
        (
            manager("VAULT", "vault: {address: 'https://v', tokenSecretKey: x}"),
            "`authTokenSecretKey`",
        ),
        (
            manager("VAULT", "vault: {address: 'https://v', namespace: x}"),
            "unknown setting",
        ),
        (
            manager("aws", "awsSecretManager: {region: us-east-1}"),
            "not name a kind",
        ),
        (manager("VAULTS", "vault: {}"), "did you mean VAULT?"),
        (
            String::from("global: {secretPersistence: {cacheTtl: 3}, database: {host: h}}"),
            "cacheTtlSeconds",
        ),
        (
            String::from("externalDatabase: {host: h, usr: canary}"),
            "`user`",
        ),
    ] {
        refused(read(&values), expected);
    }
    // The rest of the file is ignored, and so are the blocks of other stores.
    let values = manager(
        "VAULT",
        "enabled: false, awsSecretManager: {nonsense: 1}, vault: {address: 'https://v'}",
    );
    read(&format!("{values}\nserver: {{replicaCount: 2}}")).unwrap();
}

#[test]
fn a_misspelt_or_misplaced_store_is_an_error_and_not_the_database() {
    let database = "database: {host: h, user: u, database: d}";
    let vault = "{type: VAULT, vault: {address: 'https://v', token: canary}}";
    for misspelt in ["secretManager", "secretsmanager", "secretsManagers"] {
        let result = read(&format!("global: {{{misspelt}: {vault}, {database}}}"));
        refused(result, "did you mean `global.secretsManager`?");
    }
    let above = read(&format!("secretsManager: {vault}\nglobal: {{{database}}}"));
    refused(above, "did you mean `global.secretsManager`?");
    let around = "{audit: required, auditFile: /audit}";
    for misplaced in [
        format!("global: {{secretPersistance: {around}, {database}}}"),
        format!("secretPersistence: {around}\nglobal: {{{database}}}"),
    ] {
        refused(read(&misplaced), "did you mean `global.secretPersistence`?");
    }
    // Empty values mean nothing, and other names belong to the chart.
    read(&format!(
        "secretsManager:\nglobal: {{secrets: {{a: b}}, {database}}}"
    ))
    .unwrap();
}

#[test]
fn a_block_without_type_is_an_error_and_not_the_database() {
    let values =
        "global: {secretsManager: {type: '', vault: {address: 'https://v'}}, database: {host: h}}";
    refused(read(values), "`global.secretsManager.type` is missing");
    refused(
        read("global: {secretsManager: {type: vault}}"),
        "is missing",
    );
    // The charts' own values contain blocks that configure nothing.
    let settings = read(
        "global: {secretsManager: {enabled: false, type: '', awsSecretManager: {region: <aws-region>, \
         authenticationType: credentials, tags: [{key: '', value: ''}], kms: ''}, googleSecretManager: {projectId: \
         <project-id>, region: '', credentialsSecretKey: gcp.json}, vault: {address: '', prefix: ''}}, \
         database: {host: h}}",
    );
    assert_eq!(settings.unwrap().kind(), Kind::Database);
    refused(read(""), "does not name a store");
    refused(read("global: {secretsManager: VAULT}"), "not a block");
    refused(read("a: 1\n---\nb: 2"), "several documents");
}

#[test]
fn the_database_is_meant_without_a_secrets_manager() {
    for values in [
        "global: {database: {type: external, host: h, name: d, user: u, passwordSecretKey: database-password, secretName: airbyte-config-secrets, replica: {url: x}}}",
        "global: {secretsManager:, database: {host: h, database: d, user: u, passwordSecretKey: database-password}}",
        "global: {secretsManager: {type: TESTING_CONFIG_DB_TABLE}, database: {host: h, database: d, user: u, password: canary-password}}",
        "externalDatabase: {host: h, user: u, database: d, existingSecret: airbyte-config-secrets, existingSecretPasswordKey: database-password}",
    ] {
        let settings = read(values).unwrap();
        assert_eq!(settings.kind(), Kind::Database);
        assert_eq!(settings.store().text("database"), Some("d"), "{values}");
        assert_eq!(
            secret(&settings, "password").as_deref(),
            Some("canary-password"),
            "{values}"
        );
    }
    let documented = read(
        "externalDatabase: {host: h, user: u, database: d, existingSecret: airbyte-config-secrets}",
    );
    assert_eq!(
        secret(&documented.unwrap(), "password").as_deref(),
        Some("canary-default-password")
    );
    for (both, expected) in [
        (
            "externalDatabase: {host: h, password: canary, existingSecret: s}",
            "exclude each other",
        ),
        (
            "externalDatabase: {jdbcUrl: 'jdbc:postgresql://u:canary@h/d', password: canary}",
            "exclude each other",
        ),
        (
            "externalDatabase: {jdbcUrl: 'jdbc:postgresql://u:canary@h/d', existingSecret: s}",
            "exclude each other",
        ),
        (
            "externalDatabase: {host: h, password: canary, existingSecretPasswordKey: s}",
            "exclude each other",
        ),
        (
            "{externalDatabase: {host: h}, global: {database: {host: canary}}}",
            "different databases",
        ),
        (
            "externalDatabase: {host: h, existingSecret: a, secretName: b}",
            "different Secrets",
        ),
    ] {
        refused(read(both), expected);
    }
}

#[test]
fn what_stands_around_the_store_has_a_place_of_its_own() {
    let settings = read(
        "global: {database: {host: h}, secretPersistence: {cache: true, cacheTtlSeconds: 60, limitShare: 0.25, owner: prod}}",
    )
    .unwrap();
    let of = |name| settings.common().text(name);
    assert_eq!(
        (of("cache"), of("cache-ttl-seconds"), of("limit-share")),
        (Some("true"), Some("60"), Some("0.25"))
    );
    assert_eq!(settings.owner().unwrap().unwrap().as_str(), "prod");
}

#[test]
fn the_environment_adds_only_what_is_ours_alone() {
    let environment = Environment::from_iter([
        ("SECRETS_OWNER", "here"),
        ("SECRETS_KEYRING_FILE", "/etc/ring"),
        ("DATABASE_PASSWORD", "canary"),
        ("DATABASE_URL", "postgres://u:canary@elsewhere/d"),
    ]);
    let settings = Settings::from_helm(
        "externalDatabase: {host: h, user: u, database: d}",
        &KubernetesSecrets::none(),
        &environment,
    )
    .unwrap();
    let names: Vec<_> = settings.store().names().collect();
    assert_eq!(names, ["database", "host", "keyring-file", "user"]);
    assert_eq!(settings.common().text("owner"), Some("here"));
}

/// Host, port, database, user and password of the database that values mean.
fn database(values: &str) -> Result<String> {
    let settings = read(values)?;
    assert_eq!(settings.kind(), Kind::Database, "{values}");
    let of = |name: &str| secret(&settings, name).unwrap_or_default();
    let place = ["url", "host", "port", "database"].map(of);
    let place: Vec<String> = place.into_iter().filter(|part| !part.is_empty()).collect();
    Ok(format!(
        "{} {} {}",
        place.join(":"),
        of("user"),
        of("password")
    ))
}

#[test]
fn the_database_is_the_one_that_the_chart_would_use() {
    const BUNDLED: &str = "airbyte-db-svc:5432:db-airbyte airbyte airbyte";
    for (values, expected) in [
        // The chart's own, in each way to select it.
        ("postgresql: {enabled: true}", BUNDLED),
        ("global: {database: {type: internal, host: ''}}", BUNDLED),
        (
            "externalDatabase: {host: localhost, user: airbyte, database: db-airbyte, port: 5432}",
            BUNDLED,
        ),
        (
            "{postgresql: {enabled: true}, global: {database: {host: example.com, port: '5432'}}, \
             externalDatabase: {host: localhost}}",
            BUNDLED,
        ),
        (
            "postgresql: {enabled: true, postgresqlUsername: u, postgresqlPassword: p, postgresqlDatabase: d}",
            "airbyte-db-svc:5432:d u p",
        ),
        // An external one.
        (
            "{postgresql: {enabled: false}, externalDatabase: {host: localhost}}",
            "localhost:db-airbyte airbyte ",
        ),
        (
            "global: {database: {type: external, host: h}}",
            "h:db-airbyte airbyte ",
        ),
        (
            "{postgresql: {enabled: false}, global: {database: {host: example.com}}, externalDatabase: {host: h, user: u}}",
            "h:db-airbyte u ",
        ),
        (
            "{global: {database: {host: h, port: '5433'}}, externalDatabase: {host: localhost, port: 5432}}",
            "h:5433:db-airbyte airbyte ",
        ),
        // Both, in agreement.
        (
            "{global: {database: {host: h, user: u}}, externalDatabase: {host: h, database: d, password: p}}",
            "h:d u p",
        ),
        // A URL with and without credentials.
        (
            "externalDatabase: {jdbcUrl: 'jdbc:postgresql://h/d', host: other, port: 1, database: x, user: u, password: p}",
            "jdbc:postgresql://h/d u p",
        ),
        (
            "externalDatabase: {jdbcUrl: 'jdbc:postgresql://h/d', existingSecret: airbyte-config-secrets}",
            "jdbc:postgresql://h/d airbyte canary-default-password",
        ),
        (
            "externalDatabase: {jdbcUrl: 'jdbc:postgresql://h/d?user=u', password: p, user: airbyte}",
            "jdbc:postgresql://h/d?user=u  p",
        ),
        (
            "{postgresql: {enabled: true}, externalDatabase: {jdbcUrl: 'jdbc:postgresql://u:p@h/d'}}",
            "jdbc:postgresql://u:p@h/d  ",
        ),
        // Secrets, with their different names.
        (
            "global: {secretName: airbyte-config-secrets, database: {host: h}}",
            "h:db-airbyte airbyte canary-default-password",
        ),
        (
            "global: {secretName: airbyte-config-secrets, database: {host: h, passwordSecretKey: database-password}}",
            "h:db-airbyte airbyte canary-password",
        ),
        (
            "global: {database: {host: h, secretName: airbyte-config-secrets, secretValue: database-password}}",
            "h:db-airbyte airbyte canary-password",
        ),
        (
            "{global: {database: {secretName: airbyte-config-secrets, secretValue: database-password, host: test}}, \
             externalDatabase: {host: h}}",
            "h:db-airbyte airbyte canary-password",
        ),
        (
            "global: {database: {secretName: airbyte-config-secrets, hostSecretKey: vault-token, portSecretKey: '', \
             databaseSecretKey: database-password, userSecretKey: vault-token}}",
            "canary-token:canary-password canary-token canary-default-password",
        ),
    ] {
        let found = database(values).unwrap_or_else(|error| panic!("{values}: {error}"));
        assert_eq!(found, expected, "{values}");
    }
    let warned = read("postgresql: {enabled: true}").unwrap();
    assert!(
        warned.warnings()[0]
            .to_string()
            .contains("postgres://localhost:5432/db-airbyte")
    );
    for (values, expected) in [
        (
            "{postgresql: {enabled: true}, externalDatabase: {host: h}}",
            "set postgresql.enabled to false",
        ),
        (
            "{postgresql: {enabled: 'x'}, externalDatabase: {host: h}}",
            "`postgresql.enabled` must be true or false",
        ),
        (
            "{postgresql: {enabled: yes}, externalDatabase: {host: h}}",
            "`postgresql.enabled` must be true or false",
        ),
        ("postgresql: {enabled: false}", "does not name a store"),
        (
            "{global: {database: {host: h, password: a}}, externalDatabase: {host: h, password: canary}}",
            "differ in `password`",
        ),
        (
            "{global: {database: {host: h, secretName: a}}, externalDatabase: {host: h, existingSecret: b}}",
            "differ in `secretName`",
        ),
        (
            "global: {database: {host: h, hostSecretKey: a, secretName: b}}",
            "`host` and `hostSecretKey` exclude",
        ),
        (
            "global: {database: {secretName: airbyte-config-secrets, hostSecretKey: canary}}",
            "names a key",
        ),
        (
            "global: {database: {host: h, secretName: other}}",
            "Secret other, which was not passed",
        ),
        (
            "externalDatabase: {jdbcUrl: 'jdbc:postgresql://h/d?user=u&password=canary', existingSecret: s}",
            "exclude each other",
        ),
        (
            "externalDatabase: {host: h, jdbcURL: 'jdbc:postgresql://u:canary@h/d'}",
            "did you mean `jdbcUrl`?",
        ),
    ] {
        refused(read(values), expected);
    }
}

#[test]
fn a_store_that_components_are_given_is_an_error_and_not_the_database() {
    let external = "externalDatabase: {host: h, user: u, password: canary}";
    for (values, place, remedy) in [
        (
            "global: {env_vars: {SECRET_PERSISTENCE: VAULT}}",
            "`global.env_vars.SECRET_PERSISTENCE`",
            "type` to VAULT",
        ),
        (
            "worker: {env_vars: {SECRET_PERSISTENCE: AWS_SECRET_MANAGER}}",
            "`worker.env_vars.",
            "AWS_SECRET_MANAGER",
        ),
        (
            "server: {extraEnv: [{name: SECRET_PERSISTENCE, value: VAULT}]}",
            "`server.extraEnv.",
            "VAULT",
        ),
        (
            "server: {extraEnv: [{name: SECRET_PERSISTENCE, valueFrom: {a: b}}]}",
            "`server.extraEnv.",
            "the kind of store",
        ),
        (
            "server: {secrets: {VAULT_AUTH_TOKEN: canary}}",
            "`server.secrets.VAULT_AUTH_TOKEN`",
            "VAULT",
        ),
        (
            "SECRET_PERSISTENCE: VAULT\nVAULT_ADDRESS: 'https://v'",
            "`SECRET_PERSISTENCE`",
            "VAULT",
        ),
        (
            "server: {env_vars: {SECRET_PERSISTENCE_TYPE: VAULT}}",
            "SECRET_PERSISTENCE_TYPE",
            "VAULT",
        ),
        (
            "airbyte-worker: {env_vars: {AB_AZURE_KEY_VAULT_VAULT_URL: u}}",
            "airbyte-worker",
            "AZURE_KEY_VAULT",
        ),
    ] {
        for values in [values.to_owned(), format!("{values}\n{external}")] {
            refused(read(&values), place);
            refused(read(&values), remedy);
        }
    }
    // If a store is named, another one for a component is a warning.
    let chosen = manager("VAULT", "vault: {address: 'https://v', authToken: t}");
    let of = |variables: &str| {
        let settings = read(&format!("{chosen}\nserver: {{env_vars: {{{variables}}}}}")).unwrap();
        let warnings = settings.warnings().iter().map(ToString::to_string);
        warnings.collect::<Vec<_>>().concat()
    };
    let same = "SECRET_PERSISTENCE: VAULT, VAULT_ADDRESS: 'https://v', AWS_ACCESS_KEY_ID: logs";
    assert_eq!(of(same), "");
    assert!(of("SECRET_PERSISTENCE: AWS_SECRET_MANAGER").contains("names another store"));
    for fine in [
        "server: {env_vars: {SECRET_PERSISTENCE: ''}}",
        "server: {env_vars: {SECRET_PERSISTENCE: TESTING_CONFIG_DB_TABLE}}",
        "server: {env_vars: {AWS_REGION: eu-west-1}, extraEnv: [{name: VAULT_PORT, value: '1'}]}",
    ] {
        database(&format!("{fine}\n{external}")).unwrap();
    }
}
