//! What a database store promises beyond the suite: tampering, wrong key rings, conversions that are
//! killed, what stays on the disk, what an error says, what never shows.

// Helpers of tests are tests too.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod canary;
mod convert;
mod killed;
#[cfg(feature = "postgres")]
mod postgres;
mod prepare;
mod rings;
mod sqlite;
#[path = "../support/mod.rs"]
mod support;
mod tampering;
