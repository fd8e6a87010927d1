//! API keys: made, looked at, ended.
//!
//! Keys of a project are made by an `admin` key of that project, and `admin` keys by the command
//! line alone: whoever gets hold of one can be put out for good, since it could not multiply. A key
//! ends once, and never later than it was to end before: an end that somebody has seen is one
//! that they may rely on.

use jiff::Timestamp;

use super::{Gateway, access::Caller};
use crate::{
    crypto::ApiKeyText,
    error::{Error, Kind, Result},
    model::{
        access::{ApiKey, KeyChange, NewKey, Scope},
        id::{KeyId, ProjectId},
    },
};

impl Gateway {
    /// Makes a key of `project` with any scopes; its text is known to nobody else and never again.
    ///
    /// # Errors
    /// `not_found` if there is no such project.
    pub async fn create_key(
        &self,
        project: &ProjectId,
        new: &NewKey,
    ) -> Result<(ApiKeyText, ApiKey)> {
        let now = self.0.clock.now();
        let (text, key) = ApiKeyText::issue(project, new, now, &self.0.chance);
        self.0.store.insert_key(&key).await?;
        tracing::info!(key = %key.id, "API key made");
        Ok((text, key))
    }

    /// Makes a key of the caller's own project.
    ///
    /// # Errors
    /// `admin_not_permitted` if it is to have the scope `admin`; `invalid_body` if it would have
    /// ended by now.
    pub async fn issue_key(&self, caller: &Caller, new: &NewKey) -> Result<(ApiKeyText, ApiKey)> {
        if new.scopes.contains(&Scope::Admin) {
            return Err(Error::new(
                Kind::AdminNotPermitted,
                "no API key can be given the scope admin through the API",
            ));
        }
        self.lies_ahead(new.expires_at)?;
        self.create_key(caller.project(), new).await
    }

    /// Keys of the caller's own project, the newest first, from the one made before `before` on.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn keys(
        &self,
        caller: &Caller,
        before: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<ApiKey>> {
        self.0.store.keys(caller.project(), before, limit).await
    }

    /// The key of the caller's own project with this id, as the store has it now.
    ///
    /// # Errors
    /// `not_found`, the same for an unknown, a malformed and another project's id.
    pub async fn own_key(&self, caller: &Caller, id: &str) -> Result<ApiKey> {
        let id: KeyId = id.parse().map_err(|_| no_such_key())?;
        let key = self.0.store.key(id).await?;
        key.filter(|key| key.project == *caller.project())
            .ok_or_else(no_such_key)
    }

    /// Changes a key, all of it or nothing.
    ///
    /// # Errors
    /// `invalid_body` if it is to end later than it does, or would have ended by now.
    pub async fn update_key(&self, key: &ApiKey, change: KeyChange) -> Result<ApiKey> {
        self.lies_ahead(change.expires_at)?;
        if change == KeyChange::default() {
            return Ok(key.clone());
        }
        let (gateway, project, id) = (self.clone(), key.project.clone(), key.id);
        self.owned(async move {
            let updated = gateway.0.store.update_key(&project, id, &change).await;
            gateway.0.keys.forget(&id);
            updated?.ok_or_else(no_such_key)
        })
        .await
    }

    /// Revokes a key of `project`: on return, this process takes it no more.
    ///
    /// # Errors
    /// `not_found` if the project has no such key.
    pub async fn revoke_key(&self, project: &ProjectId, id: KeyId) -> Result<ApiKey> {
        let (gateway, project) = (self.clone(), project.clone());
        self.owned(async move {
            let now = gateway.0.clock.now();
            let revoked = gateway.0.store.revoke_key(&project, id, now).await;
            gateway.0.keys.forget(&id);
            let revoked = revoked?.ok_or_else(no_such_key)?;
            tracing::info!(key = %id, "API key revoked");
            Ok(revoked)
        })
        .await
    }

    fn lies_ahead(&self, expires_at: Option<Timestamp>) -> Result<()> {
        if expires_at.is_none_or(|end| end > self.0.clock.now()) {
            return Ok(());
        }
        Err(
            Error::new(Kind::InvalidBody, "`expires_at` must lie in the future")
                .with_hint("To end a key now, revoke it: DELETE /api_keys/{id}."),
        )
    }
}

fn no_such_key() -> Error {
    Error::new(Kind::NotFound, "there is no such API key")
        .with_hint("Check the key's id; GET /api_keys lists the keys of this key's project.")
}
