//! SQLite and Postgres.

use secret_persistence_db::{Database, DbConfig, SETTINGS};

use super::{Backend, open};
use crate::kind::Kind;

pub(super) const BACKEND: Backend = Backend {
    kind: Kind::Database,
    settings: SETTINGS,
    json: &[],
    quotas: None,
    check: |values| DbConfig::from_settings(values).map(drop),
    open: |values, owner| {
        let config = DbConfig::from_settings(values);
        Box::pin(open(config, owner, DbConfig::with_owner, Database::connect))
    },
};
