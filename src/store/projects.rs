//! Projects with their data keys, and API keys.

use std::slice;

use jiff::Timestamp;

use super::{
    Store, id_in, json, json_in, moment_in, no_such_project, open::known_answer, project_in,
};
use crate::{
    crypto::DataKey,
    error::{Error, Kind, Result},
    model::{
        access::{ApiKey, KeyChange, Label, Scope},
        audit::{Action, Actor, Event, Subject, SubjectKind},
        id::{KeyId, ProjectId},
    },
};

type KeyRow = (
    String,
    String,
    String,
    String,
    Vec<u8>,
    i64,
    Option<i64>,
    Option<i64>,
);

/// What the hub may lead to beside itself, letter for letter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubTargets {
    pub return_urls: Vec<String>,
    pub opener_origins: Vec<String>,
}

impl Store {
    /// Makes a project and its data key, which the operator alone does. False if there is one of
    /// that id already; it stays as it is.
    pub async fn create_project(&self, project: &ProjectId, now: Timestamp) -> Result<bool> {
        let key = DataKey::generate(&self.chance);
        let wrapped = key.wrap(&self.ring, project.as_str(), &self.chance);
        let mut tx = self.db.begin().await?;
        self.mark_key_in_use(&mut tx, now).await?;
        let created = tx
            .execute(
                "insert into projects (id, data_key_id, sealed_data_key, wrapped_by, created_at)
                 values ($1, $2, $3, $4, $5) on conflict (id) do nothing",
                [
                    project.into(),
                    key.id().into(),
                    wrapped.into(),
                    self.ring.encrypting_id().into(),
                    now.into(),
                ],
            )
            .await?;
        let is_new = created == 1;
        if is_new {
            self.begin_audit_log(&mut tx, project, &key).await?;
            let made = Event::new(Actor::Operator, Action::ProjectCreated, project);
            self.audit(&mut tx, project, Some(&key), &[made]).await?;
        }
        tx.commit().await?;
        Ok(is_new)
    }

    /// Where a project's customers may be sent back to, and which pages may be told of a link.
    pub async fn hub_targets(&self, project: &ProjectId) -> Result<HubTargets> {
        let row: Option<(String, String)> = self
            .db
            .fetch_one(
                "select return_urls, opener_origins from projects where id = $1",
                [project.into()],
            )
            .await?;
        let (return_urls, opener_origins) = row.ok_or_else(no_such_project)?;
        Ok(HubTargets {
            return_urls: json_in(return_urls.as_bytes())?,
            opener_origins: json_in(opener_origins.as_bytes())?,
        })
    }

