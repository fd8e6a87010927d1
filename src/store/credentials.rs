//! Credentials, and the rows' part in refreshing them: who may redeem a refresh token, and what
//! became of it.
//!
//! A refresh token is good once. So whoever wants to redeem one first takes the row
//! ([`Store::begin_refresh`]): one statement from one state to the next, on disk before a byte is
//! sent. What the redeemer then learns is told by one of two methods. A new pair
//! ([`Store::commit_pair`]) wins as long as the row still has the generation that was redeemed,
//! whoever has the row by then and however late it comes: it is the only pair that the provider
//! takes. Anything else ([`Store::end_refresh`]) counts only for whoever still has the row.
//!
//! | state | means | `due_at` |
//! |---|---|---|
//! | `idle` | nobody redeems | when the next refresh is due |
//! | `in_flight` | somebody redeems | when others take over |
//! | `uncertain` | the refresh token may be spent | when it is tried again |
//! | `reauth` | the provider was asked twice and said no | – |
//! | `moved` | another installation refreshes it | – |
//! | `destroyed` | the account was disconnected | – |
//!
//! Not here: the calls themselves ([`crate::gateway`]), and where a pair waits that the database
//! does not take (`journal`).

use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::{
    Field, Store, Vault, count_in, db::Tx, id_in, journal::PendingPair, moment_in, no_such_account,
    project_in, replicas::DEAD_AFTER, word, word_in,
};
use crate::{
    crypto::DataKey,
    error::{Error, Result},
    model::{
        account::{Credential, CredentialKind, CredentialState, CredentialStatus, TokenPair},
        audit::{Action, Actor, Event},
        id::{AccountId, ProjectId},
        profile::{ClientProof, OAuthApp, ProfileId},
    },
};

/// After this, others take over a refresh whose end nobody has told.
pub const TAKEN_OVER_AFTER: Duration = Duration::from_secs(75);

/// How long after the provider's first no its second is asked for. Only both together mean that a
/// refresh token is dead.
pub const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(90);

/// A credential as it is to be stored: what it was issued to, and when it is to be refreshed.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    pub credential: &'a Credential,
    pub issued_to: IssuedTo<'a>,
    /// None for what is never refreshed.
    pub refresh_at: Option<Timestamp>,
}

/// Whose OAuth app a credential was issued to.
#[derive(Debug, Clone, Copy)]
pub enum IssuedTo<'a> {
    /// None: its owner made it.
    Owner,
    Profile(ProfileId),
    /// The customer's own.
    OwnApp(&'a OAuthApp),
}

impl<'a> Grant<'a> {
    /// A token of its owner's own making.
    pub const fn personal(credential: &'a Credential) -> Self {
        Self {
            credential,
            issued_to: IssuedTo::Owner,
            refresh_at: None,
        }
    }

    const fn kind(&self) -> CredentialKind {
        match self.issued_to {
            IssuedTo::Owner => CredentialKind::AccessToken,
            IssuedTo::Profile(_) => CredentialKind::OAuth,
            IssuedTo::OwnApp(_) => CredentialKind::OAuthOwnApp,
        }
    }

    const fn profile(&self) -> Option<ProfileId> {
        match self.issued_to {
            IssuedTo::Profile(id) => Some(id),
            IssuedTo::Owner | IssuedTo::OwnApp(_) => None,
        }
    }
}

/// A stored credential, opened.
#[derive(Debug, Clone)]
pub struct StoredCredential {
    pub credential: Credential,
    /// Counts every pair and token that the account ever had.
    pub generation: u64,
    /// Counts the credentials, of each of which there may be many generations.
    pub lineage: u64,
    pub state: CredentialState,
    pub profile: Option<ProfileId>,
    /// The customer's own app, if it was issued to that.
    pub own_app: Option<OAuthApp>,
}

/// A credential's state as it is counted, with what only its account or its row knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedState {
    Of(CredentialState),
    Degraded,
    Locked,
    Disconnected,
}

/// Why a refresh is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// If it is due, or somebody else's is overdue.
    WhenDue,
    /// Also before it is due: somebody asks, or the provider no longer takes the access token of
    /// this generation.
    Now { generation: Option<u64> },
}

