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
    /// What it refuses every new connection with, as the server would.
    refusal: Option<&'static str>,
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
            refusal: None,
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

    /// From now on new connections are refused with this SQLSTATE, as a server refuses a login; None
    /// lets them through again.
    pub fn refuse(&self, state: Option<&'static str>, open: Open) {
        self.state.lock().unwrap().refusal = state;
        let server = self.state.lock().unwrap().server;
        self.lead_to(server, open);
    }
}

/// Reads what a client begins with, and answers with an error that ends the connection.
fn refuse(mut client: TcpStream, state: &str) -> io::Result<()> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let rest = usize::try_from(u32::from_be_bytes(length)).unwrap() - length.len();
    client.read_exact(&mut vec![0; rest])?;
    let fields = format!("SFATAL\0VFATAL\0C{state}\0Mrefused by a test: {state}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap();
    let message = [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat();
    client.write_all(&message)?;
    client.shutdown(Shutdown::Both)
}

fn accept(state: &Mutex<State>, client: TcpStream) -> io::Result<()> {
    let mut state = state.lock().unwrap();
    if let Some(refusal) = state.refusal {
        thread::spawn(move || refuse(client, refusal));
        return Ok(());
    }
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
        thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
        to.write_all(&bytes[..read])?;
    }
}
