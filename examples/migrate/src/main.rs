//! `secret-migrate`, with the stores of this repository.

use std::process::ExitCode;

use secret_persistence::Environment;

fn main() -> ExitCode {
    ExitCode::from(secret_migrate::run(
        std::env::args_os(),
        &Environment::of_process(),
    ))
}