/// What became of a wish to refresh.
#[derive(Debug)]
pub enum Begun {
    /// Here: whoever has this, and nobody else, redeems.
    Here(Box<Intent>),
    /// Somebody else redeems.
    Elsewhere,
    /// There is nothing to do: it is not due, or was refreshed meanwhile.
    NotNow,
    /// It has no refresh token, or another installation has it.
    Never,
}

/// The right to redeem one refresh token, once.
#[derive(Debug)]
pub struct Intent {
    pub project: ProjectId,
    pub account: AccountId,
    /// The generation that is redeemed.
    pub generation: u64,
    pub pair: TokenPair,
    /// The app that it was issued to.
    pub app: OAuthApp,
    /// How often in a row it came to nothing before.
    pub attempts: u64,
    id: String,
    key: DataKey,
}

/// How a refresh ended that brought no new pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshEnd {
    /// Nothing was sent.
    Unsent,
    /// The provider refused for another reason than the refresh token, which is good still.
    Refused,
    /// The provider does not take the app's proof of itself.
    AppRefused,
    /// Something was sent, and no answer came that says what became of it.
    Doubtful,
    /// The provider says that the refresh token is no good.
    InvalidGrant,
}

impl RefreshEnd {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unsent => "provider_unreachable",
            Self::Refused => "provider_refused",
            Self::AppRefused => "app_refused",
            Self::Doubtful => "reply_lost",
            Self::InvalidGrant => "invalid_grant",
        }
    }
}

/// What a credential's row says of how it is doing.
pub(super) struct CredentialColumns {
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) is_doubtful: i64,
    pub(super) state_since: i64,
    pub(super) expires_at: Option<i64>,
    pub(super) profile: Option<String>,
}

impl CredentialColumns {
    pub(super) fn status(self, is_profile_enabled: Option<i64>) -> Result<CredentialStatus> {
        Ok(CredentialStatus {
            kind: word_in(self.kind)?,
            state: shown(&self.state, self.is_doubtful != 0)?,
            since: moment_in(self.state_since)?,
            expires_at: self.expires_at.map(moment_in).transpose()?,
            profile: self.profile.as_deref().map(id_in).transpose()?,
            is_profile_disabled: is_profile_enabled == Some(0),
        })
    }
}

/// A refresh that goes on where it was doubtful before is still that.
fn shown(state: &str, is_doubtful: bool) -> Result<CredentialState> {
    Ok(match state {
        "idle" => CredentialState::Healthy,
        "in_flight" if is_doubtful => CredentialState::Uncertain,
        "in_flight" => CredentialState::Refreshing,
        "uncertain" => CredentialState::Uncertain,
        "reauth" => CredentialState::ReauthRequired,
        "moved" => CredentialState::Moved,
        other => return Err(Error::internal(format!("{other} is no state"))),
    })
}

type CredentialRow = (
    i64,
    i64,
    Vec<u8>,
    Option<Vec<u8>>,
    String,
    i64,
    Option<String>,
);

impl Store {
    /// An account's credential; None if it has none, or the project no such account.
    pub async fn credential(
        &self,
        project: &ProjectId,
        id: AccountId,
    ) -> Result<Option<StoredCredential>> {
        let row: Option<CredentialRow> = self
            .db
            .fetch_one(
                "select generation, lineage, sealed, sealed_app, state, is_doubtful, profile
                 from credentials where project = $1 and account = $2",
                [project.into(), id.into()],
            )
            .await?;
        let row = row.filter(|(_, _, _, _, state, _, _)| state != DESTROYED);
        let Some((generation, lineage, sealed, sealed_app, state, is_doubtful, profile)) = row
        else {
            return Ok(None);
        };
        let Some(vault) = Vault::of(self, project, id).await? else {
            return Ok(None);
        };
        let text = vault.open(Field::Credential, &generation.to_string(), &sealed)?;
        let own_app = sealed_app
            .map(|sealed| app_in(&vault.open(Field::App, &lineage.to_string(), &sealed)?))
            .transpose()?;
        Ok(Some(StoredCredential {
            credential: credential_in(&text)?,
            generation: count_in(generation)?,
            lineage: count_in(lineage)?,
            state: shown(&state, is_doubtful != 0)?,
            profile: profile.as_deref().map(id_in).transpose()?,
            own_app,
        }))
    }

