//! Use cases of the operator, across projects. Only the command line calls them: by the table in
//! `docs/ARCHITECTURE.md` http must not, because each of its callers belongs to one project.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use secrecy::SecretString;

use super::{
    Gateway,
    auth::{OwnAccount, load_account},
    connector_profiles::{NewProfile, OwnProfile, is_redirect_url},
    directory::inactive,
    linking::{AccountDetails, NewLink, authorizations::AuthorizationUrl},
    walks::state::{CurrentSnapshot, LoadedDirectory, StaleReason},
};
use crate::{
    clock::since,
    directory::{ExpandSet, Resource},
    error::{Error, Kind, Result, quoted},
    model::{
        accounts::Account,
        audit_log::Actor,
        connector_profiles::ConnectorProfile,
        id::{AccountId, ProjectId},
        schema::{User, Warning},
        walks::{Quarantined, Walk, WalkCounts},
    },
    store::{DirectoryHead, HubTargets},
};

/// A gateway for the operator's commands, which may run beside processes that serve the same store.
pub struct Operator {
    gateway: Gateway,
    has_joined: bool,
}

/// The current directory of an account, completely loaded.
pub struct InForce {
    head: Arc<CurrentSnapshot>,
    held: Arc<LoadedDirectory>,
    /// Time since a walk last found that the directory matches the provider.
    pub age: Duration,
    /// Why the directory may differ from the provider's data.
    pub stale: Option<StaleReason>,
}

impl Operator {
    pub const fn new(gateway: Gateway) -> Self {
        let has_joined = false;
        Self {
            gateway,
            has_joined,
        }
    }

