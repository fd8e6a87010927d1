//! Accounts and their credentials.
//!
//! Names, labels and identities are sealed. The columns by which accounts are found, ordered and
//! filtered (ids, provider, kind, status, endpoint, times) are in plain text.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};

use super::{
    FieldSealer, SealedColumn, Store,
    connect_sessions::use_up,
    credentials::{
        CredentialColumns, CredentialRecord, DESTROYED, StoredCredential, destroy_credential,
        insert_credential, mark_personal, replace_credential,
    },
    db::{Arg, Tx},
    decode_count, decode_json, decode_timestamp, elsewhere, json, lock_account, no_such_account,
    no_such_project, parse_id, parse_project, parse_word, plausible_until,
    walks::end_walks_of,
    word,
};
use crate::{
    crypto::MacKey,
    error::{Error, Result},
    model::{
        accounts::{
            Account, AccountChange, AccountField, AccountStatus, OffsetPage, OneOf, ServingState,
            StatusReason,
        },
        audit_log::{Actor, AuditAction, Event},
        connector_profiles::ActionSet,
        id::{AccountId, ProjectId},
        observed::Identity,
        walks::HeldWalk,
    },
};

/// The status of an account, with the reasons for it.
#[derive(Debug, Clone, Copy)]
pub struct AccountState<'a> {
    pub status: AccountStatus,
    pub reasons: &'a [StatusReason],
    /// The new owner of the credential; None leaves the stored identity unchanged.
    pub identity: Option<&'a Identity>,
}

/// A change of an account.
#[derive(Debug, Clone, Copy)]
pub struct AccountUpdate<'a> {
    pub change: &'a AccountChange,
    /// Replaces the account's credential.
    pub credential: Option<NewCredential<'a>>,
    /// The actor of the change. If it is a connect session, the change uses it up.
    pub by: Actor,
}

/// A credential that the provider has accepted, with its owner.
#[derive(Debug, Clone, Copy)]
pub struct NewCredential<'a> {
    pub grant: CredentialRecord<'a>,
    pub identity: &'a Identity,
}

/// An account's columns, with the columns of its credential and connector profile that its status
/// depends on.
struct AccountRow {
    id: String,
    project: String,
    provider: String,
    origin_owner_id: String,
    kind: String,
    status: String,
    status_reasons: String,
    endpoint: String,
    sealed_profile: Vec<u8>,
    sealed_identity: Vec<u8>,
    created_at: i64,
    updated_at: i64,
    credential: Option<CredentialColumns>,
    is_profile_enabled: Option<i64>,
    actions: Option<String>,
    /// Its id, its number of suspects, and since when it is held.
    held_walk: Option<(String, i64, i64)>,
}

impl<'r, R: Row> FromRow<'r, R> for AccountRow
where
    usize: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let kind: Option<String> = row.try_get(12)?;
        let state: Option<String> = row.try_get(13)?;
        let credential = match kind.zip(state).filter(|(_, state)| state != DESTROYED) {
            None => None,
            Some((kind, state)) => Some(CredentialColumns {
                kind,
                state,
                is_doubtful: row.try_get(14)?,
                state_since: row.try_get(15)?,
                expires_at: row.try_get(16)?,
                profile: row.try_get(17)?,
                fault: row.try_get(20)?,
            }),
        };
        Ok(Self {
            id: row.try_get(0)?,
            project: row.try_get(1)?,
            provider: row.try_get(2)?,
            origin_owner_id: row.try_get(3)?,
            kind: row.try_get(4)?,
            status: row.try_get(5)?,
            status_reasons: row.try_get(6)?,
            endpoint: row.try_get(7)?,
            sealed_profile: row.try_get(8)?,
            sealed_identity: row.try_get(9)?,
            created_at: row.try_get(10)?,
            updated_at: row.try_get(11)?,
            credential,
            is_profile_enabled: row.try_get(18)?,
            actions: row.try_get(19)?,
            held_walk: match (row.try_get(21)?, row.try_get(22)?, row.try_get(23)?) {
                (Some(id), Some(suspects), Some(since)) => Some((id, suspects, since)),
                _ => None,
            },
        })
    }
}

