//! What both APIs share: limits, hosts, headers, callers, problems.

mod access;
mod body;
mod caller;
mod guards;
mod problem;
mod router;
mod serve;
mod tls;

pub(crate) use body::invalid;
pub(crate) use body::{Body, BodyError, Fields, read_json};
pub(crate) use caller::Caller;
pub(crate) use guards::OwnText;
pub use problem::Problem;
pub(crate) use problem::retry_after;
pub use router::router;
pub use serve::{ServeError, serve};
