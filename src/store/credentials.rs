//! Credentials: how they are stored, replaced and destroyed. `refresh` describes how they are
//! refreshed, and their states.

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};

use super::{
    FieldSealer, SealedColumn, Store,
    connector_profiles::no_such_profile,
    db::Tx,
    decode_count, decode_timestamp,
    destinations::{Client, Destination, destroyed_digest, own_app_digest},
    elsewhere, no_such_account, parse_id, parse_project, parse_word,
    secrets::{decode_app, decode_credential, encode_app, encode_credential},
    word,
};
use crate::{
    crypto::DataKey,
    error::{Error, Kind, Result},
    model::{
        accounts::{
            Account, Credential, CredentialKind, CredentialState, CredentialStatus, Endpoint,
        },
        connector_profiles::{OAuthApp, ProfileId},
        id::{AccountId, ProjectId},
    },
};

/// A credential to store, with its OAuth client and the time of its first refresh.
#[derive(Debug, Clone, Copy)]
pub struct CredentialRecord<'a> {
    pub credential: &'a Credential,
    pub issued_to: IssuedTo<'a>,
    /// None for a credential that is never refreshed.
    pub refresh_at: Option<Timestamp>,
    /// The number of its draft, if it comes from a connect session.
    pub draft: Option<u64>,
}

/// The OAuth client that a credential was issued to.
#[derive(Debug, Clone, Copy)]
pub enum IssuedTo<'a> {
    /// No client: the owner created the token.
    Owner,
    Profile(ProfileId),
    /// The customer's own app.
    OwnApp(&'a OAuthApp),
}

impl<'a> CredentialRecord<'a> {
    /// A personal access token, which its owner created.
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

/// A decrypted credential.
#[derive(Debug, Clone)]
pub struct StoredCredential {
    pub credential: Credential,
    /// Increases with every token and token pair of the account.
    pub generation: u64,
    /// Increases when the credential is replaced or destroyed, but not when it is refreshed.
    pub lineage: u64,
    pub state: CredentialState,
    pub profile: Option<ProfileId>,
    /// The customer's own app, if the credential was issued to it.
    pub own_app: Option<OAuthApp>,
    /// The only destination that it may be sent to.
    pub destination: Destination,
}

/// Whether another account has the same personal access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldElsewhere {
    No,
    Yes,
    /// No other account is known to have it, but the data key of at least one project cannot be
    /// unwrapped.
    Unknown,
}

/// The state that metrics count a credential under. It combines the stored state with the status of
/// the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedState {
    Of(CredentialState),
    Degraded,
    Locked,
    Disconnected,
}
/// The columns of a credential that its status depends on.
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
            kind: parse_word(self.kind)?,
            state: shown(&self.state, self.is_doubtful != 0)?,
            since: decode_timestamp(self.state_since)?,
            expires_at: self.expires_at.map(decode_timestamp).transpose()?,
            profile: self.profile.as_deref().map(parse_id).transpose()?,
            is_profile_disabled: is_profile_enabled == Some(0),
            fault: self.fault.map(parse_word).transpose()?,
        })
    }
}

/// The public state for a stored state. A refresh of an uncertain credential keeps the credential
/// uncertain until it has ended.
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

/// A credential's row, with the columns of its account and profile that name its destination.
pub(super) struct CredentialRow {
    pub(super) generation: i64,
    pub(super) lineage: i64,
    pub(super) sealed: Vec<u8>,
    pub(super) sealed_app: Option<Vec<u8>>,
    pub(super) state: String,
    pub(super) is_doubtful: i64,
    pub(super) state_since: i64,
    pub(super) due_at: Option<i64>,
    pub(super) intent: Option<String>,
    pub(super) attempts: i64,
    pub(super) fault: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) provider: String,
    pub(super) endpoint: String,
    pub(super) client_id: Option<String>,
}

macro_rules! select_credential {
    () => {
        "select c.generation, c.lineage, c.sealed, c.sealed_app, c.state, c.is_doubtful,
                c.state_since, c.due_at, c.intent, c.attempts, c.fault, c.profile, a.provider,
                a.endpoint, p.client_id
         from credentials c
         join accounts a on a.project = c.project and a.id = c.account
         left join connector_profiles p on p.project = c.project and p.id = c.profile
         where c.project = $1 and c.account = $2"
    };
}

