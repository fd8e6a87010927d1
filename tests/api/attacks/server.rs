//! An authorization server that wishes us ill: it answers the token endpoint with whatever it is
//! told to, and to everything else what an honest provider behind it says.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use url::form_urlencoded;

use crate::world::{World, client};

/// A request that it was sent.
#[derive(Debug, Clone)]
pub struct Noted {
    pub method: String,
    pub path: String,
    /// Everything before the body.
    pub head: String,
    pub body: String,
}

/// An answer, byte by byte.
#[derive(Clone)]
pub struct Answer {
    bytes: Vec<u8>,
    /// Sent after the first ones until nobody listens any more.
    for_ever: Option<Vec<u8>>,
    /// In the place of all that, the request is said again, with this status.
    repeats: Option<u16>,
}

/// Where it gets what it does not make up: an API base, and a token that is good there.
struct Behind {
    api_base: String,
    token: String,
    /// What it says of whose token it is, in the place of what is true: by key.
    who: Value,
}

#[derive(Clone)]
pub struct Hostile(Arc<Shared>);

struct Shared {
    address: SocketAddr,
    noted: Mutex<Vec<Noted>>,
    answer: Mutex<Answer>,
    behind: Mutex<Behind>,
    /// Whoever holds this holds back every answer of the token endpoint.
    gate: tokio::sync::Mutex<()>,
    client: reqwest::Client,
}

impl Answer {
    pub fn raw(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!(
            "HTTP/1.1 {status} -\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
            body.len()
        );
        Self {
            bytes: [head.as_bytes(), body].concat(),
            for_ever: None,
            repeats: None,
        }
    }

    pub fn json(body: impl ToString) -> Self {
        let headers = "content-type: application/json\r\n";
        Self::raw(200, headers, body.to_string())
    }

    /// These bytes as they are, and then the others for ever.
    pub fn endless(bytes: &[u8], others: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            for_ever: Some(others.to_vec()),
            repeats: None,
        }
    }

    /// What it was asked, said again wherever an answer has room for words.
    pub fn repeating(status: u16) -> Self {
        Self {
            repeats: Some(status),
            ..Self::raw(status, "", "")
        }
    }
}

/// A pair of tokens as an honest provider gives it.
pub fn pair() -> Value {
    json!({
        "access_token": "an-access-token-of-the-hostile",
        "token_type": "bearer",
        "refresh_token": "a-refresh-token-of-the-hostile",
        "expires_in": 604_799,
    })
}

impl Noted {
    /// The field of this name of the form that was sent.
    #[track_caller]
    pub fn field(&self, name: &str) -> String {
        let mut fields = form_urlencoded::parse(self.body.as_bytes());
        let found = fields.find(|(key, _)| key == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.into_owned()
    }
}

impl Hostile {
    /// In front of this world's provider.
    pub async fn before(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::new(Shared {
            address: listener.local_addr().unwrap(),
            noted: Mutex::default(),
            answer: Mutex::new(Answer::json(pair())),
            behind: Mutex::new(Behind {
                api_base: world.simulator.announcement().api_base.clone(),
                token: world.admin_token(),
                who: json!({}),
            }),
            gate: tokio::sync::Mutex::default(),
            client: client().build().unwrap(),
        });
        let server = Self(Arc::clone(&shared));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A peer that leaves in the middle is often the point.
                tokio::spawn(serve(Arc::clone(&shared), stream));
            }
        });
        server
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.0.address)
    }

    pub fn api_base(&self) -> String {
        format!("{}/2.0", self.origin())
    }

    /// From now on the token endpoint answers so.
    pub fn issues(&self, answer: Answer) {
        *self.0.answer.lock().unwrap() = answer;
    }

    /// Until what this gives is dropped, its token endpoint answers nobody.
    pub async fn hold(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.gate.lock().await
    }

    /// From now on its tokens are of the organization of that world.
    pub fn stands_before(&self, world: &World) {
        let mut behind = self.0.behind.lock().unwrap();
        behind.api_base = world.simulator.announcement().api_base.clone();
        behind.token = world.admin_token();
    }

    /// From now on that is what it says of whose token it is.
    pub fn says_of_who(&self, who: Value) {
        self.0.behind.lock().unwrap().who = who;
    }

    /// Everything that it was sent.
    pub fn noted(&self) -> Vec<Noted> {
        self.0.noted.lock().unwrap().clone()
    }

    /// What was sent to its token endpoint in order to get tokens.
    pub fn redemptions(&self) -> Vec<Noted> {
        let mut noted = self.noted();
        noted.retain(|each| each.method == "POST" && each.path == "/2.0/token");
        noted
    }

    /// Which tokens were revoked, as they were sent.
    pub fn revoked(&self) -> Vec<String> {
        let mut noted = self.noted();
        noted.retain(|each| each.method == "DELETE" && each.path == "/2.0/token");
        noted
            .iter()
            .map(|each| header(&each.head, "authorization").unwrap_or_default())
            .collect()
    }
}

/// The value of a header field of this name.
pub fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim().to_owned())
}

async fn request(stream: &mut TcpStream) -> Option<Noted> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = header(&head, "content-length").map_or(0, |it| it.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let mut words = head.split(' ');
    Some(Noted {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        body: String::from_utf8(body).unwrap(),
        head,
    })
}

async fn serve(shared: Arc<Shared>, mut stream: TcpStream) {
    let Some(noted) = request(&mut stream).await else {
        return;
    };
    shared.noted.lock().unwrap().push(noted.clone());
    let answer = match (noted.method.as_str(), noted.path.as_str()) {
        ("POST", "/2.0/token") => {
            drop(shared.gate.lock().await);
            let answer = shared.answer.lock().unwrap().clone();
            answer
                .repeats
                .map_or(answer, |status| repeat(status, &noted))
        }
        ("DELETE", "/2.0/token") => Answer::json(json!({ "message": "SUCCESS" })),
        _ => honest(&shared, &noted).await,
    };
    let _ = stream.write_all(&answer.bytes).await;
    if let Some(others) = answer.for_ever {
        while stream.write_all(&others).await.is_ok() {}
    }
    let _ = stream.shutdown().await;
}

fn repeat(status: u16, noted: &Noted) -> Answer {
    let said = format!("{} {}", noted.body, noted.head.replace("\r\n", " "));
    let words = json!({
        "errorCode": 9999, "message": said, "refId": said, "error": said,
        "error_description": said, "access_token": [said],
    });
    let headers = format!("content-type: application/json\r\nx-said: {said}\r\n");
    Answer::raw(status, &headers, words.to_string())
}

/// What the provider behind says.
async fn honest(shared: &Shared, noted: &Noted) -> Answer {
    let (url, token, who) = {
        let behind = shared.behind.lock().unwrap();
        let path = noted.path.strip_prefix("/2.0").unwrap_or(&noted.path);
        let url = format!("{}{path}", behind.api_base);
        (url, behind.token.clone(), behind.who.clone())
    };
    let mut request = shared.client.get(url).bearer_auth(token);
    if let Some(user) = header(&noted.head, "assume-user") {
        request = request.header("assume-user", user);
    }
    let reply = request.send().await.unwrap();
    let status = reply.status().as_u16();
    let mut body: Value = reply.json().await.unwrap();
    if noted.path.starts_with("/2.0/users/me") {
        for (key, value) in who.as_object().unwrap() {
            body[key] = value.clone();
        }
    }
    let headers = "content-type: application/json\r\n";
    Answer::raw(status, headers, body.to_string())
}
