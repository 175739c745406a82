//! Stories that need several crates or real servers.

// The lint recognises tests by their attribute, which helpers of tests lack.
#![allow(clippy::unwrap_used)]

mod clouds;
mod collecting;
mod demo;
mod dependencies;
mod deployment;
mod fips;
mod fleet;
mod google;
mod hostile;
mod hostile_database;
mod installation;
mod layers;
mod live_move;
mod mirroring;
mod outages;
mod packages;
mod pooler;
mod program;
mod quota;
mod restoring;
mod ring;
mod rooms;
mod round_trips;
mod servers;
mod statuses;
mod stores;
mod tool;
mod tool_azure;
mod tool_outages;
mod workspace;
