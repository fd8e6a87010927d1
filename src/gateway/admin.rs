//! What the operator may do, who stands above projects. The command line alone has a way here:
//! the table in `docs/ARCHITECTURE.md` keeps http out, whose callers belong to one project each.

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

/// A gateway in the operator's hands, beside whoever serves the store.
pub struct Operator {
    gateway: Gateway,
    has_joined: bool,
}

/// The directory that is in force, whole.
pub struct InForce {
    head: Arc<CurrentSnapshot>,
    held: Arc<LoadedDirectory>,
    /// Since the provider was last found to agree with it.
    pub age: Duration,
    /// Why it may no longer be what the provider would say.
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

    /// Begins to serve, as a server does: what walks, or changes what others hold in memory, must
    /// be one of them. The store was claimed.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn join(&mut self) -> Result<()> {
        self.gateway.background().join().await?;
        self.has_joined = true;
        Ok(())
    }

    /// Whether this is one of those that serve, which may have refreshes and walks in hand.
    pub const fn has_joined(&self) -> bool {
        self.has_joined
    }

    /// Whether tokens are being refreshed here.
    pub fn is_refreshing(&self) -> bool {
        self.gateway.credentials().is_refreshing()
    }

    /// Closes the store. Who only looked at it leaves nothing to tell the others.
    pub async fn close(&self) {
        if self.has_joined {
            self.gateway.background().close().await;
        } else {
            self.gateway.0.store.close().await;
        }
    }

    /// The accounts of a project, or of all, project by project, oldest first.
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

    /// The ids of a project's accounts, also of those that cannot be opened.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn account_ids(&self, project: &ProjectId) -> Result<Vec<AccountId>> {
        self.gateway.0.store.account_ids(project).await
    }

    /// This project, or all of them.
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

    /// The account with this id, whichever project's it is.
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

    /// As [`Linking::link`](crate::gateway::linking::Linking::link), into any project.
    ///
    /// # Errors
    /// As there, and `not_found` if there is no such project; the provider is not asked then.
    pub async fn link(&self, project: &ProjectId, link: NewLink) -> Result<OwnAccount> {
        self.require(project).await?;
        let account = self
            .gateway
            .linking()
            .link_into(project.clone(), link, Actor::Operator)
            .await?;
        self.account(&account.id.to_string()).await
    }

    /// As [`ConnectorProfiles::create_profile`](crate::gateway::connector_profiles::ConnectorProfiles::create_profile), in any project.
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

    /// A project's profiles, the oldest first.
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

    /// Begins a sign-in under a profile that comes back to the profile's redirect URL, wherever
    /// that leads.
    ///
    /// # Errors
    /// `account_inactive` while the profile is disabled.
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

    /// As [`Authorizations::exchange`](crate::gateway::linking::authorizations::Authorizations::exchange), for a sign-in that [`Operator::begin_sign_in`] began.
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

    /// Where the hub may send a project's customers, and which pages it may tell of a link.
    ///
    /// # Errors
    /// `not_found` if there is no such project.
    pub async fn hub_targets(&self, project: &ProjectId) -> Result<HubTargets> {
        self.require(project).await?;
        self.gateway.0.store.hub_targets(project).await
    }

    /// Registers these in the place of those that were.
    ///
    /// # Errors
    /// `invalid_body` if a browser cannot be sent there safely; `not_found` if there is no such
    /// project.
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

    /// Which version of an account's directory is in force, without reading it.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn directory_head(&self, account: &Account) -> Result<Option<DirectoryHead>> {
        let store = &self.gateway.0.store;
        let latest = store.latest(&account.project, account.id).await?;
        Ok(latest.and_then(|latest| latest.directory))
    }

    /// The walk of an account that began last.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn last_walk(&self, own: &OwnAccount) -> Result<Option<Walk>> {
        Ok(self.gateway.walks().list(own, None, 1).await?.pop())
    }

    /// The directory in force, if the API would still answer from it. Nothing is walked, however
    /// old it is. None before the first seal.
    ///
    /// # Errors
    /// `account_inactive` where the API would not.
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

    /// The directory in force, whether or not it is still served.
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

    /// What the walk left out that last found it true.
    pub fn quarantined(&self) -> Quarantined {
        self.head.quarantined
    }

    pub fn counts(&self) -> WalkCounts {
        self.held.directory.counts()
    }

    /// The fields that are null for everybody, and why.
    pub fn hidden_fields(&self) -> Vec<Warning> {
        self.head.visibility.hidden_fields()
    }

    /// Every user with roles and groups whole, as with `expand=roles,groups`, one at a time.
    pub fn users(&self) -> impl Iterator<Item = User> {
        let expand = ExpandSet::parse(Resource::Users, "roles,groups");
        let expand = expand.expect("users expand both");
        self.held.directory.users(expand)
    }
}

/// Whether this is an origin as browsers compare it, letter for letter (RFC 6454, 6.2), over TLS
/// or of the own machine.
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
