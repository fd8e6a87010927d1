//! Chunked request bodies, watched while a handler waits for something else.
//!
//! If the chunked coding is broken, actix ends the connection in the same poll that finds the
//! fault, and drops a handler that is waiting: the client would get no response. The body is
//! therefore read a little ahead of the handler, and the fault becomes a response within that poll.
//!
//! If a response is ready before the body has ended, actix closes the connection only if the body
//! object still exists. Otherwise it keeps reading for as long as the client keeps the connection
//! open. The response therefore [holds](Watched::held_by) the body. ADR 20 gives the background.

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

/// How many bytes of a body are read ahead of its handler: the same as in actix itself.
const AHEAD: usize = 32 * 1024;

/// The body of a request in flight. Clones share one body.
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

/// A response body that keeps the body of its request until it is dropped.
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

/// The handler's end of the body, in place of the source.
struct Rest(Rc<RefCell<Ahead>>);

impl Watched {
    /// Takes over the body of `request`; None if it is not chunked.
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

    /// Completes when the chunked coding turns out to be broken, and never otherwise.
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

    /// A response body after which the connection closes, if this request body has not ended.
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
