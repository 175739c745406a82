//! The tables of `docs/scale.md` are computed from the quotas and limits of the code, and from the
//! prices that the page gives with their sources. `UPDATE_EXPECTED=1` updates them.

// Clippy recognises only functions with the test attribute as tests, which helpers lack.
#![allow(clippy::unwrap_used)]
#![cfg(all(
    feature = "aws",
    feature = "azure",
    feature = "gcp",
    feature = "postgres",
    feature = "sqlite",
    feature = "vault"
))]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use secret_persistence::aws::AwsSecretsManager;
use secret_persistence::azure::AzureKeyVault;
use secret_persistence::database::{Config, Database, KeyRingFile, SETTINGS};
use secret_persistence::google::GoogleSecretManager;
use secret_persistence::layer::LimitOptions;
use secret_persistence::{
    Capabilities, Environment, ManagedCoordinate, Scope, SecretPersistenceExt as _, SecretValue,
    Settings, Write, connect,
};
use uuid::Uuid;

/// As many secrets as the page is about.
const SECRETS: f64 = 50_000_000.0;

/// A store with documented quotas. Prices are in USD.
struct Store {
    name: &'static str,
    capabilities: Capabilities,
    quotas: LimitOptions,
    page: usize,
    /// A month, per secret.
    kept: f64,
    /// Per 10,000 requests that create, and that read.
    created: f64,
    read: f64,
}

impl Store {
    fn creates(&self) -> f64 {
        self.quotas.write.per_second / f64::from(self.capabilities.least.write)
    }

    fn deletes(&self) -> f64 {
        self.quotas.write.per_second / f64::from(self.capabilities.least.delete)
    }

    /// Reads of one secret each.
    fn singles(&self) -> f64 {
        self.quotas.read.per_second / f64::from(self.capabilities.least.read)
    }

    /// Secrets in full batches, as a migration reads them.
    fn batched(&self) -> f64 {
        let batch = self.capabilities.read_batch;
        match batch {
            1 => self.singles(),
            _ => self.singles() / f64::from(self.quotas.batch_weight) * whole(batch),
        }
    }

    fn pages(&self) -> f64 {
        SECRETS / whole(self.page)
    }
}

fn whole(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap())
}

async fn capabilities(url: &str) -> Capabilities {
    let url = format!("{url}?metrics=false&retry=false&limit=false");
    let settings = Settings::from_url(&url, &Environment::empty()).unwrap();
    connect(settings).await.unwrap().capabilities()
}

async fn stores() -> [Store; 3] {
    [
        Store {
            name: "AWS Secrets Manager",
            capabilities: capabilities("aws://eu-west-1").await,
            quotas: AwsSecretsManager::quotas(),
            page: constant("secrets-aws/src/persistence.rs", "MAX_PAGE"),
            kept: 0.40,
            created: 0.05,
            read: 0.05,
        },
        Store {
            name: "Google Secret Manager",
            capabilities: capabilities("gcp://project").await,
            quotas: GoogleSecretManager::quotas(),
            page: constant("secrets-gcp/src/persistence.rs", "MAX_PAGE"),
            kept: 0.06,
            created: 0.0,
            read: 0.03,
        },
        Store {
            name: "Azure Key Vault",
            capabilities: capabilities("azure://v.vault.azure.net").await,
            quotas: AzureKeyVault::quotas(),
            page: constant("secrets-azure/src/client.rs", "MAX_PAGE"),
            kept: 0.0,
            created: 0.03,
            read: 0.03,
        },
    ]
}

