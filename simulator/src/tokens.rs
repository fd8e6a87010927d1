//! Access tokens, refresh tokens and authorization codes, with their owners, scopes and states.
//!
//! A personal token is one row. An OAuth grant has a row for each generation of its pair, all under
//! the grant's name: a refresh ends both tokens of a generation at once and starts the next. Rows
//! are never deleted, so that a test can inspect each of them.
//!
//! Codes and grants belong to the app to which they were issued. From another app they are refused
//! like unknown ones, and their state does not change.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::chance::Chance;
use crate::world::Id;

/// Lifetime of an OAuth access token, in seconds.
pub const ACCESS_LIFE_S: i64 = 604_799;
/// Lifetime of an authorization code, in milliseconds. Smartsheet documents this odd number.
pub const CODE_LIFE_MS: i64 = 599_135;

/// The scopes of a token, which limit its owner's permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scopes {
    All,
    Only(Vec<String>),
}

impl Scopes {
    pub fn has(&self, scope: &str) -> bool {
        match self {
            Scopes::All => true,
            Scopes::Only(scopes) => scopes.iter().any(|one| one == scope),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Personal,
    Oauth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Live,
    /// Refreshed; `by` is the index of the new generation.
    Succeeded {
        by: usize,
        at: Timestamp,
    },
    Revoked,
}

/// The name, owner and scopes of a token. They stay the same through all generations.
#[derive(Clone, Debug)]
pub struct Grant {
    pub name: String,
    /// The app to which it was issued; None for a personal token.
    pub client_id: Option<String>,
    pub person: Id,
    pub scopes: Scopes,
}

impl Grant {
    pub fn kind(&self) -> Kind {
        match self.client_id {
            Some(_) => Kind::Oauth,
            None => Kind::Personal,
        }
    }
}

/// A personal token, or one generation of an OAuth pair.
#[derive(Clone, Debug)]
pub struct Token {
    pub grant: Grant,
    generation: u32,
    access: String,
    refresh: Option<String>,
    expires_at: Option<Timestamp>,
    issued_at: Timestamp,
    fate: Fate,
    redeemed: u32,
    replays_refused: u32,
}

/// A token in the reply of `GET /__control/tokens`.
#[derive(Debug, Serialize)]
pub struct TokenRow<'a> {
    pub token: &'a str,
    pub kind: Kind,
    pub client_id: Option<&'a str>,
    pub login: String,
    pub generation: u32,
    /// By the world's clock.
    pub issued_at_ms: i64,
    pub live: bool,
    pub redeemed: u32,
    pub replays_refused: u32,
}

/// The token response for a code or a refresh token.
#[derive(Debug, Serialize)]
pub struct Pair {
    pub access_token: String,
    pub token_type: &'static str,
    pub expires_in: i64,
    pub refresh_token: String,
}

/// The reason why an access token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    Unknown,
    Revoked,
    Expired,
}

/// The reason why a code or a refresh token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRedeemable {
    Invalid,
    Expired,
    Revoked,
}

/// The switches for refresh tokens.
#[derive(Clone, Copy, Debug)]
pub struct RefreshRules {
    pub life_s: Option<i64>,
    pub grace_s: i64,
}

/// A user's consent for an app.
#[derive(Clone, Debug)]
pub struct Consented {
    pub client_id: String,
    pub person: Id,
    pub scopes: Vec<String>,
    /// The PKCE challenge, if the app sent one.
    pub challenge: Option<String>,
}

#[derive(Clone, Debug)]
struct Code {
    consented: Consented,
    issued_at: Timestamp,
    is_used: bool,
}

/// Every token and code that was ever issued.
#[derive(Clone, Debug)]
pub struct Tokens {
    all: Vec<Token>,
    by_access: HashMap<String, usize>,
    by_refresh: HashMap<String, usize>,
    codes: HashMap<String, Code>,
    chance: Chance,
    grants: u32,
    minted: u32,
}

impl Tokens {
    pub fn new(seed: u64) -> Self {
        Self {
            all: Vec::new(),
            by_access: HashMap::new(),
            by_refresh: HashMap::new(),
            codes: HashMap::new(),
            chance: Chance::new(seed, "tokens"),
            grants: 0,
            minted: 0,
        }
    }

    /// Issues a personal token under the given name and returns its value.
    pub fn issue_personal(&mut self, name: &str, person: Id, now: Timestamp) -> String {
        self.issue_lasting(
            Grant {
                name: name.to_owned(),
                client_id: None,
                person,
                scopes: Scopes::All,
            },
            now,
        )
    }

