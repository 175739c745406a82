//! Stories of the gateway, in this process: every endpoint, every role, every fault.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod canary;
mod changes;
mod clients;
mod crowd;
mod deployment;
mod disk;
mod docs;
mod jwt;
mod kv;
mod openapi;
mod page;
mod process;
mod program;
mod reload;
#[cfg(feature = "postgres")]
mod replicas;
mod rights;
mod schemathesis;
mod server;
mod shutdown;
mod world;
