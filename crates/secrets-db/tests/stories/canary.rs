//! Nothing secret appears in errors, `Debug` or logs, at any level and of any library.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use secret_persistence_core::settings::StoreUrl;
use secret_persistence_core::{
    Coordinate, DeleteOptions, SecretPersistence, SecretPersistenceExt, Write,
};
use secret_persistence_db::{Database, EncryptOptions, KeyRing, Mode, RotateOptions};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::support::{LEGACY, Place, managed, ring, secret};

/// Two lines, each searched for, with characters that escapes change.
const CANARY: &str = "cänary \"one\" /+?&\nsecond canary line \\ %";

/// Collects all logs as text.
#[derive(Clone, Default)]
struct Everything(Arc<Mutex<String>>);

impl Everything {
    fn say(&self, text: &str) {
        self.0.lock().unwrap().push_str(text);
    }
}

struct Fields<'a>(&'a Everything);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.say(&format!("{}={value:?} ", field.name()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.say(&format!("{}={value} ", field.name()));
    }
}

impl Subscriber for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        attributes.record(&mut Fields(self));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Fields(self));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.say(&format!(
            "\n{} {} ",
            event.metadata().level(),
            event.metadata().target()
        ));
        event.record(&mut Fields(self));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Every encoding of a text.
fn spellings(text: &str) -> Vec<String> {
    let mut spellings = Vec::new();
    let lines = text.lines().chain([text]);
    for line in lines.filter(|line| !line.is_empty()) {
        spellings.push(line.to_owned());
        spellings.push(format!("{line:?}").trim_matches('"').to_owned());
        let json = serde_json::to_string(line).unwrap();
        spellings.push(json.trim_matches('"').to_owned());
        spellings.push(url::form_urlencoded::byte_serialize(line.as_bytes()).collect());
        let percent =
            percent_encoding::utf8_percent_encode(line, percent_encoding::NON_ALPHANUMERIC);
        spellings.push(percent.to_string());
        let hex = line.bytes().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        spellings.push(hex);
        spellings.push(
            format!("{:?}", line.as_bytes())
                .trim_matches(['[', ']'])
                .to_owned(),
        );
        // Base64 of the text at each offset, without the characters that depend on its neighbours.
        for before in 0..3_usize {
            let shifted = [vec![0; before], line.as_bytes().to_vec()].concat();
            for engine in [
                base64::engine::general_purpose::STANDARD_NO_PAD,
                base64::engine::general_purpose::URL_SAFE_NO_PAD,
            ] {
                let encoded = engine.encode(&shifted);
                let from = [0, 2, 3][before];
                let to = encoded.len() - usize::from(!shifted.len().is_multiple_of(3));
                spellings.push(encoded[from..to].to_owned());
            }
        }
    }
    spellings.retain(|spelling| spelling.len() >= 8);
    spellings
}

/// The search detects leaks.
#[test]
fn spellings_are_found_again() {
    let found = |haystack: &str| {
        spellings(CANARY)
            .iter()
            .any(|spelling| haystack.contains(spelling))
    };
    for haystack in [
        format!("x {CANARY} y"),
        format!("{CANARY:?}"),
        serde_json::to_string(CANARY).unwrap(),
        base64::engine::general_purpose::STANDARD.encode(format!("user:{CANARY}:x")),
        "second canary line".to_owned() + " \\ %",
        format!("{:?}", CANARY.as_bytes()),
    ] {
        assert!(found(&haystack), "{haystack}");
    }
    assert!(!found("cinary and nothing else"));
}