    pub const fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Joins the serving processes, as a server does. A command that runs walks, or changes data
    /// that other processes cache, needs this. The store must be claimed.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn join(&mut self) -> Result<()> {
        self.gateway.background().join().await?;
        self.has_joined = true;
        Ok(())
    }

    /// Whether this process has joined and may have refreshes and walks in flight.
    pub const fn has_joined(&self) -> bool {
        self.has_joined
    }

    /// Whether this process is refreshing tokens.
    pub fn is_refreshing(&self) -> bool {
        self.gateway.credentials().is_refreshing()
    }

    /// Closes the store. A process that has not joined need not unregister.
    pub async fn close(&self) {
        if self.has_joined {
            self.gateway.background().close().await;
        } else {
            self.gateway.0.store.close().await;
        }
    }

    /// The accounts of one project or of all projects, project by project, oldest first.
    ///
    /// # Errors
    /// `not_found` if there is no such project.
    pub async fn accounts(&self, project: Option<&ProjectId>) -> Result<Vec<Account>> {
        let store = &self.gateway.0.store;
        if let Some(project) = project {
            self.require(project).await?;
            return store.accounts(project).await;
        }
        let mut accounts = Vec::new();
        for project in store.projects().await? {
            accounts.extend(store.accounts(&project).await?);
        }
        Ok(accounts)
    }

    /// The ids of a project's accounts, including accounts that cannot be decrypted.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn account_ids(&self, project: &ProjectId) -> Result<Vec<AccountId>> {
        self.gateway.0.store.account_ids(project).await
    }

    /// The given project if it exists, or all projects.
    ///
    /// # Errors
    /// `not_found` if there is no such project.
    pub async fn projects(&self, only: Option<&ProjectId>) -> Result<Vec<ProjectId>> {
        match only {
            Some(project) => {
                self.require(project).await?;
                Ok(vec![project.clone()])
            }
            None => self.gateway.0.store.projects().await,
        }
    }

    /// The account with this id, in any project.
    ///
    /// # Errors
    /// `account_not_found`.
    pub async fn account(&self, id: &str) -> Result<OwnAccount> {
        let not_found = || {
            Error::new(Kind::AccountNotFound, "there is no such account")
                .with_hint("Check the id; `rolecall accounts list` lists every account.")
        };
        let id: AccountId = id.parse().map_err(|_| not_found())?;
        let store = &self.gateway.0.store;
        let project = store.project_of(id).await?.ok_or_else(not_found)?;
        let seen = load_account(store, &project, id)
            .await?
            .ok_or_else(not_found)?;
        Ok(OwnAccount {
            account: seen.account,
            mac_key: seen.mac_key,
            latest: seen.latest,
            is_store_down: false,
            by: Actor::Operator,
        })
    }

    /// As [`Linking::link`](super::Linking::link), into any project.
    ///
    /// # Errors
    /// As there, and `not_found` if there is no such project; then the provider is not called.
    pub async fn link(&self, project: &ProjectId, link: NewLink) -> Result<OwnAccount> {
        self.require(project).await?;
        let account = self
            .gateway
            .linking()
            .link_into(project.clone(), link, Actor::Operator)
            .await?;
        self.account(&account.id.to_string()).await
    }

    /// As [`ConnectorProfiles::create_profile`](super::ConnectorProfiles::create_profile), in any
    /// project.
    ///
    /// # Errors
    /// As there, and `not_found` if there is no such project.
    pub async fn create_profile(
        &self,
        project: &ProjectId,
        new: NewProfile,
    ) -> Result<ConnectorProfile> {
        self.require(project).await?;
        self.gateway
            .connector_profiles()
            .create_profile_in(project.clone(), new, Actor::Operator)
            .await
    }

    /// The profiles of a project, oldest first.
    ///
    /// # Errors
    /// `not_found` if there is no such project.
    pub async fn profiles(&self, project: &ProjectId) -> Result<Vec<ConnectorProfile>> {
        self.require(project).await?;
        self.gateway.0.store.profiles(project).await
    }

    /// The profile of a project with this id.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn profile(&self, project: &ProjectId, id: &str) -> Result<OwnProfile> {
        self.require(project).await?;
        let profile = self
            .gateway
            .connector_profiles()
            .profile_in(project, id)
            .await;
        let profile = profile.map_err(|error| match error.kind() {
            Kind::NotFound => error.with_hint(format!(
                "Check the id; `rolecall profiles list --project {project}` lists the project's."
            )),
            _ => error,
        })?;
        let by = Actor::Operator;
        Ok(OwnProfile { profile, by })
    }

    /// Begins a sign-in that returns to the redirect URL of the profile. The URL may lead to any
    /// server.
    ///
    /// # Errors
    /// `account_inactive` if the profile is disabled.
    pub async fn begin_sign_in(
        &self,
        profile: &ConnectorProfile,
        description: AccountDetails,
    ) -> Result<AuthorizationUrl> {
        let back = &profile.redirect_url;
        self.gateway
            .authorizations()
            .begin_for_project(profile, back, description)
            .await
    }

    /// As [`Authorizations::exchange`](super::Authorizations::exchange), for a sign-in begun with
    /// [`Operator::begin_sign_in`].
    ///
    /// # Errors
    /// As there.
    pub async fn end_sign_in(
        &self,
        project: &ProjectId,
        state: &str,
        code: SecretString,
    ) -> Result<OwnAccount> {
        let account = self
            .gateway
            .authorizations()
            .exchange_in(project.clone(), state, code, Actor::Operator)
            .await?;
        self.account(&account.id.to_string()).await
    }

    /// The return URLs that the hub may redirect customers to, and the origins of pages that it may
    /// notify of a link.
    ///
    /// # Errors
    /// `not_found` if there is no such project.
    pub async fn hub_targets(&self, project: &ProjectId) -> Result<HubTargets> {
        self.require(project).await?;
        self.gateway.0.store.hub_targets(project).await
    }

    /// Replaces the registered return URLs and origins.
    ///
    /// # Errors
    /// `invalid_body` if a URL or an origin is not safe for a browser; `not_found` if there is no
    /// such project.
    pub async fn set_hub_targets(&self, project: &ProjectId, targets: &HubTargets) -> Result<()> {
        self.require(project).await?;
        if let Some(bad) = targets.return_urls.iter().find(|url| !is_redirect_url(url)) {
            return Err(invalid(format!(
                "the return URL {} must be https without a fragment, or http to localhost or a \
                 loopback address",
                quoted(bad)
            )));
        }
        let origins = &targets.opener_origins;
        if let Some(bad) = origins.iter().find(|origin| !is_origin(origin)) {
            return Err(invalid(format!(
                "the origin {} must be as browsers write one, such as https://app.example.org: \
                 https, or http to localhost or a loopback address, without a path",
                quoted(bad)
            )));
        }
        self.gateway
            .0
            .store
            .set_hub_targets(project, targets)
            .await
            .map(drop)
    }

    /// The version of an account's current directory, without its content.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn directory_head(&self, account: &Account) -> Result<Option<DirectoryHead>> {
        let store = &self.gateway.0.store;
        let latest = store.latest(&account.project, account.id).await?;
        Ok(latest.and_then(|latest| latest.directory))
    }

    /// The most recently started walk of an account.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn last_walk(&self, own: &OwnAccount) -> Result<Option<Walk>> {
        Ok(self.gateway.walks().list(own, None, 1).await?.pop())
    }

    /// The current directory, if the API would still serve it. It starts no walk, however old the
    /// directory is. None before the first sealed walk.
    ///
    /// # Errors
    /// `account_inactive` if the API would return that error.
    pub async fn served(&self, own: &OwnAccount) -> Result<Option<InForce>> {
        let current = self.current(own).await?;
        let retain_for = self.gateway.0.settings.retain_for;
        match current {
            Some(it) if own.account.needs_reauth() && it.age > retain_for => {
                Err(inactive(&own.account))
            }
            current => Ok(current),
        }
    }

    /// The current directory, even if the API no longer serves it.
    ///
    /// # Errors
    /// `store_unavailable`, `credential_locked`.
    pub async fn current(&self, own: &OwnAccount) -> Result<Option<InForce>> {
        let gateway = &self.gateway;
        let account = &own.account;
        let live = gateway.directory().live(account);
        gateway.directory().catch_up_now(&live).await?;
        let Some(head) = live.head() else {
            return Ok(None);
        };
        let held = gateway.directory().version(account, head.version).await?;
        let held = held.ok_or_else(|| Error::internal("the version in force is not held"))?;
        Ok(Some(InForce {
            age: since(gateway.0.clock.now(), head.verified_at),
            stale: gateway.directory().staleness(own, &head),
            head,
            held,
        }))
    }

    pub(super) async fn require(&self, project: &ProjectId) -> Result<()> {
        if self.gateway.0.store.project_exists(project).await? {
            return Ok(());
        }
        Err(
            Error::new(Kind::NotFound, format!("there is no project {project}")).with_hint(
                format!("`rolecall projects create {project}` makes it, `rolecall projects list` lists all."),
            ),
        )
    }
}

