//! Accounts and their credentials.
//!
//! What people are called is sealed; what the service needs to find, order and filter accounts
//! (ids, provider, kind, status, endpoint, times) lies open.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Field, Store, Vault, count_in, db::Tx, id_in, json, json_in, lock_account, moment_in,
    no_such_account, no_such_project, project_in, word, word_in,
};
use crate::{
    error::{Error, Result},
    model::{
        account::{Account, AccountChange, AccountStatus, Credential, StatusReason},
        id::{AccountId, ProjectId},
        observed::Identity,
    },
};

/// How an account is doing.
#[derive(Debug, Clone, Copy)]
pub struct AccountState<'a> {
    pub status: AccountStatus,
    pub reasons: &'a [StatusReason],
    /// Whose credential it is, where that is another than it was; None leaves it as it is.
    pub identity: Option<&'a Identity>,
}

/// What is to change of an account.
#[derive(Debug, Clone, Copy)]
pub struct AccountUpdate<'a> {
    pub change: &'a AccountChange,
    /// In place of the credential that it has.
    pub credential: Option<NewCredential<'a>>,
}

/// A credential that the provider was found to take, and whose it is.
#[derive(Debug, Clone, Copy)]
pub struct NewCredential<'a> {
    pub credential: &'a Credential,
    pub identity: &'a Identity,
}

type AccountRow = (
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    Vec<u8>,
    Vec<u8>,
    i64,
    i64,
);

/// The sealed part of an account's description.
#[derive(Serialize, Deserialize)]
struct Profile {
    origin_owner_name: String,
    origin_username: Option<String>,
    label: Option<String>,
}

const FIRST_GENERATION: u64 = 1;

