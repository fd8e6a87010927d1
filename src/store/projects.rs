//! Storage of projects with their data keys, and of API keys.

use jiff::Timestamp;

use super::{
    Store,
    db::{Arg, Tx},
    decode_json, decode_timestamp, json,
    key_macs::{KeyRow, is_signed, key_columns, mac},
    key_ring::Wrapping,
    no_such_project, parse_id, parse_project,
};
use crate::{
    crypto::DataKey,
    error::{Error, Kind, Result},
    model::{
        api_keys::{ApiKey, KeyChange, KeyLabel, Scope},
        audit_log::{Actor, AuditAction, Event},
        id::{KeyId, ProjectId},
        timestamp::display,
    },
};

/// The registered URLs outside the hub that it may send a browser or a message to. They are
/// compared exactly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubTargets {
    pub return_urls: Vec<String>,
    pub opener_origins: Vec<String>,
}

/// How much was deleted together with a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletedProject {
    pub accounts: u64,
    pub keys: u64,
}

impl Store {
    /// Creates a project and its data key on behalf of the operator. False if the project exists
    /// already; it stays as it is.
    ///
    /// # Errors
    /// `invalid_parameter` if a project with this id was deleted. An id is never reused.
    pub async fn create_project(&self, project: &ProjectId, now: Timestamp) -> Result<bool> {
        match self.try_create_project(project, now).await {
            Err(error) if self.may_have_missed_a_key(&error).await => {
                self.try_create_project(project, now).await
            }
            outcome => outcome,
        }
    }

    async fn try_create_project(&self, project: &ProjectId, now: Timestamp) -> Result<bool> {
        let key = DataKey::generate(&self.rng);
        let mut tx = self.db.begin().await?;
        let Wrapping { active, ring, .. } = self.wrapping(&mut tx).await?;
        let wrapped = key
            .wrap(&ring, &active, project.as_str(), &self.rng)
            .expect("the ring has the active key");
        let created = tx
            .execute(
                "insert into projects (id, data_key_id, sealed_data_key, wrapped_by, created_at)
                 values ($1, $2, $3, $4, $5) on conflict (id) do nothing",
                [
                    project.into(),
                    key.id().into(),
                    wrapped.into(),
                    active.into(),
                    now.into(),
                ],
            )
            .await?;
        if created == 1 {
            self.begin_audit_log(&mut tx, project, &key).await?;
            let made = Event::new(Actor::Operator, AuditAction::ProjectCreated, project);
            self.audit(&mut tx, project, Some(&key), &[made]).await?;
            tx.commit().await?;
            return Ok(true);
        }
        let found: Option<(Option<i64>,)> = tx
            .fetch_one(
                "select deleted_at from projects where id = $1",
                [project.into()],
            )
            .await?;
        if let Some((Some(_),)) = found {
            return Err(Error::new(
                Kind::InvalidParameter,
                format!("there was a project {project}, which was deleted"),
            )
            .with_hint("Take another name; that of a deleted project is never given again."));
        }
        // Commit anyway: `wrapping` may have activated a key.
        tx.commit().await?;
        Ok(false)
    }

    /// The registered return URLs of a project, and the origins of the pages that may be notified
    /// of a link.
    pub async fn hub_targets(&self, project: &ProjectId) -> Result<HubTargets> {
        let row: Option<(String, String)> = self
            .db
            .fetch_one(
                "select return_urls, opener_origins from projects
                 where id = $1 and deleted_at is null",
                [project.into()],
            )
            .await?;
        let (return_urls, opener_origins) = row.ok_or_else(no_such_project)?;
        Ok(HubTargets {
            return_urls: decode_json(return_urls.as_bytes())?,
            opener_origins: decode_json(opener_origins.as_bytes())?,
        })
    }