    /// How many credentials are in each state, in all projects together.
    pub async fn count_credentials(&self) -> Result<Vec<(CountedState, u64)>> {
        let rows: Vec<(String, i64, i64, i64, i64)> = self
            .db
            .fetch(
                "select state, is_doubtful, is_degraded, is_locked, count(*)
                 from (
                     select credentials.state, credentials.is_doubtful,
                            cast(case when status_reasons like '%\"code\":\"degraded\"%'
                                then 1 else 0 end as bigint) as is_degraded,
                            cast(case when status_reasons like '%\"code\":\"locked\"%'
                                then 1 else 0 end as bigint) as is_locked
                     from credentials join accounts on accounts.id = credentials.account
                 ) as counted
                 group by state, is_doubtful, is_degraded, is_locked",
                [],
            )
            .await?;
        rows.into_iter()
            .map(|(state, is_doubtful, is_degraded, is_locked, count)| {
                let state = match state.as_str() {
                    DESTROYED => CountedState::Disconnected,
                    _ if is_locked != 0 => CountedState::Locked,
                    state => match shown(state, is_doubtful != 0)? {
                        CredentialState::Healthy if is_degraded != 0 => CountedState::Degraded,
                        state => CountedState::Of(state),
                    },
                };
                Ok((state, count_in(count)?))
            })
            .collect()
    }

    /// The accounts, of every project, whose credentials are to be refreshed, taken over or tried
    /// again by now: at most `limit`, those first that have waited longest.
    pub async fn due_refreshes(&self, limit: u32) -> Result<Vec<(ProjectId, AccountId)>> {
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        let rows: Vec<(String, String)> = tx
            .fetch(
                "select project, account from credentials where due_at <= $1
                 order by due_at, account limit $2",
                [now.into(), u64::from(limit).into()],
            )
            .await?;
        tx.commit().await?;
        rows.iter()
            .map(|(project, account)| Ok((project_in(project)?, id_in(account)?)))
            .collect()
    }

    /// Takes the row of a credential for redeeming its refresh token. On return that survives a
    /// power cut.
    pub async fn begin_refresh(
        &self,
        project: &ProjectId,
        account: AccountId,
        wanted: Wanted,
    ) -> Result<Begun> {
        type Row = (
            i64,
            i64,
            Vec<u8>,
            Option<Vec<u8>>,
            String,
            i64,
            Option<String>,
            Option<i64>,
            Option<String>,
            i64,
        );
        let Some(key) = self.data_key(project).await? else {
            return Err(no_such_account());
        };
        let vault = Vault {
            key: key.clone(),
            chance: &self.chance,
            project,
            account: account.to_string(),
        };
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        let row: Option<Row> = tx
            .fetch_one(
                "select generation, lineage, sealed, sealed_app, state, is_doubtful, profile,
                        due_at, intent, attempts
                 from credentials where project = $1 and account = $2",
                [project.into(), account.into()],
            )
            .await?;
        let Some(row) = row else {
            return Err(no_such_account());
        };
        let (generation, lineage, sealed, sealed_app, state, _, profile, due_at, intent, attempts) =
            row;
        let is_due = due_at.is_some_and(|due_at| due_at <= now.as_millisecond());
        let is_wanted = match wanted {
            Wanted::WhenDue => is_due,
            Wanted::Now { generation: None } => true,
            Wanted::Now {
                generation: Some(refused),
            } => refused == count_in(generation)?,
        };
        if state == DESTROYED || state == "moved" {
            return Ok(Begun::Never);
        }
        if state == "in_flight" && !is_due {
            return Ok(Begun::Elsewhere);
        }
        if !is_wanted {
            return Ok(Begun::NotNow);
        }
        let text = vault.open(Field::Credential, &generation.to_string(), &sealed)?;
        let Credential::OAuth(pair) = credential_in(&text)? else {
            return Ok(Begun::Never);
        };
        let app = match (sealed_app, profile) {
            (Some(sealed), _) => app_in(&vault.open(Field::App, &lineage.to_string(), &sealed)?)?,
            (None, Some(profile)) => {
                let app = self
                    .app_of(&mut tx, &vault.key, project, id_in(&profile)?)
                    .await?;
                app.ok_or_else(|| Error::internal("a credential of a profile that is not there"))?
            }
            (None, None) => return Err(Error::internal("an OAuth credential of no app")),
        };
        let id = self.chance.uuid(now).to_string();
        let deadline = now
            .saturating_add(TAKEN_OVER_AFTER)
            .map_err(Error::internal)?;
        // Somebody else's that is overdue: whether they redeemed it nobody can tell.
        let is_taken_over = state == "in_flight";
        let taken = tx
            .execute(
                "update credentials
                 set state = 'in_flight', state_since = case when is_doubtful = 1 then state_since
                         else $8 end,
                     due_at = $9, intent = $5, intent_node = $6, intent_replica = $7,
                     is_doubtful = case when $10 = 1 then 1 else is_doubtful end,
                     doubted_replica = case when $10 = 1 then intent_replica
                         else doubted_replica end
                 where project = $1 and account = $2 and generation = $3
                     and coalesce(intent, '') = $4",
                [
                    project.into(),
                    account.into(),
                    count_in(generation)?.into(),
                    intent.unwrap_or_default().into(),
                    id.as_str().into(),
                    self.node().into(),
                    self.replica.into(),
                    now.into(),
                    deadline.into(),
                    u64::from(is_taken_over).into(),
                ],
            )
            .await?;
        if taken == 0 {
            return Ok(Begun::Elsewhere);
        }
        tx.commit().await?;
        Ok(Begun::Here(Box::new(Intent {
            project: project.clone(),
            account,
            generation: count_in(generation)?,
            pair,
            app,
            attempts: count_in(attempts)?,
            id,
            key,
        })))
    }

