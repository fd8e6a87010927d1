//! Revocation after a breach: each credential is revoked at its provider, then destroyed here.
//!
//! [`Accounts::disconnect`](crate::gateway::accounts::Accounts::disconnect) has the opposite order:
//! it destroys the credential first, so that this installation cannot use it any more. After a
//! breach an attacker may have the credential, and only the provider can invalidate it. The
//! credential is therefore kept until its revocation was attempted.

use std::sync::Arc;

use super::Credentials;
use crate::gateway::{accounts::Revocation, admin::Operator, auth::OwnAccount};
use crate::{
    error::{Error, Kind, Result},
    model::{
        accounts::{Account, Credential},
        api_keys::KeyStatus,
        audit_log::{Actor, AuditAction, Event},
        id::{KeyId, ProjectId},
    },
    outbound::{CallErrorKind, Priority},
    store::{HeldElsewhere, StoredCredential},
};

/// The result of revoking one account's credential.
pub struct RevocationResult {
    pub account: Arc<Account>,
    /// An error if a step failed, for example because the credential cannot be decrypted. The
    /// credential is not destroyed then.
    pub outcome: Result<Revocation>,
}

impl RevocationResult {
    /// True if the provider no longer accepts the credential, or if there was none.
    pub fn is_dead(&self) -> bool {
        matches!(self.outcome, Ok(Revocation::Revoked | Revocation::Nothing))
    }
}

impl Operator {
    /// Revokes an account's credential at its provider and destroys it here.
    ///
    /// Personal access tokens are revoked too. With `spares_shared`, such a token is only destroyed
    /// here if another account also has it, or if that cannot be determined.
    pub async fn withdraw(&self, own: &OwnAccount, spares_shared: bool) -> RevocationResult {
        let (gateway, account) = (self.gateway().clone(), Arc::clone(&own.account));
        let by = own.by;
        let outcome = self.gateway().owned(async move {
            let revocation = gateway
                .credentials()
                .revoked_upstream(&account, spares_shared)
                .await?;
            let told = match revocation {
                Revocation::Revoked => Some(AuditAction::CredentialRevoked),
                Revocation::Failed => Some(AuditAction::CredentialRevokeRefused),
                Revocation::NotAsked
                | Revocation::Shared
                | Revocation::Unknown
                | Revocation::Nothing => None,
            };
            if let Some(action) = told {
                let event = Event::new(by, action, account.id);
                gateway.0.store.note(&account.project, event).await?;
            }
            gateway.credentials().destroy(&account, false, by).await?;
            tracing::info!(account = %account.id, ?revocation, "credential withdrawn");
            Ok(revocation)
        });
        RevocationResult {
            outcome: outcome.await,
            account: Arc::clone(&own.account),
        }
    }

    /// Revokes all API keys of a project that are not revoked yet. Returns how many.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn revoke_keys(&self, project: &ProjectId) -> Result<u64> {
        let gateway = self.gateway();
        let store = &gateway.0.store;
        let (mut before, mut count): (Option<KeyId>, u64) = (None, 0);
        loop {
            let keys = store.keys(project, before, 100).await?;
            let Some(last) = keys.last() else {
                return Ok(count);
            };
            before = Some(last.id);
            let now = gateway.0.clock.now();
            for key in keys {
                if key.status_at(now) != KeyStatus::Revoked {
                    store
                        .revoke_key(project, key.id, now, Actor::Operator)
                        .await?;
                    count += 1;
                }
            }
        }
    }
}

impl Credentials<'_> {
    async fn revoked_upstream(self, account: &Account, spares_shared: bool) -> Result<Revocation> {
        let store = &self.gateway.0.store;
        let Some(stored) = store.credential(&account.project, account.id).await? else {
            return Ok(Revocation::Nothing);
        };
        if let Credential::AccessToken(token) = &stored.credential
            && spares_shared
        {
            let (project, id) = (&account.project, account.id);
            match store.held_elsewhere(project, id, token).await? {
                HeldElsewhere::Yes => return Ok(Revocation::Shared),
                HeldElsewhere::Unknown => return Ok(Revocation::Unknown),
                HeldElsewhere::No => {}
            }
        }
        let connector = self.gateway.connector(&stored.destination.provider)?;
        // The session refreshes an expired access token first. An expired access token revokes
        // nothing, and the refresh token of its pair would stay valid.
        let session = match self.session(account, Priority::Interactive, false).await {
            Ok((session, _)) => session,
            Err(error) if error.kind() == Kind::CredentialLocked => return Err(error),
            Err(error) => {
                tracing::warn!(account = %account.id, %error, "nothing to revoke a token with");
                return Ok(Revocation::Failed);
            }
        };
        let is_personal = matches!(stored.credential, Credential::AccessToken(_));
        Ok(match connector.revoke(&session).await {
            Ok(()) => Revocation::Revoked,
            // The provider already rejects this token. For an OAuth pair that would prove nothing:
            // see `Connector::revoke`.
            Err(error) if is_personal && error.kind == CallErrorKind::Unauthorized => {
                Revocation::Revoked
            }
            Err(error) => {
                tracing::warn!(account = %account.id, %error, "a token was not revoked");
                Revocation::Failed
            }
        })
    }

    /// Destroys an account's credential, or with `purge` the whole account, and ends its walks in
    /// this process. Returns the account (with `purge` as it was) and the destroyed credential.
    ///
    /// # Errors
    /// `account_not_found`.
    pub(in crate::gateway) async fn destroy(
        self,
        account: &Account,
        purge: bool,
        by: Actor,
    ) -> Result<(Account, Option<StoredCredential>)> {
        let (project, id) = (&account.project, account.id);
        let store = &self.gateway.0.store;
        let left = if purge {
            store.delete_account(project, id, by).await
        } else {
            let now = self.gateway.0.clock.now();
            store.disconnect_account(project, id, by, now).await
        };
        // Also after an error, since the store may have committed the change.
        self.gateway.0.auth.accounts.remove(&(project.clone(), id));
        let left = left?;
        if let Some(live) = self.gateway.accounts().drop_from_memory(project, id) {
            self.gateway.walks().end_walks(&live).await;
        }
        left.ok_or_else(|| Error::new(Kind::AccountNotFound, "there is no such account"))
    }
}
