//! Removes values that were just hydrated from text and streams, such as a connector's log.
//!
//! A [`Redactor`] finds each value as it is, and in the forms that programs print: base64 at all
//! three alignments, escaped for a URL, for JSON and by Rust's `Debug`, and single lines of a value
//! with several lines. [`Redactor::writer`] does it across the borders of chunks.
//!
//! ```
//! use secret_persistence_core::SecretValue;
//! use secret_persistence_core::redact::Redactor;
//!
//! let redactor = Redactor::builder()
//!     .value(&SecretValue::new("s3cr3t/p4ss".to_owned()))
//!     .build()?;
//! assert_eq!(redactor.redact("GET /?key=s3cr3t%2Fp4ss"), "GET /?key=**********");
//! assert_eq!(redactor.redact("nothing to hide"), "nothing to hide");
//! # Ok::<(), secret_persistence_core::Error>(())
//! ```
//!
//! # Limits
//! A value of fewer bytes than [`LEAST_LENGTH`] in UTF-8 is not searched for, because it would match
//! ordinary words; [`Redactor::too_short`] counts them. The same goes for a line of a longer value,
//! which is then found only as a whole, and not counted. Base64 that is broken into lines, encryption,
//! compression and encodings that are not listed are not recognized. At most two characters at each end of a
//! value inside a longer base64 text remain, because they depend on the neighbours of the value. The
//! automaton contains copies of the values and is not wiped when it drops.

mod async_writer;
mod forms;
#[cfg(test)]
mod tests;
mod window;
mod writer;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, Write};
use std::sync::{Arc, LazyLock};

use aho_corasick::AhoCorasick;
use serde_json::Value;
use tokio::io::AsyncWrite;
use zeroize::Zeroizing;

use crate::connector::{SecretJson, pointers};
use crate::{Error, ErrorKind, Result, SecretValue};
use window::Window;

pub use async_writer::AsyncRedactingWriter;
pub use writer::{RedactingLog, RedactingWriter};

/// The least length, in bytes of UTF-8, of what a redactor searches for, unless the builder says
/// otherwise.
pub const LEAST_LENGTH: usize = 8;

/// Finds a set of secret values in text and replaces them with [`MASK`](crate::connector::MASK). Cheap to clone.
#[derive(Clone)]
pub struct Redactor(Arc<Patterns>);

/// The forms of all values, and the automaton that finds them.
struct Patterns {
    automaton: AhoCorasick,
    /// In ascending order: the patterns that begin with a text are neighbours.
    sorted: Vec<Zeroizing<Vec<u8>>>,
    /// Whether a pattern begins with the byte.
    first: [bool; 256],
    longest: usize,
    least: usize,
    too_short: usize,
}

/// Finds nothing.
impl Default for Redactor {
    fn default() -> Self {
        static NOTHING: LazyLock<Redactor> = LazyLock::new(|| {
            let nothing = Redactor::builder().build();
            nothing.expect("an automaton without patterns")
        });
        NOTHING.clone()
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor")
            .field("patterns", &self.0.sorted.len())
            .finish_non_exhaustive()
    }
}

impl Redactor {
    /// Starts without any value.
    #[must_use]
    pub fn builder() -> RedactorBuilder {
        RedactorBuilder {
            texts: Vec::new(),
            least: LEAST_LENGTH,
        }
    }

    /// The text without the values. A value that is cut off at the end of the text is removed too,
    /// from the least length on.
    #[must_use]
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.redact_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // A pattern may begin inside a character only where the text contains the bytes of base64 or
            // escapes, which are ASCII; values are UTF-8 as a whole.
            Cow::Owned(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Cow::Owned(text),
                Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
            },
        }
    }

    /// [`redact`](Self::redact) for bytes of any encoding.
    #[must_use]
    pub fn redact_bytes<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        if !self.0.automaton.is_match(text) && self.0.begins_at(text) + self.0.least > text.len() {
            return Cow::Borrowed(text);
        }
        let mut window = Window::new(self.clone());
        let mut out = Vec::with_capacity(text.len());
        window.push(text, &mut out);
        window.finish(&mut out);
        Cow::Owned(out)
    }

    /// A writer that removes the values from what passes through.
    pub fn writer<W: Write>(&self, inner: W) -> RedactingWriter<W> {
        RedactingWriter::new(self.clone(), inner)
    }

    /// An asynchronous writer that removes the values from what passes through.
    pub fn async_writer<W: AsyncWrite + Unpin>(&self, inner: W) -> AsyncRedactingWriter<W> {
        AsyncRedactingWriter::new(self.clone(), inner)
    }

    /// Copies line by line, each line redacted by itself and flushed at once, and returns how many
    /// lines there were. A value with several lines is found by those of its lines that have the least
    /// length; [`writer`](Self::writer) finds it as a whole.
    ///
    /// # Errors
    /// Those of the reader and the writer.
    pub fn filter_lines(
        &self,
        mut reader: impl BufRead,
        mut writer: impl Write,
    ) -> io::Result<u64> {
        let mut lines = 0;
        let mut window = Window::new(self.clone());
        let mut out = Vec::new();
        loop {
            let available = match reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            if available.is_empty() {
                break;
            }
            // A line of any length needs no more memory than the longest value.
            let end = available.iter().position(|byte| *byte == b'\n');
            let used = end.unwrap_or(available.len());
            window.push(&available[..used], &mut out);
            if end.is_some() {
                window.finish(&mut out);
                out.push(b'\n');
                lines += 1;
            }
            reader.consume(used + usize::from(end.is_some()));
            writer.write_all(&out)?;
            out.clear();
            if end.is_some() {
                writer.flush()?;
            }
        }
        if window.has_begun() {
            lines += 1;
        }
        window.finish(&mut out);
        writer.write_all(&out)?;
        writer.flush()?;
        Ok(lines)
    }

    /// How many values, and strings and numbers of values that are JSON documents, were too short to be
    /// searched for.
    #[must_use]
    pub fn too_short(&self) -> usize {
        self.0.too_short
    }
}

