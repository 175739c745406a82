//! `man`: writes the manual pages to a folder, one per command.

use serde_json::json;

use crate::cli::{self, ManArgs};
use crate::output::Output;
use crate::status::{Failure, Result, Status};

/// Runs it.
pub(crate) fn run(args: &ManArgs, output: &Output) -> Result<Status> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(cli::definition(), folder))
        .map_err(|cause| {
            Failure::input("cannot be written")
                .at(format!("--folder {}", folder.display()))
                .with_source(cause)
        })?;
    output.line(format!("man: the pages are in {}", folder.display()));
    output.object(Status::Done, &json!({ "command": "man", "folder": folder }));
    Ok(Status::Done)
}
