//! SQLite and Postgres.

use std::sync::Arc;

use secret_persistence_core::SecretPersistence;
use secret_persistence_db::{Database, DbConfig, SETTINGS};

use super::Backend;
use crate::kind::Kind;

pub(super) const BACKEND: Backend = Backend {
    kind: Kind::Database,
    settings: SETTINGS,
    json: &[],
    quotas: None,
    check: |values| DbConfig::from_settings(values).map(drop),
    open: |values, owner| {
        Box::pin(async move {
            let mut config = DbConfig::from_settings(values)?;
            if let Some(owner) = owner {
                config = config.with_owner(owner);
            }
            Ok(Arc::new(Database::connect(config).await?) as Arc<dyn SecretPersistence>)
        })
    },
};