    /// Replaces the registered return URLs and opener origins of a project. False if there is no
    /// such project.
    pub async fn set_hub_targets(&self, project: &ProjectId, targets: &HubTargets) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        let updated = tx
            .execute(
                "update projects set return_urls = $2, opener_origins = $3
                 where id = $1 and deleted_at is null",
                [
                    project.into(),
                    json(&targets.return_urls)?.into(),
                    json(&targets.opener_origins)?.into(),
                ],
            )
            .await?;
        if updated == 1 {
            let changed = Event::new(Actor::Operator, AuditAction::ProjectUpdated, project);
            self.audit(&mut tx, project, None, &[changed]).await?;
        }
        tx.commit().await?;
        Ok(updated == 1)
    }

    pub async fn project_exists(&self, project: &ProjectId) -> Result<bool> {
        let row: Option<(String,)> = self
            .db
            .fetch_one(
                "select id from projects where id = $1 and deleted_at is null",
                [project.into()],
            )
            .await?;
        Ok(row.is_some())
    }

    /// All projects, ordered by id.
    pub async fn projects(&self) -> Result<Vec<ProjectId>> {
        let rows: Vec<(String,)> = self
            .db
            .fetch(
                "select id from projects where deleted_at is null order by id",
                [],
            )
            .await?;
        rows.iter().map(|(id,)| parse_project(id)).collect()
    }

    /// Deletes a project with its data key, API keys, profiles, sessions and accounts. None if
    /// there is no such project.
    ///
    /// The audit log stays, with the key that verifies it. The id stays too and is never reused:
    /// data of the project that turns up later, for example in a backup, must not belong to another
    /// project.
    pub async fn delete_project(
        &self,
        project: &ProjectId,
        by: Actor,
        now: Timestamp,
    ) -> Result<Option<DeletedProject>> {
        // A project whose data key does not decrypt is not deleted: this is an error.
        let Some(key) = self.data_key(project).await? else {
            return Ok(None);
        };
        let mut tx = self.db.begin().await?;
        let active = self.wrapping(&mut tx).await?;
        // Lock the accounts first and the project second. Transactions on one account lock in the
        // same order, so there is no deadlock.
        tx.execute(
            "update accounts set walked_at = walked_at where project = $1",
            [project.into()],
        )
        .await?;
        if !tx.lock_project(project).await? {
            return Ok(None);
        }
        for statement in [
            "delete from authorizations where project = $1",
            "delete from connect_sessions where project = $1",
            "delete from connector_profiles where project = $1",
        ] {
            tx.execute(statement, [project.into()]).await?;
        }
        let keys = tx
            .execute("delete from api_keys where project = $1", [project.into()])
            .await?;
        let accounts = tx
            .execute("delete from accounts where project = $1", [project.into()])
            .await?;
        // Keep only the key that verifies the audit log.
        let left = key.to_audit_key(&self.rng);
        let wrapped = left
            .wrap(&active.ring, &active.active, project.as_str(), &self.rng)
            .expect("the ring has the active key");
        tx.execute(
            "update projects set data_key_id = $2, sealed_data_key = $3, wrapped_by = $4,
                    return_urls = '[]', opener_origins = '[]', deleted_at = $5
             where id = $1",
            [
                project.into(),
                left.id().into(),
                wrapped.into(),
                active.active.into(),
                now.into(),
            ],
        )
        .await?;
        let deleted = Event::new(by, AuditAction::ProjectDeleted, project)
            .with("accounts", accounts)
            .with("api_keys", keys);
        self.audit(&mut tx, project, Some(&key), &[deleted]).await?;
        tx.commit().await?;
        self.db.wipe().await;
        Ok(Some(DeletedProject { accounts, keys }))
    }

    /// How many projects were ever deleted.
    pub async fn deleted_project_count(&self) -> Result<u64> {
        let row: Option<(i64,)> = self
            .db
            .fetch_one(
                "select count(*) from projects where deleted_at is not null",
                [],
            )
            .await?;
        super::decode_count(row.map_or(0, |(count,)| count))
    }

    /// All deleted projects, ordered by id.
    pub async fn deleted_projects(&self) -> Result<Vec<ProjectId>> {
        let rows: Vec<(String,)> = self
            .db
            .fetch(
                "select id from projects where deleted_at is not null order by id",
                [],
            )
            .await?;
        rows.iter().map(|(id,)| parse_project(id)).collect()
    }

    /// Stores a new API key with its MAC. If another key created it, that key must not be revoked.
    ///
    /// # Errors
    /// `unauthorized` if the creating key was revoked meanwhile. `too_many_keys` if the project has
    /// its maximum of valid keys.
    pub async fn insert_key(&self, key: &ApiKey, by: Actor) -> Result<()> {
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        let mut tx = self.db.begin().await?;
        // One creation at a time in a project, so that the count below includes all other new keys.
        if !tx.lock_keys(&key.project).await? {
            return Err(no_such_project());
        }
        let live: Option<(i64,)> = tx
            .fetch_one(
                "select count(*) from api_keys
                 where project = $1 and revoked_at is null
                     and (expires_at is null or expires_at > $2)",
                [(&key.project).into(), key.created_at.into()],
            )
            .await?;
        if live.is_some_and(|(live,)| live >= i64::from(self.max_live_keys)) {
            return Err(Error::new(
                Kind::TooManyKeys,
                format!("this project has {} valid API keys", self.max_live_keys),
            ));
        }
        let data_key = self.data_key_in(&mut tx, &key.project).await?;
        let data_key = data_key.ok_or_else(no_such_project)?;
        if let Some(creator) = key.created_by {
            let creator = signed_key(&mut tx, &data_key, &key.project, creator).await?;
            if creator.is_none_or(|creator| creator.revoked_at.is_some()) {
                return Err(Error::new(
                    Kind::Unauthorized,
                    "the API key that makes this one was revoked",
                ));
            }
        }
        let row = KeyRow {
            id: key.id.to_string(),
            project: key.project.to_string(),
            label: key.label.clone(),
            scopes: scopes.join(" "),
            digest: key.digest.to_vec(),
            created_at: key.created_at.as_millisecond(),
            expires_at: key.expires_at.map(Timestamp::as_millisecond),
            revoked_at: key.revoked_at.map(Timestamp::as_millisecond),
            created_by: key.created_by.map(|id| id.to_string()),
            mac: None,
        };
        let mac = mac(&data_key, &row);
        tx.execute(
            "insert into api_keys
                 (id, project, label, scopes, digest, created_at, expires_at, revoked_at,
                  created_by, mac)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            [
                row.id.into(),
                row.project.into(),
                row.label.into(),
                row.scopes.into(),
                row.digest.into(),
                key.created_at.into(),
                key.expires_at.into(),
                key.revoked_at.into(),
                row.created_by.into(),
                mac.into(),
            ],
        )
        .await?;
        let mut made =
            Event::new(by, AuditAction::ApiKeyCreated, key.id).with("scopes", scopes.join(","));
        if let Some(end) = key.expires_at {
            made = made.with("expires_at", end);
        }
        self.audit(&mut tx, &key.project, Some(&data_key), &[made])
            .await?;
        tx.commit().await
    }

    /// The key with this public id, valid or not. This is the only lookup without a project: its
    /// result determines the caller's project.
    ///
    /// Returns None for a row with a missing or wrong MAC, and for a row without a revocation if
    /// the audit log contains one.
    pub async fn key(&self, id: KeyId) -> Result<Option<ApiKey>> {
        let row: Option<KeyRow> = self
            .db
            .fetch_one(
                concat!(
                    "select ",
                    key_columns!(),
                    " from api_keys where id = $1 and (revoked_at is not null or not exists (
                        select 1 from audit_log
                        where audit_log.project = api_keys.project and subject_id = api_keys.id
                            and action = 'api_key.revoked'))"
                ),
                [id.into()],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        // A deleted project has no keys.
        let Some(data_key) = self.data_key(&parse_project(&row.project)?).await? else {
            return Ok(None);
        };
        match is_signed(&data_key, &row) {
            true => decode_api_key(row).map(Some),
            false => Ok(None),
        }
    }

    /// At most `limit` of a project's keys, the newest first, older than `before`. Includes revoked
    /// and expired keys. Skips rows with a missing or wrong MAC.
    pub async fn keys(
        &self,
        project: &ProjectId,
        before: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<ApiKey>> {
        let Some(data_key) = self.data_key(project).await? else {
            return Ok(Vec::new());
        };
        // Skipped rows leave a page incomplete, so query until it is full or no rows are left.
        let mut before = before.unwrap_or(KeyId::from_uuid(uuid::Uuid::max()));
        let mut keys = Vec::new();
        loop {
            let rows: Vec<KeyRow> = self
                .db
                .fetch(
                    concat!(
                        "select ",
                        key_columns!(),
                        " from api_keys where project = $1 and id < $2 order by id desc limit $3"
                    ),
                    [project.into(), before.into(), u64::from(limit).into()],
                )
                .await?;
            let is_last = rows.len() < limit as usize;
            if let Some(row) = rows.last() {
                before = parse_id(&row.id)?;
            }
            for row in rows {
                if is_signed(&data_key, &row) {
                    keys.push(decode_api_key(row)?);
                }
                if keys.len() == limit as usize {
                    return Ok(keys);
                }
            }
            if is_last {
                return Ok(keys);
            }
        }
    }

    /// Changes a key and returns it. None if the project has no such key.
    ///
    /// # Errors
    /// `invalid_body` if the new expiry is later than the present one; nothing is changed then.
    pub async fn update_key(
        &self,
        project: &ProjectId,
        id: KeyId,
        change: &KeyChange,
        by: Actor,
    ) -> Result<Option<ApiKey>> {
        let mut tx = self.db.begin().await?;
        let Some(data_key) = self.data_key_in(&mut tx, project).await? else {
            return Ok(None);
        };
        let Some(mut row) = signed_key(&mut tx, &data_key, project, id).await? else {
            return Ok(None);
        };
        if let Some(end) = change.expires_at {
            let end = end.as_millisecond();
            if row.expires_at.is_some_and(|former| former < end) {
                return Err(ends_before(&decode_api_key(row)?));
            }
            row.expires_at = Some(end);
        }
        if let Some(label) = &change.label {
            row.label = label.as_ref().map_or("", KeyLabel::as_str).to_owned();
        }
        let row = sign(&mut tx, &data_key, row).await?;
        let mut event = Event::new(by, AuditAction::ApiKeyUpdated, id);
        if change.label.is_some() {
            event = event.with("changed", "label");
        }
        if let Some(end) = change.expires_at {
            event = event.with("expires_at", end);
        }
        self.audit(&mut tx, project, Some(&data_key), &[event])
            .await?;
        tx.commit().await?;
        decode_api_key(row).map(Some)
    }

    /// Revokes a key and returns it. None if the project has no such key. A key that is revoked
    /// already keeps its time of revocation.
    pub async fn revoke_key(
        &self,
        project: &ProjectId,
        id: KeyId,
        now: Timestamp,
        by: Actor,
    ) -> Result<Option<ApiKey>> {
        let revoked = self.revoke_keys(project, id, false, now, by).await?;
        Ok(revoked.map(|(key, _)| key))
    }

    /// Revokes a key and all keys that it created, directly or indirectly, in one transaction.
    /// Returns the key and the created keys, including those that were revoked earlier. None if the
    /// project has no such key.
    pub async fn revoke_key_with_created(
        &self,
        project: &ProjectId,
        id: KeyId,
        now: Timestamp,
        by: Actor,
    ) -> Result<Option<(ApiKey, Vec<ApiKey>)>> {
        self.revoke_keys(project, id, true, now, by).await
    }

    async fn revoke_keys(
        &self,
        project: &ProjectId,
        id: KeyId,
        with_created: bool,
        now: Timestamp,
        by: Actor,
    ) -> Result<Option<(ApiKey, Vec<ApiKey>)>> {
        let mut tx = self.db.begin().await?;
        // Block the creation of keys meanwhile: no key of this tree can create another one.
        if with_created && !tx.lock_keys(project).await? {
            return Ok(None);
        }
        let Some(data_key) = self.data_key_in(&mut tx, project).await? else {
            return Ok(None);
        };
        let Some(row) = signed_key(&mut tx, &data_key, project, id).await? else {
            return Ok(None);
        };
        let mut rows = vec![row];
        let mut looked_at = 0;
        // Breadth-first over the keys that were created with the keys found so far.
        while with_created && looked_at < rows.len() {
            let creator = rows[looked_at].id.clone();
            looked_at += 1;
            for created in created_by(&mut tx, project, creator).await? {
                let is_new = rows.iter().all(|known| known.id != created.id);
                if is_new && is_signed(&data_key, &created) {
                    rows.push(created);
                }
            }
        }
        let (mut events, mut keys) = (Vec::new(), Vec::new());
        for mut row in rows {
            if row.revoked_at.is_none() {
                row.revoked_at = Some(now.as_millisecond());
                row = sign(&mut tx, &data_key, row).await?;
                let of: KeyId = parse_id(&row.id)?;
                let event = Event::new(by, AuditAction::ApiKeyRevoked, of);
                events.push(match of == id {
                    true => event,
                    false => event.with("with", id),
                });
            }
            keys.push(decode_api_key(row)?);
        }
        self.audit(&mut tx, project, Some(&data_key), &events)
            .await?;
        tx.commit().await?;
        let key = keys.remove(0);
        Ok(Some((key, keys)))
    }
}