    /// Stores a pair that a refresh brought, unless the account has another credential by now:
    /// then nobody but the caller has this pair.
    pub async fn commit_pair(&self, pair: &PendingPair) -> Result<Committed> {
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        let stored = tx
            .execute(
                "update credentials
                 set generation = $4, sealed = $5, state = case when state = 'moved' then 'moved'
                         else 'idle' end,
                     state_since = $6, expires_at = $7,
                     due_at = case when state = 'moved' then null else cast($8 as bigint) end,
                     intent = null, intent_node = null, intent_replica = null, attempts = 0,
                     refused_at = null, is_doubtful = 0, doubted_replica = null, fault = null
                 where project = $1 and account = $2 and generation = $3",
                [
                    (&pair.project).into(),
                    pair.account.into(),
                    pair.redeemed.into(),
                    (pair.redeemed + 1).into(),
                    pair.sealed.clone().into(),
                    now.into(),
                    pair.expires_at.into(),
                    pair.refresh_at.into(),
                ],
            )
            .await?;
        // Where the answer to an earlier try was lost, what is there is this very pair.
        let is_there = stored > 0 || {
            let row: Option<(Vec<u8>,)> = tx
                .fetch_one(
                    "select sealed from credentials
                     where project = $1 and account = $2 and generation = $3",
                    [
                        (&pair.project).into(),
                        pair.account.into(),
                        (pair.redeemed + 1).into(),
                    ],
                )
                .await?;
            row.is_some_and(|(sealed,)| sealed == pair.sealed)
        };
        if stored > 0 {
            let refreshed = Event::new(Actor::System, Action::CredentialRefreshed, pair.account)
                .with("generation", pair.redeemed + 1);
            self.audit(&mut tx, &pair.project, None, &[refreshed])
                .await?;
        }
        tx.commit().await?;
        Ok(if is_there {
            Committed::Stored
        } else {
            Committed::Superseded
        })
    }

