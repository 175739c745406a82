//! Connector configurations: where their secrets are, and how they become pointers and values again.
//!
//! This is the half without any store: [`ConnectorSpec`] knows the secret places of a specification,
//! [`plan_create`] and [`plan_update`] split, [`hydrate_with`] puts values back,
//! [`ConnectorSpec::mask`] and [`scrub`] make configurations presentable.

mod error;
mod guarded;
mod hydrate;
mod limits;
mod mask;
mod place;
mod plan;
mod pointer;
mod policy;
mod spec;
mod split;
mod update;

pub use error::{ConnectorError, Problem, ProblemKind};
pub use guarded::GuardedValue;
pub use hydrate::hydrate_with;
pub use limits::{MAX_DEPTH, MAX_MERGED_NODES};
pub use mask::{MASK, Scrubbed, scrub};
pub use place::{InvalidPlace, Place};
pub use plan::{PlannedWrite, SplitPlan};
pub use pointer::{
    Encoding, InvalidStorageId, MalformedPointer, Pointer, PointerIdentity, StorageId, pointers,
};
pub use policy::Policy;
pub use spec::ConnectorSpec;
pub use split::plan_create;
pub use update::{plan_update, saved_pointers_needed};
