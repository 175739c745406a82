//! The whole program: arguments in, an exit status out.

use std::ffi::OsString;

use clap::FromArgMatches as _;
use secret_persistence::Environment;

use crate::cli::{self, Cli};
use crate::output::Output;
use crate::status::Status;
use crate::{commands, console, kill, options_file, status};

/// Runs the tool with these arguments, of which the first is the name of the program, and returns
/// its exit status: the README lists them. Results are on standard output, errors on standard
/// error, as of the program `secret-migrate`.
///
/// Variables and backends come from the environment, so its
/// [backends](Environment::with_backend) are valid in `--from`, `--to` and `--store`:
///
/// ```no_run
/// use secret_persistence::{CustomBackend, Environment};
///
/// # fn main_of_yours(acme: CustomBackend) -> std::process::ExitCode {
/// let environment = Environment::of_process().with_backend(acme);
/// secret_migrate::run(std::env::args_os(), &environment).into()
/// # }
/// ```
///
/// It starts a runtime of its own, so call it outside of one. `--workers` starts the current
/// program again, with these arguments.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> u8 {
    let given: Vec<OsString> = arguments.into_iter().collect();
    let arguments = match options_file::applied(given.clone()) {
        Ok(arguments) => arguments,
        Err(failure) => return exit(Output::for_people().failure(&failure)),
    };
    // Before anything parses a name or opens a store. Help does not need it.
    let prepared = environment
        .require_fips()
        .and_then(|()| environment.install_managed_prefix());
    let parsed = cli::definition()
        .try_get_matches_from(&arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // clap repeats arguments that it does not understand, which could be a URL with a
            // password.
            let text = cli::without_passwords(&error.render().to_string(), &arguments);
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
    if let Err(error) = prepared {
        return exit(output.failure(&error.into()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let status = match runtime {
        Err(cause) => {
            output.failure(&status::Failure::failed("cannot start the runtime").with_source(cause))
        }
        Ok(runtime) => runtime.block_on(async {
            match commands::run(cli.command, &given, environment, &output).await {
                Ok(status) => status,
                Err(failure) => output.failure(&failure),
            }
        }),
    };
    kill::report();
    exit(status)
}

fn exit(status: Status) -> u8 {
    status as u8
}
