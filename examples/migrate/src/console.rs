//! What people see: lines on standard output, progress on standard error, nothing of either in the other.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use parking_lot::Mutex;

/// How often progress is told where nobody can redraw a line.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Prints a line of the result. A reader that went away is no failure of ours.
pub(crate) fn say(line: impl AsRef<str>) {
    let _ = writeln!(io::stdout().lock(), "{}", line.as_ref());
}

/// Prints a line for people while the result may be for programs.
pub(crate) fn remark(line: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", line.as_ref());
}

/// How far a phase is: a bar on a terminal, a line every few seconds elsewhere.
#[derive(Debug)]
pub(crate) enum Progress {
    /// A bar that redraws itself.
    Bar(ProgressBar),
    /// Plain lines.
    Lines(Mutex<Lines>),
}

#[derive(Debug)]
pub(crate) struct Lines {
    phase: String,
    done: u64,
    total: Option<u64>,
    told: Instant,
}

impl Progress {
    /// Begins a phase of so many steps, if that is known.
    pub(crate) fn begin(phase: impl Into<String>, total: Option<u64>) -> Self {
        let phase = phase.into();
        if !io::stderr().is_terminal() {
            return Self::Lines(Mutex::new(Lines {
                phase,
                done: 0,
                total,
                told: Instant::now(),
            }));
        }
        let template = match total {
            Some(_) => "{prefix:9} {bar:32} {pos}/{len}  {rate}  {eta} left",
            None => "{prefix:9} {spinner} {pos}  {rate}",
        };
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
            .with_prefix(phase)
            // The template is a constant of ours; were it wrong, the default would do.
            .with_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar())
                    // Whole numbers: the built-in key has four decimals.
                    .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
                        let _ = write!(out, "{:.0}/s", state.per_sec());
                    }),
            );
        Self::Bar(bar)
    }

    /// So many steps more are done.
    pub(crate) fn advance(&self, steps: u64) {
        match self {
            Self::Bar(bar) => bar.inc(steps),
            Self::Lines(lines) => {
                let mut lines = lines.lock();
                lines.done += steps;
                if lines.told.elapsed() >= PLAIN_INTERVAL {
                    lines.told = Instant::now();
                    remark(lines.text());
                }
            }
        }
    }

    /// The phase is over.
    pub(crate) fn finish(&self) {
        match self {
            Self::Bar(bar) => bar.finish_and_clear(),
            Self::Lines(lines) => {
                let lines = lines.lock();
                if lines.done > 0 {
                    remark(lines.text());
                }
            }
        }
    }
}

impl Lines {
    fn text(&self) -> String {
        match self.total {
            Some(total) => format!("{}: {} of {total}", self.phase, self.done),
            None => format!("{}: {}", self.phase, self.done),
        }
    }
}
