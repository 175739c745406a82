//! `secret-gateway`, with the stores of this repository.

use std::process::ExitCode;

use secret_persistence::Environment;

fn main() -> ExitCode {
    secret_gateway::run(std::env::args_os(), &Environment::of_process())
}
