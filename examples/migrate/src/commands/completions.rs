//! `completions`: prints the completions for a shell.

use std::io::Write as _;

use crate::cli::{self, CompletionsArgs};
use crate::status::{Failure, Result, Status};

/// Runs it.
pub(crate) fn run(args: &CompletionsArgs) -> Result<Status> {
    let mut definition = cli::definition();
    let name = definition.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition, name, &mut script);
    std::io::stdout()
        .write_all(&script)
        .map_err(|cause| Failure::failed("cannot write to standard output").with_source(cause))?;
    Ok(Status::Done)
}
