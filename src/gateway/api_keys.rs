//! API keys: create, list, update and revoke them.
//!
//! An `admin` key creates the other keys of its project; only the command line creates `admin`
//! keys. A stolen `admin` key can therefore be revoked for good, since it cannot create another
//! `admin` key. The expiry of a key can only move closer: once someone has seen it, they may rely
//! on it.

use jiff::Timestamp;

use super::{Gateway, auth::Caller};
use crate::{
    crypto::ApiKeySecret,
    error::{Error, Kind, Result},
    model::{
        api_keys::{ApiKey, KeyChange, NewKey, Scope},
        audit_log::Actor,
        id::{KeyId, ProjectId},
    },
};

/// A key that is proven to belong to the caller's project, with the actor of the request.
#[derive(Debug, Clone)]
pub struct OwnKey {
    pub key: ApiKey,
    by: Actor,
}

/// Creates, lists, updates and revokes API keys.
#[derive(Clone, Copy)]
pub struct ApiKeys<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}

impl ApiKeys<'_> {
    /// Creates a key of `project` with any scopes, on behalf of the operator. The secret is
    /// returned only here.
    ///
    /// # Errors
    /// `not_found` if there is no such project.
    pub async fn create_key(
        self,
        project: &ProjectId,
        new: &NewKey,
    ) -> Result<(ApiKeySecret, ApiKey)> {
        self.make_key(project, new, Actor::Operator).await
    }

    async fn make_key(
        self,
        project: &ProjectId,
        new: &NewKey,
        by: Actor,
    ) -> Result<(ApiKeySecret, ApiKey)> {
        let now = self.gateway.0.clock.now();
        let (text, mut key) = ApiKeySecret::issue(project, new, now, &self.gateway.0.rng);
        key.created_by = match by {
            Actor::ApiKey(id) => Some(id),
            Actor::Operator | Actor::ConnectSession(_) | Actor::System => None,
        };
        self.gateway.store_of(project).insert_key(&key, by).await?;
        Ok((text, key))
    }

    /// Creates a key of the caller's project.
    ///
    /// # Errors
    /// `admin_not_permitted` for the scope `admin`; `invalid_body` if `expires_at` is in the past.
    pub async fn issue_key(self, caller: &Caller, new: &NewKey) -> Result<(ApiKeySecret, ApiKey)> {
        if new.scopes.contains(&Scope::Admin) {
            return Err(Error::new(
                Kind::AdminNotPermitted,
                "no API key can be given the scope admin through the API",
            ));
        }
        self.require_future(new.expires_at)?;
        let by = caller.actor();
        let made = self.make_key(caller.project(), new, by).await?;
        tracing::info!(key = %made.1.id, %by, "API key made");
        Ok(made)
    }

    /// Keys of the caller's project, newest first, starting after the key `before`.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn keys(
        self,
        caller: &Caller,
        before: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<ApiKey>> {
        self.gateway
            .store_of(caller.project())
            .keys(caller.project(), before, limit)
            .await
    }

    /// Reads the key of the caller's project with this id from the store.
    ///
    /// # Errors
    /// `not_found`, equally for an unknown id, a malformed id and an id of another project.
    pub async fn own_key(self, caller: &Caller, id: &str) -> Result<OwnKey> {
        let id: KeyId = id.parse().map_err(|_| no_such_key())?;
        let key = self.gateway.store_of(caller.project()).key(id).await?;
        let key = key
            .filter(|key| key.project == *caller.project())
            .ok_or_else(no_such_key)?;
        let by = caller.actor();
        Ok(OwnKey { key, by })
    }

    /// Updates a key: applies the whole change or nothing.
    ///
    /// # Errors
    /// `invalid_body` if the new expiry is later than the current one or in the past.
    pub async fn update_key(self, own: &OwnKey, change: KeyChange) -> Result<ApiKey> {
        self.require_future(change.expires_at)?;
        if change == KeyChange::default() {
            return Ok(own.key.clone());
        }
        let (gateway, own) = (self.gateway.clone(), own.clone());
        self.gateway
            .owned(async move {
                let OwnKey { key, by } = own;
                let store = gateway.store_of(&key.project);
                let updated = store.update_key(&key.project, key.id, &change, by).await;
                let keys = &gateway.0.auth.keys;
                match &updated {
                    Ok(Some(updated)) => {
                        keys.replace(&key.id, updated.clone(), gateway.0.clock.monotonic())
                    }
                    // The cached key may have a later expiry than the stored one.
                    Ok(None) | Err(_) => keys.remove(&key.id),
                }
                let updated = updated?.ok_or_else(no_such_key)?;
                tracing::info!(key = %key.id, %by, "API key changed");
                Ok(updated)
            })
            .await
    }

    /// Revokes a key, and with `with_created` also the keys that it created. Once this returns,
    /// this process accepts none of them. Returns the key and those other keys.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn revoke_key(
        self,
        own: &OwnKey,
        with_created: bool,
    ) -> Result<(ApiKey, Vec<ApiKey>)> {
        let (gateway, own) = (self.gateway.clone(), own.clone());
        self.gateway
            .owned(async move {
                let OwnKey { key, by } = own;
                let now = gateway.0.clock.now();
                let store = gateway.store_of(&key.project);
                let revoked = match with_created {
                    true => {
                        store
                            .revoke_key_with_created(&key.project, key.id, now, by)
                            .await
                    }
                    false => {
                        let revoked = store.revoke_key(&key.project, key.id, now, by).await;
                        revoked.map(|key| key.map(|key| (key, Vec::new())))
                    }
                };
                gateway.0.auth.keys.remove(&key.id);
                let (revoked, created) = revoked?.ok_or_else(no_such_key)?;
                for key in &created {
                    gateway.0.auth.keys.remove(&key.id);
                }
                tracing::info!(key = %key.id, %by, created = created.len(), "API key revoked");
                Ok((revoked, created))
            })
            .await
    }

    fn require_future(self, expires_at: Option<Timestamp>) -> Result<()> {
        if expires_at.is_none_or(|end| end > self.gateway.0.clock.date()) {
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
