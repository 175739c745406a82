//! The parts that both APIs share: limits, hosts, headers, callers, problems.

mod access;
mod body;
mod caller;
mod guards;
mod kind;
mod problem;
mod router;
mod serve;
mod tls;

pub use access::REQUEST_SPAN;
pub(crate) use body::{Body, BodyError, Fields, invalid, missing, read_json, too_many};
pub(crate) use caller::Caller;
pub(crate) use guards::OwnText;
pub use kind::ProblemKind;
pub use problem::Problem;
pub(crate) use problem::retry_after;
pub use router::router;
pub use serve::{ServeError, serve};