    /// Tells that a refresh brought nothing, and gives the state that the credential is in then.
    /// `again_after` is when to try again where nothing else says so. None if somebody else has
    /// the row by now, and what they find counts.
    pub async fn end_refresh(
        &self,
        intent: &Intent,
        end: RefreshEnd,
        again_after: Duration,
    ) -> Result<Option<CredentialState>> {
        type Row = (Option<i64>, i64, Option<String>);
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        let row: Option<Row> = tx
            .fetch_one(
                "select refused_at, is_doubtful, doubted_replica from credentials
                 where project = $1 and account = $2 and generation = $3 and intent = $4",
                [
                    (&intent.project).into(),
                    intent.account.into(),
                    intent.generation.into(),
                    intent.id.as_str().into(),
                ],
            )
            .await?;
        let Some((refused_at, is_doubtful, doubted)) = row else {
            return Ok(None);
        };
        let refused_before = refused_at.map(moment_in).transpose()?;
        let after = |wait| now.saturating_add(wait).map_err(Error::internal);
        let (state, refused_at, due_at) = match end {
            RefreshEnd::InvalidGrant => match refused_before {
                None => ("uncertain", Some(now), Some(after(ASKED_AGAIN_AFTER)?)),
                Some(first)
                    if crate::clock::since(now, first) >= ASKED_AGAIN_AFTER
                        && !self.is_alive(&mut tx, doubted.as_deref(), now).await? =>
                {
                    ("reauth", Some(first), None)
                }
                Some(first) => ("uncertain", Some(first), Some(after(ASKED_AGAIN_AFTER)?)),
            },
            RefreshEnd::Doubtful => ("uncertain", refused_before, Some(after(again_after)?)),
            RefreshEnd::Unsent | RefreshEnd::Refused | RefreshEnd::AppRefused => {
                let is_in_doubt = refused_before.is_some() || is_doubtful != 0;
                let state = if is_in_doubt { "uncertain" } else { "idle" };
                (state, refused_before, Some(after(again_after)?))
            }
        };
        let is_doubtful = is_doubtful != 0 || matches!(state, "uncertain" | "reauth");
        tx.execute(
            "update credentials
             set state = $5, state_since = case when state = 'in_flight' and is_doubtful = 1
                     and $5 = 'uncertain' then state_since else $6 end,
                 due_at = $7, refused_at = $8, is_doubtful = $9, attempts = attempts + 1,
                 fault = $10, intent = null, intent_node = null, intent_replica = null
             where project = $1 and account = $2 and generation = $3 and intent = $4",
            [
                (&intent.project).into(),
                intent.account.into(),
                intent.generation.into(),
                intent.id.as_str().into(),
                state.into(),
                now.into(),
                due_at.into(),
                refused_at.into(),
                u64::from(is_doubtful).into(),
                end.as_str().into(),
            ],
        )
        .await?;
        let told = match (end, state) {
            (_, "reauth") => Some(Action::CredentialReauthRequired),
            (RefreshEnd::InvalidGrant | RefreshEnd::Doubtful, _) => {
                Some(Action::CredentialUncertain)
            }
            (RefreshEnd::Refused | RefreshEnd::AppRefused, _) => {
                Some(Action::CredentialRefreshRefused)
            }
            (RefreshEnd::Unsent, _) => None,
        };
        let events: Vec<_> = told
            .map(|action| {
                Event::new(Actor::System, action, intent.account).with("reason", end.as_str())
            })
            .into_iter()
            .collect();
        self.audit(&mut tx, &intent.project, Some(&intent.key), &events)
            .await?;
        tx.commit().await?;
        shown(state, is_doubtful).map(Some)
    }

    /// Whether another account, of whichever project, has this very personal access token. Each
    /// of them is opened for that: nothing that is stored tells tokens apart.
    pub async fn is_held_elsewhere(
        &self,
        project: &ProjectId,
        id: AccountId,
        token: &SecretString,
    ) -> Result<bool> {
        let rows: Vec<(String, String, i64, Vec<u8>)> = self
            .db
            .fetch(
                "select project, account, generation, sealed from credentials
                 where kind = 'access_token' and state <> $1 and not (project = $2 and account = $3)
                 order by project",
                [DESTROYED.into(), project.into(), id.into()],
            )
            .await?;
        let mut known: Option<(ProjectId, DataKey)> = None;
        for (of, account, generation, sealed) in rows {
            let of = project_in(&of)?;
            let key = match &known {
                Some((project, key)) if *project == of => key.clone(),
                _ => match self.data_key(&of).await? {
                    Some(key) => key,
                    None => continue,
                },
            };
            let vault = Vault {
                key: key.clone(),
                chance: &self.chance,
                project: &of,
                account,
            };
            // What is locked may be the same; whoever asks must not end it.
            let Ok(text) = vault.open(Field::Credential, &generation.to_string(), &sealed) else {
                return Ok(true);
            };
            let other = credential_in(&text)?;
            let is_same =
                other.access_token().expose_secret().as_bytes() == token.expose_secret().as_bytes();
            if is_same {
                return Ok(true);
            }
            known = Some((of, key));
        }
        Ok(false)
    }

