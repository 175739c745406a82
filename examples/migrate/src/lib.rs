//! Moves secrets of connector configurations between stores, and back: the command line tool for
//! operators, as a library.
//!
//! `README.md` in the parent folder documents the commands, the options and the steps without
//! downtime. The engine is `secret_persistence_migrate`; this crate contains the command line and
//! the terminal output. [`run`] is all of it, for a program with a backend of its own.

mod cli;
mod commands;
mod configs;
mod console;
mod differences;
mod figures;
mod interrupt;
mod journal;
mod kill;
mod observer;
mod options_file;
mod output;
mod program;
mod role;
mod status;
mod store;

pub use program::run;
