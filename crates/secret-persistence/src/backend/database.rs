//! SQLite and Postgres.

use secret_persistence_db::{Config, Database, SETTINGS};

use super::{Backend, open};
use crate::kind::Kind;

pub(super) const BACKEND: Backend = Backend {
    kind: Kind::Database,
    settings: SETTINGS,
    json: &[],
    quotas: None,
    account: None,
    check: |values| Config::from_settings(values).map(drop),
    open: |values, owner| {
        Box::pin(open(
            Config::from_settings(values),
            owner,
            Config::with_owner,
            Database::connect,
        ))
    },
};
