//! The server below the routes: listeners, worker threads and the limits of connections.
//!
//! It is built from actix's parts in the same way as `HttpServer`, except that every connection is
//! read and written through a `LimitedStream` (ADR 20).

use std::{fmt, io, net::TcpListener, time::Duration};

use actix_http::{HttpService, Request, Response, error::DispatchError};
use actix_server::{GracefulShutdownSignal, Server, ServerBuilder};
use actix_service::{
    IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config,
};
use actix_web::{body::MessageBody, dev::AppConfig};
use tokio::net::TcpStream;

use super::connection::{Addresses, LimitedStream};
use crate::clock::Clock;

/// How long the server keeps reading after a response that ends the connection, so that the client
/// gets the response and no reset.
const LINGER: Duration = Duration::from_secs(1);

/// Connections for each worker if no limit is set: actix's own default.
const PER_WORKER: usize = 25_600;

/// The limits of a server.
pub struct Limits {
    /// Worker threads; 0 is one for each core.
    pub workers: usize,
    /// Open connections in total; 0 leaves actix's own limit for each worker.
    pub max_connections: usize,
    /// Open connections of one address; 0 is no limit.
    pub max_connections_per_address: usize,
    /// How long requests in flight may take to finish once the server stops.
    pub drain: Duration,
}

impl Limits {
    /// Worker threads, and the connections of each. Their product never exceeds the limit; there
    /// may be fewer workers than set.
    fn shares(&self) -> (usize, usize) {
        let workers = match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        if self.max_connections == 0 {
            return (workers, PER_WORKER);
        }
        let workers = workers.min(self.max_connections);
        (workers, self.max_connections / workers)
    }
}

/// Builds a server: call [`Builder::listen`] for each listener, then [`Builder::run`].
pub struct Builder {
    server: ServerBuilder,
    addresses: Addresses,
    clock: Clock,
}

impl Builder {
    pub fn new(limits: &Limits, clock: Clock) -> Self {
        let (workers, connections) = limits.shares();
        let server = ServerBuilder::new()
            .workers(workers)
            .max_concurrent_connections(connections)
            .shutdown_timeout(limits.drain.as_secs())
            .disable_signals();
        Self {
            server,
            addresses: Addresses::new(limits.max_connections_per_address),
            clock,
        }
    }

    /// Serves the app to the clients of `listener`. Each worker calls `app` once.
    pub fn listen<F, I, S, B>(
        mut self,
        name: &str,
        listener: TcpListener,
        app: F,
    ) -> io::Result<Self>
    where
        F: Fn() -> I + Send + Clone + 'static,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig> + 'static,
        S::Error: Into<actix_web::Error> + 'static,
        S::InitError: fmt::Debug,
        S::Response: Into<Response<B>> + 'static,
        <S::Service as actix_service::Service<Request>>::Future: 'static,
        S::Service: 'static,
        B: MessageBody + 'static,
    {
        let address = listener.local_addr()?;
        let stopping = self.server.graceful_shutdown_signal();
        let (addresses, clock) = (self.addresses.clone(), self.clock.clone());
        self.server = self.server.listen(name, listener, move || {
            let (addresses, clock) = (addresses.clone(), clock.clone());
            let app = app().into_factory();
            let app = app.map_err(|error| error.into().error_response());
            let http = HttpService::build()
                .graceful_shutdown_signal(notify(&stopping))
                .client_disconnect_timeout(LINGER)
                .local_addr(address)
                .on_connect_ext(|stream: &LimitedStream, extensions| {
                    extensions.insert(stream.activity());
                })
                // No handler asks the app for its own address.
                .h1(map_config(app, |()| AppConfig::default()));
            fn_service(move |stream: TcpStream| {
                let peer = stream.peer_addr().ok();
                let place = addresses.enter(peer).map_err(DispatchError::Io);
                let clock = clock.clone();
                async move {
                    // Responses are written whole, so Nagle's algorithm would only delay them.
                    let _ = stream.set_nodelay(true);
                    Ok((LimitedStream::new(stream, place?, clock), peer))
                }
            })
            .and_then(http)
        })?;
        Ok(self)
    }

    pub fn run(self) -> Server {
        self.server.run()
    }
}

fn notify(
    signal: &GracefulShutdownSignal,
) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = ()>>> + 'static {
    let signal = signal.clone();
    move || {
        let signal = signal.clone();
        Box::pin(async move { signal.notified().await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_the_connections_and_never_take_more() {
        let shares = |workers, max_connections| {
            let limits = Limits {
                workers,
                max_connections,
                max_connections_per_address: 0,
                drain: Duration::ZERO,
            };
            limits.shares()
        };
        assert_eq!(shares(4, 0), (4, PER_WORKER));
        assert_eq!(shares(4, 1000), (4, 250));
        assert_eq!(shares(4, 7), (4, 1));
        assert_eq!(shares(4, 3), (3, 1));
    }
}
