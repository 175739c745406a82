//! Runs the service on loopback: `cargo run -p service`.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use secret_persistence::connector::{ConnectorOptions, ConnectorSecrets};
use secret_persistence::{AllowedHosts, Environment, SecretValue, Settings};
use service::{Connectors, Rows, router};

/// Settings, all from the environment: `SERVICE_FOLDER` (default: the current folder) for the rows,
/// `SERVICE_ADDRESS` (default `127.0.0.1:8080`), `SERVICE_HOSTS` (the names that requests may ask for,
/// comma separated; the names of loopback are always allowed), `SERVICE_RUNNER_TOKEN` (required), and
/// the store's own as in docs/settings.md. Where neither `SERVICE_STORE` (a URL) nor `SECRET_PERSISTENCE` names a
/// store, it is a file in the folder; with `SECRETS_KEYRING_FILE` an encrypted one.
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .init();
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let folder = PathBuf::from(variable("SERVICE_FOLDER").unwrap_or_else(|| String::from(".")));
    let address = variable("SERVICE_ADDRESS").unwrap_or_else(|| String::from("127.0.0.1:8080"));
    let runner_token = variable("SERVICE_RUNNER_TOKEN")
        .map(SecretValue::new)
        .ok_or("set SERVICE_RUNNER_TOKEN; its holder may read full configurations")?;

    let hosts = variable("SERVICE_HOSTS").unwrap_or_default();
    let hosts = AllowedHosts::named(hosts.split(',').map(str::trim)).with_loopback();

    let folder = std::path::absolute(folder)?;
    let environment = Environment::of_process();
    environment.require_fips()?;
    environment.install_managed_prefix()?;
    let settings = match (variable("SERVICE_STORE"), variable("SECRET_PERSISTENCE")) {
        (Some(url), _) => Settings::from_url(&url, &environment)?,
        (None, Some(_)) => Settings::from_env(&environment)?,
        (None, None) => {
            let url = format!("sqlite://{}", folder.join("secrets.db").display());
            Settings::from_url(&url, &environment)?
        }
    };
    let stores = secret_persistence::stores(settings).await?;
    let rows = Rows::open(&folder.join("connectors.db")).await?;
    let secrets = ConnectorSecrets::new(stores, ConnectorOptions::default());
    let connectors = Connectors::new(rows, secrets);

    let healer = connectors.clone();
    tokio::spawn(async move {
        loop {
            if let Err(error) = healer.heal().await {
                tracing::warn!(%error, "healing failed; retrying in a minute");
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    });
    let listener = tokio::net::TcpListener::bind(&address).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    axum::serve(listener, router(connectors, runner_token, hosts))
        .with_graceful_shutdown(async {
            // Without a signal handler, the service can only be killed, which is safe too.
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;
    Ok(())
}