    /// Issues a personal token under a generated name; returns its name and value.
    pub fn mint(&mut self, person: Id, now: Timestamp) -> (String, String) {
        self.minted += 1;
        let name = format!("minted-{}", self.minted);
        let value = self.issue_personal(&name, person, now);
        (name, value)
    }

    /// Issues a token that never expires and has no refresh token; returns its value.
    pub fn issue_lasting(&mut self, grant: Grant, now: Timestamp) -> String {
        let access = self.chance.text(37);
        self.insert(Token {
            grant,
            generation: 1,
            access: access.clone(),
            refresh: None,
            expires_at: None,
            issued_at: now,
            fate: Fate::Live,
            redeemed: 0,
            replays_refused: 0,
        });
        access
    }

    fn insert(&mut self, token: Token) -> usize {
        let index = self.all.len();
        self.by_access.insert(token.access.clone(), index);
        if let Some(refresh) = &token.refresh {
            self.by_refresh.insert(refresh.clone(), index);
        }
        self.all.push(token);
        index
    }

    /// The token with this value, in any state.
    pub fn find(&self, access: &str) -> Option<&Token> {
        self.by_access.get(access).map(|index| &self.all[*index])
    }

    /// The token with this refresh token, in any state.
    pub fn find_by_refresh(&self, refresh: &str) -> Option<&Token> {
        self.by_refresh.get(refresh).map(|index| &self.all[*index])
    }

    /// The token with this value, if it is valid now.
    pub fn usable(&self, access: &str, now: Timestamp) -> Result<&Token, Unusable> {
        let token = self.find(access).ok_or(Unusable::Unknown)?;
        match token.fate {
            Fate::Live if token.is_expired(now) => Err(Unusable::Expired),
            Fate::Live => Ok(token),
            Fate::Succeeded { .. } | Fate::Revoked => Err(Unusable::Revoked),
        }
    }

    pub fn issue_code(&mut self, consented: Consented, now: Timestamp) -> String {
        let code = self.chance.text(17).to_lowercase();
        self.codes.insert(
            code.clone(),
            Code {
                consented,
                issued_at: now,
                is_used: false,
            },
        );
        code
    }

    /// Redeems a code of this app for the first pair of a new grant. A code with a challenge is
    /// spent even if the verifier does not match.
    pub fn redeem_code(
        &mut self,
        code: &str,
        client_id: &str,
        answers: impl FnOnce(&str) -> bool,
        now: Timestamp,
    ) -> Result<Pair, NotRedeemable> {
        let code = self
            .codes
            .get_mut(code)
            .filter(|code| code.consented.client_id == client_id && !code.is_used)
            .ok_or(NotRedeemable::Invalid)?;
        if now.duration_since(code.issued_at) > SignedDuration::from_millis(CODE_LIFE_MS) {
            return Err(NotRedeemable::Expired);
        }
        code.is_used = true;
        let consented = code.consented.clone();
        if consented
            .challenge
            .as_deref()
            .is_some_and(|challenge| !answers(challenge))
        {
            return Err(NotRedeemable::Invalid);
        }
        Ok(self.begin_grant(consented, ACCESS_LIFE_S, now).1)
    }

    /// Starts a grant as if a code had been redeemed; returns its name and its first pair, whose
    /// access token lives `life_s` seconds.
    pub fn begin_grant(
        &mut self,
        consented: Consented,
        life_s: i64,
        now: Timestamp,
    ) -> (String, Pair) {
        self.grants += 1;
        let name = format!("oauth-{}", self.grants);
        let grant = Grant {
            name: name.clone(),
            client_id: Some(consented.client_id),
            person: consented.person,
            scopes: Scopes::Only(consented.scopes),
        };
        let index = self.issue_pair(grant, 1, life_s, now);
        (name, self.pair(index, now))
    }

    fn issue_pair(&mut self, grant: Grant, generation: u32, life_s: i64, now: Timestamp) -> usize {
        let token = Token {
            grant,
            generation,
            access: self.chance.text(37),
            refresh: Some(self.chance.text(37)),
            expires_at: Some(now + SignedDuration::from_secs(life_s)),
            issued_at: now,
            fate: Fate::Live,
            redeemed: 0,
            replays_refused: 0,
        };
        self.insert(token)
    }

