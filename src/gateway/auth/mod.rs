//! Authentication: [`Auth::authenticate`] proves an API key, and [`Auth::own_account`] finds the account
//! of a request. Every access to the data of a project begins with one of them.

use std::{sync::Arc, time::Duration};

use super::{Gateway, GatewaySettings};
use crate::{
    clock::Clock,
    crypto::{ApiKeySecret, MacKey},
    error::{Error, Kind, Result},
    model::{
        accounts::Account,
        api_keys::{ApiKey, KeyStatus, Scope},
        audit_log::Actor,
        id::{AccountId, KeyId, ProjectId},
    },
    store::{Latest, Store},
};

pub mod rate_limit;
pub(super) mod ttl_cache;

use rate_limit::{Quotas, RemainingQuotas};
use ttl_cache::{StoreSilence, TtlCache};

/// An authenticated caller: a valid API key with its project and scopes.
#[derive(Debug, Clone)]
pub struct Caller {
    pub key: Arc<ApiKey>,
    /// Whether the key was taken from the cache because the store did not answer.
    pub is_store_down: bool,
}

impl Caller {
    pub fn project(&self) -> &ProjectId {
        &self.key.project
    }

    /// The caller as the audit log names it.
    pub fn actor(&self) -> Actor {
        Actor::ApiKey(self.key.id)
    }

    /// Checks that the key has a scope.
    ///
    /// # Errors
    /// `key_scope_missing`, which names the scope.
    pub fn require(&self, scope: Scope) -> Result<()> {
        if self.key.allows(scope) {
            return Ok(());
        }
        Err(Error::new(
            Kind::KeyScopeMissing,
            format!("this API key lacks the scope {scope}"),
        ))
    }
}

/// An account that is proven to belong to the caller's project.
#[derive(Debug, Clone)]
pub struct OwnAccount {
    pub account: Arc<Account>,
    /// Authenticates the cursors of the account's lists.
    pub(super) mac_key: MacKey,
    /// The state of its directory when the store was last read.
    pub(super) latest: Latest,
    pub is_store_down: bool,
    /// The actor of the request.
    pub(super) by: Actor,
}

/// An account as the store has it. The state of the directory is read together with it, so that the
/// same read finds a version that another process sealed.
pub(super) struct AccountRecord {
    pub(super) account: Arc<Account>,
    pub(super) mac_key: MacKey,
    pub(super) latest: Latest,
}

/// Maximum number of cached API keys, and of cached accounts.
const CACHE_CAPACITY: u64 = 100_000;

pub(in crate::gateway) struct AuthState {
    pub(in crate::gateway) quotas: Quotas<KeyId>,
    pub(in crate::gateway) project_quotas: Quotas<ProjectId>,
    pub(in crate::gateway) keys: TtlCache<KeyId, ApiKey>,
    pub(in crate::gateway) accounts: TtlCache<(ProjectId, AccountId), AccountRecord>,
}

impl AuthState {
    pub(in crate::gateway) fn new(settings: &GatewaySettings, clock: &Clock) -> Self {
        let silence = StoreSilence::default();
        let max_stale = settings.proof_without_store;
        Self {
            quotas: Quotas::new(settings.key_rate_limit, clock.clone()),
            project_quotas: Quotas::new(settings.project_rate_limit, clock.clone()),
            keys: TtlCache::new(CACHE_CAPACITY, max_stale, silence.clone()),
            accounts: TtlCache::new(CACHE_CAPACITY, Duration::MAX, silence),
        }
    }
}

/// Authenticates API keys and finds the account that a request is about.
#[derive(Clone, Copy)]
pub struct Auth<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}

impl Auth<'_> {
    /// Authenticates an API key. Unknown, malformed, revoked and expired keys get the same error.
    ///
    /// # Errors
    /// `unauthorized`; `store_unavailable` if the store does not answer and the key is not cached,
    /// or its cached value is too old.
    pub async fn authenticate(self, text: &str) -> Result<Caller> {
        let refused = || {
            Error::new(
                Kind::Unauthorized,
                "there is no valid API key in this request",
            )
        };
        let presented = ApiKeySecret::parse(text).map_err(|_| refused())?;
        let now = self.gateway.0.clock.now();
        let id = presented.id();
        let cached = self
            .gateway
            .0
            .auth
            .keys
            .get(id, self.gateway.0.clock.monotonic(), || {
                // A key that is not cached may be a guess. Such look-ups use fewer connections.
                let store = if self.gateway.0.auth.keys.contains(&id) {
                    self.gateway.0.store.for_lookups()
                } else {
                    self.gateway.0.store.for_unauthenticated()
                };
                async move { store.key(id).await }
            })
            .await?
            .ok_or_else(refused)?;
        if presented.matches(&cached.value.digest)
            && cached.value.status_at(now) == KeyStatus::Active
        {
            Ok(Caller {
                key: cached.value,
                is_store_down: cached.is_store_down,
            })
        } else {
            Err(refused())
        }
    }

    /// Counts a request against the quotas of the key and its project.
    pub fn spend(self, caller: &Caller) -> RemainingQuotas {
        let key = self.gateway.0.auth.quotas.spend(&caller.key.id);
        let project = match key {
            Some(key) if key.is_over => None,
            _ => self.gateway.0.auth.project_quotas.spend(caller.project()),
        };
        RemainingQuotas { key, project }
    }

    /// The account with this id in the caller's project.
    ///
    /// # Errors
    /// `account_not_found`, equally for an unknown id, a malformed id and an id of another project.
    pub async fn own_account(self, caller: &Caller, id: &str) -> Result<OwnAccount> {
        let not_found = || Error::new(Kind::AccountNotFound, "there is no such account");
        let id: AccountId = id.parse().map_err(|_| not_found())?;
        let project = caller.project();
        let cached = self
            .gateway
            .0
            .auth
            .accounts
            .get(
                (project.clone(), id),
                self.gateway.0.clock.monotonic(),
                || {
                    let (store, project) = (self.gateway.0.store.for_lookups(), project.clone());
                    async move { load_account(&store, &project, id).await }
                },
            )
            .await?;
        let Some(cached) = cached else {
            // Another process may have deleted it.
            self.gateway.accounts().drop_from_memory(project, id);
            return Err(not_found());
        };
        let mut latest = cached.value.latest;
        if cached.is_store_down {
            // The cached result of the last walk may be out of date.
            latest.walk = None;
        }
        Ok(OwnAccount {
            account: Arc::clone(&cached.value.account),
            mac_key: cached.value.mac_key.clone(),
            latest,
            is_store_down: cached.is_store_down || caller.is_store_down,
            by: caller.actor(),
        })
    }
}

impl Gateway {
    /// Creates a project.
    ///
    /// # Errors
    /// `invalid_parameter` if it exists already.
    pub async fn create_project(&self, project: &ProjectId) -> Result<()> {
        if self
            .0
            .store
            .create_project(project, self.0.clock.now())
            .await?
        {
            return Ok(());
        }
        Err(Error::new(
            Kind::InvalidParameter,
            format!("there is a project {project} already"),
        ))
    }
}

pub(super) async fn load_account(
    store: &Store,
    project: &ProjectId,
    id: AccountId,
) -> Result<Option<AccountRecord>> {
    let Some((account, mac_key)) = store.account_with_mac_key(project, id).await? else {
        return Ok(None);
    };
    // Read after the account: None means that it was deleted between the two reads.
    let latest = store.latest(project, id).await?;
    Ok(latest.map(|latest| AccountRecord {
        account: Arc::new(account),
        mac_key,
        latest,
    }))
}
