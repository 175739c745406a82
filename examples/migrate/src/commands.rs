//! The commands, one file each.

mod check;
mod collect;
mod completions;
mod conformance;
mod converting;
mod demo;
mod encrypt;
mod filter;
mod init;
mod inventory;
mod keygen;
mod ledger;
mod man;
mod moving;
mod policy;
mod prepare;
mod rotate;
mod split;
mod status;
mod sweep;
mod workers;

use std::ffi::OsString;

use secret_persistence::Environment;

use self::workers::Together;
use crate::cli::Command;
use crate::output::Output;
use crate::status::{Result, Status};

/// Runs a command. The arguments are those that the program was started with.
pub(crate) async fn run(
    command: Command,
    arguments: &[OsString],
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    match command {
        Command::Affected(args) => inventory::affected(args, environment, output).await,
        Command::Ages(args) => inventory::ages(args, environment, output).await,
        Command::Check(args) => check::run(args, environment, output).await,
        Command::Collect(args) => {
            let together = Together::of("collect", &args.share, &args.journal, !args.delete);
            match together {
                Some(together) => together.run(arguments, output).await,
                None => collect::run(args, environment, output).await,
            }
        }
        Command::Completions(args) => completions::run(&args),
        Command::Conformance(args) => conformance::run(args, environment, output).await,
        Command::Copy(args) => match Together::moving("copy", &args.share, &args.moved) {
            Some(together) => together.run(arguments, output).await,
            None => moving::copy(args, environment, output).await,
        },
        Command::Demo(args) => demo::run(args, output).await,
        Command::Encrypt(args) => match Together::converting("encrypt", &args.shared) {
            Some(together) => together.run(arguments, output).await,
            None => encrypt::run(args, environment, output).await,
        },
        Command::Hydrate(args) => filter::hydrate(args, environment).await,
        Command::Init(args) => init::run(&args, environment, output),
        Command::Keygen(args) => keygen::run(args, environment, output).await,
        Command::Ledger(args) => ledger::run(args, environment, output).await,
        Command::Man(args) => man::run(&args, output),
        Command::Mask(_) => filter::mask().await,
        Command::Plan(args) => moving::plan(args, environment, output).await,
        Command::Policy(args) => policy::run(args, output),
        Command::Prepare(args) => prepare::run(args, environment, output).await,
        Command::Restore(args) => inventory::restore(args, environment, output).await,
        Command::Retire(args) => match Together::moving("retire", &args.share, &args.moved) {
            Some(together) => together.run(arguments, output).await,
            None => moving::retire(args, environment, output).await,
        },
        Command::Rollback(args) => match Together::moving("rollback", &args.share, &args.moved) {
            Some(together) => together.run(arguments, output).await,
            None => moving::rollback(args, environment, output).await,
        },
        Command::Rotate(args) => match Together::converting("rotate", &args.shared) {
            Some(together) => together.run(arguments, output).await,
            None => rotate::run(args, environment, output).await,
        },
        Command::Settle(args) => filter::settle(args, environment).await,
        Command::Split(args) if args.filter.is_some() => filter::split(args, environment).await,
        Command::Split(args) => {
            let together =
                Together::of("split", &args.share, &args.journal, split::is_alone(&args));
            match together {
                Some(together) => together.run(arguments, output).await,
                None => split::run(args, environment, output).await,
            }
        }
        Command::Status(args) => status::run(args, environment, output).await,
        Command::Sweep(args) => sweep::run(args, environment, output).await,
        Command::Update(args) => filter::update(args, environment).await,
        Command::Verify(args) => {
            match Together::moving("verify", &args.share, &args.compared.moved) {
                Some(together) => {
                    let together = together.writing(args.compared.differences.is_some());
                    together.run(arguments, output).await
                }
                None => moving::verify(args, environment, output).await,
            }
        }
    }
}