/// A limit that is not public.
fn constant(file: &str, name: &str) -> usize {
    let text = fs::read_to_string(root().join("crates").join(file)).unwrap();
    let (_, rest) = text
        .split_once(&format!("const {name}: usize = "))
        .unwrap_or_else(|| panic!("{file} has no {name}"));
    let digits = rest.split(';').next().unwrap().replace('_', "");
    match digits.split_once(" << ") {
        Some((number, by)) => number.parse::<usize>().unwrap() << by.parse::<u32>().unwrap(),
        None => digits.parse().unwrap(),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A number with separators, and with decimals only if it is small.
fn number(value: f64) -> String {
    let decimals = usize::from(value < 100.0 && (value - value.round()).abs() > 0.001);
    let text = format!("{value:.decimals$}");
    let (integer, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (at, digit) in integer.chars().enumerate() {
        if at > 0 && (integer.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match fraction {
        "" => grouped,
        fraction => format!("{grouped}.{fraction}"),
    }
}

fn days(per_second: f64) -> String {
    format!("{} days", number(SECRETS / per_second / 86_400.0))
}

fn hours(per_second: f64) -> String {
    format!("{} h", number(SECRETS / per_second / 3_600.0))
}

fn table(name: &str, stores: &[Store]) -> String {
    let mut text = String::new();
    match name {
        "rates" => {
            text += "| store | created | read one by one | read in batches | deleted | listings | names in a listing | largest value |\n|---|---|---|---|---|---|---|---|\n";
            for store in stores {
                writeln!(
                    text,
                    "| {} | {} | {} | {} | {} | {} | {} | {} bytes |",
                    store.name,
                    number(store.creates()),
                    number(store.singles()),
                    number(store.batched()),
                    number(store.deletes()),
                    number(store.quotas.list.per_second),
                    number(whole(store.page)),
                    number(whole(store.capabilities.max_value_bytes)),
                )
                .unwrap();
            }
        }
        "time" => {
            text += "| store | create all | read all once, in batches | delete all | list all | each read once an hour needs |\n|---|---|---|---|---|---|\n";
            for store in stores {
                writeln!(
                    text,
                    "| {} | {} | {} | {} | {} requests, {} | {} times the quota |",
                    store.name,
                    days(store.creates()),
                    hours(store.batched()),
                    days(store.deletes()),
                    number(store.pages()),
                    hours(store.quotas.list.per_second * whole(store.page)),
                    number(SECRETS / 3_600.0 / store.singles()),
                )
                .unwrap();
            }
        }
        "money" => {
            text += "| store | kept, a month | created | read once, in batches | each read once an hour, a month |\n|---|---|---|---|---|\n";
            for store in stores {
                let per = |requests: f64, price: f64| number(requests / 10_000.0 * price);
                let least = store.capabilities.least;
                writeln!(
                    text,
                    "| {} | {} | {} | {} | {} |",
                    store.name,
                    number(SECRETS * store.kept),
                    per(SECRETS * f64::from(least.write), store.created),
                    per(SECRETS / whole(store.capabilities.read_batch), store.read),
                    per(SECRETS * 730.0, store.read),
                )
                .unwrap();
            }
        }
        "folder" => {
            let answer = constant("secrets-vault/src/client.rs", "MAX_ANSWER_BYTES");
            text += "| bytes of an answer | bytes of a name in it | names |\n|---|---|---|\n";
            // Quoted, with a comma.
            let name = NAME.len() + 3;
            writeln!(
                text,
                "| {} | {name} | {} |",
                number(whole(answer)),
                number(whole(answer / name))
            )
            .unwrap();
        }
        _ => panic!("docs/scale.md has a table {name}, which is not made"),
    }
    text
}

/// A name of the usual form.
const NAME: &str = "airbyte_workspace_00000000-0000-0000-0000-000000000007_secret_00000000-0000-0000-0000-000000000008_v1";

const BEGIN: &str = "<!-- table: ";
const END: &str = "<!-- end -->";

#[tokio::test]
async fn the_tables_are_computed_from_the_code() {
    let path = root().join("docs/scale.md");
    let page = fs::read_to_string(&path).unwrap();
    let stores = stores().await;
    let (mut rendered, mut rest, mut tables) = (String::new(), page.as_str(), 0);
    while let Some(at) = rest.find(BEGIN) {
        let line = at + rest[at..].find('\n').unwrap() + 1;
        let name = rest[at + BEGIN.len()..line].trim_end_matches(" -->\n");
        let end = rest.find(END).unwrap();
        rendered += &rest[..line];
        rendered += &table(name, &stores);
        rendered += END;
        rest = &rest[end + END.len()..];
        tables += 1;
    }
    rendered += rest;
    assert_eq!(tables, 4);
    if rendered == page {
        return;
    }
    assert!(
        std::env::var_os("UPDATE_EXPECTED").is_some(),
        "docs/scale.md is not what the code says; set UPDATE_EXPECTED=1\n{rendered}"
    );
    fs::write(&path, rendered).unwrap();
}

/// The prices that the tables are computed with.
#[tokio::test]
async fn the_prices_are_those_of_the_page() {
    let page = fs::read_to_string(root().join("docs/scale.md")).unwrap();
    let [aws, google, azure] = stores().await;
    for (price, what) in [
        (aws.kept, "USD per secret and month"),
        (aws.read, "USD per 10,000 calls"),
        (google.kept, "USD per active version, location and month"),
        (google.read, "USD per 10,000 accesses"),
        (azure.read, "USD per 10,000 operations"),
    ] {
        assert!(
            page.contains(&format!("{price:.2} {what}")),
            "{price} {what}"
        );
    }
}

/// Bytes of the file per secret, as the page measured them.
async fn bytes_per_secret(mode: &str) -> f64 {
    const SECRETS: usize = 4_000;
    let folder = tempfile::tempdir().unwrap();
    let (path, ring) = (folder.path().join("s.db"), folder.path().join("ring"));
    KeyRingFile::create(&ring, "k1".parse().unwrap()).unwrap();
    let mut pairs = vec![("path", path.to_str().unwrap()), ("mode", mode)];
    if mode == "encrypted" {
        pairs.push(("keyring-file", ring.to_str().unwrap()));
    }
    let config = Config::from_settings(&SETTINGS.from_pairs(pairs).unwrap()).unwrap();
    let config = config.with_owner(secret_persistence::Owner::parse("production").unwrap());
    let store = Database::connect(config).await.unwrap();
    let scope = Scope::workspace(Uuid::new_v4());
    let writes: Vec<Write> = (0..SECRETS)
        .map(|_| {
            let coordinate = ManagedCoordinate::new(&scope, Uuid::new_v4(), 1).unwrap();
            Write::new(coordinate, SecretValue::new("x".repeat(64)))
        })
        .collect();
    for written in store.write_many(&writes).await {
        written.unwrap();
    }
    store.close().await;
    fs::metadata(path).unwrap().len() as f64 / whole(SECRETS)
}

#[tokio::test]
async fn a_row_takes_what_the_page_says() {
    let page = fs::read_to_string(root().join("docs/scale.md")).unwrap();
    for mode in ["plain", "encrypted"] {
        let row = page
            .lines()
            .find_map(|line| line.strip_prefix(&format!("| {mode} store, SQLite | ")))
            .unwrap();
        let told: f64 = row.split(' ').next().unwrap().parse().unwrap();
        let measured = bytes_per_secret(mode).await;
        assert!(
            (measured / told - 1.0).abs() < 0.25,
            "{mode}: {measured} instead of {told}"
        );
        let all = format!("{:.1} GB", told * SECRETS / 1e9);
        assert!(row.ends_with(&format!("| {all} |")), "{mode}: {all}");
    }
}