impl<'r, R: Row> FromRow<'r, R> for CredentialRow
where
    usize: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            generation: row.try_get(0)?,
            lineage: row.try_get(1)?,
            sealed: row.try_get(2)?,
            sealed_app: row.try_get(3)?,
            state: row.try_get(4)?,
            is_doubtful: row.try_get(5)?,
            state_since: row.try_get(6)?,
            due_at: row.try_get(7)?,
            intent: row.try_get(8)?,
            attempts: row.try_get(9)?,
            fault: row.try_get(10)?,
            profile: row.try_get(11)?,
            provider: row.try_get(12)?,
            endpoint: row.try_get(13)?,
            client_id: row.try_get(14)?,
        })
    }
}

impl CredentialRow {
    /// Reads the row inside a transaction, which must have locked it.
    pub(super) async fn read(
        tx: &mut Tx,
        project: &ProjectId,
        account: AccountId,
    ) -> Result<Option<Self>> {
        tx.fetch_one(select_credential!(), [project.into(), account.into()])
            .await
    }

    pub(super) fn is_destroyed(&self) -> bool {
        self.state == DESTROYED
    }

    /// Decrypts the credential, which proves its destination. A destroyed credential is None, with
    /// the destination of its account.
    ///
    /// # Errors
    /// `credential_locked`, also if the row names another destination than the credential is sealed
    /// for.
    pub(super) fn opened(
        &self,
        sealer: &FieldSealer<'_>,
    ) -> Result<(Destination, Option<StoredCredential>)> {
        let endpoint: Endpoint =
            serde_json::from_str(&self.endpoint).map_err(|_| elsewhere("credential"))?;
        let generation = self.generation.to_string();
        let mut destination = Destination {
            provider: self.provider.clone(),
            endpoint,
            client: Client::None,
        };
        // Such a row has an empty text sealed for the account's destination.
        if self.is_destroyed() {
            let bound = destroyed_digest(&destination.provider, &destination.endpoint);
            sealer.open_for(bound, SealedColumn::Destroyed, &generation, &self.sealed)?;
            return Ok((destination, None));
        }
        let own_app = self.own_app(sealer, &destination)?;
        destination.client = match (&own_app, &self.profile) {
            (Some(app), _) => Client::of_own_app(app),
            (None, Some(id)) => Client::Profile {
                id: id.clone(),
                client_id: self.client_id.clone().unwrap_or_default(),
            },
            (None, None) => Client::None,
        };
        let bound = destination.digest();
        let text = sealer.open_for(bound, SealedColumn::Credential, &generation, &self.sealed)?;
        let stored = StoredCredential {
            credential: decode_credential(&text)?,
            generation: decode_count(self.generation)?,
            lineage: decode_count(self.lineage)?,
            state: shown(&self.state, self.is_doubtful != 0)?,
            profile: self.profile.as_deref().map(parse_id).transpose()?,
            own_app,
            destination: destination.clone(),
        };
        Ok((destination, Some(stored)))
    }

    fn own_app(
        &self,
        sealer: &FieldSealer<'_>,
        destination: &Destination,
    ) -> Result<Option<OAuthApp>> {
        let Some(sealed) = &self.sealed_app else {
            return Ok(None);
        };
        let bound = own_app_digest(&destination.provider, &destination.endpoint);
        let lineage = self.lineage.to_string();
        decode_app(&sealer.open_for(bound, SealedColumn::App, &lineage, sealed)?).map(Some)
    }
}

impl Store {
    /// An account's credential; None if it has none, or the project has no such account.
    ///
    /// # Errors
    /// `credential_locked`.
    pub async fn credential(
        &self,
        project: &ProjectId,
        id: AccountId,
    ) -> Result<Option<StoredCredential>> {
        let row: Option<CredentialRow> = self
            .db
            .fetch_one(select_credential!(), [project.into(), id.into()])
            .await?;
        let Some(row) = row else { return Ok(None) };
        let Some(sealer) = FieldSealer::of(self, project, id).await? else {
            return Ok(None);
        };
        let (_, stored) = row.opened(&sealer)?;
        Ok(stored)
    }

    /// The proven destination of an account's credential; None if the project has no such account.
    /// A new credential for the account has the same provider and endpoint.
    ///
    /// # Errors
    /// `credential_locked` if the account's row names another destination than the credential is
    /// sealed for.
    pub async fn destination(
        &self,
        project: &ProjectId,
        id: AccountId,
    ) -> Result<Option<Destination>> {
        let row: Option<CredentialRow> = self
            .db
            .fetch_one(select_credential!(), [project.into(), id.into()])
            .await?;
        let Some(row) = row else { return Ok(None) };
        let sealer = FieldSealer::of(self, project, id).await?;
        let opened = sealer.map(|sealer| row.opened(&sealer)).transpose()?;
        Ok(opened.map(|(destination, _)| destination))
    }

