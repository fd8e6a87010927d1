//! Linked accounts: list, update and disconnect them. [`super::linking`] creates them.

use std::sync::Arc;

use secrecy::SecretString;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Gateway, GatewaySettings,
    auth::{Caller, OwnAccount},
    linking::UnverifiedCredential,
    walks::state::LiveAccount,
};
use crate::{
    error::{Error, Kind, Result},
    model::{
        accounts::{
            Account, AccountChange, Credential, CredentialState, Endpoint, OffsetPage, OneOf,
        },
        audit_log::{AuditAction, Event},
        id::{AccountId, ProjectId},
        observed::Seats,
        schema::{Reason, UserField, Warning},
    },
    outbound::{CallErrorKind, TokenKey},
    store::{HeldElsewhere, StoredCredential},
};

/// How an account is disconnected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disconnect {
    /// Whether to revoke a personal access token too. OAuth tokens are always revoked.
    pub revoke: bool,
    /// Whether to delete all stored data of the account. Otherwise only its credential is
    /// destroyed.
    pub purge: bool,
}

/// A disconnected account.
pub struct Disconnected {
    pub account: Account,
    pub revocation: Revocation,
}

/// What happened to the account's token at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    /// The token is no longer valid at the provider.
    Revoked,
    /// The token was not revoked: it is a personal access token and the request did not ask for
    /// revocation, or another installation has the credential.
    NotAsked,
    /// The token was not revoked, because another account has the same one.
    Shared,
    /// The token was not revoked, because an account of another project may have the same one. That
    /// project's data key cannot be decrypted, so this cannot be checked.
    Unknown,
    /// The token may still be valid: the provider refused the revocation or did not answer, or it
    /// no longer accepts the OAuth access token, whose grant may have a newer one. Revoke it
    /// manually at the provider.
    Failed,
    /// The account had no credential.
    Nothing,
}

/// Lists, updates and disconnects linked accounts.
#[derive(Clone, Copy)]
pub struct Accounts<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}