    /// From now on this process, and no other, sees to what its node's earlier runs left in
    /// flight: they will not tell any more.
    pub(super) async fn take_over_own(&self) -> Result<u64> {
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        let freed = tx
            .execute(
                "update credentials set due_at = $1
                 where state = 'in_flight' and intent_node = $2 and intent_replica <> $3",
                [now.into(), self.node().into(), self.replica.into()],
            )
            .await?;
        tx.commit().await?;
        Ok(freed)
    }

    /// Whether the process that may hold a successor still runs, and so may yet come out with it.
    async fn is_alive(&self, tx: &mut Tx, replica: Option<&str>, now: Timestamp) -> Result<bool> {
        let Some(replica) = replica else {
            return Ok(false);
        };
        let alive_after = now.saturating_sub(DEAD_AFTER).map_err(Error::internal)?;
        let row: Option<(String,)> = tx
            .fetch_one(
                "select id from replicas where id = $1 and seen_at >= $2 and id <> $3",
                [replica.into(), alive_after.into(), self.replica.into()],
            )
            .await?;
        Ok(row.is_some())
    }
}

/// What became of a pair that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    Stored,
    /// The account was disconnected, or has another credential, or this very pair already.
    Superseded,
}

impl Intent {
    /// The new pair as it is stored, wherever it waits for that.
    pub fn seal(&self, store: &Store, pair: &TokenPair, refresh_at: Timestamp) -> PendingPair {
        let vault = Vault {
            key: self.key.clone(),
            chance: &store.chance,
            project: &self.project,
            account: self.account.to_string(),
        };
        let generation = (self.generation + 1).to_string();
        PendingPair {
            project: self.project.clone(),
            account: self.account,
            redeemed: self.generation,
            sealed: vault.seal(
                Field::Credential,
                &generation,
                &credential_out(&Credential::OAuth(pair.clone())),
            ),
            expires_at: pair.expires_at,
            refresh_at,
        }
    }
}

/// Stores the first credential of an account.
pub(super) async fn insert_credential(
    tx: &mut Tx,
    vault: &Vault<'_>,
    id: AccountId,
    grant: &Grant<'_>,
    now: Timestamp,
) -> Result<()> {
    write_credential(tx, vault, id, grant, (1, 1), now).await
}

/// Puts a credential in the place of the former one, if there is one. A former one that does not
/// open is locked, and what is locked is not overwritten.
pub(super) async fn replace_credential(
    tx: &mut Tx,
    vault: &Vault<'_>,
    id: AccountId,
    grant: &Grant<'_>,
    now: Timestamp,
) -> Result<()> {
    let former: Option<(i64, i64, Vec<u8>, String)> = tx
        .fetch_one(
            "delete from credentials where project = $1 and account = $2
             returning generation, lineage, sealed, state",
            [vault.project.into(), id.into()],
        )
        .await?;
    let (generation, lineage, sealed, state) = former.ok_or_else(no_such_account)?;
    if state != DESTROYED {
        vault.open(Field::Credential, &generation.to_string(), &sealed)?;
    }
    let next = (count_in(generation)? + 1, count_in(lineage)? + 1);
    write_credential(tx, vault, id, grant, next, now).await
}

