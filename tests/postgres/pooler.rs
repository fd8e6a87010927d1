//! Stands before a PostgreSQL server and lends a server connection for one transaction only, as
//! PgBouncer does with `pool_mode = transaction`: what a client leaves in a session is gone with the
//! next transaction.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

/// What PgBouncer 1.18 takes of a start-up message.
const KNOWN: [&str; 8] = [
    "user",
    "database",
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "standard_conforming_strings",
    "application_name",
    "replication",
];

/// Gives each client another server connection after each transaction, out of two.
pub struct Pooler(SocketAddr);

impl Pooler {
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                thread::spawn(move || client.and_then(|client| pool(client, server)));
            }
        });
        Self(address)
    }

    pub fn address(&self) -> SocketAddr {
        self.0
    }
}

fn pool(mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
    client.set_nodelay(true)?;
    let startup = message(&mut client, 0)?;
    // Behind the length and the protocol's version: names and values, each with a zero behind it.
    let words: Vec<_> = startup[8..].split(|byte| *byte == 0).collect();
    for name in words.chunks(2).map(|pair| String::from_utf8_lossy(pair[0])) {
        if !name.is_empty() && !KNOWN.contains(&&*name) {
            return client.write_all(&refusal(&name));
        }
    }
    let mut servers = Vec::new();
    for _ in 0..2 {
        let mut server = TcpStream::connect(server)?;
        server.set_nodelay(true)?;
        server.write_all(&startup)?;
        let greeting = until_ready(&mut server)?;
        if servers.is_empty() {
            client.write_all(&greeting)?;
        }
        servers.push(server);
    }
    loop {
        for server in &mut servers {
            // Until the transaction has ended.
            loop {
                let asked = message(&mut client, 1)?;
                server.write_all(&asked)?;
                if !b"QS".contains(&asked[0]) {
                    continue;
                }
                let answer = until_ready(server)?;
                client.write_all(&answer)?;
                if answer.last() == Some(&b'I') {
                    break;
                }
            }
        }
    }
}

/// A message whole, with so many bytes before its length.
fn message(from: &mut TcpStream, before: usize) -> io::Result<Vec<u8>> {
    let mut whole = vec![0; before + 4];
    from.read_exact(&mut whole)?;
    let length: [u8; 4] = whole[before..].try_into().unwrap();
    let length = u32::from_be_bytes(length) as usize;
    whole.resize(before + length, 0);
    from.read_exact(&mut whole[before + 4..])?;
    Ok(whole)
}

/// What a server says until it is ready again; the last byte is the state of its transaction.
fn until_ready(server: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let said = message(server, 1)?;
        let is_ready = said[0] == b'Z';
        all.extend_from_slice(&said);
        if is_ready {
            return Ok(all);
        }
    }
}

/// As PgBouncer words it.
fn refusal(name: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0C08P01\0Munsupported startup parameter: {name}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap();
    [&b"E"[..], &length.to_be_bytes(), fields.as_bytes()].concat()
}
