//! A request's content that waits: it tells when the connection asks for it, and leaves when it may.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::oneshot;

/// Holds the content back. Dropped, it lets the request fail.
pub(super) struct Gate {
    asked: oneshot::Receiver<()>,
    leave: oneshot::Sender<()>,
}

/// The content behind the gate.
pub(super) struct Gated {
    content: Bytes,
    asked: Option<oneshot::Sender<()>>,
    leave: oneshot::Receiver<()>,
}

/// Puts a request's content behind a gate.
pub(super) fn gated(content: Bytes) -> (Gated, Gate) {
    let (ask, asked) = oneshot::channel();
    let (leave, may_leave) = oneshot::channel();
    let gated = Gated {
        content,
        asked: Some(ask),
        leave: may_leave,
    };
    (gated, Gate { asked, leave })
}

impl Gate {
    /// Waits until the connection stands and asks for the content: the head of the request is on its way. Never ends when
    /// the request does before; its answer tells that.
    pub(super) async fn asked(&mut self) {
        if (&mut self.asked).await.is_err() {
            std::future::pending().await
        }
    }

    /// Lets the content go.
    pub(super) fn open(self) {
        // If nobody waits any more, the request has ended, and its answer says how.
        let _ = self.leave.send(());
    }
}

impl Body for Gated {
    type Data = Bytes;
    type Error = oneshot::error::RecvError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(asked) = self.asked.take() {
            let _ = asked.send(());
        }
        if self.content.is_empty() {
            return Poll::Ready(None);
        }
        ready!(Pin::new(&mut self.leave).poll(context))?;
        Poll::Ready(Some(Ok(Frame::data(mem::take(&mut self.content)))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.content.len() as u64)
    }
}