/// Destroys a credential; false if there is none any more. What remains of its row is that no
/// generation is ever used again.
pub(super) async fn destroy_credential(
    tx: &mut Tx,
    project: &ProjectId,
    id: AccountId,
    now: Timestamp,
) -> Result<bool> {
    let destroyed = tx
        .execute(
            "update credentials
             set generation = generation + 1, lineage = lineage + 1, sealed = $3,
                 sealed_app = null, profile = null, state = $4, state_since = $5,
                 expires_at = null, due_at = null, intent = null, intent_node = null,
                 intent_replica = null, attempts = 0, refused_at = null, is_doubtful = 0,
                 doubted_replica = null, fault = null
             where project = $1 and account = $2 and state <> $4",
            [
                project.into(),
                id.into(),
                Vec::new().into(),
                DESTROYED.into(),
                now.into(),
            ],
        )
        .await?;
    Ok(destroyed > 0)
}

async fn write_credential(
    tx: &mut Tx,
    vault: &Vault<'_>,
    id: AccountId,
    grant: &Grant<'_>,
    (generation, lineage): (u64, u64),
    now: Timestamp,
) -> Result<()> {
    let sealed = vault.seal(
        Field::Credential,
        &generation.to_string(),
        &credential_out(grant.credential),
    );
    let sealed_app = match grant.issued_to {
        IssuedTo::OwnApp(app) => Some(vault.seal(Field::App, &lineage.to_string(), &app_out(app))),
        IssuedTo::Owner | IssuedTo::Profile(_) => None,
    };
    tx.execute(
        "insert into credentials
             (project, account, generation, lineage, sealed, sealed_app, kind, profile, state,
              state_since, expires_at, due_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, 'idle', $9, $10, $11)",
        [
            vault.project.into(),
            id.into(),
            generation.into(),
            lineage.into(),
            sealed.into(),
            sealed_app.into(),
            word(&grant.kind())?.into(),
            grant.profile().map(|id| id.to_string()).into(),
            now.into(),
            grant.credential.expires_at().into(),
            grant.refresh_at.into(),
        ],
    )
    .await
    .map(drop)
}

/// True if the account still has the credential of this lineage.
pub(super) async fn is_lineage(
    tx: &mut Tx,
    project: &ProjectId,
    id: AccountId,
    lineage: u64,
) -> Result<bool> {
    let row: Option<(i64,)> = tx
        .fetch_one(
            "select lineage from credentials where project = $1 and account = $2",
            [project.into(), id.into()],
        )
        .await?;
    let (now,) = row.ok_or_else(no_such_account)?;
    Ok(count_in(now)? == lineage)
}

/// The state of a row whose credential is no more.
pub(super) const DESTROYED: &str = "destroyed";

const ACCESS_TOKEN: u8 = b'a';
const OAUTH: u8 = b'o';

/// A credential as it is sealed: a letter for its kind, then the token; of a pair, both moments
/// and the length of the access token before the two. By hand, since a serialiser would leave
/// copies of it in buffers that nobody wipes.
pub(super) fn credential_out(credential: &Credential) -> Zeroizing<Vec<u8>> {
    match credential {
        Credential::AccessToken(token) => {
            let token = token.expose_secret().as_bytes();
            let mut text = Zeroizing::new(Vec::with_capacity(1 + token.len()));
            text.push(ACCESS_TOKEN);
            text.extend_from_slice(token);
            text
        }
        Credential::OAuth(pair) => {
            let access = pair.access_token.expose_secret().as_bytes();
            let refresh = pair.refresh_token.expose_secret().as_bytes();
            let mut text = Zeroizing::new(Vec::with_capacity(25 + access.len() + refresh.len()));
            text.push(OAUTH);
            text.extend_from_slice(&pair.issued_at.as_millisecond().to_be_bytes());
            text.extend_from_slice(&pair.expires_at.as_millisecond().to_be_bytes());
            text.extend_from_slice(&(access.len() as u64).to_be_bytes());
            text.extend_from_slice(access);
            text.extend_from_slice(refresh);
            text
        }
    }
}

pub(super) fn credential_in(text: &[u8]) -> Result<Credential> {
    let parse = || {
        let (kind, rest) = text.split_first()?;
        match *kind {
            ACCESS_TOKEN => Some(Credential::AccessToken(secret(rest)?)),
            OAUTH => {
                let (issued_at, rest) = rest.split_first_chunk::<8>()?;
                let (expires_at, rest) = rest.split_first_chunk::<8>()?;
                let (length, rest) = rest.split_first_chunk::<8>()?;
                let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
                let (access, refresh) = rest.split_at_checked(length)?;
                let moment = |millis: &[u8; 8]| {
                    Timestamp::from_millisecond(i64::from_be_bytes(*millis)).ok()
                };
                Some(Credential::OAuth(TokenPair {
                    access_token: secret(access)?,
                    refresh_token: secret(refresh)?,
                    issued_at: moment(issued_at)?,
                    expires_at: moment(expires_at)?,
                }))
            }
            _ => None,
        }
    };
    parse().ok_or_else(|| Error::internal("a stored credential is of no kind that is known"))
}