impl Patterns {
    /// Where the end of the text begins that could become a pattern with the text that follows;
    /// the length of the text if it cannot.
    fn begins_at(&self, text: &[u8]) -> usize {
        let from = text.len().saturating_sub(self.longest.saturating_sub(1));
        (from..text.len())
            .find(|start| {
                self.first[usize::from(text[*start])] && self.is_beginning(&text[*start..])
            })
            .unwrap_or(text.len())
    }

    fn is_beginning(&self, text: &[u8]) -> bool {
        let at = self
            .sorted
            .partition_point(|pattern| pattern.as_slice() <= text);
        self.sorted
            .get(at)
            .is_some_and(|pattern| pattern.starts_with(text))
    }
}

/// Collects the values of a [`Redactor`].
pub struct RedactorBuilder {
    texts: Vec<Zeroizing<String>>,
    least: usize,
}

impl fmt::Debug for RedactorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedactorBuilder")
            .field("values", &self.texts.len())
            .field("least", &self.least)
            .finish()
    }
}

impl RedactorBuilder {
    /// Adds a value. If the value is a JSON document, each string in it is added too: programs
    /// print the private key of a service account, not the account.
    #[must_use]
    pub fn value(mut self, value: &SecretValue) -> Self {
        self.add(value.expose());
        self
    }

    /// Adds the values of a configuration: those at the places where the saved one has pointers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] if the saved configuration has malformed pointers, or the hydrated
    /// one has nothing at the place of one.
    pub fn hydrated(mut self, saved: &Value, hydrated: &Value) -> Result<Self> {
        let found = pointers(saved).map_err(|error| {
            Error::new(ErrorKind::InvalidValue, "redact: the saved configuration")
                .with_source(error)
        })?;
        for (place, _) in found {
            let Some(value) = place.find(hydrated) else {
                return Err(Error::new(
                    ErrorKind::InvalidValue,
                    format!(
                        "redact: the hydrated configuration has nothing at {place}; pass the two of one hydrate"
                    ),
                ));
            };
            match value {
                Value::String(text) => self.add(text),
                other => self.add_document(other),
            }
        }
        Ok(self)
    }

    /// The least length, in bytes of UTF-8, of what is searched for; [`LEAST_LENGTH`] by default, at
    /// least 4.
    #[must_use]
    pub fn least_length(mut self, bytes: usize) -> Self {
        self.least = bytes.max(4);
        self
    }

    /// Compiles the automaton.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] if the values are too many or too long for one automaton, which has room for
    /// two thousand million states.
    pub fn build(self) -> Result<Redactor> {
        let mut sorted: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        let mut too_short = 0;
        for text in &self.texts {
            if text.len() < self.least {
                too_short += 1;
                continue;
            }
            forms::visit(text, &mut |form| {
                if form.len() >= self.least {
                    sorted.push(Zeroizing::new(form.to_vec()));
                }
            });
        }
        sorted.sort_unstable_by(|one, other| one.as_slice().cmp(other));
        sorted.dedup_by(|one, other| one.as_slice() == other.as_slice());
        let automaton =
            AhoCorasick::new(sorted.iter().map(|pattern| pattern.as_slice())).map_err(|error| {
                Error::new(
                    ErrorKind::InvalidValue,
                    "redact: the values do not fit into one automaton",
                )
                .with_source(error)
            })?;
        let mut first = [false; 256];
        for pattern in &sorted {
            first[usize::from(pattern[0])] = true;
        }
        Ok(Redactor(Arc::new(Patterns {
            automaton,
            longest: sorted
                .iter()
                .map(|pattern| pattern.len())
                .max()
                .unwrap_or(0),
            sorted,
            first,
            least: self.least,
            too_short,
        })))
    }

    fn add(&mut self, text: &str) {
        if text.starts_with(['{', '['])
            && let Ok(document) = serde_json::from_str(text)
        {
            self.add_document(&SecretJson::new(document));
        }
        self.texts.push(Zeroizing::new(text.to_owned()));
    }

    /// The strings and numbers of a document.
    fn add_document(&mut self, document: &Value) {
        let mut open = vec![document];
        while let Some(value) = open.pop() {
            match value {
                Value::String(text) => {
                    self.texts.push(Zeroizing::new(text.clone()));
                }
                Value::Number(number) => {
                    self.texts.push(Zeroizing::new(number.to_string()));
                }
                Value::Array(items) => open.extend(items),
                Value::Object(members) => open.extend(members.values()),
                Value::Null | Value::Bool(_) => {}
            }
        }
    }
}
