//! Stories of the gateway, in this process: every endpoint, every role, every fault.

mod canary;
mod changes;
mod kv;
mod rights;
mod server;
mod world;
