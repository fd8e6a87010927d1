//! A client's connection, with the time limits that actix-http does not set.
//!
//! actix-http limits the time for the first request head of a connection, and the time that a
//! connection is idle. It limits neither a later head that stops halfway nor a client that does not
//! read its response. Every connection is therefore read and written through a [`LimitedStream`].
//! Its [`Activity`] tells it whether a request is in flight. ADR 20 gives the background.

use std::{
    cell::Cell,
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::clock::Clock;

/// How long the next request may take to arrive, counted from the last response.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// How long a client may go without reading any of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

type Timer = Pin<Box<dyn Future<Output = ()>>>;

/// The state of one connection, shared by its stream and the middleware.
pub struct Activity {
    clock: Clock,
    requests: Cell<usize>,
    /// When the connection was opened, the last request answered, or the last byte written.
    quiet_since: Cell<Duration>,
}

impl Activity {
    fn new(clock: Clock) -> Rc<Self> {
        let quiet_since = Cell::new(clock.monotonic());
        Rc::new(Self {
            clock,
            requests: Cell::new(0),
            quiet_since,
        })
    }

    /// Counts a request as in flight until the value is dropped.
    pub fn request(self: &Rc<Self>) -> UnderWay {
        self.requests.set(self.requests.get() + 1);
        UnderWay(Rc::clone(self))
    }

    fn progressed(&self) {
        self.quiet_since.set(self.clock.monotonic());
    }

    /// How much longer the next request may take; None while one is in flight.
    fn patience(&self) -> Option<Duration> {
        let quiet = self
            .clock
            .monotonic()
            .saturating_sub(self.quiet_since.get());
        (self.requests.get() == 0).then(|| REQUEST_WITHIN.saturating_sub(quiet))
    }

    fn timer(&self, wait: Duration) -> Timer {
        let clock = self.clock.clone();
        Box::pin(async move { clock.sleep(wait).await })
    }
}

/// A request in flight.
pub struct UnderWay(Rc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get() - 1);
        self.0.progressed();
    }
}

/// A connection that closes by itself. If no request arrives in time, it reads as if the client had
/// closed its side. If the client does not read, writing fails.
pub struct LimitedStream {
    stream: TcpStream,
    activity: Rc<Activity>,
    read_timer: Option<Timer>,
    /// Runs while the client does not read.
    write_timer: Option<Timer>,
    _place: Option<ConnectionPermit>,
}

impl LimitedStream {
    pub fn new(stream: TcpStream, place: Option<ConnectionPermit>, clock: Clock) -> Self {
        Self {
            stream,
            activity: Activity::new(clock),
            read_timer: None,
            write_timer: None,
            _place: place,
        }
    }

    pub fn activity(&self) -> Rc<Activity> {
        Rc::clone(&self.activity)
    }

    /// Ready once no request has arrived in time.
    fn poll_quiet(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(timer) = &mut self.read_timer {
                ready!(timer.as_mut().poll(context));
                self.read_timer = None;
                if self.activity.patience() == Some(Duration::ZERO) {
                    return Poll::Ready(());
                }
            }
            // A request in flight has its own limits. Check this one again after it.
            let wait = self.activity.patience().unwrap_or(REQUEST_WITHIN);
            self.read_timer = Some(self.activity.timer(wait));
        }
    }

    fn wrote<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.write_timer = None;
            self.activity.progressed();
            return outcome;
        }
        let timer = self
            .write_timer
            .get_or_insert_with(|| self.activity.timer(WRITE_TIMEOUT));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_read(context, into) {
            Poll::Ready(read) => Poll::Ready(read),
            // Ready without any bytes read: the end of the stream.
            Poll::Pending => this.poll_quiet(context).map(Ok),
        }
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.wrote(context, outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// The number of open connections of each client address, up to a limit.
#[derive(Clone)]
pub struct Addresses {
    limit: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Addresses {
    /// At most `limit` connections of one address; 0 is no limit.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            open: Arc::default(),
        }
    }

    /// Counts a connection of `peer` until the permit is dropped; None if there is no limit, or no
    /// known peer.
    ///
    /// # Errors
    /// `ConnectionRefused` if the address has no connection left.
    pub fn enter(&self, peer: Option<SocketAddr>) -> Result<Option<ConnectionPermit>, io::Error> {
        let (1.., Some(peer)) = (self.limit, peer) else {
            return Ok(None);
        };
        // An IPv4-mapped IPv6 address counts as its IPv4 address.
        let address = peer.ip().to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.limit {
            let message = "too many connections of one address";
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, message));
        }
        *count += 1;
        Ok(Some(ConnectionPermit {
            address,
            open: Arc::clone(&self.open),
        }))
    }
}

/// One of the connections that an address may have open.
pub struct ConnectionPermit {
    address: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_places_and_no_more_whichever_way_it_is_written() {
        let addresses = Addresses::new(2);
        let peer = |text: &str| Some(text.parse().unwrap());
        let first = addresses.enter(peer("192.0.2.1:1")).unwrap();
        let _second = addresses.enter(peer("[::ffff:192.0.2.1]:2")).unwrap();
        assert!(addresses.enter(peer("192.0.2.1:3")).is_err());
        assert!(addresses.enter(peer("192.0.2.2:1")).is_ok());
        drop(first);
        assert!(addresses.enter(peer("192.0.2.1:4")).is_ok());
        let unlimited = Addresses::new(0);
        assert!((0..9).all(|_| unlimited.enter(peer("192.0.2.1:1")).is_ok()));
    }
}
