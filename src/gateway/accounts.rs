//! Accounts: link one by token, list them, change one, delete one.
//!
//! A token is tried before it is stored: the provider says whose it is, and whether it may read
//! users, and only then is anything written.

use std::sync::Arc;

use secrecy::SecretString;

use super::{
    Gateway, Settings,
    access::{Caller, OwnAccount},
    live::Live,
    trial::Trial,
    walk::Join,
};
use crate::{
    connectors::{Connector, Session},
    error::{Error, Kind, ProviderFault, Result},
    model::{
        account::{Account, AccountChange, AccountKind, AccountStatus, Credential, Endpoint},
        audit::Actor,
        id::{AccountId, ProjectId},
        observed::{Identity, Seats},
        schema::{Reason, UserField, Warning},
    },
    outbound::{CallError, CallErrorKind, Priority, Route, TokenKey},
    store::{AccountUpdate, NewCredential},
};

/// Who asks to link what.
pub struct Link {
    pub provider: String,
    pub origin_owner_id: String,
    pub origin_owner_name: String,
    pub origin_username: Option<String>,
    pub label: Option<String>,
    pub kind: AccountKind,
    pub endpoint: Endpoint,
    pub token: SecretString,
}

/// What accounts are chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountField {
    Id,
    Provider,
    Status,
    OriginOwnerId,
}

/// A condition on accounts: the field is one of these values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOf {
    pub field: AccountField,
    pub values: Vec<String>,
}

impl OneOf {
    fn holds(&self, account: &Account) -> bool {
        let is_one = |text: &str| self.values.iter().any(|value| value == text);
        match self.field {
            AccountField::Id => is_one(&account.id.to_string()),
            AccountField::Provider => is_one(&account.provider),
            AccountField::Status => is_one(account.status.as_str()),
            AccountField::OriginOwnerId => is_one(&account.origin_owner_id),
        }
    }
}

impl Gateway {
    /// Tests the token with the provider, stores the account, and has its first walk begin.
    ///
    /// # Errors
    /// `credential_refused`, `scope_missing`, `provider_unavailable`, `provider_throttled`,
    /// `base_url_not_allowed`; nothing is stored then.
    pub async fn link(&self, caller: &Caller, link: Link) -> Result<Arc<Account>> {
        self.link_into(caller.project().clone(), link, caller.actor())
            .await
    }

    pub(super) async fn link_into(
        &self,
        project: ProjectId,
        link: Link,
        by: Actor,
    ) -> Result<Arc<Account>> {
        let connector = self.connector(&link.provider)?;
        self.0.settings.check_endpoint(&link.endpoint)?;
        let now = self.0.clock.now();
        let id: AccountId = self.new_id();
        let gateway = self.clone();
        self.owned(async move {
            let credential = Credential::AccessToken(link.token);
            let identity = gateway
                .try_credential(connector.as_ref(), id, &link.endpoint, &credential)
                .await?;
            let account = Account {
                id,
                project,
                provider: link.provider,
                origin_owner_id: link.origin_owner_id,
                origin_owner_name: link.origin_owner_name,
                origin_username: link.origin_username,
                label: link.label,
                kind: link.kind,
                status: AccountStatus::Active,
                status_reasons: Vec::new(),
                endpoint: link.endpoint,
                identity,
                created_at: now,
                updated_at: now,
            };
            gateway
                .0
                .store
                .insert_account(&account, &credential, by)
                .await?;
            tracing::info!(account = %account.id, provider = account.provider, "account linked");
            gateway.request_walk(&gateway.live(&account), Join::Any, false, by);
            Ok(Arc::new(account))
        })
        .await
    }