/// The columns that an account's status depends on: its id, status and reasons; its credential's
/// kind, state, `is_doubtful`, `state_since`, `expires_at` and profile; whether the profile is
/// enabled; and the credential's fault.
type StandingRow = (
    String,
    String,
    String,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<i64>,
    Option<String>,
);

/// Adds a condition to a statement: the column has one of these values.
fn push_one_of(sql: &mut String, args: &mut Vec<Arg>, column: &str, values: &[impl AsRef<str>]) {
    let marks = (1..=values.len()).map(|index| format!("${}", args.len() + index));
    let marks: Vec<_> = marks.collect();
    sql.push_str(&format!(" and {column} in ({})", marks.join(", ")));
    args.extend(values.iter().map(|value| value.as_ref().into()));
}

/// Adds the filters that map to a column, and returns the filters on the status, which no column
/// holds; None if no account can match.
fn push_filters<'a>(
    sql: &mut String,
    args: &mut Vec<Arg>,
    filters: &'a [OneOf],
) -> Option<Vec<&'a Vec<String>>> {
    let mut statuses = Vec::new();
    for OneOf { field, values } in filters {
        let column = match field {
            AccountField::Id => "a.id",
            AccountField::Provider => "a.provider",
            AccountField::OriginOwnerId => "a.origin_owner_id",
            AccountField::Status => {
                statuses.push(values);
                continue;
            }
        };
        // No stored text contains a NUL, and PostgreSQL rejects one in a value (22021).
        let values: Vec<_> = values.iter().filter(|text| !text.contains('\0')).collect();
        if values.is_empty() {
            return None;
        }
        push_one_of(sql, args, column, &values);
    }
    Some(statuses)
}

/// Selects the columns of [`AccountRow`], in its order.
macro_rules! select_accounts {
    ($which:literal) => {
        concat!(
            "select a.id, a.project, a.provider, a.origin_owner_id, a.kind, a.status,
                    a.status_reasons, a.endpoint, a.sealed_profile, a.sealed_identity,
                    a.created_at, a.updated_at, c.kind, c.state, c.is_doubtful, c.state_since,
                    c.expires_at, c.profile, p.is_enabled, p.actions, c.fault,
                    h.id, h.suspect_count, h.held_since
             from accounts a
             left join credentials c on c.project = a.project and c.account = a.id
             left join connector_profiles p on p.project = c.project and p.id = c.profile
             left join walks h on h.project = a.project and h.account = a.id
                 and h.id = a.held_walk ",
            $which
        )
    };
}

/// The sealed part of an account's description.
#[derive(Serialize, Deserialize)]
struct SealedProfile {
    origin_owner_name: String,
    origin_username: Option<String>,
    label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    assume_user: Option<String>,
}

