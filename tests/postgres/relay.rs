//! Stands before a PostgreSQL server, and can be led elsewhere or cut.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Passes every byte on to one server, or to another from some moment on, or to nobody.
pub struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// What becomes of connections that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    End,
    Stay,
}

struct State {
    /// None while it is cut.
    server: Option<SocketAddr>,
    open: Vec<TcpStream>,
    /// How long the server's bytes are kept back, in milliseconds.
    delay: Arc<AtomicU64>,
}

impl Relay {
    /// None where this machine has no such address.
    pub fn at(listen: &str, server: SocketAddr) -> Option<Self> {
        let listener = TcpListener::bind(listen).ok()?;
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            server: Some(server),
            open: Vec::new(),
            delay: Arc::default(),
        }));
        let relay = Self {
            address,
            state: Arc::clone(&state),
        };
        thread::spawn(move || {
            for client in listener.incoming() {
                let _ = client.and_then(|client| accept(&state, client));
            }
        });
        Some(relay)
    }

    pub fn to(server: SocketAddr) -> Self {
        Self::at("127.0.0.1:0", server).unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on each answer of the server comes so much later, also on connections that are open.
    pub fn delay(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap();
        self.state
            .lock()
            .unwrap()
            .delay
            .store(millis, Ordering::Relaxed);
    }

    /// From now on connections lead here, or nowhere. What becomes of the open ones is another
    /// matter.
    pub fn lead_to(&self, server: Option<SocketAddr>, open: Open) {
        let mut state = self.state.lock().unwrap();
        state.server = server;
        if open == Open::End {
            for stream in state.open.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

fn accept(state: &Mutex<State>, client: TcpStream) -> io::Result<()> {
    let mut state = state.lock().unwrap();
    let Some(server) = state.server else {
        return client.shutdown(Shutdown::Both);
    };
    let server = TcpStream::connect(server)?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    state.open.push(client.try_clone()?);
    state.open.push(server.try_clone()?);
    let none = Arc::default();
    for (from, to, delay) in [
        (client.try_clone()?, server.try_clone()?, none),
        (server, client, Arc::clone(&state.delay)),
    ] {
        thread::spawn(move || {
            let _ = pass(&from, &to, &delay);
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, delay: &AtomicU64) -> io::Result<()> {
    let mut bytes = [0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        let delay = delay.load(Ordering::Relaxed);
        if delay > 0 {
            // Nobody unparks this thread.
            thread::park_timeout(Duration::from_millis(delay));
        }
        to.write_all(&bytes[..read])?;
    }
}
