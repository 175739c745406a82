//! Connector configurations: finds their secrets, and converts them to pointers and back.
//!
//! [`ConnectorSecrets`] makes the calls that need stores: hydrate, and staged changes. The rest
//! works without a store: [`ConnectorSpec`] knows the secret places of a specification,
//! [`plan_create`] and [`plan_update`] split, [`hydrate_with`] inserts values,
//! [`ConnectorSpec::mask`] and [`scrub`] prepare configurations for display.

mod cleanup;
mod error;
mod executor;
mod fresh;
mod heal;
mod hydrate;
mod hydrate_many;
#[cfg(test)]
mod interleavings;
mod limits;
mod locations;
mod mask;
mod matching;
mod place;
mod plan;
mod pointer;
mod policy;
mod read;
mod record;
mod references;
mod refresh;
mod secret_json;
mod secrets;
mod slots;
mod spec;
mod split;
mod staged;
#[cfg(test)]
mod tests;
mod unknown;
mod update;

pub use cleanup::{Cleanup, Foreign, Undeleted};
pub use error::{ConnectorError, Problem, ProblemKind};
pub use executor::{Executor, Walk};
pub use fresh::{FreshError, Rereads};
pub use hydrate::hydrate_with;
pub use limits::{MAX_DEPTH, MAX_HYDRATED_BYTES, MAX_MERGED_NODES, MAX_PLACE_BYTES, MAX_SECRETS};
pub use mask::{MASK, Scrubbed, scrub};
pub use place::{InvalidPlace, Place};
pub use plan::SplitPlan;
pub use pointer::{Encoding, MalformedPointer, Pointer, pointers};
pub use policy::Policy;
pub use record::{Record, RecordState};
pub use references::{References, ResolveReferences, UnresolvedReference};
pub use refresh::{
    Ended, HealedRefreshes, Lease, PlacedValues, Refresh, RefreshError, RefreshRecord, RefreshRows,
    RefreshSaved, RefreshTarget, Refreshed, Taken,
};
pub use secret_json::{SecretJson, json_depth};
pub use secrets::{ActingSecrets, ConnectorOptions, ConnectorSecrets};
pub use spec::{ConnectorSpec, Markers};
pub use split::plan_create;
pub use staged::{Planned, Settled, Staged};
pub use update::{plan_update, saved_pointers_needed};
