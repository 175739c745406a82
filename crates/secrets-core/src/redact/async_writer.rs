//! An [`AsyncWrite`] without values.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::Redactor;
use super::window::Window;

/// An [`AsyncWrite`] that removes the values from what passes through. Made by
/// [`Redactor::async_writer`].
///
/// What could be the beginning of a value waits for the next chunk, also when the writer is flushed;
/// `shutdown` sends it. A writer that drops before loses it.
pub struct AsyncRedactingWriter<W> {
    inner: W,
    window: Window,
    /// Redacted and not yet sent.
    ready: Vec<u8>,
}

impl<W> fmt::Debug for AsyncRedactingWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncRedactingWriter")
            .finish_non_exhaustive()
    }
}

impl<W: AsyncWrite + Unpin> AsyncRedactingWriter<W> {
    pub(super) fn new(redactor: Redactor, inner: W) -> Self {
        Self {
            inner,
            window: Window::new(redactor),
            ready: Vec::new(),
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.ready.is_empty() {
            let sent = ready!(Pin::new(&mut self.inner).poll_write(context, &self.ready))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.ready.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for AsyncRedactingWriter<W> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        chunk: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // An error, or waiting, means that nothing of the chunk was taken.
        ready!(this.poll_send(context))?;
        this.window.push(chunk, &mut this.ready);
        // An error of this attempt comes again with the next call.
        let _ = this.poll_send(context);
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.window.finish(&mut this.ready);
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}
