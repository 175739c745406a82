//! `secret-gateway`, which refuses to run without its FIPS module.

use std::process::ExitCode;

use secret_persistence::Environment;

fn main() -> ExitCode {
    secret_gateway::run(
        std::env::args_os(),
        &Environment::of_process().with_fips_required(),
    )
}
