//! `secret-migrate`, which refuses to run without its FIPS module.

use std::process::ExitCode;

use secret_persistence::Environment;

fn main() -> ExitCode {
    ExitCode::from(secret_migrate::run(
        std::env::args_os(),
        &Environment::of_process().with_fips_required(),
    ))
}
