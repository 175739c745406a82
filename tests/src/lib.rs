//! The test kit of this workspace: real servers, and injected faults.
//!
//! # Servers
//!
//! [`LocalStack`], [`Postgres`] and [`VaultServer`] are the real programs. [`Moto`] and [`OpenBao`] are second
//! implementations of the first and the last. [`PgBouncer`] is a pooler in front of a Postgres. Each is found in this
//! order:
//!
//! 1. from the environment, if it is running (the constants that end in `_VARIABLE` name the
//!    variables);
//! 2. from the programs that `tests/servers/build` put into the folder `TEST_SERVERS_DIR`, by
//!    default `target/servers` (Postgres: from the installed packages), started on a free port;
//! 3. in a container, with `tests/servers/compose.yaml`, if a container runtime responds.
//!
//! A server that a test process starts ends with that process, even if the process is killed.
//!
//! A test that needs a server begins like this. If the server is missing, the test fails if
//! `CI=true`. Otherwise it reports on standard error that it was skipped, even if the test harness
//! captures output:
//!
//! ```no_run
//! # async fn test() {
//! let Some(vault) = e2e::VaultServer::start_or_env().await else { return };
//! # }
//! ```
//!
//! `start_or_env` shares one server within the test process, so tests use random names, and never
//! wipe, seal or stop the server. A test that does uses a separate server:
//! `e2e::available(VaultServer::start().await)`.
//!
//! # Stand-ins
//!
//! [`azure::Azure`] stands in for Azure Key Vault and Entra ID, and [`google::Google`] for Google
//! Secret Manager and its token servers, because there is no program to run. Each is as strict as
//! the original, and starts within the test process.
//!
//! # Clients
//!
//! [`Client`] are third-party programs that call our servers: clients of Vault in Go, Java, Python
//! and Node, OpenBao's command line, schemathesis, a browser. If one is missing, the same applies
//! as for servers.
//!
//! # Faults
//!
//! [`FaultProxy`] is a proxy for any HTTP server. It counts, delays, refuses, cuts and records
//! requests.
//! [`Hostile`] is a server with malformed, endless and slow responses.
//!
//! # Secrecy
//!
//! [`Canaries`] searches for values that must not appear, in every encoding.
//!
//! This crate depends on no other crate of the workspace, so each of them can use it in its tests.

mod absent;
mod alone;
pub mod azure;
mod cache;
mod canary;
mod certificates;
mod clients;
mod container;
pub mod google;
mod hostile;
mod jwt;
mod localstack;
mod logs;
mod moto;
mod openbao;
mod packaging;
mod pgbouncer;
mod postgres;
mod process;
pub mod proxy;
mod vault;

pub use absent::{Absent, available};
pub use alone::in_a_process_of_its_own;
pub use canary::Canaries;
pub use certificates::Authority;
pub use clients::Client;
pub use hostile::{Asked, Honest, Hostile, Misbehaviour};
pub use localstack::LocalStack;
pub use logs::Logs;
pub use moto::Moto;
pub use openbao::OpenBao;
pub use packaging::packaging;
pub use pgbouncer::{PgBouncer, PoolMode};
pub use postgres::Postgres;
pub use proxy::FaultProxy;
pub use vault::{VaultAnswer, VaultOptions, VaultServer};
