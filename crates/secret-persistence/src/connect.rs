//! Opens a store with its layers from settings.

use std::sync::Arc;

use secret_persistence_core::layer::{Layers, Stack};
use secret_persistence_core::rates::SharedRates;
use secret_persistence_core::{Error, Operation, Owner, Result, SecretPersistence};

use crate::limit_shared::rates;
use crate::settings::{Layering, Settings};

/// Opens the store in the settings, with the layers in the settings.
///
/// From the outside in: metrics, read-only, then cache, retry, limit and the store, or a mirror of
/// two such stacks. By default, calls are counted, transient failures are retried, and requests
/// stay within the provider's documented quota.
///
/// Direct calls to the store are not audited, because only connector calls know the actor. For
/// audit, use [`stores`](crate::stores) with
/// [`ConnectorSecrets`](crate::connector::ConnectorSecrets).
///
/// # Errors
/// `InvalidConfig` if a setting is missing, contradictory or refused; `Unauthenticated`,
/// `PermissionDenied` or `Unavailable` if the store does not open.
///
/// # Example
/// ```
/// use secret_persistence::{Environment, SecretPersistenceExt, SecretValue, Settings, Write};
/// # use secret_persistence::{ManagedCoordinate, Scope};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("secrets.db");
/// let url = format!("sqlite://{}?mode=plain&owner=prod_eu&cache=true", path.display());
/// let settings = Settings::from_url(&url, &Environment::of_process())?;
/// let store = secret_persistence::connect(settings).await?;
///
/// let coordinate = ManagedCoordinate::parse("airbyte_workspace_1_secret_2_v1")?;
/// let value = SecretValue::new("hunter2".to_owned());
/// store.write(Write::new(coordinate.clone(), value)).await?;
/// assert_eq!(store.read(&coordinate.into()).await?.value.expose(), "hunter2");
/// # Ok(())
/// # }
/// ```
pub async fn connect(settings: Settings) -> Result<Arc<dyn SecretPersistence>> {
    let layering = Layering::of(&settings)?;
    let owner = settings.owner()?;
    let rates = rates(&settings)?;
    let layers = match settings.mirror() {
        None => Layers::over(stack(&settings, owner, rates).await?),
        Some(mirror) => {
            // Report errors of the first store before connecting to the second.
            let primary = stack(&settings, owner.clone(), rates.clone()).await?;
            let secondary = stack(mirror, owner, rates).await?;
            Layers::mirror(primary, secondary)
        }
    };
    Ok(layers
        .with_read_only(layering.read_only)
        .with_metrics(layering.metrics)
        .build())
}

/// One store with its own layers.
async fn stack(
    settings: &Settings,
    owner: Option<Owner>,
    rates: Option<Arc<dyn SharedRates>>,
) -> Result<Stack> {
    let layering = Layering::of(settings)?;
    let opened = match settings.custom() {
        Some(custom) => custom.open(settings.store(), owner),
        None => (settings.backend()?.open)(settings.store(), owner),
    };
    let store = opened.await.map_err(|error| opening(error, settings))?;
    let mut stack = Stack::over(store);
    let divided = layering.divided();
    if let Some(options) = layering.cache {
        stack = stack.with_cache(options);
    }
    if let Some(options) = layering.retry {
        stack = stack.with_retry(options);
    }
    if let Some((options, rates)) = layering.limit.zip(rates) {
        stack = stack
            .with_limit(options)
            .with_shared_rates(rates, layering.replicas);
        if let Some(account) = settings.account()? {
            stack = stack.with_account(account);
        }
    } else if let Some(options) = divided {
        stack = stack.with_limit(options);
    }
    Ok(stack)
}

/// Adds the store to an error, if the backend had not set it yet.
fn opening(error: Error, settings: &Settings) -> Error {
    let error = match error.operation() {
        Some(_) => error,
        None => error.with_operation(Operation::Open),
    };
    let error = settings.advise(error);
    match error.store() {
        Some(_) => error,
        None => error.with_store(settings.kind().title()),
    }
}
