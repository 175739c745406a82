//! What people see: results on standard output, progress on standard error.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use console::{Term, measure_text_width};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use parking_lot::Mutex;

/// How often progress is printed if the output is not a terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Prints a line of the result, wrapped between words on a terminal. A closed pipe is not an error
/// of ours.
pub(crate) fn say(line: impl AsRef<str>) {
    print(&mut io::stdout().lock(), &Term::stdout(), line.as_ref());
}

/// Prints text that people copy, line by line and unchanged.
pub(crate) fn say_text(text: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    for line in text.as_ref().lines() {
        let _ = writeln!(out, "{}", escaped(line));
    }
}

/// Prints a line for people on standard error, because standard output may be for programs.
pub(crate) fn remark(line: impl AsRef<str>) {
    print(&mut io::stderr().lock(), &Term::stderr(), line.as_ref());
}

/// Prints multi-line text for people.
pub(crate) fn remark_text(text: impl AsRef<str>) {
    text.as_ref().lines().for_each(remark);
}

fn print(out: &mut dyn Write, terminal: &Term, line: &str) {
    let line = escaped(line);
    // No width if the output is not a terminal: a file or a pipe gets each line whole.
    match terminal
        .is_term()
        .then(|| terminal.size_checked())
        .flatten()
    {
        None => {
            let _ = writeln!(out, "{line}");
        }
        Some((_, columns)) => {
            for part in wrapped(&line, columns.into(), indent(&line) + 4) {
                let _ = writeln!(out, "{part}");
            }
        }
    }
}

/// Escapes characters that control a terminal: control characters, and those that change the
/// direction of text, in JSON notation. Names of properties, ids of rows and messages of servers
/// are written by others; one that moves the cursor could erase what was reported about it.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match char {
            '\n' => clean.push_str("\\n"),
            '\r' => clean.push_str("\\r"),
            '\t' => clean.push_str("\\t"),
            obeyed if is_obeyed(obeyed) => {
                clean.push_str(&format!("\\u{:04x}", u32::from(obeyed)));
            }
            other => clean.push(other),
        }
    }
    Cow::Owned(clean)
}

/// C0, DEL and C1; the marks of
/// <https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>; line and paragraph
/// separators. None needs more than four digits.
fn is_obeyed(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Breaks a line between words into lines of at most this width, and indents all but the first. A
/// longer word stays whole, because names are there to be copied.
pub(crate) fn wrapped(line: &str, width: usize, hang: usize) -> Vec<String> {
    if measure_text_width(line) <= width {
        return vec![line.to_owned()];
    }
    let mut lines = Vec::new();
    let mut current = String::new();
    // Include the preceding spaces, so that columns stay aligned.
    for word in line.split_inclusive(' ') {
        let fits = measure_text_width(&current) + measure_text_width(word.trim_end()) <= width;
        if !fits && !current.trim().is_empty() {
            lines.push(current.trim_end().to_owned());
            current = " ".repeat(hang.min(width / 2));
        }
        current.push_str(word);
    }
    lines.push(current.trim_end().to_owned());
    lines
}

/// The progress of a phase: a bar on a terminal, otherwise a line every few seconds.
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
    failed: u64,
    total: Option<u64>,
    told: Instant,
}

impl Progress {
    /// Begins a phase with this number of steps, if it is known.
    pub(crate) fn begin(phase: impl Into<String>, total: Option<u64>) -> Self {
        let phase = phase.into();
        if !io::stderr().is_terminal() {
            return Self::Lines(Mutex::new(Lines {
                phase,
                done: 0,
                failed: 0,
                total,
                told: Instant::now(),
            }));
        }
        let template = match total {
            Some(_) => "{prefix:9} {bar:32} {pos}/{len}  {rate}  {eta} left{msg}",
            None => "{prefix:9} {spinner} {pos}  {rate}{msg}",
        };
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
            .with_prefix(phase)
            // The template is a constant of ours; if it were wrong, the default would be used.
            .with_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar())
                    // Whole numbers: the built-in key has four decimals.
                    .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
                        let _ = write!(out, "{:.0}/s", state.per_sec());
                    }),
            );
        // Draw immediately: the first step may take a while.
        bar.tick();
        Self::Bar(bar)
    }

    /// Counts completed steps.
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

    /// Sets how many of the completed steps have failed.
    pub(crate) fn failed(&self, steps: u64) {
        match self {
            Self::Bar(bar) => bar.set_message(format!(", {steps} failed")),
            Self::Lines(lines) => lines.lock().failed = steps,
        }
    }

    /// Ends the phase.
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
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        match self.total {
            Some(total) => format!("{}: {} of {total}{failed}", self.phase, self.done),
            None => format!("{}: {}{failed}", self.phase, self.done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_comes_through() {
        for (text, shown) in [
            ("row `\u{1b}[2K\r`", r"row `\u001b[2K\r`"),
            ("a\nmigrate: done", r"a\nmigrate: done"),
            ("\u{9b}2J\u{7f}\u{0}", r"\u009b2J\u007f\u0000"),
            (
                "user\u{202e}txt\u{2066}\u{200f}",
                r"user\u202etxt\u2066\u200f",
            ),
            ("ü 秘密 🔑 'x' \\", "ü 秘密 🔑 'x' \\"),
        ] {
            assert_eq!(escaped(text), shown);
        }
        // In the JSON object the same characters mean the same, and it stays valid JSON.
        let object = serde_json::json!({ "place": "/\u{1b}[2K\u{202e}\u{9b}\n" });
        let text = object.to_string();
        let shown = escaped(&text);
        assert!(!shown.contains(is_obeyed));
        let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(read, object);
    }

    #[test]
    fn what_failed_is_told_beside_what_is_done() {
        let mut lines = Lines {
            phase: "copy".into(),
            done: 240,
            failed: 0,
            total: Some(240),
            told: Instant::now(),
        };
        assert_eq!(lines.text(), "copy: 240 of 240");
        lines.failed = 239;
        assert_eq!(lines.text(), "copy: 240 of 240, 239 failed");
    }

    #[test]
    fn lines_break_between_words_and_names_stay_whole() {
        let name = "airbyte_workspace_00000000-0000-0000-0000-000000000007_secret_x_v1";
        let line = format!("            {name}  lines.jsonl#a  not found in the store, look there");
        let lines = wrapped(&line, 80, 16);
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].ends_with(name), "{lines:#?}");
        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{lines:#?}"
        );
        assert_eq!(
            lines[1].trim_start(),
            "lines.jsonl#a  not found in the store, look there"
        );
        // A word wider than the terminal stays whole.
        assert_eq!(wrapped(name, 20, 4), [name]);
        assert_eq!(wrapped("short", 80, 4), ["short"]);
    }
}
