//! Accounts that are linked: list them, change one, disconnect one. How they come to be is in
//! [`super::linking`].

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
    /// Whether a personal access token is revoked, too. OAuth tokens always are.
    pub revoke: bool,
    /// Whether everything that is stored of the account is destroyed, and not its credential alone.
    pub purge: bool,
}

/// An account that was disconnected.
pub struct Disconnected {
    pub account: Account,
    pub revocation: Revocation,
}

/// What became of a token at its provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    /// The provider takes it no more.
    Revoked,
    /// A personal access token, which nobody asked to have revoked; or one that another
    /// installation has.
    NotAsked,
    /// Another account has the same token: it was not revoked.
    Shared,
    /// Whether an account of another project has the same token cannot be told, since that
    /// project's data key does not open: it was not revoked.
    Unknown,
    /// The provider refused, or did not answer; or it takes an OAuth access token no more, whose
    /// grant may go on with another: revoke it there by hand.
    Failed,
    /// There was no credential any more.
    Nothing,
}

/// Lists, updates and disconnects linked accounts.
#[derive(Clone, Copy)]
pub struct Accounts<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}

impl Accounts<'_> {
    /// Changes an account's description; with a token, that takes the place of its credential. The
    /// token is tried first as in linking, and must be of the same organisation; then the account
    /// is active and a walk begins, which is not waited for. All of it or, on an error, nothing.
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

    /// A page of the accounts of the caller's project that pass every filter, oldest first.
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

    /// The fields that are null for everybody in this account's directory, and why.
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

    /// Disconnects an account: its credential is destroyed, a walk that is under way ends, and from
    /// the next request on nothing of it is served. Then its token is revoked at the provider, if
    /// that is `how`. What it was is returned, or what is left of it.
    ///
    /// # Errors
    /// `account_not_found`, `credential_locked`, `store_unavailable`. That the provider did not
    /// revoke is none: it is told.
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
            // What was destroyed is what a refresh may have brought since.
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

    /// Revokes what an account had, at its provider. What people made by themselves only if it
    /// was asked for: it may serve them elsewhere.
    async fn revoke(
        self,
        account: &Account,
        stored: StoredCredential,
        is_asked: bool,
    ) -> Revocation {
        let is_personal = matches!(stored.credential, Credential::AccessToken(_));
        let token = match stored.credential {
            Credential::AccessToken(_) if !is_asked => return Revocation::NotAsked,
            // Another installation lives on it.
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
            // It is not taken any more, whoever saw to that.
            Err(error) if is_personal && error.kind == CallErrorKind::Unauthorized => {
                Revocation::Revoked
            }
            Err(error) => {
                tracing::warn!(account = %account.id, %error, "a token was not revoked");
                Revocation::Failed
            }
        }
    }

    /// Drops what this process knows of an account that `project` has no more, ends a walk of it,
    /// and gives what lived of it. Another project's account of that id is left alone: that this one has none says
    /// nothing about it.
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
        // Nothing but this finds it from here on.
        if let Some(ticket) = live.as_ref().and_then(|live| live.running()) {
            ticket.abandon();
        }
        // The caches were built to take these; a full queue only delays the forgetting.
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

/// Whether `base` is plain http to a loopback address, and nothing but an API base.
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
