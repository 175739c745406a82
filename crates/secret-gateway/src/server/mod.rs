//! The parts that both APIs share: limits, hosts, headers, callers, problems.

mod access;
mod body;
mod caller;
mod fields;
mod guards;
mod kind;
mod problem;
mod router;
mod serve;
mod tls;
mod turns;

pub use access::REQUEST_SPAN;
pub(crate) use body::{BODY_TIMEOUT, Body, BodyError, read_json};
pub(crate) use caller::Caller;
pub(crate) use fields::{
    Fields, List, Maybe, Member, Request, Time, inline_schema, invalid, missing, request,
};
pub(crate) use guards::OwnText;
pub use kind::ProblemKind;
pub use problem::Problem;
pub(crate) use problem::{PlaceProblem, ProblemDocument, SHOWN, retry_after};
pub use router::router;
pub use serve::{ServeError, serve};
pub(crate) use turns::Turns;