    /// The number of credentials in each state, in all projects.
    pub async fn count_credentials(&self) -> Result<Vec<(CountedState, u64)>> {
        // The reasons are JSON text, in which `like` finds a code in both databases.
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
                            // A refusal in the account's status overrides it.
                            CredentialState::Healthy | CredentialState::Refreshing
                                if is_refused != 0 =>
                            {
                                CountedState::Of(CredentialState::ReauthRequired)
                            }
                            CredentialState::Healthy if is_degraded != 0 => CountedState::Degraded,
                            state => CountedState::Of(state),
                        },
                    };
                    Ok((state, decode_count(count)?))
                },
            )
            .collect()
    }

    /// Whether another account, in any project, has the same personal access token. This compares
    /// digests and decrypts nothing, so a credential that cannot be decrypted is compared as well.
    pub async fn held_elsewhere(
        &self,
        project: &ProjectId,
        id: AccountId,
        token: &SecretString,
    ) -> Result<HeldElsewhere> {
        let projects: Vec<(String,)> = self
            .db
            .fetch(
                "select distinct project from credentials
                 where kind = 'access_token' and state <> $1 order by project",
                [DESTROYED.into()],
            )
            .await?;
        let mut answer = HeldElsewhere::No;
        for (of,) in projects {
            // The digest is keyed by the project, so each project needs its own look-up.
            let of = parse_project(&of)?;
            let key = match self.data_key(&of).await {
                Ok(Some(key)) => key,
                Ok(None) => continue,
                Err(error) if error.kind() == Kind::CredentialLocked => {
                    answer = HeldElsewhere::Unknown;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let found: Option<(String,)> = self
                .db
                .fetch_one(
                    "select account from credentials
                     where project = $1 and token_digest = $2 and state <> $3
                         and not (project = $4 and account = $5) limit 1",
                    [
                        (&of).into(),
                        token_digest(&key, token).into(),
                        DESTROYED.into(),
                        project.into(),
                        id.into(),
                    ],
                )
                .await?;
            if found.is_some() {
                return Ok(HeldElsewhere::Yes);
            }
        }
        Ok(answer)
    }
}

/// A digest that identifies a personal access token within one project.
pub(super) fn token_digest(key: &DataKey, token: &SecretString) -> Vec<u8> {
    let token = token.expose_secret().as_bytes();
    key.mac_key().tag("personal access token", token).to_vec()
}

/// Sets the state of a personal access token: refused at `refused_at`, or accepted if that is None.
/// Other credentials are unchanged, since a token pair's state follows from its refreshes.
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
    store: &Store,
    tx: &mut Tx,
    sealer: &FieldSealer<'_>,
    account: &Account,
    grant: &CredentialRecord<'_>,
    now: Timestamp,
) -> Result<()> {
    let at = (account.provider.as_str(), &account.endpoint);
    let destination = destination_of(store, tx, sealer, at, grant).await?;
    let place = (account.id, destination);
    write_credential(tx, sealer, place, grant, (1, 1), now).await
}

/// Replaces an account's credential, or the row of its destroyed one. If the former credential
/// cannot be decrypted it is locked, and is not overwritten.
pub(super) async fn replace_credential(
    store: &Store,
    tx: &mut Tx,
    sealer: &FieldSealer<'_>,
    id: AccountId,
    grant: &CredentialRecord<'_>,
    now: Timestamp,
) -> Result<()> {
    take_row(tx, sealer.project, id).await?;
    let former = CredentialRow::read(tx, sealer.project, id).await?;
    let former = former.ok_or_else(no_such_account)?;
    let (proven, _) = former.opened(sealer)?;
    let at = (proven.provider.as_str(), &proven.endpoint);
    let destination = destination_of(store, tx, sealer, at, grant).await?;
    tx.execute(
        "delete from credentials where project = $1 and account = $2",
        [sealer.project.into(), id.into()],
    )
    .await?;
    let next = (
        decode_count(former.generation)? + 1,
        decode_count(former.lineage)? + 1,
    );
    write_credential(tx, sealer, (id, destination), grant, next, now).await
}