impl Accounts<'_> {
    /// Updates an account. A new token replaces its credential: the token is verified as in linking
    /// and must belong to the same organization. The account is then active, and a walk starts
    /// in the background. On an error nothing changes.
    ///
    /// # Errors
    /// `account_not_found`, `credential_refused`, `scope_missing`, `organisation_mismatch`,
    /// `provider_unavailable`, `provider_throttled`, `credential_locked`, `store_unavailable`.
    pub async fn update(
        self,
        own: &OwnAccount,
        change: AccountChange,
        token: Option<SecretString>,
    ) -> Result<Arc<Account>> {
        let (account, by) = (Arc::clone(&own.account), own.by);
        if change.is_empty() && token.is_none() {
            return Ok(account);
        }
        let gateway = self.gateway.clone();
        self.gateway
            .owned(async move {
                let proven = match token {
                    None => None,
                    Some(token) => {
                        let unproven = UnverifiedCredential::personal(token);
                        Some(gateway.linking().verify_for(&account, unproven).await?)
                    }
                };
                gateway
                    .linking()
                    .replace_credential(&account, &change, proven.as_ref(), by)
                    .await
            })
            .await
    }

    /// A page of the accounts of the caller's project that match every filter, oldest first.
    ///
    /// # Errors
    /// `store_unavailable`, `credential_locked`.
    pub async fn list(
        self,
        caller: &Caller,
        filters: &[OneOf],
        page: OffsetPage,
    ) -> Result<Vec<Account>> {
        let project = caller.project();
        let store = self.gateway.store_of(project);
        store.page_of_accounts(project, filters, page).await
    }

    /// The user fields that are null for all users of this account, and why.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn unavailable_fields(self, account: &Account) -> Result<Vec<Warning>> {
        let identity = &account.identity;
        let live = self.gateway.directory().live(account);
        if live.head().is_none() {
            self.gateway.directory().catch_up_now(&live).await?;
        }
        let hidden = |field, reason| Warning { field, reason };
        let mut fields = Vec::new();
        if !identity.is_admin {
            fields.push(hidden(UserField::Status, Reason::NotPermitted));
            fields.push(hidden(UserField::Roles, Reason::NotPermitted));
            fields.push(hidden(UserField::IsExternal, Reason::NotPermitted));
            fields.push(hidden(UserField::LastLoginAt, Reason::NotPermitted));
        }
        if let Seats::Hidden(reason) = identity.seats {
            fields.push(hidden(UserField::Seat, reason));
        }
        if live.head().is_some_and(|head| !head.visibility.groups) {
            fields.push(hidden(UserField::Groups, Reason::NotPermitted));
        }
        fields.sort_unstable();
        Ok(fields)
    }

    /// Disconnects an account: destroys its credential, ends its running walk, and stops serving
    /// its directory from the next request on. Afterwards it revokes the token at the provider, if
    /// `how` requires it. Returns the account as it is afterwards, or, if it was purged, as it was
    /// before.
    ///
    /// # Errors
    /// `account_not_found`, `credential_locked`, `store_unavailable`. A failed revocation is not an
    /// error; [`Disconnected::revocation`] reports it.
    pub async fn disconnect(self, own: &OwnAccount, how: Disconnect) -> Result<Disconnected> {
        let (gateway, account) = (self.gateway.clone(), Arc::clone(&own.account));
        let by = own.by;
        self.gateway.owned(async move {
            let (project, id) = (&account.project, account.id);
            let store = gateway.store_of(project);
            let stored = store.credential(project, id).await?;
            let held_elsewhere = match &stored {
                Some(StoredCredential {
                    credential: Credential::AccessToken(token),
                    ..
                }) if how.revoke => store.held_elsewhere(project, id, token).await?,
                _ => HeldElsewhere::No,
            };
            // `destroy` returns the credential that it destroyed. A refresh may have stored it
            // after the read above.
            let (left, ended) = gateway.credentials().destroy(&account, how.purge, by).await?;
            let revocation = match (ended, held_elsewhere) {
                (None, _) => Revocation::Nothing,
                (Some(_), HeldElsewhere::Yes) => Revocation::Shared,
                (Some(_), HeldElsewhere::Unknown) => Revocation::Unknown,
                (Some(stored), HeldElsewhere::No) => {
                    gateway.accounts().revoke(&account, stored, how.revoke).await
                }
            };
            let told = match revocation {
                Revocation::Revoked => Some(AuditAction::CredentialRevoked),
                Revocation::Failed => Some(AuditAction::CredentialRevokeRefused),
                Revocation::NotAsked
                | Revocation::Shared
                | Revocation::Unknown
                | Revocation::Nothing => None,
            };
            if let Some(action) = told
                && let Err(error) = store.note(project, Event::new(by, action, id)).await
            {
                tracing::error!(account = %id, %error, "what became of a token is not in the audit log");
            }
            tracing::info!(account = %id, ?revocation, purged = how.purge, "account disconnected");
            Ok(Disconnected {
                account: left,
                revocation,
            })
        })
        .await
    }

    /// Revokes the token of a disconnected account at its provider. A personal access token is
    /// revoked only on request, because its owner may use it elsewhere.
    async fn revoke(
        self,
        account: &Account,
        stored: StoredCredential,
        is_asked: bool,
    ) -> Revocation {
        let is_personal = matches!(stored.credential, Credential::AccessToken(_));
        let token = match stored.credential {
            Credential::AccessToken(_) if !is_asked => return Revocation::NotAsked,
            // The other installation still uses this grant.
            Credential::OAuth(_) if stored.state == CredentialState::Moved => {
                return Revocation::NotAsked;
            }
            Credential::AccessToken(token) => token,
            Credential::OAuth(pair) => pair.access_token,
        };
        let Ok(connector) = self.gateway.connector(&stored.destination.provider) else {
            return Revocation::Failed;
        };
        let of = (account.id.to_string(), &stored.destination.endpoint);
        match self
            .gateway
            .credentials()
            .revoke_token(connector.as_ref(), of, token)
            .await
        {
            Ok(()) => Revocation::Revoked,
            // A personal access token that the provider rejects is already invalid.
            Err(error) if is_personal && error.kind == CallErrorKind::Unauthorized => {
                Revocation::Revoked
            }
            Err(error) => {
                tracing::warn!(account = %account.id, %error, "a token was not revoked");
                Revocation::Failed
            }
        }
    }

    /// Drops the in-memory state of an account that `project` no longer has, abandons its running
    /// walk, and returns the state. Leaves an account with the same id in another project alone.
    pub(super) fn drop_from_memory(
        self,
        project: &ProjectId,
        id: AccountId,
    ) -> Option<Arc<LiveAccount>> {
        let live_accounts = &self.gateway.0.directory.live_accounts;
        let is_theirs = live_accounts
            .read()
            .expect("no holder of this lock panics")
            .get(&id)
            .is_some_and(|live| live.project == *project);
        if !is_theirs {
            return None;
        }
        let live = live_accounts
            .write()
            .expect("no holder of this lock panics")
            .remove(&id);
        // The state can no longer be found, so no new walk can start on it.
        if let Some(handle) = live.as_ref().and_then(|live| live.running()) {
            handle.abandon();
        }
        // These caches support invalidation closures, so this fails only on a full queue, which
        // delays the removal.
        let _ = self
            .gateway
            .0
            .directory
            .directories
            .invalidate_entries_if(move |(of, _), _| *of == id);
        let _ = self
            .gateway
            .0
            .directory
            .pages
            .invalidate_entries_if(move |key, _| key.list.account == id);
        let _ = self
            .gateway
            .0
            .directory
            .matches
            .invalidate_entries_if(move |key, _| key.account == id);
        live
    }
}