    /// Changes an account's description; with a token, that takes the place of its credential. The
    /// token is tried first as in linking, and must be of the same organisation; then the account
    /// is active and a walk begins, which is not waited for. All of it or, on an error, nothing.
    ///
    /// # Errors
    /// `account_not_found`, `credential_refused`, `scope_missing`, `organisation_mismatch`,
    /// `provider_unavailable`, `provider_throttled`, `credential_locked`, `store_unavailable`.
    pub async fn update(
        &self,
        own: &OwnAccount,
        change: AccountChange,
        token: Option<SecretString>,
    ) -> Result<Arc<Account>> {
        let (account, by) = (Arc::clone(&own.account), own.by);
        if change.is_empty() && token.is_none() {
            return Ok(account);
        }
        let gateway = self.clone();
        self.owned(async move {
            let replaced = match token {
                None => None,
                Some(token) => Some(gateway.replacement(&account, token).await?),
            };
            let update = AccountUpdate {
                change: &change,
                credential: replaced
                    .as_ref()
                    .map(|(credential, identity)| NewCredential {
                        credential,
                        identity,
                    }),
                by,
            };
            let now = gateway.0.clock.now();
            let updated = gateway
                .0
                .store
                .update_account(&account.project, account.id, update, now)
                .await?;
            gateway
                .0
                .accounts
                .forget(&(account.project.clone(), account.id));
            let updated = updated
                .ok_or_else(|| Error::new(Kind::AccountNotFound, "there is no such account"))?;
            if replaced.is_some() {
                tracing::info!(account = %account.id, "credential replaced");
                gateway.request_walk(&gateway.live(&updated), Join::NotYetCalling, false, by);
            }
            Ok(Arc::new(updated))
        })
        .await
    }

    /// A token for this account as a credential, once the provider has said whose it is.
    async fn replacement(
        &self,
        account: &Account,
        token: SecretString,
    ) -> Result<(Credential, Identity)> {
        let connector = self.connector(&account.provider)?;
        let credential = Credential::AccessToken(token);
        let identity = self
            .try_credential(
                connector.as_ref(),
                account.id,
                &account.endpoint,
                &credential,
            )
            .await?;
        if identity.organisation == account.identity.organisation {
            return Ok((credential, identity));
        }
        Err(Error::new(
            Kind::OrganisationMismatch,
            "this token is of another organisation than the account",
        ))
    }

    /// Whose credential this is, as the provider says, if it may read users.
    async fn try_credential(
        &self,
        connector: &dyn Connector,
        account: AccountId,
        endpoint: &Endpoint,
        credential: &Credential,
    ) -> Result<Identity> {
        let trial = Trial::new(
            &self.0.outbound,
            connector,
            account.to_string(),
            endpoint,
            credential,
        );
        match trial.accepted().await {
            Ok((identity, _)) => Ok(identity),
            Err(error) => Err(link_error(&error, false)),
        }
    }

