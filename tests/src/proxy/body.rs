//! A body that may end early.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// The time to send the first half before the connection is cut: an immediate error would discard
/// it.
const HEAD_START: Duration = Duration::from_millis(30);

/// The bytes of a response, or their first half with the length of the whole.
pub(super) struct AnswerBody {
    left: Option<Bytes>,
    announced: u64,
    cut: Option<Pin<Box<Sleep>>>,
}

impl AnswerBody {
    pub(super) fn whole(bytes: Bytes) -> Self {
        let announced = bytes.len() as u64;
        Self {
            left: Some(bytes).filter(|bytes| !bytes.is_empty()),
            announced,
            cut: None,
        }
    }

    /// At least one byte is missing, so that the body is never complete. An empty body is announced
    /// as one byte.
    pub(super) fn half(bytes: &Bytes) -> Self {
        let announced = bytes.len().max(1) as u64;
        let left = Some(bytes.slice(..bytes.len() / 2)).filter(|bytes| !bytes.is_empty());
        Self {
            left,
            announced,
            cut: Some(Box::pin(sleep(HEAD_START))),
        }
    }

    pub(super) fn announced(&self) -> u64 {
        self.announced
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(bytes) = self.left.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let Some(cut) = &mut self.cut else {
            return Poll::Ready(None);
        };
        ready!(cut.as_mut().poll(context));
        Poll::Ready(Some(Err(io::Error::other(
            "the answer ends here by order of a rule",
        ))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_none() && self.cut.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.announced)
    }
}
