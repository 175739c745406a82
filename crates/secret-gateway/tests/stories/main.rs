//! Stories of the gateway, in this process: every endpoint, every role, every fault.

mod kv;
mod rights;
mod world;
