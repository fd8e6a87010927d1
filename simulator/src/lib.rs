//! A double of the Smartsheet API 2.0 that speaks real HTTP on loopback.
//!
//! It plays one organisation with users and groups, serves reads, writes and OAuth as Smartsheet
//! documents them, limits rates, and breaks on order. Where the documents leave a doubt it is
//! strict, and has a switch. It is a judge: it shares no code with any client.
//!
//! The way of a request: `server` takes it off the wire, `state` notes it and decides whether
//! one of the `faults` strikes it, `api` answers from the `world`, and `server` sends, or
//! fails to. `control` is how tests reach in. `README.md` is for those who use it.

mod api;
mod call;
mod chance;
mod churn;
mod clients;
mod clock;
mod control;
mod faults;
mod limits;
mod log;
mod mutate;
mod refusal;
mod server;
mod state;
mod switches;
mod tokens;
mod wire;
mod world;

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use actix_web::dev::ServerHandle;
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::server::Shared;
use crate::state::{Persona, State};

pub use crate::clients::OauthClient;

/// What a simulator starts with. The world is a pure function of `users`, `groups` and `seed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Users of the plan, guests included; five at the least.
    pub users: usize,
    pub groups: usize,
    pub seed: u64,
    /// Requests a minute for each access token; 0 is no limit.
    pub rate_limit: u32,
    /// How long every request of the API takes at the least.
    pub latency_ms: u64,
    /// Where the page of consent sends people; absent, a page of the simulator's own.
    pub redirect_url: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 7070,
            users: 250,
            groups: 20,
            seed: 1,
            rate_limit: 300,
            latency_ms: 0,
            redirect_url: None,
        }
    }
}

/// Where a running simulator is reached, and with what: the line that `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Announcement {
    pub api_base: String,
    pub authorize_url: String,
    pub control_url: String,
    pub tokens: Tokens,
    /// The first of the OAuth apps that are registered.
    pub oauth_client: OauthClient,
}

/// The access tokens of the people that the simulator starts with.
#[derive(Clone, Debug, Serialize)]
pub struct Tokens {
    pub system_admin: String,
    pub group_admin: String,
    pub member: String,
    /// A token without the scope READ_USERS.
    pub no_read_users: String,
    /// A token that was good once.
    pub revoked: String,
}

/// A running simulator. It ends with [`stop`](Self::stop), or when it is dropped.
#[derive(Debug)]
pub struct Simulator {
    announcement: Announcement,
    shared: Shared,
    handle: ServerHandle,
    server: Option<JoinHandle<io::Result<()>>>,
}

impl Simulator {
    /// Binds 127.0.0.1 and serves, on threads of its own, until it is stopped.
    ///
    /// # Errors
    /// If the port cannot be had.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))?;
        let origin = format!("http://{}", listener.local_addr()?);
        let redirect_url = options
            .redirect_url
            .clone()
            .unwrap_or_else(|| format!("{origin}/b/callback"));
        let (state, persona) = tokio::task::spawn_blocking(|| State::new(options, redirect_url))
            .await
            .map_err(io::Error::other)?;
        let announcement = announce(&origin, &state, persona);
        let shared = Shared::new(state);
        let (server, handle) = server::serve(listener, shared.clone())?;
        Ok(Self {
            announcement,
            shared,
            handle,
            server: Some(tokio::spawn(server)),
        })
    }

    /// Where it is reached, and with what.
    pub fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// Registers one more OAuth app, with its one redirect URL. A reset forgets it.
    ///
    /// # Panics
    /// If the URL is not an absolute one of http or https, in printable ASCII, without a fragment.
    pub fn register_client(&self, redirect_url: &str) -> OauthClient {
        let mut state = self.shared.lock();
        let registered = state.clients.register(redirect_url, None);
        registered.unwrap_or_else(|why| panic!("{why}")).clone()
    }

    /// Stops serving, at once, and frees the port.
    pub async fn stop(mut self) {
        self.handle.stop(false).await;
        if let Some(server) = self.server.take() {
            // How the server ended does not matter any more.
            let _ = server.await;
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // The order is given by the call; the future would only wait for it to be carried out.
        drop(self.handle.stop(false));
    }
}

fn announce(origin: &str, state: &State, persona: Persona) -> Announcement {
    Announcement {
        api_base: format!("{origin}{}", call::BASE),
        authorize_url: format!("{origin}/b/authorize"),
        control_url: format!("{origin}{}", control::BASE),
        tokens: Tokens {
            system_admin: persona.system_admin,
            group_admin: persona.group_admin,
            member: persona.member,
            no_read_users: persona.no_read_users,
            revoked: persona.revoked,
        },
        oauth_client: state.clients.first().clone(),
    }
}
