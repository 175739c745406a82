//! The tool moves the demo's connectors and two thousand more secrets from SQLite to Google, Azure
//! and back to SQLite. It is killed repeatedly, while the services throttle, disconnect, and list
//! incompletely.

use std::{collections::BTreeSet, time::Duration};

use e2e::{
    azure::{self, Azure},
    google::{self, Google, When},
};
use secret_persistence_core::ManagedCoordinate;
use uuid::Uuid;

use crate::installation::{FIRST, Installation, LAST};

/// Each has four secrets.
const OTHERS: usize = 500;

/// Longer than the story.
const LAG: Duration = Duration::from_secs(3600);

/// How many requests of each modifying kind a service executes without a response.
const BROKEN_OFF: u32 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_between_clouds_in_trouble() {
    let Some(mut installation) = Installation::new(OTHERS).await else {
        return;
    };
    assert!(installation.secrets() > 2_000);
    let google = Google::start(google::Options::default()).await.unwrap();
    let azure = Azure::start(azure::Options::default()).await.unwrap();
    let program = &mut installation.program;
    let key = google.service_account_json();
    program.set("SECRET_STORE_GCP_CREDENTIALS", &key);
    program.never_show(private_key(&key));
    program.set("AB_AZURE_KEY_VAULT_TENANT_ID", azure.tenant_id());
    program.set("AB_AZURE_KEY_VAULT_CLIENT_ID", azure.client_id());
    program.set_credential("AB_AZURE_KEY_VAULT_CLIENT_SECRET", azure.client_secret());
    trouble(&google, &azure);

    let (google_url, azure_url) = (google_url(&google), azure_url(&azure));
    let stations = [FIRST, &google_url, &azure_url, LAST];
    for (leg, route) in stations.windows(2).enumerate() {
        let journal = format!("journal-{leg}.db");
        let step = installation.step(route[0], route[1], &journal).fast();
        // Killed at a fixed point, then at a random time, then at a fixed point again.
        step.killed_at("copy", random(500, 3000)).await;
        let enough = requests(&google, &azure) + 400;
        step.killed_once("copy", || requests(&google, &azure) > enough)
            .await;
        step.killed_at("copy", random(500, 3000)).await;
        step.done("copy").await;
        step.killed_at("verify", random(500, 3000)).await;
        step.expect_verified().await;
    }

    // Every value is where it was, and at the end of the ring, each once. The verifies have checked
    // the steps in between.
    installation.expect_in(&installation.first).await;
    installation.expect_in(&installation.last).await;
    expect_once_in_google(&installation, &google);
    expect_once_in_azure(&installation, &azure);
    expect_trouble(&google, &azure);
}

fn google_url(google: &Google) -> String {
    let (project, endpoint) = (google.project(), google.endpoint());
    format!("gcp://{project}?endpoint-url={endpoint}")
}

fn azure_url(azure: &Azure) -> String {
    format!(
        "azure://localhost:{}?authority-host={}&ca-file={}&verify-challenge=false",
        azure.address().port(),
        azure.authority_host(),
        azure.ca_file().display(),
    )
}

/// The line of a key file that contains the key, without the common prefix of all keys.
fn private_key(file: &str) -> &str {
    let key = file.split("PRIVATE KEY-----\\n").nth(1).unwrap();
    // Line breaks are escaped in it.
    &key[64..128]
}

/// Listings do not show the changes of the story, and `latest` lags for a while. Some requests are
/// throttled, or executed without a response.
fn trouble(google: &Google, azure: &Azure) {
    google.switches(|switches| {
        switches.list_lag = LAG;
        switches.latest_lag = Duration::from_secs(2);
        switches.throttle_every = Some(9);
        for _ in 0..BROKEN_OFF {
            switches.cut("CreateSecret", When::AfterWork);
            switches.cut("AddSecretVersion", When::AfterWork);
        }
    });
    azure.switches(|switches| {
        switches.list_lag = LAG;
        switches.throttle_every = Some(9);
        switches.drop_after_work = BROKEN_OFF;
    });
}

/// Fails the test unless there was any.
fn expect_trouble(google: &Google, azure: &Azure) {
    let requests = google.requests();
    let answered = |status: u16| {
        requests
            .iter()
            .filter(move |request| request.status == status)
    };
    assert!(answered(429).count() > 500, "Google never throttled");
    let broken_off = answered(0).count();
    assert_eq!(broken_off, 2 * BROKEN_OFF as usize);
    assert!(google.count("ListSecrets") > 0, "Google never listed");

    let requests = azure.requests();
    let throttled = requests.iter().filter(|request| request.status == 429);
    assert!(throttled.count() > 500, "Azure never throttled");
    assert!(azure.count("ListSecrets") > 0, "Azure never listed");
    azure.switches(|switches| assert_eq!(switches.drop_after_work, 0));
}

/// The number of reads and writes of both services so far.
fn requests(google: &Google, azure: &Azure) -> usize {
    let methods = ["AccessSecretVersion", "AddSecretVersion", "CreateSecret"];
    let google = methods.iter().map(|method| google.count(method));
    let operations = ["GetSecret", "SetSecret"];
    let azure = operations.iter().map(|operation| azure.count(operation));
    google.chain(azure).sum()
}

/// Fails the test unless the service contains exactly these names, each with a single version.
fn expect_once_in_google(installation: &Installation, google: &Google) {
    let held = google.secrets();
    let ids: BTreeSet<_> = held
        .iter()
        .map(|name| name.rsplit('/').next().unwrap())
        .collect();
    let expected: BTreeSet<_> = installation
        .secrets
        .keys()
        .map(ManagedCoordinate::as_str)
        .collect();
    assert_eq!(ids, expected);
    assert_eq!(held.len(), expected.len());
    for name in held {
        let versions = google.versions(&name);
        assert_eq!(versions, [(1, "ENABLED".to_owned())], "{name}");
    }
}

/// Fails the test unless exactly these names were set, each once: a vault adds a version when a
/// name is set again.
fn expect_once_in_azure(installation: &Installation, azure: &Azure) {
    let mut set: Vec<_> = azure
        .requests()
        .into_iter()
        .filter(|request| request.operation == "SetSecret" && request.status.is_success())
        .map(|request| request.name.unwrap())
        .collect();
    set.sort();
    let mut expected: Vec<_> = installation
        .secrets
        .keys()
        .map(|name| name.as_str().replace('_', "-"))
        .collect();
    expected.sort();
    assert_eq!(set, expected);
    assert_eq!(azure.count("DeleteSecret"), 0);
}

/// A random number in a range, different in each run. Failures print it.
fn random(from: u64, to: u64) -> u64 {
    let [low, ..] = Uuid::new_v4().into_bytes();
    from + (to - from) * u64::from(low) / 256
}
