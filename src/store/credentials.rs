//! Credentials: what is stored of one, and how it is replaced and destroyed. How one is refreshed is
//! in `refresh`, with what the states mean.

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::{
    Field, Store, Vault, count_in,
    db::Tx,
    id_in, moment_in, no_such_account, project_in,
    secrets::{app_in, app_out, credential_in, credential_out},
    word, word_in,
};
use crate::{
    crypto::DataKey,
    error::{Error, Result},
    model::{
        account::{Credential, CredentialKind, CredentialState, CredentialStatus},
        id::{AccountId, ProjectId},
        profile::{OAuthApp, ProfileId},
    },
};

/// A credential as it is to be stored: what it was issued to, and when it is to be refreshed.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    pub credential: &'a Credential,
    pub issued_to: IssuedTo<'a>,
    /// None for what is never refreshed.
    pub refresh_at: Option<Timestamp>,
    /// The number of the draft that it waited as, where a connect session brought it.
    pub draft: Option<u64>,
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
            draft: None,
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
/// What a credential's row says of how it is doing.
pub(super) struct CredentialColumns {
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) is_doubtful: i64,
    pub(super) state_since: i64,
    pub(super) expires_at: Option<i64>,
    pub(super) profile: Option<String>,
    pub(super) fault: Option<String>,
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
            fault: self.fault.map(word_in).transpose()?,
        })
    }
}

/// A refresh that goes on where it was doubtful before is still that.
pub(super) fn shown(state: &str, is_doubtful: bool) -> Result<CredentialState> {
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

macro_rules! select_credential {
    () => {
        "select generation, lineage, sealed, sealed_app, state, is_doubtful, profile
         from credentials where project = $1 and account = $2"
    };
}

/// A credential that is not destroyed, opened.
fn stored_in(vault: &Vault<'_>, row: CredentialRow) -> Result<StoredCredential> {
    let (generation, lineage, sealed, sealed_app, state, is_doubtful, profile) = row;
    let text = vault.open(Field::Credential, &generation.to_string(), &sealed)?;
    let own_app = sealed_app
        .map(|sealed| app_in(&vault.open(Field::App, &lineage.to_string(), &sealed)?))
        .transpose()?;
    Ok(StoredCredential {
        credential: credential_in(&text)?,
        generation: count_in(generation)?,
        lineage: count_in(lineage)?,
        state: shown(&state, is_doubtful != 0)?,
        profile: profile.as_deref().map(id_in).transpose()?,
        own_app,
    })
}

impl Store {
    /// An account's credential; None if it has none, or the project no such account.
    pub async fn credential(
        &self,
        project: &ProjectId,
        id: AccountId,
    ) -> Result<Option<StoredCredential>> {
        let row: Option<CredentialRow> = self
            .db
            .fetch_one(select_credential!(), [project.into(), id.into()])
            .await?;
        let Some(row) = row.filter(|(_, _, _, _, state, _, _)| state != DESTROYED) else {
            return Ok(None);
        };
        let Some(vault) = Vault::of(self, project, id).await? else {
            return Ok(None);
        };
        stored_in(&vault, row).map(Some)
    }

    /// How many credentials are in each state, in all projects together.
    pub async fn count_credentials(&self) -> Result<Vec<(CountedState, u64)>> {
        let rows: Vec<(String, i64, i64, i64, i64, i64)> = self
            .db
            .fetch(
                "select state, is_doubtful, is_degraded, is_locked, is_refused, count(*)
                 from (
                     select credentials.state, credentials.is_doubtful,
                            cast(case when status_reasons like '%\"code\":\"degraded\"%'
                                then 1 else 0 end as bigint) as is_degraded,
                            cast(case when status_reasons like '%\"code\":\"locked\"%'
                                then 1 else 0 end as bigint) as is_locked,
                            cast(case when status_reasons like '%\"code\":\"reauth_required\"%'
                                then 1 else 0 end as bigint) as is_refused
                     from credentials join accounts on accounts.id = credentials.account
                 ) as counted
                 group by state, is_doubtful, is_degraded, is_locked, is_refused",
                [],
            )
            .await?;
        rows.into_iter()
            .map(
                |(state, is_doubtful, is_degraded, is_locked, is_refused, count)| {
                    let state = match state.as_str() {
                        DESTROYED => CountedState::Disconnected,
                        _ if is_locked != 0 => CountedState::Locked,
                        state => match shown(state, is_doubtful != 0)? {
                            // As accounts are shown.
                            CredentialState::Healthy | CredentialState::Refreshing
                                if is_refused != 0 =>
                            {
                                CountedState::Of(CredentialState::ReauthRequired)
                            }
                            CredentialState::Healthy if is_degraded != 0 => CountedState::Degraded,
                            state => CountedState::Of(state),
                        },
                    };
                    Ok((state, count_in(count)?))
                },
            )
            .collect()
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
}

/// Keeps the state of a personal access token to what was found of it at `now`: that the provider
/// takes it, or when it refused it. A pair of tokens has its state from its refreshes.
pub(super) async fn mark_personal(
    tx: &mut Tx,
    project: &ProjectId,
    id: AccountId,
    refused_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<()> {
    let (was, is, since) = match refused_at {
        Some(refused_at) => ("idle", "reauth", refused_at),
        None => ("reauth", "idle", now),
    };
    tx.execute(
        "update credentials set state = $4, state_since = $5
         where project = $1 and account = $2 and state = $3 and kind = 'access_token'",
        [
            project.into(),
            id.into(),
            was.into(),
            is.into(),
            since.into(),
        ],
    )
    .await
    .map(drop)
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

/// Destroys a credential, and gives what it was; None if there is none any more. One that does not
/// open is locked, and stays. What remains of its row is that no generation is ever used again.
pub(super) async fn destroy_credential(
    tx: &mut Tx,
    vault: &Vault<'_>,
    id: AccountId,
    now: Timestamp,
) -> Result<Option<StoredCredential>> {
    // A pair that a refresh brings comes before this, and is what is given; or after all of it.
    let taken = tx
        .execute(
            "update credentials set generation = generation
             where project = $1 and account = $2 and state <> $3",
            [vault.project.into(), id.into(), DESTROYED.into()],
        )
        .await?;
    if taken == 0 {
        return Ok(None);
    }
    let row: Option<CredentialRow> = tx
        .fetch_one(select_credential!(), [vault.project.into(), id.into()])
        .await?;
    let ended = row.map(|row| stored_in(vault, row)).transpose()?;
    tx.execute(
        "update credentials
         set generation = generation + 1, lineage = lineage + 1, sealed = $3,
             sealed_app = null, profile = null, state = $4, state_since = $5,
             expires_at = null, due_at = null, intent = null, intent_node = null,
             intent_replica = null, attempts = 0, refused_at = null, is_doubtful = 0,
             doubted_replica = null, fault = null
         where project = $1 and account = $2",
        [
            vault.project.into(),
            id.into(),
            Vec::new().into(),
            DESTROYED.into(),
            now.into(),
        ],
    )
    .await?;
    Ok(ended)
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
