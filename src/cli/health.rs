//! `rolecall health`: asks the server on this machine whether it is ready. It is for places without
//! another HTTP client, such as a container.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

use clap::Args;
use url::Url;

use super::{ConfigFile, Failure, say};
use crate::config::Config;

#[derive(Args)]
pub struct Arguments {
    /// The server's URL, such as http://127.0.0.1:8080; the configured address if absent
    #[arg(long)]
    url: Option<Url>,
    /// Ask only whether the process answers, not whether it is ready for requests
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    file: ConfigFile,
}

const TIMEOUT: Duration = Duration::from_secs(5);

/// Read limit for the status line, in bytes; longer than any status line.
const LONGEST_LINE: u64 = 1024;

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let address = match &arguments.url {
        Some(url) => named(url)?,
        None => bound(&Config::load(arguments.file.config.as_deref())?)?,
    };
    let status = ask(address, arguments.live).map_err(|error| {
        Failure::Other(format!(
            "nobody answers at {address}: {error}; is `rolecall serve` running, with the same \
             settings?"
        ))
    })?;
    match status.as_deref() {
        Some("200") if arguments.live => say("alive"),
        Some("200") => say("ready"),
        Some(status) => Err(Failure::Other(format!(
            "{address} is not ready ({status}): it stops, or its store does not answer; its log \
             says which"
        ))),
        None => Err(Failure::Other(format!(
            "what answers at {address} is no HTTP server; check the port"
        ))),
    }
}

/// The configured address. A server that listens on every address is asked on loopback.
fn bound(config: &Config) -> Result<SocketAddr, Failure> {
    let mut address = config.server.address();
    if address.port() == 0 {
        return Err(Failure::Other(
            "`server.listen` takes a free port, which only the server knows; name it with --url"
                .to_owned(),
        ));
    }
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address)
}

fn named(url: &Url) -> Result<SocketAddr, Failure> {
    let refused = |why: &str| Failure::Other(format!("--url {why}, as in http://127.0.0.1:8080"));
    if url.scheme() != "http" {
        return Err(refused("must be plain http, which is what Rolecall speaks"));
    }
    let host = url.host_str().ok_or_else(|| refused("must name a host"))?;
    let port = url.port_or_known_default().unwrap_or(80);
    let host = host.trim_matches(['[', ']']);
    let found = (host, port).to_socket_addrs().ok();
    found
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| refused("must name a host that can be found"))
}

/// Returns the status of `GET /health/ready`, or of `/health/live`; None if the reply is not HTTP.
fn ask(address: SocketAddr, is_live: bool) -> std::io::Result<Option<String>> {
    let path = if is_live { "live" } else { "ready" };
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!(
        "GET /health/{path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: rolecall-health\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut line = Vec::new();
    BufReader::new(stream.take(LONGEST_LINE)).read_until(b'\n', &mut line)?;
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split_ascii_whitespace();
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    let status = words.next().filter(|_| is_http);
    Ok(status.map(str::to_owned))
}
