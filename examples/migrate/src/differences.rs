//! The file of `--differences`: one JSON object per line for each secret that differs.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use secret_persistence_migrate::{Difference, Event, Observer};
use serde_json::json;

use crate::cli::CompareArgs;
use crate::observer::Shown;
use crate::status::{Failure, Result};

/// Writes differences, and shows the progress too.
#[derive(Debug)]
pub(crate) struct Differences {
    shown: Shown,
    path: PathBuf,
    with_equal: bool,
    file: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    file: BufWriter<File>,
    /// The first failure, after which nothing is written.
    failed: Option<io::Error>,
}

impl Differences {
    /// Creates the file if there is to be one. It must be new.
    ///
    /// # Errors
    /// If the file already exists or cannot be created.
    pub(crate) fn of(args: &CompareArgs) -> Result<Option<Arc<Self>>> {
        let Some(path) = &args.differences else {
            return Ok(None);
        };
        let file = File::create_new(path).map_err(|cause| {
            Failure::input("cannot be created; choose a new file name")
                .at(format!("--differences {}", path.display()))
                .with_source(cause)
        })?;
        Ok(Some(Arc::new(Self {
            shown: Shown::default(),
            path: path.clone(),
            with_equal: args.equal,
            file: Mutex::new(Lines {
                file: BufWriter::new(file),
                failed: None,
            }),
        })))
    }

    /// Writes what is still in memory.
    ///
    /// # Errors
    /// If anything could not be written: the file is then incomplete.
    pub(crate) fn finish(&self) -> Result<()> {
        let mut lines = self.file.lock();
        let flushed = lines.file.flush();
        match lines.failed.take().map_or(flushed, Err) {
            Ok(()) => Ok(()),
            Err(cause) => Err(Failure::failed("the file is incomplete")
                .at(format!("--differences {}", self.path.display()))
                .with_source(cause)),
        }
    }
}

impl Observer for Differences {
    fn event(&self, event: &Event<'_>) {
        self.shown.event(event);
        let Event::Compared {
            coordinate,
            configuration,
            difference,
        } = event
        else {
            return;
        };
        if *difference == Difference::Equal && !self.with_equal {
            return;
        }
        let line = json!({
            "difference": difference,
            "coordinate": coordinate,
            "configuration": configuration,
        });
        let mut lines = self.file.lock();
        if lines.failed.is_none()
            && let Err(error) = writeln!(lines.file, "{line}")
        {
            lines.failed = Some(error);
        }
    }
}