/// Reads a key's row and locks it until the end of the transaction. The update changes nothing; it
/// locks the row on both databases. None if the row's MAC is missing or wrong.
async fn signed_key(
    tx: &mut Tx,
    data_key: &DataKey,
    project: &ProjectId,
    id: KeyId,
) -> Result<Option<KeyRow>> {
    let row: Option<KeyRow> = tx
        .fetch_one(
            concat!(
                "update api_keys set label = label where project = $1 and id = $2 returning ",
                key_columns!()
            ),
            [project.into(), id.into()],
        )
        .await?;
    Ok(row.filter(|row| is_signed(data_key, row)))
}

async fn created_by(tx: &mut Tx, project: &ProjectId, creator: String) -> Result<Vec<KeyRow>> {
    tx.fetch(
        concat!(
            "update api_keys set label = label where project = $1 and created_by = $2 returning ",
            key_columns!()
        ),
        [project.into(), creator.into()],
    )
    .await
}

/// Writes the columns of a key that can change, and the new MAC.
async fn sign(tx: &mut Tx, data_key: &DataKey, row: KeyRow) -> Result<KeyRow> {
    tx.execute(
        "update api_keys set label = $3, expires_at = $4, revoked_at = $5, mac = $6
         where project = $1 and id = $2",
        [
            row.project.as_str().into(),
            row.id.as_str().into(),
            row.label.as_str().into(),
            Arg::Int(row.expires_at),
            Arg::Int(row.revoked_at),
            mac(data_key, &row).into(),
        ],
    )
    .await?;
    Ok(row)
}

fn ends_before(key: &ApiKey) -> Error {
    let end = key
        .expires_at
        .map_or_else(String::new, |end| format!(", {}", display(end)));
    Error::new(
        Kind::InvalidBody,
        format!("`expires_at` must not be after the end that the key has{end}"),
    )
    .with_hint("An end is only ever brought forward; make a new key for a later one.")
}

fn decode_api_key(row: KeyRow) -> Result<ApiKey> {
    let scopes: Result<Vec<Scope>, _> = row.scopes.split_whitespace().map(str::parse).collect();
    Ok(ApiKey {
        id: parse_id(&row.id)?,
        project: parse_project(&row.project)?,
        label: row.label,
        scopes: scopes.map_err(Error::internal)?,
        digest: row
            .digest
            .try_into()
            .map_err(|_| Error::internal("a key's digest is not 32 bytes long"))?,
        created_at: decode_timestamp(row.created_at)?,
        expires_at: row.expires_at.map(decode_timestamp).transpose()?,
        revoked_at: row.revoked_at.map(decode_timestamp).transpose()?,
        created_by: row.created_by.as_deref().map(parse_id).transpose()?,
    })
}
