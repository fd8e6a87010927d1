//! Bodies that come in chunks, watched while a handler is busy with something else.
//!
//! Where the coding of such a body is broken, actix ends the connection in the very poll in which it
//! finds out, and drops a handler that waits for something: the client would get no answer. So the
//! body is read a little ahead, and the fault becomes an answer within that poll.
//!
//! Where an answer is ready before such a body has ended, actix closes the connection only if somebody
//! still holds the body; otherwise it reads on for as long as the client sends, or does not. So the
//! answer [holds](Watched::held_by) it.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    HttpMessage,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Payload, ServiceRequest},
    error::PayloadError,
    http::header,
    web::Bytes,
};
use futures_util::Stream;

/// How far ahead of its handler a body is read: as far as actix itself does.
const AHEAD: usize = 32 * 1024;

/// The body of a request that is under way. Clones are the same one.
#[derive(Clone)]
pub struct Watched(Rc<RefCell<Ahead>>);

struct Ahead {
    source: Payload,
    read: VecDeque<Bytes>,
    /// Bytes in `read`.
    size: usize,
    has_ended: bool,
    is_broken: bool,
}

/// The body of an answer, with the body of its request, which is dropped after it.
struct Holding {
    answer: BoxBody,
    _request: Watched,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.answer.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.get_mut().answer.as_pin_mut().poll_next(context)
    }
}

/// What the handler reads in the place of the source.
struct Rest(Rc<RefCell<Ahead>>);

impl Watched {
    /// None for a request whose body does not come in chunks.
    pub fn of(request: &mut ServiceRequest) -> Option<Self> {
        if !request.headers().contains_key(header::TRANSFER_ENCODING) {
            return None;
        }
        let ahead = Rc::new(RefCell::new(Ahead {
            source: request.take_payload(),
            read: VecDeque::new(),
            size: 0,
            has_ended: false,
            is_broken: false,
        }));
        let rest = Rest(Rc::clone(&ahead));
        request.set_payload(Payload::Stream {
            payload: Box::pin(rest),
        });
        Some(Self(ahead))
    }

    /// Ends when the coding of the body is found to be broken, and never otherwise.
    pub async fn breaks(self) {
        poll_fn(|context| {
            let mut ahead = self.0.borrow_mut();
            ahead.read_on(context);
            if ahead.is_broken {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// The body of an answer that ends the connection if this body has not ended.
    pub fn held_by(self, answer: BoxBody) -> BoxBody {
        if self.0.borrow().has_ended {
            return answer;
        }
        BoxBody::new(Holding {
            answer,
            _request: self,
        })
    }
}

impl Ahead {
    fn read_on(&mut self, context: &mut Context<'_>) {
        while !self.has_ended && !self.is_broken && self.size < AHEAD {
            match Pin::new(&mut self.source).poll_next(context) {
                Poll::Ready(Some(Ok(chunk))) => {
                    self.size += chunk.len();
                    self.read.push_back(chunk);
                }
                Poll::Ready(Some(Err(_))) => self.is_broken = true,
                Poll::Ready(None) => self.has_ended = true,
                Poll::Pending => break,
            }
        }
    }
}

impl Stream for Rest {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut ahead = self.0.borrow_mut();
        ahead.read_on(context);
        if let Some(chunk) = ahead.read.pop_front() {
            ahead.size -= chunk.len();
            return Poll::Ready(Some(Ok(chunk)));
        }
        if ahead.is_broken {
            return Poll::Ready(Some(Err(PayloadError::EncodingCorrupted)));
        }
        if ahead.has_ended {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}