    /// Registers where a project's customers may be sent back to, and which pages may be told, in
    /// the place of what was registered. False if there is no such project.
    pub async fn set_hub_targets(&self, project: &ProjectId, targets: &HubTargets) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        let updated = tx
            .execute(
                "update projects set return_urls = $2, opener_origins = $3 where id = $1",
                [
                    project.into(),
                    json(&targets.return_urls)?.into(),
                    json(&targets.opener_origins)?.into(),
                ],
            )
            .await?;
        tx.commit().await?;
        Ok(updated == 1)
    }

    pub async fn project_exists(&self, project: &ProjectId) -> Result<bool> {
        let row: Option<(String,)> = self
            .db
            .fetch_one("select id from projects where id = $1", [project.into()])
            .await?;
        Ok(row.is_some())
    }

    /// All projects, by id.
    pub async fn projects(&self) -> Result<Vec<ProjectId>> {
        let rows: Vec<(String,)> = self
            .db
            .fetch("select id from projects order by id", [])
            .await?;
        rows.iter().map(|(id,)| project_in(id)).collect()
    }

    /// How many data keys each ring key wraps, by key. The database opens only with a ring that
    /// has all of them; a key that is not named may leave the ring.
    pub async fn key_usage(&self) -> Result<Vec<(String, u64)>> {
        let rows: Vec<(String, i64)> = self
            .db
            .fetch(
                "select key_checks.key_id, count(projects.id)
                 from key_checks left join projects on projects.wrapped_by = key_checks.key_id
                 group by key_checks.key_id order by key_checks.key_id",
                [],
            )
            .await?;
        rows.into_iter()
            .map(|(key, count)| Ok((key, super::count_in(count)?)))
            .collect()
    }

    /// Wraps every data key anew with the ring's first key, and gives how many were wrapped by
    /// another. Afterwards the database no longer asks for the other keys. What the data keys
    /// sealed is not touched.
    pub async fn rewrap_data_keys(&self, now: Timestamp, by: Actor) -> Result<u64> {
        let encrypting = self.ring.encrypting_id();
        let mut tx = self.db.begin().await?;
        self.mark_key_in_use(&mut tx, now).await?;
        // Before it is looked what the other keys wrap: another process that is just wrapping
        // with one of them is waited for here, and seen then.
        tx.execute(
            "delete from key_checks where key_id <> $1",
            [encrypting.into()],
        )
        .await?;
        let rows: Vec<(String, String, Vec<u8>, String)> = tx
            .fetch(
                "select id, data_key_id, sealed_data_key, wrapped_by from projects
                 where wrapped_by <> $1 order by id",
                [encrypting.into()],
            )
            .await?;
        let mut rewrapped = Vec::with_capacity(rows.len());
        for (project, id, wrapped, former) in rows {
            let key = DataKey::unwrap(&self.ring, &project, &id, &wrapped)
                .map_err(|fault| super::locked("data key", fault))?;
            let wrapped = key.wrap(&self.ring, &project, &self.chance);
            tx.execute(
                "update projects set sealed_data_key = $1, wrapped_by = $2 where id = $3",
                [wrapped.into(), encrypting.into(), project.as_str().into()],
            )
            .await?;
            let subject = Subject::new(SubjectKind::DataKey, key.id());
            let event = Event::new(by, Action::DataKeyRewrapped, subject)
                .with("from", former)
                .with("to", encrypting);
            rewrapped.push((project_in(&project)?, key, event));
        }
        for (project, key, event) in &rewrapped {
            self.audit(&mut tx, project, Some(key), slice::from_ref(event))
                .await?;
        }
        tx.commit().await?;
        Ok(rewrapped.len() as u64)
    }

    /// Leaves the encrypting key's known answer beside the first thing that it wraps: from then
    /// on, a ring without this key does not open the database. Until the transaction has ended,
    /// nobody takes it away.
    async fn mark_key_in_use(&self, tx: &mut super::Tx, now: Timestamp) -> Result<()> {
        tx.execute(
            "insert into key_checks (key_id, sealed, created_at) values ($1, $2, $3)
             on conflict (key_id) do update set created_at = key_checks.created_at",
            [
                self.ring.encrypting_id().into(),
                known_answer(&self.ring, &self.chance).into(),
                now.into(),
            ],
        )
        .await
        .map(drop)
    }

    /// Stores a new API key.
    pub async fn insert_key(&self, key: &ApiKey, by: Actor) -> Result<()> {
        if !self.project_exists(&key.project).await? {
            return Err(no_such_project());
        }
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        let mut tx = self.db.begin().await?;
        tx.execute(
            "insert into api_keys
                 (id, project, label, scopes, digest, created_at, expires_at, revoked_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
            [
                key.id.into(),
                (&key.project).into(),
                key.label.as_str().into(),
                scopes.join(" ").into(),
                key.digest.to_vec().into(),
                key.created_at.into(),
                key.expires_at.into(),
                key.revoked_at.into(),
            ],
        )
        .await?;
        let mut made =
            Event::new(by, Action::ApiKeyCreated, key.id).with("scopes", scopes.join(","));
        if let Some(end) = key.expires_at {
            made = made.with("expires_at", end);
        }
        self.audit(&mut tx, &key.project, None, &[made]).await?;
        tx.commit().await
    }

    /// The key with this public id, valid or not. The one look-up without a project: it is
    /// what says whose project a caller is in.
    pub async fn key(&self, id: KeyId) -> Result<Option<ApiKey>> {
        let row = self
            .db
            .fetch_one(
                "select id, project, label, scopes, digest, created_at, expires_at, revoked_at
                 from api_keys where id = $1",
                [id.into()],
            )
            .await?;
        row.map(key_in).transpose()
    }

    /// At most `limit` of a project's keys, the newest first, from the one before `before` on;
    /// revoked and expired ones too.
    pub async fn keys(
        &self,
        project: &ProjectId,
        before: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<ApiKey>> {
        let before = before.unwrap_or(KeyId::from_uuid(uuid::Uuid::max()));
        let rows = self
            .db
            .fetch(
                "select id, project, label, scopes, digest, created_at, expires_at, revoked_at
                 from api_keys where project = $1 and id < $2 order by id desc limit $3",
                [project.into(), before.into(), u64::from(limit).into()],
            )
            .await?;
        rows.into_iter().map(key_in).collect()
    }

    /// Changes a key and gives it as it is then; None if the project has no such key. An end that
    /// is later than the one it has is refused, and then nothing is changed.
    pub async fn update_key(
        &self,
        project: &ProjectId,
        id: KeyId,
        change: &KeyChange,
        by: Actor,
    ) -> Result<Option<ApiKey>> {
        let label = change.label.as_ref().map(|label| {
            let label = label.as_ref().map_or("", Label::as_str);
            label.to_owned()
        });
        let mut tx = self.db.begin().await?;
        // In the statement itself, so that of two who bring the end forward the earlier one holds.
        let updated = tx
            .fetch_one(
                "update api_keys
                 set label = coalesce($3, label), expires_at = coalesce($4, expires_at)
                 where project = $1 and id = $2
                     and ($4 is null or expires_at is null or $4 <= expires_at)
                 returning id, project, label, scopes, digest, created_at, expires_at, revoked_at",
                [
                    project.into(),
                    id.into(),
                    label.into(),
                    change.expires_at.into(),
                ],
            )
            .await?;
        match updated {
            Some(row) => {
                let mut event = Event::new(by, Action::ApiKeyUpdated, id);
                if change.label.is_some() {
                    event = event.with("changed", "label");
                }
                if let Some(end) = change.expires_at {
                    event = event.with("expires_at", end);
                }
                self.audit(&mut tx, project, None, &[event]).await?;
                tx.commit().await?;
                key_in(row).map(Some)
            }
            None => {
                drop(tx);
                match self.key(id).await?.filter(|key| key.project == *project) {
                    Some(key) => Err(ends_before(&key)),
                    None => Ok(None),
                }
            }
        }
    }

    /// Revokes a key and gives it as it is then; None if the project has no such key. The
    /// first revocation's time stays.
    pub async fn revoke_key(
        &self,
        project: &ProjectId,
        id: KeyId,
        now: Timestamp,
        by: Actor,
    ) -> Result<Option<ApiKey>> {
        let mut tx = self.db.begin().await?;
        let revoked = tx
            .fetch_one(
                "update api_keys set revoked_at = $3
                 where project = $1 and id = $2 and revoked_at is null
                 returning id, project, label, scopes, digest, created_at, expires_at, revoked_at",
                [project.into(), id.into(), now.into()],
            )
            .await?;
        let Some(row) = revoked else {
            drop(tx);
            return Ok(self.key(id).await?.filter(|key| key.project == *project));
        };
        let event = Event::new(by, Action::ApiKeyRevoked, id);
        self.audit(&mut tx, project, None, &[event]).await?;
        tx.commit().await?;
        key_in(row).map(Some)
    }
}

fn ends_before(key: &ApiKey) -> Error {
    let end = key
        .expires_at
        .map_or_else(String::new, |end| format!(", {end}"));
    Error::new(
        Kind::InvalidBody,
        format!("`expires_at` must not be after the end that the key has{end}"),
    )
    .with_hint("An end is only ever brought forward; make a new key for a later one.")
}

fn key_in(row: KeyRow) -> Result<ApiKey> {
    let (id, project, label, scopes, digest, created_at, expires_at, revoked_at) = row;
    let scopes: Result<Vec<Scope>, _> = scopes.split_whitespace().map(str::parse).collect();
    Ok(ApiKey {
        id: id_in(&id)?,
        project: project_in(&project)?,
        label,
        scopes: scopes.map_err(Error::internal)?,
        digest: digest
            .try_into()
            .map_err(|_| Error::internal("a key's digest is not 32 bytes long"))?,
        created_at: moment_in(created_at)?,
        expires_at: expires_at.map(moment_in).transpose()?,
        revoked_at: revoked_at.map(moment_in).transpose()?,
    })
}
