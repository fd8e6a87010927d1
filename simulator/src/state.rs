//! The simulator's state, behind one lock, and the steps of a request.
//!
//! A request has two steps: [`State::arrive`] logs it and selects a fault, and [`State::answer`]
//! serves it. If the request must be delayed, the server waits between the two without holding the
//! lock.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::Options;
use crate::api;
use crate::call::{Call, Reply};
use crate::chance::Chance;
use crate::churn::Churn;
use crate::clients::{Clients, OauthClient};
use crate::clock::Clock;
use crate::faults::{Fault, Faults};
use crate::limits::Limits;
use crate::log::{Entry, Log};
use crate::refusal::{self, Refusal};
use crate::switches::{Switches, TokenErrorBody};
use crate::tokens::{Grant, Scopes, Tokens};
use crate::world::{World, genesis};

/// The state of a running simulator.
pub struct State {
    options: Options,
    pub clients: Clients,
    pub world: World,
    pub tokens: Tokens,
    pub clock: Clock,
    pub switches: Switches,
    pub faults: Faults,
    pub churn: Option<Churn>,
    pub limits: Limits,
    pub log: Log,
    references: Chance,
}

/// The values of the tokens that exist at the start.
pub struct Persona {
    pub system_admin: String,
    pub group_admin: String,
    pub member: String,
    pub no_read_users: String,
    pub revoked: String,
}

/// A request that was logged and is not yet answered.
pub struct Arrival {
    seq: u64,
    pub wait: Duration,
    fault: Option<Fault>,
}

/// A reply, and the way it is delivered.
pub struct Outcome {
    pub reply: Reply,
    pub delivery: Delivery,
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self {
            reply,
            delivery: Delivery::Whole,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Whole,
    Trickle {
        bytes_per_s: u64,
    },
    /// The header declares the full length; only this many bytes are sent.
    Truncated {
        bytes: usize,
    },
    /// Nothing is sent, and the connection is closed.
    Dropped,
    /// Nothing is sent, and the connection is reset.
    Reset,
}

impl State {
    /// The state at the start, with its tokens.
    pub fn new(options: Options, redirect_url: String) -> (Self, Persona) {
        let clock = Clock::default();
        let clients = Clients::new(options.seed, redirect_url);
        let (world, tokens, persona) = beginning(&options, clients.first(), clock.now());
        let state = Self {
            clients,
            world,
            tokens,
            clock,
            switches: Switches::new(options.rate_limit),
            faults: Faults::default(),
            churn: None,
            limits: Limits::default(),
            log: Log::default(),
            references: Chance::new(options.seed, "references"),
            options,
        };
        (state, persona)
    }

