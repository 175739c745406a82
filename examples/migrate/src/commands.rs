//! The commands, one file each.

mod check;
mod completions;
mod conformance;
mod demo;
mod encrypt;
mod filter;
mod init;
mod keygen;
mod man;
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
        Command::Completions(args) => completions::run(&args),
        Command::Conformance(args) => conformance::run(args, environment, output).await,
        Command::Copy(args) => moving::copy(args, environment, output).await,
        Command::Demo(args) => demo::run(args, output).await,
        Command::Encrypt(args) => encrypt::run(args, environment, output).await,
        Command::Hydrate(args) => filter::hydrate(args, environment).await,
        Command::Init(args) => init::run(&args, environment, output),
        Command::Keygen(args) => keygen::run(args, environment, output).await,
        Command::Man(args) => man::run(&args, output),
        Command::Mask(_) => filter::mask().await,
        Command::Plan(args) => moving::plan(args, environment, output).await,
        Command::Policy(args) => policy::run(args, output),
        Command::Prepare(args) => prepare::run(args, environment, output).await,
        Command::Retire(args) => moving::retire(args, environment, output).await,
        Command::Rollback(args) => moving::rollback(args, environment, output).await,
        Command::Rotate(args) => rotate::run(args, environment, output).await,
        Command::Settle(args) => filter::settle(args, environment).await,
        Command::Split(args) if args.filter.is_some() => filter::split(args, environment).await,
        Command::Split(args) => split::run(args, environment, output).await,
        Command::Sweep(args) => sweep::run(args, environment, output).await,
        Command::Update(args) => filter::update(args, environment).await,
        Command::Verify(args) => moving::verify(args, environment, output).await,
    }
}
