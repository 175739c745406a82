//! A backend of the caller, opened by the scheme of its URL.

// Clippy recognises only functions with the test attribute as tests, which helpers lack.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use secret_persistence::{
    Coordinate, CustomBackend, Environment, ErrorKind, KeyTable, Kind, ManagedCoordinate, Memory,
    SecretPersistence, SecretPersistenceExt, SecretValue, Setting, Settings, Write, connect,
    key_table, stores,
};

const TABLE: KeyTable = KeyTable::new(
    &["acme", "acme+test"],
    &[
        Setting::new("region", "the region; the host of the URL"),
        Setting::new("token", "the token")
            .with_env(&["ACME_TOKEN"])
            .secret(),
    ],
    |url, settings| match url.host() {
        Some(region) => settings.set("region", region),
        None => Ok(()),
    },
);

/// What was opened: region, token and owner.
type Opened = Arc<Mutex<Vec<(String, String, Option<String>)>>>;

/// A backend with one store in each region, and what it was asked to open.
fn acme() -> (CustomBackend, Opened, [Arc<Memory>; 2]) {
    let (opened, regions) = (Opened::default(), [(); 2].map(|()| Arc::new(Memory::new())));
    let (log, [north, south]) = (Arc::clone(&opened), regions.clone());
    let backend = CustomBackend::new(TABLE, move |settings, owner| {
        let text = |name: &str| settings.secret(name).map(|value| value.expose().to_owned());
        let region = text("region").unwrap();
        let token = text("token").unwrap_or_default();
        let store = if region == "north" { &north } else { &south };
        let store: Arc<dyn SecretPersistence> = Arc::clone(store) as _;
        let owner = owner.map(|owner| owner.to_string());
        log.lock().unwrap().push((region, token, owner));
        async move { Ok(store) }
    });
    (backend.unwrap(), opened, regions)
}

fn write() -> Write {
    let coordinate = ManagedCoordinate::parse("airbyte_workspace_1_secret_2_v1").unwrap();
    Write::new(coordinate, SecretValue::new("hunter2".to_owned()))
}

fn coordinate() -> Coordinate {
    write().coordinate.into()
}

#[tokio::test]
async fn a_registered_scheme_opens_with_the_layers_of_its_settings() {
    let (backend, opened, [north, _]) = acme();
    let environment = Environment::from_iter([("ACME_TOKEN", "canary"), ("SECRETS_OWNER", "prod")])
        .with_backend(backend);
    let settings = Settings::from_url("acme+test://north?cache=true", &environment).unwrap();
    assert_eq!(settings.kind(), Kind::Custom("acme"));
    assert_eq!(settings.store().text("region"), Some("north"));
    assert!(!format!("{settings:?} {environment:?}").contains("canary"));
    settings.check().unwrap();
    assert!(opened.lock().unwrap().is_empty(), "a check opens nothing");

    let store = connect(settings.clone()).await.unwrap();
    assert!(
        format!("{store:#}").starts_with("metrics(cache(retry("),
        "{store:#}"
    );
    store.write(write()).await.unwrap();
    assert_eq!(north.len(), 1);
    let expected = (
        "north".to_owned(),
        "canary".to_owned(),
        Some("prod".to_owned()),
    );
    assert_eq!(*opened.lock().unwrap(), [expected]);
    // As the default store of a service too.
    let stores = stores(settings).await.unwrap();
    let read = stores.default_store().read(&coordinate()).await.unwrap();
    assert_eq!(read.value.expose(), "hunter2");
}

#[tokio::test]
async fn it_is_one_side_of_a_mirror_or_both() {
    let (backend, opened, [north, south]) = acme();
    let environment = Environment::from_iter([
        ("ACME_TOKEN", "one"),
        ("MIRROR_ACME_TOKEN", "two"),
        ("SECRETS_MIRROR", "acme://south"),
    ])
    .with_backend(backend);
    let settings = Settings::from_url("acme://north", &environment).unwrap();
    connect(settings)
        .await
        .unwrap()
        .write(write())
        .await
        .unwrap();
    assert_eq!((north.len(), south.len()), (1, 1));
    let tokens: Vec<String> = opened
        .lock()
        .unwrap()
        .iter()
        .map(|(region, token, _)| format!("{region} {token}"))
        .collect();
    assert_eq!(tokens, ["north one", "south two"]);
}

#[test]
fn what_its_table_does_not_have_is_refused() {
    let (backend, opened, _) = acme();
    let bare = Environment::empty();
    let environment = bare.clone().with_backend(backend);
    for (url, hint) in [
        ("acme://north?regoin=south", "did you mean `region`?"),
        ("acme://north?token=canary", "set ACME_TOKEN"),
        ("acmee://north", "acme, acme+test"),
    ] {
        let error = Settings::from_url(url, &environment).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
        assert!(error.hint().unwrap().contains(hint), "{url}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{url}");
    }
    // Only where it is registered, and only in URLs.
    assert!(Settings::from_url("acme://north", &bare).is_err());
    for kind in ["acme", "ACME"] {
        let named = Environment::from_iter([("SECRET_PERSISTENCE", kind)]);
        let (backend, ..) = acme();
        assert!(Settings::from_env(&named.with_backend(backend)).is_err());
    }
    assert!(key_table(Kind::Custom("acme")).is_err());
    assert!(opened.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_latest_of_two_backends_with_one_scheme_is_used() {
    let ((first, unused, _), (second, used, _)) = (acme(), acme());
    let environment = Environment::empty()
        .with_backend(first)
        .with_backend(second);
    let settings = Settings::from_url("acme://north", &environment).unwrap();
    connect(settings).await.unwrap();
    assert_eq!(
        (unused.lock().unwrap().len(), used.lock().unwrap().len()),
        (0, 1)
    );
}

/// Otherwise a backend could take the URLs of another store, or have a setting that nothing reads.
#[test]
fn a_table_that_could_be_mistaken_is_refused() {
    const CACHE: &[Setting] = &[Setting::new("cache", "of a backend")];
    const fn table(schemes: &'static [&'static str], rows: &'static [Setting]) -> KeyTable {
        KeyTable::new(schemes, rows, |_, _| Ok(()))
    }
    for (table, message) in [
        (table(&[], &[]), "needs a scheme"),
        (table(&["acme", "Acme"], &[]), "`Acme`"),
        (table(&["c"], &[]), "`c`"),
        (table(&["1acme"], &[]), "`1acme`"),
        (table(&["acme:"], &[]), "`acme:`"),
        (table(&["acme", "vault"], &[]), "`vault`"),
        (table(&["postgresql"], &[]), "`postgresql`"),
        (table(&["acme"], CACHE), "`cache`"),
    ] {
        let refused = CustomBackend::new(table, |_, _| async { unreachable!("nothing is opened") });
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains(message), "{error}");
    }
}