/// An app as it is sealed.
pub(super) fn app_out(app: &OAuthApp) -> Zeroizing<Vec<u8>> {
    let proof: &[u8] = match app.proof {
        ClientProof::ClientSecret => b"s",
        ClientProof::Hash => b"h",
    };
    parts_out(&[
        proof,
        app.client_id.as_bytes(),
        app.redirect_url.as_bytes(),
        app.client_secret.expose_secret().as_bytes(),
    ])
}

pub(super) fn app_in(text: &[u8]) -> Result<OAuthApp> {
    let parse = || {
        let [proof, client_id, redirect_url, client_secret] = parts_in(text)?;
        let proof = match proof {
            b"s" => ClientProof::ClientSecret,
            b"h" => ClientProof::Hash,
            _ => return None,
        };
        Some(OAuthApp {
            proof,
            client_id: std::str::from_utf8(client_id).ok()?.to_owned(),
            redirect_url: std::str::from_utf8(redirect_url).ok()?.to_owned(),
            client_secret: secret(client_secret)?,
        })
    };
    parse().ok_or_else(|| Error::internal("a stored app is not in the form of one"))
}

/// Several texts as one, each with its length before it.
pub(super) fn parts_out(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length = parts.iter().map(|part| 8 + part.len()).sum();
    let mut text = Zeroizing::new(Vec::with_capacity(length));
    for part in parts {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part);
    }
    text
}

/// The texts that [`parts_out`] put together, if there are so many and nothing else.
pub(super) fn parts_in<const N: usize>(mut text: &[u8]) -> Option<[&[u8]; N]> {
    let mut parts = [&[][..]; N];
    for part in &mut parts {
        let (length, rest) = text.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
        (*part, text) = rest.split_at_checked(length)?;
    }
    text.is_empty().then_some(parts)
}

pub(super) fn secret(text: &[u8]) -> Option<SecretString> {
    std::str::from_utf8(text).ok().map(SecretString::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_reads_back_as_it_was_sealed() {
        let moment = |millis| Timestamp::from_millisecond(millis).unwrap();
        let pair = TokenPair {
            access_token: "access".into(),
            refresh_token: "refresh-\u{e9}".into(),
            issued_at: moment(1_790_000_000_123),
            expires_at: moment(1_790_604_799_123),
        };
        let Credential::OAuth(again) =
            credential_in(&credential_out(&Credential::OAuth(pair.clone()))).unwrap()
        else {
            panic!("a pair is a pair");
        };
        assert_eq!(again.access_token.expose_secret(), "access");
        assert_eq!(again.refresh_token.expose_secret(), "refresh-\u{e9}");
        assert_eq!(
            (again.issued_at, again.expires_at),
            (pair.issued_at, pair.expires_at)
        );
        let app = OAuthApp {
            client_id: "id".to_owned(),
            client_secret: "secret".into(),
            proof: ClientProof::Hash,
            redirect_url: "http://localhost:3000/callback".to_owned(),
        };
        let again = app_in(&app_out(&app)).unwrap();
        assert_eq!(again.client_id, "id");
        assert_eq!(again.client_secret.expose_secret(), "secret");
        assert_eq!(again.proof, ClientProof::Hash);
        assert_eq!(again.redirect_url, app.redirect_url);
    }

    #[test]
    fn what_is_no_credential_is_not_read_as_one() {
        for text in [
            &b""[..],
            b"x",
            b"o",
            b"o0000000011111111\0\0\0\0\0\0\0\xff",
            b"a\xff",
        ] {
            assert!(credential_in(text).is_err(), "{text:?}");
            assert!(app_in(text).is_err(), "{text:?}");
        }
    }
}
