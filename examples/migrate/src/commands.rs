//! The commands, one file each.

mod check;
mod conformance;
mod demo;
mod encrypt;
mod keygen;
mod moving;
mod policy;
mod prepare;
mod rotate;
mod split;
mod sweep;

use secret_persistence::Environment;

use crate::cli::Command;
use crate::output::Output;
use crate::status::{Result, Status};

/// Runs a command.
pub(crate) async fn run(
    command: Command,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    match command {
        Command::Check(args) => check::run(args, environment, output).await,
        Command::Conformance(args) => conformance::run(args, environment, output).await,
        Command::Copy(args) => moving::copy(args, environment, output).await,
        Command::Demo(args) => demo::run(args, output).await,
        Command::Encrypt(args) => encrypt::run(args, environment, output).await,
        Command::Keygen(args) => keygen::run(args, environment, output).await,
        Command::Plan(args) => moving::plan(args, environment, output).await,
        Command::Policy(args) => policy::run(args, output),
        Command::Prepare(args) => prepare::run(args, environment, output).await,
        Command::Retire(args) => moving::retire(args, environment, output).await,
        Command::Rollback(args) => moving::rollback(args, environment, output).await,
        Command::Rotate(args) => rotate::run(args, environment, output).await,
        Command::Split(args) => split::run(args, environment, output).await,
        Command::Sweep(args) => sweep::run(args, environment, output).await,
        Command::Verify(args) => moving::verify(args, environment, output).await,
    }
}