impl InForce {
    pub fn version(&self) -> u64 {
        self.head.version
    }

    pub fn sealed_at(&self) -> Timestamp {
        self.head.sealed_at
    }

    pub fn verified_at(&self) -> Timestamp {
        self.head.verified_at
    }

    /// How many users and groups the last verifying walk left out.
    pub fn quarantined(&self) -> Quarantined {
        self.head.quarantined
    }

    pub fn counts(&self) -> WalkCounts {
        self.held.directory.counts()
    }

    /// The fields that are null for all users, and why.
    pub fn hidden_fields(&self) -> Vec<Warning> {
        self.head.visibility.hidden_fields()
    }

    /// All users one at a time, with complete roles and groups, as with `expand=roles,groups`.
    pub fn users(&self) -> impl Iterator<Item = User> {
        let expand = ExpandSet::parse(Resource::Users, "roles,groups");
        let expand = expand.expect("users expand both");
        self.held.directory.users(expand)
    }
}

/// Whether `text` is an origin exactly as browsers serialize it (RFC 6454, 6.2), with https, or
/// with http to this machine.
fn is_origin(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else {
        return false;
    };
    is_redirect_url(text) && url.origin().ascii_serialization() == text
}

fn invalid(message: String) -> Error {
    Error::new(Kind::InvalidBody, message)
}

#[cfg(test)]
mod tests {
    use super::is_origin;

    #[test]
    fn an_origin_is_as_browsers_write_it() {
        for good in [
            "https://app.example.org",
            "https://app.example.org:8443",
            "http://localhost:3000",
            "http://127.0.0.1:3000",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "https://app.example.org/",
            "https://APP.example.org",
            "https://app.example.org:443",
            "http://app.example.org",
            "https://app.example.org/path",
            "*",
            "null",
            "",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