impl Store {
    /// Stores a new account with its credential. If `by` is a connect session, the insert uses it
    /// up.
    ///
    /// # Errors
    /// `connect_session_invalid` if the session was used up meanwhile; then nothing is stored.
    pub async fn insert_account(
        &self,
        account: &Account,
        new: &CredentialRecord<'_>,
        by: Actor,
    ) -> Result<()> {
        let sealer = FieldSealer::of(self, &account.project, account.id)
            .await?
            .ok_or_else(no_such_project)?;
        let mut tx = self.db.begin().await?;
        if !tx.hold_project(&account.project).await? {
            return Err(no_such_project());
        }
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
                seal_profile(&sealer, account)?.into(),
                seal_identity(&sealer, &account.identity)?.into(),
                account.created_at.into(),
                account.updated_at.into(),
            ],
        )
        .await?;
        let now = account.created_at;
        insert_credential(self, &mut tx, &sealer, account, new, now).await?;
        let linked = Event::new(by, AuditAction::AccountLinked, account.id)
            .with("provider", account.provider.as_str());
        let linked = match account.assume_user {
            Some(_) => linked.with("assumes", "user"),
            None => linked,
        };
        let mut events = vec![linked];
        events.extend(use_up(&mut tx, &account.project, by, new.draft, account.id, now).await?);
        self.audit(&mut tx, &account.project, Some(&sealer.key), &events)
            .await?;
        tx.commit().await
    }

    pub async fn account(&self, project: &ProjectId, id: AccountId) -> Result<Option<Account>> {
        let found = self.account_with_mac_key(project, id).await?;
        Ok(found.map(|(account, _)| account))
    }

    /// An account, and the key that authenticates the cursors of its project.
    pub async fn account_with_mac_key(
        &self,
        project: &ProjectId,
        id: AccountId,
    ) -> Result<Option<(Account, MacKey)>> {
        let row: Option<AccountRow> = self
            .db
            .fetch_one(
                select_accounts!("where a.project = $1 and a.id = $2"),
                [project.into(), id.into()],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let sealer = FieldSealer::of(self, project, id).await?;
        sealer
            .map(|sealer| Ok((decode_account(&sealer, row)?, sealer.key.mac_key())))
            .transpose()
    }

    /// The project of this account. Operator commands name an account without its project.
    pub async fn project_of(&self, id: AccountId) -> Result<Option<ProjectId>> {
        let row: Option<(String,)> = self
            .db
            .fetch_one("select project from accounts where id = $1", [id.into()])
            .await?;
        row.map(|(project,)| parse_project(&project)).transpose()
    }

    /// The ids of a project's accounts, oldest first, including accounts that cannot be decrypted.
    pub async fn account_ids(&self, project: &ProjectId) -> Result<Vec<AccountId>> {
        let rows: Vec<(String,)> = self
            .db
            .fetch(
                "select id from accounts where project = $1 order by created_at, id",
                [project.into()],
            )
            .await?;
        rows.iter().map(|(id,)| parse_id(id)).collect()
    }

    /// A project's accounts, oldest first.
    pub async fn accounts(&self, project: &ProjectId) -> Result<Vec<Account>> {
        let rows: Vec<AccountRow> = self
            .db
            .fetch(
                select_accounts!("where a.project = $1 order by a.created_at, a.id"),
                [project.into()],
            )
            .await?;
        self.opened(project, rows).await
    }

    /// A page of a project's accounts that match every filter, oldest first.
    pub async fn page_of_accounts(
        &self,
        project: &ProjectId,
        filters: &[OneOf],
        page: OffsetPage,
    ) -> Result<Vec<Account>> {
        let mut sql = String::from(select_accounts!("where a.project = $1"));
        let mut args: Vec<Arg> = vec![project.into()];
        let Some(statuses) = push_filters(&mut sql, &mut args, filters) else {
            return Ok(Vec::new());
        };
        if statuses.is_empty() {
            let next = args.len() + 1;
            sql.push_str(&format!(
                " order by a.created_at, a.id limit ${next} offset ${}",
                next + 1
            ));
            args.extend([page.limit.into(), page.offset.into()]);
        } else {
            // No column holds the status, so the page is cut from the ids of the accounts that
            // match.
            let ids = self.ids_by_status(project, filters, &statuses).await?;
            let [offset, limit] =
                [page.offset, page.limit].map(|count| usize::try_from(count).unwrap_or(usize::MAX));
            let ids: Vec<_> = ids.into_iter().skip(offset).take(limit).collect();
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            push_one_of(&mut sql, &mut args, "a.id", &ids);
            sql.push_str(" order by a.created_at, a.id");
        }
        let rows = self.db.fetch_any(sql, args).await?;
        self.opened(project, rows).await
    }

    /// The ids of a project's accounts that match these filters and, for each list in `statuses`,
    /// have one of its values. They are in the order of the pages.
    async fn ids_by_status(
        &self,
        project: &ProjectId,
        filters: &[OneOf],
        statuses: &[&Vec<String>],
    ) -> Result<Vec<String>> {
        let mut sql = String::from(
            "select a.id, a.status, a.status_reasons, c.kind, c.state, c.is_doubtful, c.state_since,
                    c.expires_at, c.profile, p.is_enabled, c.fault
             from accounts a
             left join credentials c on c.project = a.project and c.account = a.id
             left join connector_profiles p on p.project = c.project and p.id = c.profile
             where a.project = $1",
        );
        let mut args: Vec<Arg> = vec![project.into()];
        if push_filters(&mut sql, &mut args, filters).is_none() {
            return Ok(Vec::new());
        }
        sql.push_str(" order by a.created_at, a.id");
        let rows: Vec<StandingRow> = self.db.fetch_any(sql, args).await?;
        let mut ids = Vec::new();
        for row in rows {
            let id = row.0.clone();
            let status = decode_serving_state(row)?.status;
            let has_one = |one: &&Vec<String>| one.iter().any(|value| value == status.as_str());
            if statuses.iter().all(has_one) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Decrypts rows of one project.
    async fn opened(&self, project: &ProjectId, rows: Vec<AccountRow>) -> Result<Vec<Account>> {
        let Some(key) = self.data_key(project).await? else {
            return Ok(Vec::new());
        };
        let mut sealer = FieldSealer {
            key,
            rng: &self.rng,
            project,
            account: String::new(),
        };
        rows.into_iter()
            .map(|row| {
                sealer.account.clone_from(&row.id);
                decode_account(&sealer, row)
            })
            .collect()
    }

    /// The number of accounts of all projects by stored status, which does not reflect the
    /// credential's state.
    pub async fn count_accounts(&self) -> Result<Vec<(AccountStatus, u64)>> {
        let rows: Vec<(String, i64)> = self
            .db
            .fetch("select status, count(*) from accounts group by status", [])
            .await?;
        rows.into_iter()
            .map(|(status, count)| {
                let count = u64::try_from(count).map_err(Error::internal)?;
                Ok((parse_word(status)?, count))
            })
            .collect()
    }

    /// Claims at most `limit` accounts of all projects whose last walk began before `before`, those
    /// that have waited longest first. A claimed account is not due again until `claim` has passed;
    /// its walk should begin within that time.
    pub async fn claim_due(
        &self,
        before: Timestamp,
        claim: Duration,
        limit: u32,
    ) -> Result<Vec<(ProjectId, AccountId)>> {
        let claimed = before.saturating_add(claim).map_err(Error::internal)?;
        // A `walked_at` beyond this was written before the clock was set back.
        let ahead = plausible_until(self.clock.now())?.max(claimed);
        // This read avoids a write transaction when no account is due.
        let due: Option<(String,)> = self
            .db
            .fetch_one(
                "select id from accounts where walked_at < $1 or walked_at > $2 limit 1",
                [before.into(), ahead.into()],
            )
            .await?;
        if due.is_none() || limit == 0 {
            return Ok(Vec::new());
        }
        let mut tx = self.db.begin().await?;
        // The condition is repeated outside the subquery: a statement that has waited for another
        // claim of the same row checks the outer condition again, and skips the row.
        let rows: Vec<(String, String)> = tx
            .fetch(
                "update accounts set walked_at = $2
                 where (walked_at < $1 or walked_at > $4) and id in (
                     select id from accounts where walked_at < $1 or walked_at > $4
                     order by walked_at, id limit $3)
                 returning project, id",
                [
                    before.into(),
                    claimed.into(),
                    u64::from(limit).into(),
                    ahead.into(),
                ],
            )
            .await?;
        tx.commit().await?;
        rows.iter()
            .map(|(project, id)| Ok((parse_project(project)?, parse_id(id)?)))
            .collect()
    }

    /// Deletes an account with its credential, walks and directories. Returns the account and its
    /// credential as they were; None if the project has no such account.
    pub async fn delete_account(
        &self,
        project: &ProjectId,
        id: AccountId,
        by: Actor,
    ) -> Result<Option<(Account, Option<StoredCredential>)>> {
        let Some(sealer) = FieldSealer::of(self, project, id).await? else {
            return Ok(None);
        };
        let mut tx = self.db.begin().await?;
        lock_account(&mut tx, project, id).await?;
        let row: Option<AccountRow> = tx
            .fetch_one(
                select_accounts!("where a.project = $1 and a.id = $2"),
                [project.into(), id.into()],
            )
            .await?;
        // Decrypted first: an account that cannot be decrypted is not deleted.
        let account = row.map(|row| decode_account(&sealer, row)).transpose()?;
        let ended = destroy_credential(&mut tx, &sealer, id, self.clock.now()).await?;
        tx.execute(
            "delete from accounts where project = $1 and id = $2",
            [project.into(), id.into()],
        )
        .await?;
        if account.is_some() {
            let purged = Event::new(by, AuditAction::AccountPurged, id);
            self.audit(&mut tx, project, Some(&sealer.key), &[purged])
                .await?;
        }
        tx.commit().await?;
        Ok(account.map(|account| (account, ended)))
    }

    /// Destroys an account's credential and keeps the rest. Returns the account as it is
    /// afterwards, and the destroyed credential; None if the project has no such account. An
    /// account without a credential is unchanged.
    pub async fn disconnect_account(
        &self,
        project: &ProjectId,
        id: AccountId,
        by: Actor,
        now: Timestamp,
    ) -> Result<Option<(Account, Option<StoredCredential>)>> {
        let Some(sealer) = FieldSealer::of(self, project, id).await? else {
            return Ok(None);
        };
        let mut tx = self.db.begin().await?;
        lock_account(&mut tx, project, id).await?;
        let ended = destroy_credential(&mut tx, &sealer, id, now).await?;
        if ended.is_some() {
            let reason = StatusReason {
                code: Account::DISCONNECTED.to_owned(),
                description: "The account was disconnected, and its credential destroyed. Link it \
                              again to go on."
                    .to_owned(),
                timestamp: now,
            };
            let state = AccountState {
                status: AccountStatus::Inactive,
                reasons: &[reason],
                identity: None,
            };
            write_state(&mut tx, &sealer, id, state, now).await?;
            // The process that runs such a walk learns with its next heartbeat that the walk has
            // ended.
            end_walks_of(&mut tx, project, id, now).await?;
        }
        let row: Option<AccountRow> = tx
            .fetch_one(
                select_accounts!("where a.project = $1 and a.id = $2"),
                [project.into(), id.into()],
            )
            .await?;
        let account = row.map(|row| decode_account(&sealer, row)).transpose()?;
        if ended.is_some() {
            let disconnected = Event::new(by, AuditAction::AccountDisconnected, id);
            self.audit(&mut tx, project, Some(&sealer.key), &[disconnected])
                .await?;
        }
        tx.commit().await?;
        Ok(account.map(|account| (account, ended)))
    }

    /// Changes an account and returns it as it is afterwards; None if the project has no such
    /// account. A new credential has the next generation and makes the account active. A walk that
    /// began with the former credential can then neither be sealed nor change the account's state.
    pub async fn update_account(
        &self,
        project: &ProjectId,
        id: AccountId,
        update: AccountUpdate<'_>,
        now: Timestamp,
    ) -> Result<Option<Account>> {
        let Some(sealer) = FieldSealer::of(self, project, id).await? else {
            return Ok(None);
        };
        let mut tx = self.db.begin().await?;
        lock_account(&mut tx, project, id).await?;
        let row: Option<AccountRow> = tx
            .fetch_one(
                select_accounts!("where a.project = $1 and a.id = $2"),
                [project.into(), id.into()],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let mut account = decode_account(&sealer, row)?;
        let mut events = Vec::new();
        if !update.change.is_empty() {
            let changed = update.change.fields().join(",");
            events.push(
                Event::new(update.by, AuditAction::AccountUpdated, id).with("changed", changed),
            );
        }
        update.change.apply(&mut account);
        account.updated_at = now;
        let draft = update.credential.as_ref().and_then(|new| new.grant.draft);
        if let Some(new) = update.credential {
            replace_credential(self, &mut tx, &sealer, id, &new.grant, now).await?;
            account.status = AccountStatus::Active;
            account.status_reasons = Vec::new();
            account.identity = new.identity.clone();
            let state = AccountState {
                status: account.status,
                reasons: &account.status_reasons,
                identity: Some(&account.identity),
            };
            // No event for the status: this one implies that the account is active.
            events.push(Event::new(update.by, AuditAction::CredentialReplaced, id));
            write_state(&mut tx, &sealer, id, state, now).await?;
        }
        events.extend(use_up(&mut tx, project, update.by, draft, id, now).await?);
        tx.execute(
            "update accounts set origin_owner_id = $3, sealed_profile = $4, updated_at = $5
             where project = $1 and id = $2",
            [
                project.into(),
                id.into(),
                account.origin_owner_id.as_str().into(),
                seal_profile(&sealer, &account)?.into(),
                now.into(),
            ],
        )
        .await?;
        // Read again, because the account's status depends on its new credential.
        let row: Option<AccountRow> = tx
            .fetch_one(
                select_accounts!("where a.project = $1 and a.id = $2"),
                [project.into(), id.into()],
            )
            .await?;
        let account = row.map(|row| decode_account(&sealer, row)).transpose()?;
        self.audit(&mut tx, project, Some(&sealer.key), &events)
            .await?;
        tx.commit().await?;
        Ok(account)
    }

    /// Stores the status of an account.
    ///
    /// # Errors
    /// `account_not_found` if there is no such account.
    pub async fn set_account_state(
        &self,
        project: &ProjectId,
        id: AccountId,
        state: AccountState<'_>,
        now: Timestamp,
    ) -> Result<()> {
        let sealer = FieldSealer::of(self, project, id)
            .await?
            .ok_or_else(no_such_account)?;
        let mut tx = self.db.begin().await?;
        lock_account(&mut tx, project, id).await?;
        let events = write_state(&mut tx, &sealer, id, state, now).await?;
        self.audit(&mut tx, project, Some(&sealer.key), events.as_slice())
            .await?;
        tx.commit().await
    }
}

/// Writes an account's state in a transaction that has locked its row, and returns the event for
/// the audit log, if there is one. An unchanged state leaves `updated_at` unchanged.
///
/// # Errors
/// `account_not_found` if there is no such account.
pub(super) async fn write_state(
    tx: &mut Tx,
    sealer: &FieldSealer<'_>,
    id: AccountId,
    state: AccountState<'_>,
    now: Timestamp,
) -> Result<Option<Event>> {
    let row: Option<(String, String)> = tx
        .fetch_one(
            "select status, status_reasons from accounts where project = $1 and id = $2",
            [sealer.project.into(), id.into()],
        )
        .await?;
    let (status, reasons) = row.ok_or_else(no_such_account)?;
    let former = (parse_word(status)?, decode_json(reasons.as_bytes())?);
    let identity = state
        .identity
        .map(|identity| seal_identity(sealer, identity))
        .transpose()?;
    tx.execute(
        "update accounts set status = $3, status_reasons = $4,
                    sealed_identity = coalesce($5, sealed_identity),
                    updated_at = case
                        when status = $3 and status_reasons = $4 and $5 is null then updated_at
                        else $6
                    end
             where project = $1 and id = $2",
        [
            sealer.project.into(),
            id.into(),
            word(&state.status)?.into(),
            json(&state.reasons)?.into(),
            identity.into(),
            now.into(),
        ],
    )
    .await?;
    let refused_at = state
        .reasons
        .iter()
        .find(|reason| reason.code == Account::REAUTH_REQUIRED)
        .map(|reason| reason.timestamp);
    mark_personal(tx, sealer.project, id, refused_at, now).await?;
    Ok(state_change(id, former, state))
}

/// The event for a change from the state `former`. The actor is always the system, since the state
/// follows from the provider's responses. A repeated refusal is no event.
fn state_change(
    id: AccountId,
    former: (AccountStatus, Vec<StatusReason>),
    state: AccountState<'_>,
) -> Option<Event> {
    let codes = |reasons: &[StatusReason]| -> Vec<String> {
        reasons.iter().map(|reason| reason.code.clone()).collect()
    };
    let (was, is) = (codes(&former.1), codes(state.reasons));
    // A credential that is newly refused has an action of its own.
    let is_dead = |codes: &[String]| codes.iter().any(|code| code == Account::REAUTH_REQUIRED);
    if is_dead(&is) && !is_dead(&was) {
        return Some(Event::new(
            Actor::System,
            AuditAction::CredentialReauthRequired,
            id,
        ));
    }
    let is_other_state = former.0 != state.status || was != is;
    let mut event = Event::new(Actor::System, AuditAction::AccountUpdated, id);
    if is_other_state {
        event = event.with("status", state.status.as_str());
    }
    if is_other_state && !is.is_empty() {
        event = event.with("reason", is.join(","));
    }
    if state.identity.is_some() {
        event = event.with("changed", "identity");
    }
    Some(event).filter(|event| !event.detail.words().is_empty())
}

fn seal_profile(sealer: &FieldSealer<'_>, account: &Account) -> Result<Vec<u8>> {
    let profile = json(&SealedProfile {
        origin_owner_name: account.origin_owner_name.clone(),
        origin_username: account.origin_username.clone(),
        label: account.label.clone(),
        assume_user: account.assume_user.clone(),
    })?;
    Ok(sealer.seal(SealedColumn::Profile, "", profile.as_bytes()))
}

fn seal_identity(sealer: &FieldSealer<'_>, identity: &Identity) -> Result<Vec<u8>> {
    Ok(sealer.seal(SealedColumn::Identity, "", json(identity)?.as_bytes()))
}

fn decode_account(sealer: &FieldSealer<'_>, row: AccountRow) -> Result<Account> {
    let profile: SealedProfile =
        decode_json(&sealer.open(SealedColumn::Profile, "", &row.sealed_profile)?)?;
    let actions = match row.actions {
        None => ActionSet::ALL,
        Some(words) => words.parse().map_err(Error::internal)?,
    };
    let held_walk = match row.held_walk {
        None => None,
        Some((id, suspects, since)) => Some(HeldWalk {
            id: parse_id(&id)?,
            suspects: decode_count(suspects)?,
            since: decode_timestamp(since)?,
        }),
    };
    let id = parse_id(&row.id)?;
    let standing = ServingState {
        status: parse_word(row.status)?,
        reasons: decode_json(row.status_reasons.as_bytes())?,
        credential: row
            .credential
            .map(|columns| columns.status(row.is_profile_enabled))
            .transpose()?,
    };
    let ServingState {
        status,
        reasons,
        credential,
    } = standing.with_credential(id);
    Ok(Account {
        id,
        project: parse_project(&row.project)?,
        provider: row.provider,
        origin_owner_id: row.origin_owner_id,
        origin_owner_name: profile.origin_owner_name,
        origin_username: profile.origin_username,
        label: profile.label,
        kind: parse_word(row.kind)?,
        status,
        status_reasons: reasons,
        endpoint: serde_json::from_str(&row.endpoint).map_err(|_| elsewhere("account"))?,
        identity: decode_json(&sealer.open(SealedColumn::Identity, "", &row.sealed_identity)?)?,
        assume_user: profile.assume_user,
        credential,
        held_walk,
        actions,
        created_at: decode_timestamp(row.created_at)?,
        updated_at: decode_timestamp(row.updated_at)?,
    })
}

fn decode_serving_state(row: StandingRow) -> Result<ServingState> {
    let (id, status, reasons, kind, state, is_doubtful, state_since, expires_at, profile, ..) = row;
    let credential = match kind.zip(state) {
        Some((kind, state)) if state != DESTROYED => Some(CredentialColumns {
            kind,
            state,
            is_doubtful: is_doubtful.unwrap_or_default(),
            state_since: state_since.unwrap_or_default(),
            expires_at,
            profile,
            fault: row.10,
        }),
        _ => None,
    };
    let credential = credential.map(|columns| columns.status(row.9));
    let standing = ServingState {
        status: parse_word(status)?,
        reasons: decode_json(reasons.as_bytes())?,
        credential: credential.transpose()?,
    };
    Ok(standing.with_credential(parse_id(&id)?))
}
