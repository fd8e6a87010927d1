//! A server that refuses every login, as PostgreSQL does.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

/// A server that answers everybody with this SQLSTATE, and where it listens.
pub fn refusing(state: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let _ = client.and_then(|client| refuse(client, state));
        }
    });
    address
}

/// Reads what a client begins with, and answers with an error that ends the connection.
fn refuse(mut client: TcpStream, state: &str) -> io::Result<()> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let rest = usize::try_from(u32::from_be_bytes(length)).unwrap_or(4) - length.len();
    client.read_exact(&mut vec![0; rest])?;
    let fields = format!("SFATAL\0VFATAL\0C{state}\0Mrefused by a test: {state}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap_or(0);
    let message = [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat();
    client.write_all(&message)?;
    client.shutdown(Shutdown::Both)
}
