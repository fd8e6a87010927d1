//! A simulator of the Smartsheet API 2.0 that speaks real HTTP on loopback.
//!
//! It simulates one organization with users and groups, serves reads, writes and OAuth as
//! Smartsheet documents them, limits request rates, and injects faults. Where the documentation is
//! unclear it is strict, and a switch changes the behavior. It shares no code with any client, so
//! that it does not share a client's mistakes.
//!
//! The steps of a request: `server` receives it, `state` logs it and selects a matching fault from
//! `faults`, `api` answers it from the `world`, and `server` sends the reply or breaks the
//! connection. `control` is the API for tests. `README.md` is the guide for users.

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

/// The start options. The world depends only on `users`, `groups` and `seed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Users of the plan, including guests; at least five.
    pub users: usize,
    pub groups: usize,
    pub seed: u64,
    /// Requests per minute for each access token; 0 is no limit.
    pub rate_limit: u32,
    /// The minimum duration of an API request.
    pub latency_ms: u64,
    /// The redirect URL of the first app; None for a page of the simulator.
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

/// The URLs and credentials of a running simulator. `--json` prints them as one line.
#[derive(Clone, Debug, Serialize)]
pub struct Announcement {
    pub api_base: String,
    pub authorize_url: String,
    pub control_url: String,
    pub tokens: Tokens,
    /// The first registered OAuth app.
    pub oauth_client: OauthClient,
}

/// The access tokens that exist at the start.
#[derive(Clone, Debug, Serialize)]
pub struct Tokens {
    pub system_admin: String,
    pub group_admin: String,
    pub member: String,
    /// A token without the scope READ_USERS.
    pub no_read_users: String,
    /// A revoked token.
    pub revoked: String,
}

/// A running simulator. It stops at [`stop`](Self::stop) or when it is dropped.
#[derive(Debug)]
pub struct Simulator {
    announcement: Announcement,
    shared: Shared,
    handle: ServerHandle,
    server: Option<JoinHandle<io::Result<()>>>,
}

impl Simulator {
    /// Binds 127.0.0.1 and serves on its own threads until it is stopped.
    ///
    /// # Errors
    /// If the port cannot be bound.
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

    /// The URLs and credentials.
    pub fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// Registers an OAuth app with one redirect URL. A reset removes it.
    ///
    /// # Panics
    /// If the URL is not an absolute http or https URL in printable ASCII without a fragment.
    pub fn register_client(&self, redirect_url: &str) -> OauthClient {
        let mut state = self.shared.lock();
        let registered = state.clients.register(redirect_url, None);
        registered.unwrap_or_else(|why| panic!("{why}")).clone()
    }

    /// Stops serving at once and frees the port.
    pub async fn stop(mut self) {
        self.handle.stop(false).await;
        if let Some(server) = self.server.take() {
            // The server is stopped; how it ended does not matter.
            let _ = server.await;
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // The call itself sends the stop command; the future would only wait for it.
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