impl GatewaySettings {
    /// Checks that the operator allows this endpoint.
    ///
    /// # Errors
    /// `base_url_not_allowed`.
    pub(super) fn check_endpoint(&self, endpoint: &Endpoint) -> Result<()> {
        let Endpoint::BaseUrl(base) = endpoint else {
            return Ok(());
        };
        let is_listed = self.base_urls.iter().any(|allowed| allowed == base);
        if is_listed || (self.is_loopback_base_url_allowed && is_loopback_base(base)) {
            return Ok(());
        }
        Err(Error::new(
            Kind::BaseUrlNotAllowed,
            "this `base_url` is not among those that the operator allows in `provider.base_urls`",
        ))
    }
}

pub(super) fn token_key(credential: &Credential) -> TokenKey {
    TokenKey::of(credential.access_token())
}

/// Whether `base` is plain http to a loopback address, without credentials, query, fragment or
/// trailing slash.
fn is_loopback_base(base: &str) -> bool {
    let Ok(url) = url::Url::parse(base) else {
        return false;
    };
    let is_loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(_)) | None => false,
    };
    is_loopback
        && url.scheme() == "http"
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && !base.ends_with('/')
}

#[cfg(test)]
mod tests {
    use super::is_loopback_base;

    #[test]
    fn a_loopback_base_is_plain_http_to_a_loopback_address() {
        assert!(is_loopback_base("http://127.0.0.1:7070/2.0"));
        assert!(is_loopback_base("http://[::1]:7070/2.0"));
        for bad in [
            "http://localhost:7070/2.0",
            "http://127.0.0.1.example.org/2.0",
            "http://10.0.0.1/2.0",
            "https://127.0.0.1/2.0",
            "http://u:p@127.0.0.1/2.0",
            "http://127.0.0.1/2.0?x=1",
            "http://127.0.0.1/2.0/",
            "file:///etc/passwd",
            "",
        ] {
            assert!(!is_loopback_base(bad), "{bad}");
        }
    }
}
