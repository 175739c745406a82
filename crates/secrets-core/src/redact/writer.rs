//! A [`Write`] and a log without values.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::RwLock;

use super::Redactor;
use super::window::Window;

/// A [`Write`] that removes the values from what passes through. Made by [`Redactor::writer`].
///
/// What could be the beginning of a value waits for the next chunk, also when the writer is flushed.
/// [`finish`](Self::finish) sends it; dropping does so too, and ignores errors.
pub struct RedactingWriter<W: Write> {
    inner: W,
    window: Window,
    /// Redacted and not yet sent.
    ready: Vec<u8>,
}

impl<W: Write> fmt::Debug for RedactingWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedactingWriter").finish_non_exhaustive()
    }
}

impl<W: Write> RedactingWriter<W> {
    pub(super) fn new(redactor: Redactor, inner: W) -> Self {
        Self {
            inner,
            window: Window::new(redactor),
            ready: Vec::new(),
        }
    }

    /// Sends everything: no more text follows.
    ///
    /// # Errors
    /// Those of the inner writer; another call goes on.
    pub fn finish(&mut self) -> io::Result<()> {
        self.window.finish(&mut self.ready);
        self.send()?;
        self.inner.flush()
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.ready.is_empty() {
            match self.inner.write(&self.ready) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => drop(self.ready.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for RedactingWriter<W> {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        // An error means that nothing of the chunk was taken, so what was taken before goes first.
        self.send()?;
        self.window.push(chunk, &mut self.ready);
        // An error of this attempt comes again with the next call.
        let _ = self.send();
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        self.inner.flush()
    }
}

impl<W: Write> Drop for RedactingWriter<W> {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

/// Makes the writers of a `tracing_subscriber::fmt` layer: no event shows a value.
///
/// ```
/// # #[cfg(feature = "redact-tracing")] {
/// use secret_persistence_core::SecretValue;
/// use secret_persistence_core::redact::{RedactingLog, Redactor};
///
/// let log = RedactingLog::new(std::io::stderr);
/// let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
/// // After each hydrate, with the values that are in use:
/// let value = SecretValue::new("correct horse".to_owned());
/// log.redact_with(Redactor::builder().value(&value).build()?);
/// # drop(subscriber);
/// # }
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
pub struct RedactingLog<M> {
    inner: Arc<M>,
    redactor: Arc<RwLock<Option<Redactor>>>,
}

impl<M> Clone for RedactingLog<M> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            redactor: Arc::clone(&self.redactor),
        }
    }
}

impl<M> fmt::Debug for RedactingLog<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedactingLog").finish_non_exhaustive()
    }
}

impl<M> RedactingLog<M> {
    /// Writes to what `inner` makes, such as `std::io::stderr`.
    #[must_use]
    pub fn new(inner: M) -> Self {
        Self {
            inner: Arc::new(inner),
            redactor: Arc::default(),
        }
    }

    /// Removes these values, and no others, from the events that follow; for all clones.
    pub fn redact_with(&self, redactor: Redactor) {
        *self.redactor.write() = Some(redactor);
    }
}

#[cfg(feature = "redact-tracing")]
impl<'a, M: tracing_subscriber::fmt::MakeWriter<'a>> tracing_subscriber::fmt::MakeWriter<'a>
    for RedactingLog<M>
{
    type Writer = RedactingWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        let redactor = self.redactor.read().clone();
        RedactingWriter::new(redactor.unwrap_or_default(), self.inner.make_writer())
    }

    fn make_writer_for(&'a self, metadata: &tracing::Metadata<'_>) -> Self::Writer {
        let redactor = self.redactor.read().clone();
        let inner = self.inner.make_writer_for(metadata);
        RedactingWriter::new(redactor.unwrap_or_default(), inner)
    }
}
