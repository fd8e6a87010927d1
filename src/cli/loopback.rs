//! The loopback redirect listener of `rolecall link` (RFC 8252, 7.3). [`super::pasted`] handles the
//! response that a person pastes instead.
//!
//! [`Listener`] accepts only the redirect of its own sign-in. A request with another path or
//! another `state` is refused and changes nothing, so neither a favicon nor a page that guesses the
//! port ends a sign-in. An idle connection does not delay the others.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use url::{Host, Url, form_urlencoded};

use super::Failure;

/// Limit of a request's head in bytes; larger than all cookies that a browser has for localhost.
const LONGEST_HEAD: usize = 64 * 1024;

/// Timeout for receiving the request, and for sending the page.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The number of connections that are read at once; further ones are dropped.
const MAX_CONCURRENT: usize = 64;

/// The authorization response.
pub enum Decision {
    Code(SecretString),
    /// An error code of RFC 6749, 4.1.2.1, or `other`.
    Refused(&'static str),
}

/// The reason why a query is not the authorization response of this sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotARedirect {
    /// `state` is absent, repeated, or of another sign-in.
    State,
    /// It has neither a valid code nor an error.
    Nothing,
}

impl Decision {
    /// Parses the query of a redirect.
    pub fn in_query(query: &str, state: &SecretString) -> Result<Self, NotARedirect> {
        // RFC 6749, 3.1: a parameter must not be repeated. A repeated one counts as absent.
        let only = |name: &str| {
            let pairs = form_urlencoded::parse(query.as_bytes());
            let mut values = pairs.filter(|(key, _)| key == name);
            let value = values.next().map(|(_, value)| value);
            value.filter(|_| values.next().is_none())
        };
        let given = only("state").ok_or(NotARedirect::State)?;
        if !is_same(&given, state) {
            return Err(NotARedirect::State);
        }
        if let Some(error) = only("error") {
            return Ok(Self::Refused(known(&error)));
        }
        let code = only("code").filter(|code| is_code(code));
        Ok(Self::Code(
            code.ok_or(NotARedirect::Nothing)?.as_ref().into(),
        ))
    }
}

fn is_same(given: &str, state: &SecretString) -> bool {
    given
        .as_bytes()
        .ct_eq(state.expose_secret().as_bytes())
        .into()
}

/// The syntax of RFC 6749, A.11, without the space, in at most 4096 bytes.
pub fn is_code(text: &str) -> bool {
    (1..=4096).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn known(error: &str) -> &'static str {
    const KNOWN: [&str; 7] = [
        "access_denied",
        "invalid_request",
        "invalid_scope",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_response_type",
    ];
    KNOWN
        .into_iter()
        .find(|word| *word == error)
        .unwrap_or("other")
}

/// Listens on the loopback port of an app's redirect URL.
pub struct Listener {
    sockets: Vec<TcpListener>,
    redirect_url: Url,
}

/// A browser that delivered the response and waits for a page.
pub struct Connection {
    stream: TcpStream,
    pub decision: Decision,
}

impl Listener {
    pub async fn at(redirect_url: &str) -> Result<Self, Failure> {
        let elsewhere = || {
            Failure::Other(format!(
                "the profile's redirect URL {redirect_url} does not lead to a port of this machine, \
                 such as http://localhost:7433/callback; use --headless, or a profile of an app \
                 that is registered with such a one"
            ))
        };
        let url = Url::parse(redirect_url).map_err(|_| elsewhere())?;
        let port = url.port().filter(|_| url.scheme() == "http");
        let port = port.ok_or_else(elsewhere)?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (address, other) = match url.host() {
            Some(Host::Ipv4(address)) if address.is_loopback() => ((address, port).into(), None),
            Some(Host::Ipv6(address)) if address.is_loopback() => ((address, port).into(), None),
            // A browser may try IPv4 or IPv6 first.
            Some(Host::Domain("localhost")) => (
                loopback,
                Some(SocketAddr::from((Ipv6Addr::LOCALHOST, port))),
            ),
            _ => return Err(elsewhere()),
        };
        let bound = TcpListener::bind(address).await.map_err(|error| {
            Failure::Other(format!(
                "cannot listen on {address}, where the profile's redirect URL leads: {error}; end \
                 what listens there, or use --headless"
            ))
        })?;
        let mut sockets = vec![bound];
        if let Some(other) = other {
            // Not every machine has IPv6.
            sockets.extend(TcpListener::bind(other).await.ok());
        }
        Ok(Self {
            sockets,
            redirect_url: url,
        })
    }