    fn pair(&self, index: usize, now: Timestamp) -> Pair {
        let token = &self.all[index];
        let left = token
            .expires_at
            .map_or(ACCESS_LIFE_S, |end| end.duration_since(now).as_secs());
        Pair {
            access_token: token.access.clone(),
            token_type: "bearer",
            expires_in: left,
            refresh_token: token.refresh.clone().unwrap_or_default(),
        }
    }

    /// Redeems a refresh token of this app: issues a new pair and ends the old one at once. A
    /// second try is refused and counted; within the grace period (0 by default) it gets the same
    /// new pair again.
    pub fn refresh(
        &mut self,
        refresh: &str,
        client_id: &str,
        now: Timestamp,
        rules: RefreshRules,
    ) -> Result<Pair, NotRedeemable> {
        let index = *self.by_refresh.get(refresh).ok_or(NotRedeemable::Invalid)?;
        let token = &mut self.all[index];
        if token.grant.client_id.as_deref() != Some(client_id) {
            return Err(NotRedeemable::Invalid);
        }
        match token.fate {
            Fate::Revoked => Err(NotRedeemable::Revoked),
            Fate::Succeeded { by, at } => {
                if now.duration_since(at) < SignedDuration::from_secs(rules.grace_s) {
                    return Ok(self.pair(by, now));
                }
                token.replays_refused += 1;
                Err(NotRedeemable::Invalid)
            }
            Fate::Live => {
                let age = now.duration_since(token.issued_at);
                if rules
                    .life_s
                    .is_some_and(|life| age > SignedDuration::from_secs(life))
                {
                    return Err(NotRedeemable::Invalid);
                }
                token.redeemed += 1;
                let (grant, generation) = (token.grant.clone(), token.generation + 1);
                let by = self.issue_pair(grant, generation, ACCESS_LIFE_S, now);
                self.all[index].fate = Fate::Succeeded { by, at: now };
                Ok(self.pair(by, now))
            }
        }
    }

    /// Revokes the token with this value. With `all_of_client` it also revokes all tokens of the
    /// same user and app. A personal token has no app and is revoked alone.
    pub fn revoke(&mut self, access: &str, all_of_client: bool) {
        let Some(&index) = self.by_access.get(access) else {
            return;
        };
        self.all[index].fate = Fate::Revoked;
        let grant = self.all[index].grant.clone();
        if all_of_client && grant.client_id.is_some() {
            self.revoke_where(|token| {
                token.grant.client_id == grant.client_id && token.grant.person == grant.person
            });
        }
    }

    /// Revokes all live tokens of a name. Returns false if none was ever issued under that name.
    pub fn revoke_named(&mut self, name: &str) -> bool {
        let exists = self.all.iter().any(|token| token.grant.name == name);
        self.revoke_where(|token| token.grant.name == name);
        exists
    }

    fn revoke_where(&mut self, which: impl Fn(&Token) -> bool) {
        for token in self
            .all
            .iter_mut()
            .filter(|token| token.fate == Fate::Live && which(token))
        {
            token.fate = Fate::Revoked;
        }
    }

    /// Makes the live access token of a name expire now. Its refresh token stays valid.
    pub fn expire_named(&mut self, name: &str, now: Timestamp) -> bool {
        let live = self
            .all
            .iter_mut()
            .rfind(|token| token.grant.name == name && token.fate == Fate::Live);
        live.is_some_and(|token| {
            token.expires_at = Some(now);
            true
        })
    }

    /// The owner of the token with this name.
    pub fn person_of(&self, name: &str) -> Option<Id> {
        self.all
            .iter()
            .find(|token| token.grant.name == name)
            .map(|token| token.grant.person)
    }

    /// Whether a token was ever issued for this person.
    pub fn is_behind_one(&self, person: Id) -> bool {
        self.all.iter().any(|token| token.grant.person == person)
    }

    pub fn rows<'a>(
        &'a self,
        now: Timestamp,
        login: impl Fn(Id) -> String + 'a,
    ) -> impl Iterator<Item = TokenRow<'a>> {
        self.all.iter().map(move |token| TokenRow {
            token: &token.grant.name,
            kind: token.grant.kind(),
            client_id: token.grant.client_id.as_deref(),
            login: login(token.grant.person),
            generation: token.generation,
            issued_at_ms: token.issued_at.as_millisecond(),
            live: token.is_live(now),
            redeemed: token.redeemed,
            replays_refused: token.replays_refused,
        })
    }
}

impl Token {
    fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// Whether it still works as an access token or for a refresh.
    fn is_live(&self, now: Timestamp) -> bool {
        self.fate == Fate::Live && (self.refresh.is_some() || !self.is_expired(now))
    }
}
