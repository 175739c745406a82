//! What operators do with the tool, and what must never happen to them, with the real binary.

// The helpers are tests too, which clippy only sees in functions that are marked.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

mod bad_input;
mod canary;
mod collecting;
mod custom;
mod demo;
mod filters;
mod fips;
mod inventory;
mod kill;
mod lab;
mod ledger;
mod maintenance;
mod moving;
mod operations;
mod options;
mod picture;
mod policies;
#[cfg(feature = "postgres")]
mod postgres;
mod prefix;
mod settings;
#[cfg(feature = "postgres")]
mod shared;
mod splitting;
mod terminal;
mod traces;
#[cfg(feature = "postgres")]
mod watching;
mod words;
