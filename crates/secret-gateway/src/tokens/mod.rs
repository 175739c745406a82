//! Callers: tokens, JWTs and client certificates become principals with roles and bindings.

mod authenticate;
mod file;
mod jwt;
mod principal;

pub(crate) use authenticate::presented;
pub use authenticate::{Authenticator, PeerCertificate, Refusal};
pub(crate) use file::private;
pub use file::{Grant, TokenFile, TokenFileError};
pub use principal::{Binding, Principal, Role, UnknownRole};
