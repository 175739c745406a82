//! From settings to a store with its layers.

use std::sync::Arc;

use secret_persistence_core::layer::{Layers, Stack};
use secret_persistence_core::{Error, Operation, Owner, Result, SecretPersistence};

use crate::settings::{Layering, Settings};

/// Opens the store that settings describe, with the layers that they ask for.
///
/// Outside in: metrics, read-only, then cache, retry, limit and the store, or a mirror of two such
/// stacks. By default calls are counted, what fails for a moment is repeated, and the quota that the
/// provider documents is kept to.
///
/// What is done with the store directly is not audited: only connector calls know who acts. Use
/// [`stores`](crate::stores) with [`ConnectorSecrets`](crate::connector::ConnectorSecrets) for that.
///
/// # Errors
/// `InvalidConfig` where a setting is missing, contradictory or refused; and what opening the store
/// ends in: `Unauthenticated`, `PermissionDenied`, `Unavailable`.
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
    let layers = match settings.mirror() {
        None => Layers::over(stack(&settings, owner).await?),
        Some(mirror) => {
            // The first error is told before the second store is touched.
            let primary = stack(&settings, owner.clone()).await?;
            let secondary = stack(mirror, owner).await?;
            Layers::mirror(primary, secondary)
        }
    };
    Ok(layers
        .with_read_only(layering.read_only)
        .with_metrics(layering.metrics)
        .build())
}

/// One store with the layers that belong to it alone.
async fn stack(settings: &Settings, owner: Option<Owner>) -> Result<Stack> {
    let Layering {
        cache,
        retry,
        limit,
        ..
    } = Layering::of(settings)?;
    let backend = settings.backend()?;
    let opened = (backend.open)(settings.store(), owner);
    let store = opened.await.map_err(|error| opening(error, settings))?;
    let mut stack = Stack::over(store);
    if let Some(options) = cache {
        stack = stack.with_cache(options);
    }
    if let Some(options) = retry {
        stack = stack.with_retry(options);
    }
    if let Some(options) = limit {
        stack = stack.with_limit(options);
    }
    Ok(stack)
}

/// An error says which store it was, where the backend had not got that far.
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
