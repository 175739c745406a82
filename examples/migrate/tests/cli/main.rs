//! What operators do with the tool, and what must never happen to them, with the real binary.

// The helpers are tests too, which clippy only sees in functions that are marked.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

mod bad_input;
mod canary;
mod demo;
mod filters;
mod kill;
mod lab;
mod maintenance;
mod moving;
mod operations;
mod options;
mod picture;
mod policies;
#[cfg(feature = "postgres")]
mod postgres;
mod settings;
mod splitting;
mod terminal;
mod traces;
mod words;