/// Locks the credential's row until the transaction ends; false if there is no row.
async fn take_row(tx: &mut Tx, project: &ProjectId, id: AccountId) -> Result<bool> {
    let taken = tx
        .execute(
            "update credentials set generation = generation where project = $1 and account = $2",
            [project.into(), id.into()],
        )
        .await?;
    Ok(taken > 0)
}

/// The destination of a credential of an account at this provider and endpoint.
///
/// # Errors
/// `credential_locked` if the profile's app has another endpoint.
async fn destination_of(
    store: &Store,
    tx: &mut Tx,
    sealer: &FieldSealer<'_>,
    (provider, endpoint): (&str, &Endpoint),
    grant: &CredentialRecord<'_>,
) -> Result<Destination> {
    let client = match grant.issued_to {
        IssuedTo::Owner => Client::None,
        IssuedTo::OwnApp(app) => Client::of_own_app(app),
        IssuedTo::Profile(id) => {
            let found = store.app_of(tx, &sealer.key, sealer.project, id).await?;
            let found = found.ok_or_else(no_such_profile)?;
            Client::of_profile(id, found.for_endpoint(provider, endpoint)?)
        }
    };
    Ok(Destination {
        provider: provider.to_owned(),
        endpoint: endpoint.clone(),
        client,
    })
}

/// Destroys a credential and returns it; None if there is none. A credential that cannot be
/// decrypted is locked, and is not destroyed. The row stays with the next generation, so that no
/// generation is ever reused, and with the proof of the account's destination.
pub(super) async fn destroy_credential(
    tx: &mut Tx,
    sealer: &FieldSealer<'_>,
    id: AccountId,
    now: Timestamp,
) -> Result<Option<StoredCredential>> {
    // The lock orders this against a refresh. A pair that is stored before it is the credential
    // that is returned; a pair that comes later is superseded.
    if !take_row(tx, sealer.project, id).await? {
        return Ok(None);
    }
    let Some(row) = CredentialRow::read(tx, sealer.project, id).await? else {
        return Ok(None);
    };
    let (destination, Some(ended)) = row.opened(sealer)? else {
        return Ok(None);
    };
    let bound = destroyed_digest(&destination.provider, &destination.endpoint);
    let next = (ended.generation + 1).to_string();
    tx.execute(
        "update credentials
         set generation = generation + 1, lineage = lineage + 1, sealed = $3,
             sealed_app = null, profile = null, state = $4, state_since = $5,
             expires_at = null, due_at = null, intent = null, intent_node = null,
             intent_replica = null, attempts = 0, refused_at = null, is_doubtful = 0,
             doubted_replica = null, fault = null, token_digest = null
         where project = $1 and account = $2",
        [
            sealer.project.into(),
            id.into(),
            sealer
                .seal_for(bound, SealedColumn::Destroyed, &next, b"")
                .into(),
            DESTROYED.into(),
            now.into(),
        ],
    )
    .await?;
    Ok(Some(ended))
}

async fn write_credential(
    tx: &mut Tx,
    sealer: &FieldSealer<'_>,
    (id, destination): (AccountId, Destination),
    grant: &CredentialRecord<'_>,
    (generation, lineage): (u64, u64),
    now: Timestamp,
) -> Result<()> {
    let sealed = sealer.seal_for(
        destination.digest(),
        SealedColumn::Credential,
        &generation.to_string(),
        &encode_credential(grant.credential),
    );
    let sealed_app = match grant.issued_to {
        IssuedTo::OwnApp(app) => {
            let bound = own_app_digest(&destination.provider, &destination.endpoint);
            let lineage = lineage.to_string();
            Some(sealer.seal_for(bound, SealedColumn::App, &lineage, &encode_app(app)))
        }
        IssuedTo::Owner | IssuedTo::Profile(_) => None,
    };
    let digest = match grant.credential {
        Credential::AccessToken(token) => Some(token_digest(&sealer.key, token)),
        Credential::OAuth(_) => None,
    };
    tx.execute(
        "insert into credentials
             (project, account, generation, lineage, sealed, sealed_app, kind, profile, state,
              state_since, expires_at, due_at, token_digest)
         values ($1, $2, $3, $4, $5, $6, $7, $8, 'idle', $9, $10, $11, $12)",
        [
            sealer.project.into(),
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
            digest.into(),
        ],
    )
    .await
    .map(drop)
}

/// True if the account's credential still has this lineage.
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
    Ok(decode_count(now)? == lineage)
}

/// The state of the row of a destroyed credential.
pub(super) const DESTROYED: &str = "destroyed";