    /// The accounts of the caller's project for which all `conditions` hold, oldest first.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn accounts(&self, caller: &Caller, conditions: &[OneOf]) -> Result<Vec<Account>> {
        let mut accounts = self.0.store.accounts(caller.project()).await?;
        accounts.retain(|account| conditions.iter().all(|one_of| one_of.holds(account)));
        Ok(accounts)
    }

    /// The fields that are null for everybody in this account's directory, and why.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn unavailable_fields(&self, account: &Account) -> Result<Vec<Warning>> {
        let identity = &account.identity;
        let live = self.live(account);
        if live.head().is_none() {
            self.catch_up_now(&live).await?;
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

    /// Deletes the account with its credential, directories and walks, and ends a walk that is
    /// under way: the provider is not called for it again. What it answered last is returned;
    /// from the next request on it is unknown.
    ///
    /// # Errors
    /// `account_not_found`, `store_unavailable`.
    pub async fn unlink(&self, own: &OwnAccount) -> Result<Account> {
        let (gateway, account) = (self.clone(), Arc::clone(&own.account));
        let by = own.by;
        self.owned(async move {
            let (project, id) = (&account.project, account.id);
            let deleted = gateway.0.store.delete_account(project, id, by).await;
            gateway.0.accounts.forget(&(project.clone(), id));
            let deleted = deleted?;
            if let Some(live) = gateway.drop_from_memory(project, id) {
                gateway.end_walks(&live).await;
            }
            deleted.ok_or_else(|| Error::new(Kind::AccountNotFound, "there is no such account"))
        })
        .await
    }

    /// Drops what this process knows of an account that `project` has no more, ends a walk of it,
    /// and gives what lived of it. Another project's account of that id is left alone: that this one has none says
    /// nothing about it.
    pub(super) fn drop_from_memory(&self, project: &ProjectId, id: AccountId) -> Option<Arc<Live>> {
        let lives = &self.0.lives;
        let is_theirs = lives
            .read()
            .expect("no holder of this lock panics")
            .get(&id)
            .is_some_and(|live| live.project == *project);
        if !is_theirs {
            return None;
        }
        let live = lives
            .write()
            .expect("no holder of this lock panics")
            .remove(&id);
        // Nothing but this finds it from here on.
        if let Some(ticket) = live.as_ref().and_then(|live| live.running()) {
            ticket.abandon();
        }
        // The caches were built to take these; a full queue only delays the forgetting.
        let _ = self
            .0
            .directories
            .invalidate_entries_if(move |(of, _), _| *of == id);
        let _ = self
            .0
            .pages
            .invalidate_entries_if(move |key, _| key.list.account == id);
        let _ = self
            .0
            .matches
            .invalidate_entries_if(move |key, _| key.account == id);
        live
    }

    /// A way to the provider with the account's stored credential, and its generation. That it is
    /// used is in the audit log already: a walk's beginning tells it, or whoever tries it.
    pub(super) async fn session(
        &self,
        account: &Account,
        priority: Priority,
        is_newly_linked: bool,
    ) -> Result<(Session, u64)> {
        let (credential, generation) = self
            .0
            .store
            .credential(&account.project, account.id)
            .await?
            .ok_or_else(|| Error::new(Kind::AccountNotFound, "there is no such account"))?;
        let connector = self.connector(&account.provider)?;
        let route = Route {
            provider: connector.key(),
            account: account.id.to_string(),
            token: token_key(&credential),
            priority,
            is_newly_linked,
        };
        let session = Session {
            endpoint: account.endpoint.clone(),
            credential,
            caller: self.0.outbound.caller(route),
        };
        Ok((session, generation))
    }
}

impl Settings {
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
    match credential {
        Credential::AccessToken(token) => TokenKey::of(token),
    }
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

/// What a failed try of a credential means to whoever brought it, or (`was_linked`) to whoever
/// asks for a walk with one that was refused before.
pub(super) fn link_error(error: &CallError, was_linked: bool) -> Error {
    let (kind, message) = match error.kind {
        CallErrorKind::Unauthorized if was_linked => (
            Kind::AccountInactive,
            "the provider still does not take this account's credential",
        ),
        CallErrorKind::Unauthorized => (
            Kind::CredentialRefused,
            "the provider does not take this token in this region",
        ),
        CallErrorKind::Forbidden => (
            Kind::ScopeMissing,
            "the provider takes this token, but it may not read users",
        ),
        CallErrorKind::Throttled => (
            Kind::ProviderThrottled,
            "the provider's rate limit for this token is spent",
        ),
        // Budgets are in the store.
        CallErrorKind::BudgetUnknown => return super::remembered::store_down(),
        CallErrorKind::NotFound
        | CallErrorKind::Refused
        | CallErrorKind::Unavailable
        | CallErrorKind::InvalidReply => (
            Kind::ProviderUnavailable,
            "the provider did not give a usable answer",
        ),
    };
    let mut answer = Error::new(kind, message)
        .with_provider(ProviderFault {
            status: error.status,
            code: error.code,
            reference: error.reference.clone(),
        })
        .with_source(error.clone());
    if matches!(kind, Kind::ProviderThrottled | Kind::ProviderUnavailable) {
        let wait = error
            .retry_after
            .unwrap_or(std::time::Duration::from_secs(30));
        answer = answer.with_retry_after(wait);
    }
    answer
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