    /// Restores the start state, except for the log, whose numbers go on, and the sequence of
    /// `refId`s.
    pub fn reset(&mut self) {
        self.clock = Clock::default();
        let redirect_url = self.clients.first().redirect_url.clone();
        self.clients = Clients::new(self.options.seed, redirect_url);
        let (world, tokens, _) = beginning(&self.options, self.clients.first(), self.clock.now());
        self.world = world;
        self.tokens = tokens;
        self.switches = Switches::new(self.options.rate_limit);
        self.faults = Faults::default();
        self.churn = None;
        self.limits = Limits::default();
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Logs a request and selects the fault for it.
    pub fn arrive(&mut self, call: &Call) -> Arrival {
        let token = self.token_name(call);
        let seq = self.log.note(Entry {
            seq: 0,
            at_ms: self.now().as_millisecond(),
            method: call.method.clone(),
            path: call.path.clone(),
            query: call.raw_query.clone(),
            token: token.clone(),
            assume_user: call.assume_user.clone(),
            status: None,
            error_code: None,
        });
        let fault = self.faults.strike(call, token.as_deref());
        let delay_ms = match &fault {
            Some(Fault::Delay { ms }) => *ms,
            _ => 0,
        };
        Arrival {
            seq,
            wait: Duration::from_millis(self.options.latency_ms.saturating_add(delay_ms)),
            fault,
        }
    }

    /// The name of the request's bearer token; for a token request, the name of the grant that is
    /// refreshed.
    fn token_name(&self, call: &Call) -> Option<String> {
        let refresh = call
            .is_token_call()
            .then(|| api::oauth::refresh_token_of(call))
            .flatten();
        if let Some(token) = refresh.and_then(|refresh| self.tokens.find_by_refresh(&refresh)) {
            return Some(token.grant.name.clone());
        }
        let bearer = call.bearer()?;
        Some(
            self.tokens
                .find(bearer)
                .map_or_else(|| "unknown".to_owned(), |token| token.grant.name.clone()),
        )
    }

    /// Answers a logged request.
    pub fn answer(&mut self, arrival: Arrival, call: &Call) -> Outcome {
        let outcome = self.outcome(arrival.fault, call);
        let is_sent = !matches!(outcome.delivery, Delivery::Dropped | Delivery::Reset);
        let status = is_sent.then_some(outcome.reply.status);
        let error_code = outcome.reply.error_code.filter(|_| is_sent);
        self.log.answered(arrival.seq, status, error_code);
        outcome
    }

    fn outcome(&mut self, fault: Option<Fault>, call: &Call) -> Outcome {
        match fault {
            Some(Fault::Status {
                status,
                error_code,
                retry_after,
            }) => self.injected(status, error_code, retry_after).into(),
            Some(Fault::Body {
                status,
                content_type,
                body,
            }) => Reply {
                status,
                content_type: content_type.into(),
                headers: Vec::new(),
                body: body.into(),
                error_code: None,
            }
            .into(),
            Some(Fault::Reset) => Outcome {
                reply: Reply::empty(500),
                delivery: Delivery::Reset,
            },
            fault => {
                let mut reply = api::serve(self, call, fault.as_ref());
                if let Some(fault) = &fault {
                    fault.edit(&mut reply);
                }
                let delivery = match fault {
                    Some(Fault::Trickle { bytes_per_s }) => Delivery::Trickle { bytes_per_s },
                    Some(Fault::Truncate { bytes }) => Delivery::Truncated { bytes },
                    Some(Fault::DropReply) => Delivery::Dropped,
                    _ => Delivery::Whole,
                };
                Outcome { reply, delivery }
            }
        }
    }

    fn injected(
        &mut self,
        status: u16,
        error_code: Option<u32>,
        retry_after: Option<String>,
    ) -> Reply {
        let mut reply = match error_code {
            Some(number) => {
                self.error_body(status, number, refusal::message_of(number).into(), None)
            }
            None => Reply::empty(status),
        };
        reply
            .headers
            .extend(retry_after.map(|value| ("retry-after", value)));
        reply
    }

    /// The reply for a refusal.
    pub fn refused(&mut self, refusal: Refusal) -> Reply {
        let Refusal {
            code,
            message,
            detail,
        } = refusal;
        let is_scope = code == refusal::SCOPE_MISSING;
        let status = if is_scope {
            self.switches.missing_scope_status
        } else {
            code.status
        };
        self.error_body(status, code.number, message.into_owned(), detail)
    }

    fn error_body(
        &mut self,
        status: u16,
        number: u32,
        message: String,
        detail: Option<Value>,
    ) -> Reply {
        let mut body = Map::new();
        if self.switches.ref_id {
            body.insert(
                "refId".into(),
                self.references.text(12).to_lowercase().into(),
            );
        }
        body.insert("errorCode".into(), number.into());
        body.insert("message".into(), message.into());
        if let Some(detail) = detail {
            body.insert("detail".into(), detail);
        }
        Reply {
            error_code: Some(number),
            ..Reply::json(status, &body)
        }
    }

    /// The reply for a refusal by the token endpoint. By default it has the keys of both documented
    /// forms, since Smartsheet's true form is not certain.
    pub fn token_refused(&mut self, refusal: Refusal) -> Reply {
        let kind = self.switches.token_error_body;
        let oauth = [
            ("error", refusal::oauth_type(refusal.code.number).to_owned()),
            ("error_description", refusal.message.to_string()),
        ];
        let plain = self.refused(refusal);
        let Ok(Value::Object(mut body)) = serde_json::from_slice(&plain.body) else {
            return plain;
        };
        if kind == TokenErrorBody::Oauth {
            body.retain(|key, _| key == "errorCode");
        }
        if kind != TokenErrorBody::Plain {
            body.extend(
                oauth
                    .into_iter()
                    .map(|(key, text)| (key.to_owned(), Value::from(text))),
            );
        }
        Reply {
            error_code: plain.error_code,
            ..Reply::json(plain.status, &body)
        }
    }
}

/// World and tokens as they are at the start and after a reset.
fn beginning(
    options: &Options,
    first_client: &OauthClient,
    now: Timestamp,
) -> (World, Tokens, Persona) {
    let world = genesis::world(options.users, options.groups, options.seed);
    let mut tokens = Tokens::new(options.seed);
    let cast = world.cast;
    let persona = Persona {
        system_admin: tokens.issue_personal("system_admin", cast.system_admin, now),
        group_admin: tokens.issue_personal("group_admin", cast.group_admin, now),
        member: tokens.issue_personal("member", cast.member, now),
        no_read_users: tokens.issue_lasting(
            Grant {
                name: "no_read_users".to_owned(),
                client_id: Some(first_client.client_id.clone()),
                person: cast.no_read_users,
                scopes: Scopes::Only(vec!["READ_SHEETS".to_owned()]),
            },
            now,
        ),
        revoked: tokens.issue_personal("revoked", cast.revoked, now),
    };
    tokens.revoke_named("revoked");
    (world, tokens, persona)
}
