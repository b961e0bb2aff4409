//! A page that is sent while it is still being put together.
//!
//! Owns the way from the thread that reads rows to the connection. Parts wait in memory, and all of them together are no
//! more than the page: a caller that reads slowly holds neither a thread nor a snapshot of the store. Knows no dialect.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use dualwright_odata::batch::Response;
use futures_util::Stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A part goes out when it is that large. Smaller ones cost a switch between threads more often, and larger ones keep
/// the other end waiting; with its spare room a part stays below what allocators ask the system for one by one.
const PART_BYTES: usize = 96 * 1024;
/// The first part is smaller, so that the other end begins early. An answer below it is sent whole, with its length.
const FIRST_PART_BYTES: usize = 32 * 1024;

#[derive(Debug)]
enum Part {
    /// An answer in one piece.
    Whole(Response),
    /// Head and first bytes of an answer of which more comes.
    First(Response),
    More(Vec<u8>),
    Last(Vec<u8>),
}

/// The end that is written to.
#[derive(Debug)]
pub(crate) struct Outlet {
    parts: UnboundedSender<Part>,
    has_begun: AtomicBool,
}

/// The end from which it is sent.
#[derive(Debug)]
pub(crate) struct Inlet {
    parts: UnboundedReceiver<Part>,
}

/// What follows the first bytes of an answer.
#[derive(Debug)]
pub(crate) struct Rest {
    parts: UnboundedReceiver<Part>,
    has_ended: bool,
}

/// An answer to a request, and what is still to come of its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub response: Response,
    pub rest: Option<Rest>,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { response, rest: None }
    }
}

pub(crate) fn channel() -> (Outlet, Inlet) {
    let (outlet, inlet) = unbounded_channel();
    (Outlet { parts: outlet, has_begun: AtomicBool::new(false) }, Inlet { parts: inlet })
}

impl Outlet {
    /// Sends what is there of a body when it is enough for a part, below this head when it is the first.
    pub fn offer(&self, head: impl FnOnce() -> Response, body: &mut Vec<u8>) {
        if body.len() >= if self.has_begun() { PART_BYTES } else { FIRST_PART_BYTES } {
            self.send(head, body);
        }
    }

    fn send(&self, head: impl FnOnce() -> Response, body: &mut Vec<u8>) {
        let bytes = std::mem::replace(body, Vec::with_capacity(PART_BYTES + PART_BYTES / 4));
        let part = if self.has_begun.swap(true, Ordering::Relaxed) {
            Part::More(bytes)
        } else {
            Part::First(Response { body: bytes, ..head() })
        };
        // Who is gone misses nothing.
        let _ = self.parts.send(part);
    }

    pub fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    /// Sends the answer, or the end of one that was begun. A refusal cannot follow its own beginning: the other end
    /// sees the message break off.
    pub fn finish(&self, response: Response) {
        let part = match (self.has_begun(), response.status) {
            (false, _) => Part::Whole(response),
            (true, ..400) => Part::Last(response.body),
            (true, _) => return,
        };
        let _ = self.parts.send(part);
    }
}

impl Inlet {
    /// Waits for the head of the answer; `None` when its writer went away.
    pub async fn answer(mut self) -> Option<Answer> {
        match self.parts.recv().await? {
            Part::Whole(response) => Some(response.into()),
            Part::First(response) => {
                Some(Answer { response, rest: Some(Rest { parts: self.parts, has_ended: false }) })
            }
            Part::More(_) | Part::Last(_) => None,
        }
    }
}

impl Stream for Rest {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        self.parts.poll_recv(cx).map(|part| match part {
            Some(Part::More(bytes)) => Some(Ok(bytes.into())),
            Some(Part::Last(bytes)) => {
                self.has_ended = true;
                Some(Ok(bytes.into()))
            }
            Some(Part::Whole(_) | Part::First(_)) | None => {
                self.has_ended = true;
                Some(Err(io::ErrorKind::UnexpectedEof.into()))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::exchange::json;

    /// What arrives of parts and an end: the status, the bytes, and whether they are complete.
    async fn arrives(parts: &[&str], end: Option<Response>) -> (u16, String, bool) {
        let (outlet, inlet) = channel();
        for part in parts {
            outlet.send(|| json(200, Vec::new()), &mut part.as_bytes().to_vec());
        }
        if let Some(end) = end {
            outlet.finish(end);
        }
        drop(outlet);
        let Some(answer) = inlet.answer().await else { return (0, String::new(), false) };
        let (mut text, mut is_complete) = (String::from_utf8_lossy(&answer.response.body).into_owned(), true);
        if let Some(mut rest) = answer.rest {
            while let Some(part) = rest.next().await {
                match part {
                    Ok(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
                    Err(_) => is_complete = false,
                }
            }
        }
        (answer.response.status, text, is_complete)
    }

    #[tokio::test]
    async fn what_breaks_off_is_not_taken_for_the_end() {
        let end = |status, text: &str| Some(json(status, text.into()));
        for (parts, end, wanted) in [
            (&[][..], end(200, "all"), (200, "all", true)),
            (&[], end(404, "nothing"), (404, "nothing", true)),
            (&["a", "b"], end(200, "c"), (200, "abc", true)),
            (&["a", "b"], end(500, "failed"), (200, "ab", false)),
            (&["a"], None, (200, "a", false)),
            (&[], None, (0, "", false)),
        ] {
            let (status, text, is_complete) = arrives(parts, end).await;
            assert_eq!((status, text.as_str(), is_complete), wanted, "{parts:?}");
        }
    }
}
