//! What is fuzzed: everything that reads text of others. Each function panics if a promise is broken.

use std::collections::HashMap;
use std::fmt::Debug;

use secret_persistence::connector::{
    ConnectorSpec, Pointer, Policy, Record, References, RefreshRecord, SecretJson, SplitPlan,
    hydrate_with, plan_create, plan_update, pointers, saved_pointers_needed,
};
use secret_persistence::database::KeyRing;
use secret_persistence::{
    Coordinate, Environment, KubernetesSecrets, Scope, SecretValue, Settings, StoreUrl,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

/// A target and its name. Its seeds are the files of `fuzz/seeds/<name>`.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("configuration", configuration),
    ("key_ring", key_ring),
    ("names", names),
    ("record", record),
    ("settings", settings),
    ("store_url", store_url),
];

/// A specification, a configuration and, if there is a third line, the configuration after an edit:
/// what is split hydrates to the same, a mask of a mask is the mask, and an edit that is accepted
/// needs only values that exist and hydrates.
pub fn configuration(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let mut lines = text.splitn(3, '\n').map(serde_json::from_str::<Value>);
    let (Some(Ok(specification)), Some(Ok(configuration))) = (lines.next(), lines.next()) else {
        return;
    };
    let Ok(spec) = ConnectorSpec::compile(&specification) else {
        return;
    };
    if let Ok(masked) = spec.mask(configuration.clone()) {
        let again = spec.mask(masked.clone()).expect("it was masked before");
        assert_eq!(again, masked, "a mask of a mask");
    }
    let (scope, policy) = (Scope::workspace(Uuid::from_u128(7)), Policy::default());
    let Ok(plan) = plan_create(&spec, &scope, &policy, configuration.clone()) else {
        return;
    };
    let saved = plan.config.clone();
    let mut values = stored(&plan);
    let full = full(plan.config, &values);
    if !configuration.is_null() {
        assert_eq!(*full, configuration, "split and hydrated");
    }
    let Some(Ok(edited)) = lines.next() else {
        return;
    };
    let Ok(needed) = saved_pointers_needed(&spec, &policy, &saved, &edited) else {
        return;
    };
    for (place, pointer) in &needed {
        assert!(values.contains_key(pointer), "{place} needs another's");
    }
    let none = References::default();
    let update = plan_update(&spec, &scope, &policy, &saved, &values, &none, edited)
        .expect("it was accepted before its values were read");
    values.extend(stored(&update));
    self::full(update.config, &values);
}

/// What a plan writes, by its pointers.
fn stored(plan: &SplitPlan) -> HashMap<Pointer, SecretValue> {
    let written: HashMap<&str, &SecretValue> = plan
        .writes
        .iter()
        .map(|write| (write.coordinate.as_str(), &write.value))
        .collect();
    pointers(&plan.config)
        .expect("they were just made")
        .into_iter()
        .filter_map(|(_, pointer)| {
            let value = *written.get(pointer.coordinate.as_ref()?.as_str())?;
            Some((pointer, value.clone()))
        })
        .collect()
}

fn full(config: Value, values: &HashMap<Pointer, SecretValue>) -> SecretJson {
    hydrate_with(config, |pointer| values.get(pointer).cloned()).expect("every pointer is ours")
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

/// A record of the outbox, or of a refresh, is written as it was read.
pub fn record(data: &[u8]) {
    read_and_written::<Record>(data);
    read_and_written::<RefreshRecord>(data);
}

fn read_and_written<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    let Ok(record) = serde_json::from_slice::<T>(data) else {
        return;
    };
    let text = serde_json::to_string(&record).expect("a record is JSON");
    assert_eq!(
        serde_json::from_str::<T>(&text).expect("our own text"),
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

/// A URL is understood or refused, and what is shown of it is the same URL again, without a place
/// for a credential.
pub fn store_url(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(url) = StoreUrl::parse(text) {
        let shown = url.to_string();
        assert!(!shown.contains(['@', '?']), "{shown}");
        let again = StoreUrl::parse(&shown).expect("our own text");
        let parts = |url: &StoreUrl| {
            let host = url.host().map(str::to_owned);
            (host, url.port(), url.path().to_owned(), url.to_string())
        };
        assert_eq!(parts(&again), parts(&url));
    }
    let _ = Settings::from_url(text, &Environment::empty());
}

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}
