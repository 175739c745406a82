//! What the tests of this workspace share: real servers, and faults on demand.
//!
//! # Servers
//!
//! [`LocalStack`], [`Postgres`] and [`VaultServer`] are the real programs. [`Moto`] and [`OpenBao`] are second
//! implementations of the first and the last. [`PgBouncer`] is a pooler in front of a Postgres. Each is found in this
//! order:
//!
//! 1. where the environment says that one runs (the constants ending in `_VARIABLE` name the variables);
//! 2. among the programs that `tests/servers/build` put into the folder `TEST_SERVERS_DIR`, by default
//!    `target/servers` (Postgres: among the installed packages), started on a free port;
//! 3. in a container, by `tests/servers/compose.yaml`, where a container runtime answers.
//!
//! A server that a test process started dies with that process, even when it is killed.
//!
//! A test that needs a server begins like this. Where there is none it fails if `CI=true`, and otherwise says on
//! standard error that it was skipped, whatever the test harness captures:
//!
//! ```no_run
//! # async fn test() {
//! let Some(vault) = e2e::VaultServer::start_or_env().await else { return };
//! # }
//! ```
//!
//! `start_or_env` shares one server within the test process, so tests use random names in it and never wipe, seal or
//! stop it. A test that does such things has a server to itself: `e2e::available(VaultServer::start().await)`.
//!
//! # Stand-ins
//!
//! [`azure::Azure`] stands in for Azure Key Vault and Entra ID, and [`google::Google`] for Google Secret Manager and its
//! token servers, of which there is no program to run. Each is as strict as what it stands for, and starts within the
//! test process.
//!
//! # Clients
//!
//! [`Client`] are programs of others that ask our servers: clients of Vault in Go, Java, Python and Node, OpenBao's
//! command line, schemathesis, a browser. Where one is missing the same holds as for servers.
//!
//! # Faults
//!
//! [`FaultProxy`] stands in front of any HTTP server; it counts, delays, refuses, cuts and records requests. [`Hostile`]
//! is a server that answers as no server should.
//!
//! # Secrecy
//!
//! [`Canaries`] looks for what must not show, in whatever spelling.
//!
//! Nothing here depends on another crate of the workspace, so every one of them may use it in its tests.

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
pub use pgbouncer::{PgBouncer, PoolMode};
pub use postgres::Postgres;
pub use proxy::FaultProxy;
pub use vault::{VaultAnswer, VaultOptions, VaultServer};
