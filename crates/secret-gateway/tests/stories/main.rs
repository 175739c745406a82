//! Stories of the gateway, in this process: every endpoint, every role, every fault.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod audit;
mod bodies;
mod canary;
mod changes;
mod clients;
#[cfg(feature = "sqlite")]
mod collect;
mod crowd;
mod custom;
mod deployment;
mod disk;
mod docs;
mod health;
mod incidents;
mod jwt;
mod kv;
#[cfg(all(feature = "postgres", feature = "sqlite"))]
mod migration;
mod openapi;
mod page;
mod problems;
mod process;
mod program;
mod reload;
#[cfg(feature = "postgres")]
mod replicas;
mod rights;
mod schemathesis;
mod server;
mod shutdown;
#[cfg(feature = "otlp")]
mod traces;
mod world;
