//! The KV API: the protocol of Vault's key/value engine, in front of any store.

mod answer;
mod names;
mod session;
mod store;
mod v1;
mod v2;

use axum::Router;

use crate::gateway::Gateway;
use crate::settings::{Kv, KvVersion};

pub(crate) use answer::KvError;

/// The routes under `/v1`: the engine at its mount, and what clients call before they begin.
pub(crate) fn routes(kv: &Kv) -> Router<Gateway> {
    let engine = match kv.version {
        KvVersion::One => v1::routes(&kv.mount),
        KvVersion::Two => v2::routes(&kv.mount),
    };
    engine.merge(session::routes())
}
