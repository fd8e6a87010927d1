//! The baseline for reads: a bare actix-web server with Rolecall's settings that answers each path
//! with bytes prepared in advance. No actix-web server can answer them faster.

use std::{fs, io::BufRead, io::BufReader, net::SocketAddr, path::Path, process::Stdio};

use actix_web::{
    App, HttpResponse, HttpServer,
    http::{
        StatusCode,
        header::{HeaderName, HeaderValue},
    },
    web::{self, Bytes},
};

use crate::{
    Outcome,
    load::Reply,
    own_program,
    process::{Core, Running, on_core},
    read_file,
};

/// Headers that actix-web adds itself.
const OWN_HEADERS: [&str; 3] = ["content-length", "date", "connection"];

/// The path of the nth reply.
pub fn path(of: usize) -> String {
    format!("/{of}")
}

/// Starts a process that answers with these replies.
pub fn start(replies: &[Reply], folder: &Path) -> Outcome<(Running, SocketAddr)> {
    let file = folder.join("replies");
    fs::write(&file, postcard::to_stdvec(replies)?)?;
    let mut command = own_program()?;
    command.arg("--bare").arg(&file).stdout(Stdio::piped());
    let mut running = on_core(Core::Servers, || Running::start(&mut command))?;
    let out = running.child().stdout.take().ok_or("it has no output")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    let address = line
        .trim()
        .parse()
        .map_err(|_| "the bare server did not come up")?;
    Ok((running, address))
}

/// Runs as that process.
pub fn serve(replies: &Path) -> Outcome<()> {
    let replies: Vec<Reply> = postcard::from_bytes(&read_file(replies)?)?;
    let replies = replies.iter().map(Ready::of).collect::<Outcome<Vec<_>>>()?;
    actix_web::rt::System::new().block_on(async move {
        let app = move || {
            let replies = replies.clone();
            App::new().configure(move |config: &mut web::ServiceConfig| {
                for (of, ready) in replies.into_iter().enumerate() {
                    let answer = move || std::future::ready(ready.answer());
                    config.route(&path(of), web::get().to(answer));
                }
            })
        };
        let server = HttpServer::new(app)
            .workers(1)
            .tcp_nodelay(true)
            .bind(("127.0.0.1", 0))?;
        println!("{}", server.addrs()[0]);
        Ok(server.run().await?)
    })
}

/// A reply whose status and headers are parsed in advance.
#[derive(Clone)]
struct Ready {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Ready {
    fn of(reply: &Reply) -> Outcome<Self> {
        let headers = reply
            .headers
            .iter()
            .filter(|(name, _)| !OWN_HEADERS.contains(&name.as_str()));
        Ok(Self {
            status: StatusCode::from_u16(reply.status)?,
            headers: headers
                .map(|(name, value)| Ok((name.parse()?, value.parse()?)))
                .collect::<Outcome<_>>()?,
            body: reply.body.clone().into(),
        })
    }

    fn answer(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        for header in &self.headers {
            response.insert_header(header.clone());
        }
        match self.body.is_empty() {
            true => response.finish(),
            false => response.body(self.body.clone()),
        }
    }
}
