//! What is fuzzed: everything that reads text of others. Each function panics if a promise is broken.

use std::collections::BTreeMap;

use secret_persistence::connector::{ConnectorSpec, Policy, Record, hydrate_with, plan_create};
use secret_persistence::database::KeyRing;
use secret_persistence::{
    Coordinate, Environment, KubernetesSecrets, Scope, SecretValue, Settings, StoreUrl,
};
use serde_json::Value;
use uuid::Uuid;

/// A target, its name, and inputs from which mutations begin.
pub type Target = (&'static str, fn(&[u8]), &'static [&'static str]);

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("configuration", configuration, CONFIGURATIONS),
    ("key_ring", key_ring, KEY_RINGS),
    ("names", names, NAMES),
    ("record", record, RECORDS),
    ("settings", settings, SETTINGS),
    ("store_url", store_url, STORE_URLS),
];

const CONFIGURATIONS: &[&str] = &[
    r#"{"properties":{"host":{"type":"string"},"p":{"airbyte_secret":true}}}
{"host":"db","p":"hunter2"}"#,
    r##"{"oneOf":[{"$ref":"#/$defs/a"},{"properties":{"m":{"const":"none"}}}],"$defs":{"a":{"properties":{"k":{"type":"integer","airbyte_secret":"true"}}}}}
{"m":"none","k":12}"##,
    r#"{"type":"array","items":{"additionalProperties":{"airbyte_secret":1}}}
[{"a":[1,{"b":null}],"c":""},{"c":{"_secret":"airbyte_x_v1"}}]"#,
    r#"{"patternProperties":{"^p.*w$":{"airbyte_secret":true}},"allOf":[{"if":{"not":{}},"then":{"properties":{"x":{"airbyte_secret":true}}}}]}
{"password":"**********","paw":1.50,"x":[]}"#,
];

const KEY_RINGS: &[&str] = &[
    "active=k1\nk1=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
    "# two keys\nactive=2026-11;k1=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=;2026-11=AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
];

const NAMES: &[&str] = &[
    "airbyte_workspace_00000000-0000-0000-0000-000000000007_secret_00000000-0000-0000-0000-000000000008_v1",
    "team/database-password",
    "arn:aws:secretsmanager:eu-west-1:123456789012:secret:airbyte_x_v1-AbCdEf",
    "projects/p/secrets/airbyte_x_v1/versions/latest",
];

const RECORDS: &[&str] = &[
    r#"{"format":"1","planned":"2026-11-21T06:47:53Z","writes":[{"coordinate":"airbyte_w_v1"}],"supersedes":[{"coordinate":"airbyte_w_v2","storage_id":"team-a"}]}"#,
];

const SETTINGS: &[&str] = &[
    "global:\n  secretsManager:\n    type: VAULT\n    vault: {address: 'https://v.example:8200', prefix: secret/, authToken: t}\n",
    "global:\n  secretsManager:\n    type: AWS_SECRET_MANAGER\n    awsSecretManager: {region: eu-west-1, authenticationType: instanceProfile, tags: [{key: a, value: b}]}\n",
    "global: &g\n  database: {type: external, host: h, port: 5432, database: d, user: u, password: p}\nother: *g\n",
    r#"{"address":"https://v.example","auth":{"token":"t"},"prefix":"secret/"}"#,
];

const STORE_URLS: &[&str] = &[
    "sqlite:///var/lib/secrets.db?mode=encrypted&table=secrets",
    "postgres://db.example:5432/airbyte?mode=plain&sslmode=verify-full",
    "aws://eu-west-1?tag-key=AirbyteManaged&kms-key-arn=alias%2Fairbyte",
    "vault://[::1]:8200/secret/airbyte/?auth-method=approle",
    "gcp://project/europe-west3",
    "azure://v.vault.azure.net?mirror=aws%3A%2F%2Feu-west-1",
];

/// A specification and, on the next line, a configuration: what is split hydrates to the same, and a
/// mask of a mask is the mask.
pub fn configuration(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Some((specification, configuration)) = text.split_once('\n') else {
        return;
    };
    let (Ok(specification), Ok(configuration)) = (
        serde_json::from_str::<Value>(specification),
        serde_json::from_str::<Value>(configuration),
    ) else {
        return;
    };
    let Ok(spec) = ConnectorSpec::compile(&specification) else {
        return;
    };
    if let Ok(masked) = spec.mask(configuration.clone()) {
        let again = spec.mask(masked.clone()).expect("it was masked before");
        assert_eq!(again, masked, "a mask of a mask");
    }
    let scope = Scope::workspace(Uuid::from_u128(7));
    let Ok(plan) = plan_create(&spec, &scope, &Policy::default(), configuration.clone()) else {
        return;
    };
    let values: BTreeMap<String, SecretValue> = plan
        .writes
        .iter()
        .map(|write| (write.coordinate.to_string(), write.value.clone()))
        .collect();
    let full = hydrate_with(plan.config, |pointer| {
        let name = pointer.coordinate.as_ref()?.to_string();
        values.get(&name).cloned()
    })
    .expect("every pointer is ours");
    if !configuration.is_null() {
        assert_eq!(*full, configuration, "split and hydrated");
    }
}

/// A ring that can be read is written and read again with the same keys.
pub fn key_ring(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(ring) = KeyRing::parse(&SecretValue::new(text.to_owned())) else {
        return;
    };
    let again = KeyRing::parse(&ring.to_text()).expect("our own text");
    assert!(ring.ids().eq(again.ids()) && ring.active() == again.active());
}

/// A name is kept to the byte.
pub fn names(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(coordinate) = Coordinate::parse(text) {
        assert_eq!(coordinate.as_str(), text);
    }
}

/// A record of the outbox is written as it was read.
pub fn record(data: &[u8]) {
    let Ok(record) = serde_json::from_slice::<Record>(data) else {
        return;
    };
    let text = serde_json::to_string(&record).expect("a record is JSON");
    assert_eq!(
        serde_json::from_str::<Record>(&text).expect("our own text"),
        record
    );
}

/// Files of operators are understood or refused.
pub fn settings(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let environment = Environment::empty();
    let _ = Settings::from_helm(text, &KubernetesSecrets::none(), &environment);
    let _ = Settings::from_json(text, &environment);
}

/// A URL is understood or refused, and what is shown of it is a URL again.
pub fn store_url(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(url) = StoreUrl::parse(text) {
        StoreUrl::parse(&url.to_string()).expect("our own text");
    }
    let _ = Settings::from_url(text, &Environment::empty());
}

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}