    /// Waits for the redirect with this `state`. Other requests get an error, and the wait goes on.
    pub async fn connection(&self, state: &SecretString) -> Result<Connection, Failure> {
        let mut greeted = JoinSet::new();
        loop {
            tokio::select! {
                stream = self.accept() => {
                    if greeted.len() < MAX_CONCURRENT {
                        let (url, state) = (self.redirect_url.clone(), state.clone());
                        greeted.spawn(greet(stream?, url, state));
                    }
                }
                Some(connection) = greeted.join_next() => {
                    if let Some(connection) = connection.map_err(Failure::other)? {
                        return Ok(connection);
                    }
                }
            }
        }
    }

    async fn accept(&self) -> Result<TcpStream, Failure> {
        let (first, second) = (&self.sockets[0], self.sockets.get(1));
        let second = async {
            match second {
                Some(socket) => socket.accept().await,
                None => std::future::pending().await,
            }
        };
        let (stream, _) = tokio::select! {
            accepted = first.accept() => accepted?,
            accepted = second => accepted?,
        };
        Ok(stream)
    }
}

/// Reads a request. Returns the connection if the request is the expected redirect; answers any
/// other.
async fn greet(mut stream: TcpStream, registered: Url, state: SecretString) -> Option<Connection> {
    let target = timeout(READ_TIMEOUT, target(&mut stream)).await.ok()??;
    let url = registered.join(&target).ok();
    let url = url.filter(|url| {
        target.starts_with('/')
            && url.origin() == registered.origin()
            && url.path() == registered.path()
    });
    let Some(url) = url else {
        answer(&mut stream, "404 Not Found", "Nothing is here", "").await;
        return None;
    };
    match Decision::in_query(url.query().unwrap_or_default(), &state) {
        Ok(decision) => Some(Connection { stream, decision }),
        Err(NotARedirect::State) => {
            let text = "This is not the sign-in that is waited for. Use the newest address that \
                        rolecall printed.";
            answer(&mut stream, "400 Bad Request", "Another sign-in", text).await;
            None
        }
        Err(NotARedirect::Nothing) => {
            let text = "The provider sent neither a code nor a reason. Try to sign in again.";
            answer(&mut stream, "400 Bad Request", "Nothing came back", text).await;
            None
        }
    }
}

/// Reads a request's head and returns the target of a GET request; None for anything else.
async fn target(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if head.len() > LONGEST_HEAD || stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    (method == "GET" && version.starts_with("HTTP/1.")).then(|| target.to_owned())
}

impl Connection {
    /// Sends the final page. Ignores a browser that has disconnected.
    pub async fn tell(mut self, is_good: bool, heading: &str, text: &str) {
        let status = if is_good { "200 OK" } else { "400 Bad Request" };
        answer(&mut self.stream, status, heading, text).await;
    }
}

async fn answer(stream: &mut TcpStream, status: &str, heading: &str, text: &str) {
    let (heading, text) = (escaped(heading), escaped(text));
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{heading} – Rolecall</title></head>\
         <body><main><h1>{heading}</h1><p>{text}</p></main></body></html>\n"
    );
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\n\
         content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n\
         referrer-policy: no-referrer\r\nx-content-type-options: nosniff\r\n\
         cache-control: no-store\r\nconnection: close\r\n\r\n",
        page.len()
    );
    let sending = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(page.as_bytes()).await?;
        stream.shutdown().await
    };
    // A browser that has disconnected needs no answer.
    let _ = timeout(READ_TIMEOUT, sending).await;
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(query: &str) -> Result<Decision, NotARedirect> {
        Decision::in_query(query, &"the-state".into())
    }

    #[test]
    fn what_is_of_another_sign_in_or_says_nothing_is_told_apart() {
        for query in ["code=c&state=the-state", "state=the-state&code=%63&x=y"] {
            let Ok(Decision::Code(code)) = decided(query) else {
                panic!("{query}");
            };
            assert_eq!(code.expose_secret(), "c");
        }
        for (query, stray) in [
            ("", NotARedirect::State),
            ("code=c", NotARedirect::State),
            ("code=c&state=another", NotARedirect::State),
            (
                "code=c&state=the-state&state=the-state",
                NotARedirect::State,
            ),
            ("error=access_denied&state=another", NotARedirect::State),
            ("state=the-state", NotARedirect::Nothing),
            ("state=the-state&code=", NotARedirect::Nothing),
            ("state=the-state&code=a&code=b", NotARedirect::Nothing),
            ("state=the-state&code=two+words", NotARedirect::Nothing),
        ] {
            assert_eq!(decided(query).err(), Some(stray), "{query}");
        }
    }

    #[test]
    fn a_refusal_is_one_of_the_words_that_are_known() {
        for (error, word) in [("access_denied", "access_denied"), ("<b>", "other")] {
            let query = format!("error={error}&state=the-state");
            let Ok(Decision::Refused(said)) = decided(&query) else {
                panic!("{error}");
            };
            assert_eq!(said, word);
        }
    }

    #[test]
    fn nothing_in_a_page_is_markup() {
        assert_eq!(
            escaped("<a href='x'>&\""),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;"
        );
    }
}
