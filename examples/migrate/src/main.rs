//! Moves secrets of connector configurations between stores, and back: the command line tool for
//! operators.
//!
//! `README.md` in the parent folder documents the commands, the options and the steps without
//! downtime. The engine is `secret_persistence_migrate`; this crate contains the command line and
//! the terminal output.

mod cli;
mod commands;
mod configs;
mod console;
mod differences;
mod figures;
mod interrupt;
mod journal;
mod kill;
mod observer;
mod options_file;
mod output;
mod role;
mod status;
mod store;

use std::process::ExitCode;

use clap::FromArgMatches as _;
use secret_persistence::Environment;

use crate::cli::Cli;
use crate::output::Output;
use crate::status::Status;

fn main() -> ExitCode {
    let arguments = match options_file::applied(std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(failure) => return exit(Output::for_people().failure(&failure)),
    };
    let parsed = cli::definition()
        .try_get_matches_from(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // clap repeats arguments that it does not understand, which could be a URL with a
            // password.
            let text = cli::without_passwords(&error.render().to_string());
            if error.use_stderr() {
                console::remark_text(text.trim_end());
                return exit(Status::Input);
            }
            console::say_text(text.trim_end());
            return exit(Status::Done);
        }
    };
    let output = match Output::new(cli.json, cli.list.as_deref()) {
        Ok(output) => output,
        Err(failure) => return exit(Output::for_people().failure(&failure)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let status = match runtime {
        Err(cause) => {
            output.failure(&status::Failure::failed("cannot start the runtime").with_source(cause))
        }
        Ok(runtime) => runtime.block_on(async {
            match commands::run(cli.command, &Environment::of_process(), &output).await {
                Ok(status) => status,
                Err(failure) => output.failure(&failure),
            }
        }),
    };
    kill::report();
    exit(status)
}

fn exit(status: Status) -> ExitCode {
    ExitCode::from(status as u8)
}