/// Uses the store in every way, with success and failure, and collects errors and `Debug`.
async fn use_it(place: &Place, heard: &Everything, ring: &KeyRing) {
    let show = |error: secret_persistence_core::Error| {
        heard.say(&format!("\n{error} {error:?} "));
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            heard.say(&format!("{cause} {cause:?} "));
            source = cause.source();
        }
    };
    let raw = place.raw().await;
    raw.run(LEGACY).await.unwrap();
    raw.insert(managed(1).as_str(), CANARY).await;
    let config = place.config().build().unwrap();
    heard.say(&format!(
        "{config} {config:?} {ring:?} {:?}",
        place.config()
    ));
    let plain = Database::connect(config.clone()).await.unwrap();
    let value = || Write::new(managed(2), secret(CANARY));
    plain.write(value()).await.unwrap();
    plain.write(value()).await.unwrap();
    show(
        plain
            .write(Write::new(managed(2), secret(&CANARY.repeat(2))))
            .await
            .unwrap_err(),
    );
    show(
        plain
            .write(Write::new(managed(3), secret(&CANARY.repeat(100_000))))
            .await
            .unwrap_err(),
    );
    plain.read(&managed(1).into()).await.unwrap();
    show(plain.read(&managed(9).into()).await.unwrap_err());
    // A read and a write that are dropped midway.
    for _ in 0..5 {
        let write = plain.write(Write::new(managed(4), secret(CANARY)));
        let _ = tokio::time::timeout(std::time::Duration::from_micros(300), write).await;
    }
    // The table is removed while the store is open.
    raw.run("ALTER TABLE secrets RENAME TO gone").await.unwrap();
    show(
        plain
            .write(Write::new(managed(5), secret(CANARY)))
            .await
            .unwrap_err(),
    );
    show(plain.read(&managed(1).into()).await.unwrap_err());
    raw.run("ALTER TABLE gone RENAME TO secrets").await.unwrap();
    plain.close().await;
    show(plain.read(&managed(1).into()).await.unwrap_err());

    Database::prepare(&config).await.unwrap();
    let store = place.open(Mode::Encrypted, Some(ring)).await.unwrap();
    heard.say(&format!("{store} {store:?}"));
    show(store.read(&managed(1).into()).await.unwrap_err());
    let options = EncryptOptions::default().with_nothing_else_reads(true);
    heard.say(&format!(
        "{:?}",
        store.encrypt(&options, &|_| {}).await.unwrap()
    ));
    let rotate = RotateOptions::default().with_reencrypt(true);
    heard.say(&format!(
        "{:?}",
        store.rotate(&rotate, &|_| {}).await.unwrap()
    ));
    let read = store.read(&managed(1).into()).await.unwrap();
    assert_eq!(read.value, secret(CANARY));
    heard.say(&format!("{read:?}"));
    raw.run("UPDATE secrets SET expires = 7").await.unwrap();
    show(store.read(&managed(1).into()).await.unwrap_err());
    heard.say(&format!(
        "{:?}",
        store.rotate(&rotate, &|_| {}).await.unwrap()
    ));
    let names: Vec<Coordinate> = vec![managed(1).into(), managed(2).into()];
    heard.say(&format!("{:?}", store.read_batch(&names).await));
    store
        .delete(&managed(1), &DeleteOptions::default())
        .await
        .unwrap();
    show(
        place
            .open(Mode::Encrypted, Some(&crate::support::ring()))
            .await
            .unwrap_err(),
    );
    show(place.open(Mode::Plain, None).await.unwrap_err());
    show(place.config().set("keyring", CANARY).build().unwrap_err());
    show(place.config().set("url", CANARY).build().unwrap_err());
    show(StoreUrl::parse(CANARY).unwrap_err());
    store.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn nothing_secret_shows() {
    let heard = Everything::default();
    // This test runs on this thread, except for SQLite's threads, which inherit the subscriber.
    let _guard = tracing::subscriber::set_default(heard.clone());
    let ring = ring();
    let mut secrets = vec![CANARY.to_owned()];
    let text = ring.to_text();
    let key = text
        .expose()
        .lines()
        .last()
        .unwrap()
        .trim_start_matches("k1=")
        .to_owned();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(&key)
        .unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    secrets.extend([
        key,
        hex,
        format!("{bytes:?}").trim_matches(['[', ']']).to_owned(),
    ]);
    for place in Place::all("nothing_secret_shows").await {
        #[cfg(feature = "postgres")]
        if let Place::Postgres(home) = &place {
            secrets.push(home.address().1.remove(1).1);
        }
        use_it(&place, &heard, &ring).await;
    }
    heard.say(&crate::ledger::everything_shown(CANARY, &ring).await);
    let heard = heard.0.lock().unwrap();
    // The subscriber was active: it received our warning for each place that was opened as plain
    // text.
    let warnings = heard.matches("secrets are stored in plain text").count();
    assert!(warnings >= 1, "{heard}");
    for text in secrets {
        for spelling in spellings(&text) {
            assert!(!heard.contains(&spelling), "{spelling} in {heard}");
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn plain_text_is_said_once_at_open_and_encrypted_is_not() {
    for place in Place::all("plain_text_is_said_once_at_open").await {
        for (mode, ring, times) in [(Mode::Plain, None, 1), (Mode::Encrypted, Some(ring()), 0)] {
            let heard = Everything::default();
            let _guard = tracing::subscriber::set_default(heard.clone());
            let store = place.open(mode, ring.as_ref()).await.unwrap();
            store.read(&managed(1).into()).await.unwrap_err();
            let said = heard.0.lock().unwrap().matches("plain text").count();
            assert_eq!(said, times, "{mode}");
            store.close().await;
        }
    }
}