impl Store {
    /// Stores a new account with its credential.
    pub async fn insert_account(&self, account: &Account, credential: &Credential) -> Result<()> {
        let vault = Vault::of(self, &account.project, account.id)
            .await?
            .ok_or_else(no_such_project)?;
        let sealed_credential = vault.seal(
            Field::Credential,
            &FIRST_GENERATION.to_string(),
            &credential_out(credential),
        );
        let mut tx = self.db.begin().await?;
        tx.execute(
            "insert into accounts
                 (id, project, provider, origin_owner_id, kind, status, status_reasons, endpoint,
                  sealed_profile, sealed_identity, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            [
                account.id.into(),
                (&account.project).into(),
                account.provider.as_str().into(),
                account.origin_owner_id.as_str().into(),
                word(&account.kind)?.into(),
                word(&account.status)?.into(),
                json(&account.status_reasons)?.into(),
                json(&account.endpoint)?.into(),
                seal_profile(&vault, account)?.into(),
                seal_identity(&vault, &account.identity)?.into(),
                account.created_at.into(),
                account.updated_at.into(),
            ],
        )
        .await?;
        tx.execute(
            "insert into credentials (project, account, generation, sealed)
             values ($1, $2, $3, $4)",
            [
                (&account.project).into(),
                account.id.into(),
                FIRST_GENERATION.into(),
                sealed_credential.into(),
            ],
        )
        .await?;
        tx.commit().await
    }

    pub async fn account(&self, project: &ProjectId, id: AccountId) -> Result<Option<Account>> {
        let row: Option<AccountRow> = self
            .db
            .fetch_one(
                "select id, project, provider, origin_owner_id, kind, status, status_reasons,
                        endpoint, sealed_profile, sealed_identity, created_at, updated_at
                 from accounts where project = $1 and id = $2",
                [project.into(), id.into()],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let vault = Vault::of(self, project, id).await?;
        vault.map(|vault| account_in(&vault, row)).transpose()
    }

    /// Whose account this is. For the operator, who is above projects.
    pub async fn project_of(&self, id: AccountId) -> Result<Option<ProjectId>> {
        let row: Option<(String,)> = self
            .db
            .fetch_one("select project from accounts where id = $1", [id.into()])
            .await?;
        row.map(|(project,)| project_in(&project)).transpose()
    }

    /// A project's accounts, the oldest first.
    pub async fn accounts(&self, project: &ProjectId) -> Result<Vec<Account>> {
        let rows: Vec<AccountRow> = self
            .db
            .fetch(
                "select id, project, provider, origin_owner_id, kind, status, status_reasons,
                        endpoint, sealed_profile, sealed_identity, created_at, updated_at
                 from accounts where project = $1 order by created_at, id",
                [project.into()],
            )
            .await?;
        let Some(key) = self.data_key(project).await? else {
            return Ok(Vec::new());
        };
        let mut vault = Vault {
            key,
            chance: &self.chance,
            project,
            account: String::new(),
        };
        rows.into_iter()
            .map(|row| {
                vault.account.clone_from(&row.0);
                account_in(&vault, row)
            })
            .collect()
    }

    /// How many accounts there are of each status, of every project.
    pub async fn count_accounts(&self) -> Result<Vec<(AccountStatus, u64)>> {
        let rows: Vec<(String, i64)> = self
            .db
            .fetch("select status, count(*) from accounts group by status", [])
            .await?;
        rows.into_iter()
            .map(|(status, count)| {
                let count = u64::try_from(count).map_err(Error::internal)?;
                Ok((word_in(status)?, count))
            })
            .collect()
    }

    /// Claims accounts, of every project, whose last walk began before `before`: at most `limit`,
    /// the longest unwalked first. What is claimed is not due again for anybody before `claim` has
    /// passed, within which its walk should begin.
    pub async fn claim_due(
        &self,
        before: Timestamp,
        claim: Duration,
        limit: u32,
    ) -> Result<Vec<(ProjectId, AccountId)>> {
        let due: Option<(String,)> = self
            .db
            .fetch_one(
                "select id from accounts where walked_at < $1 limit 1",
                [before.into()],
            )
            .await?;
        if due.is_none() || limit == 0 {
            return Ok(Vec::new());
        }
        let claimed = before.saturating_add(claim).map_err(Error::internal)?;
        let mut tx = self.db.begin().await?;
        // Asked twice whether it is due: whoever waited for another's claim of the same row sees
        // that one then.
        let rows: Vec<(String, String)> = tx
            .fetch(
                "update accounts set walked_at = $2
                 where walked_at < $1 and id in (
                     select id from accounts where walked_at < $1 order by walked_at, id limit $3)
                 returning project, id",
                [before.into(), claimed.into(), u64::from(limit).into()],
            )
            .await?;
        tx.commit().await?;
        rows.iter()
            .map(|(project, id)| Ok((project_in(project)?, id_in(id)?)))
            .collect()
    }

    /// Removes an account with its credential, walks and directories, and gives what it was;
    /// None if the project has no such account.
    pub async fn delete_account(
        &self,
        project: &ProjectId,
        id: AccountId,
    ) -> Result<Option<Account>> {
        let Some(vault) = Vault::of(self, project, id).await? else {
            return Ok(None);
        };
        let mut tx = self.db.begin().await?;
        let row: Option<AccountRow> = tx
            .fetch_one(
                "delete from accounts where project = $1 and id = $2
                 returning id, project, provider, origin_owner_id, kind, status, status_reasons,
                           endpoint, sealed_profile, sealed_identity, created_at, updated_at",
                [project.into(), id.into()],
            )
            .await?;
        // Opened before the commit: what is locked is not deleted.
        let account = row.map(|row| account_in(&vault, row)).transpose()?;
        tx.commit().await?;
        Ok(account)
    }

    /// Changes an account and gives what it is then; None if the project has no such account. A
    /// new credential has the next generation and makes the account active, so that a walk which
    /// began with the former one can neither be sealed nor say how the account is doing.
    pub async fn update_account(
        &self,
        project: &ProjectId,
        id: AccountId,
        update: AccountUpdate<'_>,
        now: Timestamp,
    ) -> Result<Option<Account>> {
        let Some(vault) = Vault::of(self, project, id).await? else {
            return Ok(None);
        };
        let mut tx = self.db.begin().await?;
        lock_account(&mut tx, project, id).await?;
        let row: Option<AccountRow> = tx
            .fetch_one(
                "select id, project, provider, origin_owner_id, kind, status, status_reasons,
                        endpoint, sealed_profile, sealed_identity, created_at, updated_at
                 from accounts where project = $1 and id = $2",
                [project.into(), id.into()],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let mut account = account_in(&vault, row)?;
        update.change.apply(&mut account);
        account.updated_at = now;
        if let Some(new) = update.credential {
            write_next_credential(&mut tx, &vault, id, new.credential).await?;
            account.status = AccountStatus::Active;
            account.status_reasons = Vec::new();
            account.identity = new.identity.clone();
            let state = AccountState {
                status: account.status,
                reasons: &account.status_reasons,
                identity: Some(&account.identity),
            };
            write_state(&mut tx, &vault, id, state, now).await?;
        }
        tx.execute(
            "update accounts set origin_owner_id = $3, sealed_profile = $4, updated_at = $5
             where project = $1 and id = $2",
            [
                project.into(),
                id.into(),
                account.origin_owner_id.as_str().into(),
                seal_profile(&vault, &account)?.into(),
                now.into(),
            ],
        )
        .await?;
        tx.commit().await?;
        Ok(Some(account))
    }

    /// Notes how an account is doing.
    pub async fn set_account_state(
        &self,
        project: &ProjectId,
        id: AccountId,
        state: AccountState<'_>,
        now: Timestamp,
    ) -> Result<()> {
        let vault = Vault::of(self, project, id)
            .await?
            .ok_or_else(no_such_account)?;
        let mut tx = self.db.begin().await?;
        write_state(&mut tx, &vault, id, state, now).await?;
        tx.commit().await
    }

    /// An account's credential and its generation, which counts the times it was replaced.
    pub async fn credential(
        &self,
        project: &ProjectId,
        id: AccountId,
    ) -> Result<Option<(Credential, u64)>> {
        let row: Option<(i64, Vec<u8>)> = self
            .db
            .fetch_one(
                "select generation, sealed from credentials where project = $1 and account = $2",
                [project.into(), id.into()],
            )
            .await?;
        let Some((generation, sealed)) = row else {
            return Ok(None);
        };
        let Some(vault) = Vault::of(self, project, id).await? else {
            return Ok(None);
        };
        let text = vault.open(Field::Credential, &generation.to_string(), &sealed)?;
        Ok(Some((credential_in(&text)?, count_in(generation)?)))
    }
}

/// Writes an account's state inside a transaction; `AccountNotFound` if it is gone. What is as it
/// was does not make the account newer.
pub(super) async fn write_state(
    tx: &mut Tx,
    vault: &Vault<'_>,
    id: AccountId,
    state: AccountState<'_>,
    now: Timestamp,
) -> Result<()> {
    let identity = state
        .identity
        .map(|identity| seal_identity(vault, identity))
        .transpose()?;
    let changed = tx
        .execute(
            "update accounts set status = $3, status_reasons = $4,
                    sealed_identity = coalesce($5, sealed_identity),
                    updated_at = case
                        when status = $3 and status_reasons = $4 and $5 is null then updated_at
                        else $6
                    end
             where project = $1 and id = $2",
            [
                vault.project.into(),
                id.into(),
                word(&state.status)?.into(),
                json(&state.reasons)?.into(),
                identity.into(),
                now.into(),
            ],
        )
        .await?;
    match changed {
        0 => Err(no_such_account()),
        _ => Ok(()),
    }
}

/// True if the account's credential is the one of this generation.
pub(super) async fn is_generation(
    tx: &mut Tx,
    project: &ProjectId,
    id: AccountId,
    generation: u64,
) -> Result<bool> {
    let row: Option<(i64,)> = tx
        .fetch_one(
            "select generation from credentials where project = $1 and account = $2",
            [project.into(), id.into()],
        )
        .await?;
    let (now,) = row.ok_or_else(no_such_account)?;
    Ok(count_in(now)? == generation)
}

/// Puts `credential` in the place of the former one, with the next generation. A former one that
/// does not open is locked, and what is locked is not overwritten.
async fn write_next_credential(
    tx: &mut Tx,
    vault: &Vault<'_>,
    id: AccountId,
    credential: &Credential,
) -> Result<()> {
    let former: Option<(i64, Vec<u8>)> = tx
        .fetch_one(
            "select generation, sealed from credentials where project = $1 and account = $2",
            [vault.project.into(), id.into()],
        )
        .await?;
    let (generation, sealed) = former.ok_or_else(no_such_account)?;
    vault.open(Field::Credential, &generation.to_string(), &sealed)?;
    let next = count_in(generation)? + 1;
    let sealed = vault.seal(
        Field::Credential,
        &next.to_string(),
        &credential_out(credential),
    );
    tx.execute(
        "update credentials set generation = $3, sealed = $4 where project = $1 and account = $2",
        [vault.project.into(), id.into(), next.into(), sealed.into()],
    )
    .await?;
    Ok(())
}

fn seal_profile(vault: &Vault<'_>, account: &Account) -> Result<Vec<u8>> {
    let profile = json(&Profile {
        origin_owner_name: account.origin_owner_name.clone(),
        origin_username: account.origin_username.clone(),
        label: account.label.clone(),
    })?;
    Ok(vault.seal(Field::Profile, "", profile.as_bytes()))
}

fn seal_identity(vault: &Vault<'_>, identity: &Identity) -> Result<Vec<u8>> {
    Ok(vault.seal(Field::Identity, "", json(identity)?.as_bytes()))
}

fn account_in(vault: &Vault<'_>, row: AccountRow) -> Result<Account> {
    let (
        id,
        project,
        provider,
        origin_owner_id,
        kind,
        status,
        status_reasons,
        endpoint,
        sealed_profile,
        sealed_identity,
        created_at,
        updated_at,
    ) = row;
    let profile: Profile = json_in(&vault.open(Field::Profile, "", &sealed_profile)?)?;
    Ok(Account {
        id: id_in(&id)?,
        project: project_in(&project)?,
        provider,
        origin_owner_id,
        origin_owner_name: profile.origin_owner_name,
        origin_username: profile.origin_username,
        label: profile.label,
        kind: word_in(kind)?,
        status: word_in(status)?,
        status_reasons: json_in(status_reasons.as_bytes())?,
        endpoint: json_in(endpoint.as_bytes())?,
        identity: json_in(&vault.open(Field::Identity, "", &sealed_identity)?)?,
        created_at: moment_in(created_at)?,
        updated_at: moment_in(updated_at)?,
    })
}

const ACCESS_TOKEN: u8 = b'a';

/// A credential as it is sealed: a letter for its kind, then the token. By hand, since a
/// serialiser would leave copies of it in buffers that nobody wipes.
fn credential_out(credential: &Credential) -> Zeroizing<Vec<u8>> {
    let Credential::AccessToken(token) = credential;
    let token = token.expose_secret().as_bytes();
    let mut text = Zeroizing::new(Vec::with_capacity(1 + token.len()));
    text.push(ACCESS_TOKEN);
    text.extend_from_slice(token);
    text
}

fn credential_in(text: &[u8]) -> Result<Credential> {
    let token = text
        .split_first()
        .filter(|(kind, _)| **kind == ACCESS_TOKEN)
        .and_then(|(_, token)| std::str::from_utf8(token).ok())
        .ok_or_else(|| Error::internal("a stored credential is of no kind that is known"))?;
    Ok(Credential::AccessToken(SecretString::from(token)))
}
