//! Stories of the gateway, in this process: every endpoint, every role, every fault.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod canary;
mod changes;
mod clients;
mod docs;
mod jwt;
mod kv;
mod openapi;
mod process;
mod program;
#[cfg(feature = "postgres")]
mod replicas;
mod rights;
mod server;
mod world;
