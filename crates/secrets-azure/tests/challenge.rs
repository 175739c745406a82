//! That challenge verification, on by default, lets the vault's own domain through.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use e2e::azure::{Azure, Options};
use secrets_azure::{ClientSecret, Config, Credentials};
use secrets_core::{SecretPersistenceExt, SecretValue};
use support::{open, write};

/// Names below a resource's host resolve nowhere on a machine of its own, so the address serves as the name: `127.0.0.1`
/// is below `0.0.1`, in a scheme in which that is not taken for an address itself.
const RESOURCE: &str = "vault://0.0.1";

#[tokio::test]
async fn a_challenge_for_the_vaults_own_domain_is_followed() {
    let azure = Azure::start(Options::default().with_resource(RESOURCE))
        .await
        .unwrap();
    let secret = SecretValue::new(azure.client_secret().to_owned());
    let secret = ClientSecret::new(azure.tenant_id(), azure.client_id(), secret);
    let builder = Config::builder(format!("https://{}", azure.address()))
        .with_ca_file(azure.ca_file())
        .with_authority_host(azure.authority_host())
        .with_credentials(Credentials::ClientSecret(secret));
    let store = open(builder).await;

    let write = write();
    store.write(write.clone()).await.unwrap();
    let read = store.read(&write.coordinate.into()).await.unwrap();
    assert_eq!(read.value.expose(), write.value.expose());
    assert_eq!(azure.count("Token"), 1);
}
