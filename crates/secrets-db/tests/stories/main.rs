//! Guarantees of a database store beyond the suite: tampering, wrong key rings, interrupted
//! conversions, remains on the disk, the contents of errors, secrecy.

// Helpers of tests are tests too.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod canary;
mod convert;
mod describe;
mod killed;
mod ledger;
#[cfg(feature = "postgres")]
mod postgres;
mod prepare;
#[cfg(feature = "postgres")]
mod rates;
mod refresh;
mod rings;
mod sqlite;
#[path = "../support/mod.rs"]
mod support;
mod tampering;
#[cfg(feature = "postgres")]
mod unreachable;
