//! Serves the current directory of an account: from memory, otherwise from the store. If there is
//! none or it is too old, the read waits for a walk that all its callers share.
//!
//! A response shows exactly one sealed version. On the hot path (the current version is known and
//! the page is cached) a read only looks up the snapshot and the page: no serialization, no
//! database query, no call to the provider.
//!
//! * [`cursor`]: the authenticated `next` cursors of lists.
//! * `page_cache`: built pages and their ETags.
//! * `summary`: the summary of a directory.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use moka::future::Cache;

pub use super::directory::page_cache::Coding;
use super::{
    Gateway, GatewaySettings,
    auth::OwnAccount,
    directory::{
        cursor::{Cursor, List},
        page_cache::{CachedPage, ListKey, PageKey, PageScope},
    },
    walks::{
        self, WalkHandle,
        state::{CurrentSnapshot, LiveAccount, LoadedDirectory, StaleReason},
    },
};
use crate::{
    clock::since,
    directory::{Directory, ExpandSet, FieldSet, Filter, Matches, PageQuery, Resource},
    error::{Error, Kind, Result},
    model::{
        accounts::{Account, Inactive},
        audit_log::Actor,
        availability::Availability,
        connector_profiles::ProfileAction,
        id::{AccountId, RemoteId},
        observed::Origin,
        schema::{ProviderRead, Reason, Warning},
        walks::{WalkCounts, WalkReason},
    },
    store::{CLOCK_TOLERANCE, Latest},
};

pub mod cursor;
pub(super) mod page_cache;
mod summary;

/// Reads start no walk for this long after the last one ended. This matters after a failed walk:
/// after a sealed one the directory is fresh.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// The records to read, and how much of each.
#[derive(Debug, Clone)]
pub struct Selection {
    pub resource: Resource,
    pub filter: Filter,
    pub fields: FieldSet,
    pub expand: ExpandSet,
    /// Whether to include the provider requests that the records came from.
    pub raw: bool,
}

impl Selection {
    fn list<'a>(&'a self, own: &'a OwnAccount) -> List<'a> {
        List {
            account: &own.account,
            key: &own.mac_key,
            resource: self.resource,
            filter: &self.filter,
        }
    }
}

/// The part of the selection to read: one page or one record.
#[derive(Debug, Clone)]
pub enum Want {
    Page {
        page_size: u32,
        next: Option<String>,
    },
    Record {
        id: String,
    },
}

/// The maximum age of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxAge {
    /// The current directory. If it is older than `walk.fresh_seconds`, the read starts a walk but
    /// does not wait for it.
    Any,
    /// At most this many seconds old; otherwise the read waits for a walk.
    Seconds(u64),
    /// From a walk that begins after this request.
    New,
}

/// The response to a read, with the age and staleness of the directory.
pub struct ReadResponse {
    pub etag: Arc<str>,
    /// None if the client has the current page already, by its ETag.
    pub page: Option<Arc<CachedPage>>,
    pub version: u64,
    pub age: Duration,
    pub sealed_at: Timestamp,
    pub stale: Option<StaleReason>,
}

/// This fraction (one eighth) of the memory for pages caches the rows that filters matched. A row
/// takes four bytes, so by default about forty lists of 100,000 records fit.
const SHARE_OF_MATCHES: u64 = 8;

pub(in crate::gateway) struct DirectoryState {
    pub(in crate::gateway) live_accounts: RwLock<HashMap<AccountId, Arc<LiveAccount>>>,
    pub(in crate::gateway) directories: Cache<(AccountId, u64), Arc<LoadedDirectory>>,
    pub(in crate::gateway) pages: moka::sync::Cache<PageKey, Arc<CachedPage>>,
    /// The rows that each filter matched, so that a list is filtered once for all of its pages.
    pub(in crate::gateway) matches: moka::sync::Cache<ListKey, Arc<Matches>>,
}

impl DirectoryState {
    pub(in crate::gateway) fn new(settings: &GatewaySettings) -> Self {
        let weight = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let directories = Cache::builder()
            .max_capacity(settings.directory_bytes)
            .weigher(move |_, held: &Arc<LoadedDirectory>| {
                weight(held.directory.approximate_size())
            })
            .support_invalidation_closures()
            .build();
        let match_bytes = settings.page_bytes / SHARE_OF_MATCHES;
        let pages = moka::sync::Cache::builder()
            .max_capacity(settings.page_bytes - match_bytes)
            .weigher(move |key: &PageKey, page: &Arc<CachedPage>| {
                weight(key.list.approximate_size() + page.approximate_size())
            })
            .support_invalidation_closures()
            .build();
        let matches = moka::sync::Cache::builder()
            .max_capacity(match_bytes)
            .weigher(move |key: &ListKey, matches: &Arc<Matches>| {
                weight(key.approximate_size() + matches.approximate_size())
            })
            .support_invalidation_closures()
            .build();
        Self {
            live_accounts: RwLock::default(),
            directories,
            pages,
            matches,
        }
    }
}

/// Serves the current directory of an account, and starts a walk if it is not fresh enough.
#[derive(Clone, Copy)]
pub struct DirectoryReader<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}

impl DirectoryReader<'_> {
    /// Reads a page or a record of the caller's account.
    ///
    /// `is_known` returns whether the client has the response with this ETag already.
    ///
    /// # Errors
    /// `directory_not_ready`, `account_inactive`, `invalid_cursor`, `not_found`,
    /// `groups_not_permitted`, `field_not_permitted`, and the error of a failed first walk.
    pub async fn read(
        self,
        own: &OwnAccount,
        selection: &Selection,
        want: &Want,
        max_age: MaxAge,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<ReadResponse> {
        let account = &own.account;
        check_action(account, selection.resource)?;
        for shown in selection.expand.shown_within(selection.resource) {
            check_action(account, shown)?;
        }
        let cursor = match want {
            Want::Page {
                next: Some(text), ..
            } => Some(Cursor::from_text(text, selection.list(own))?),
            _ => None,
        };
        let live = self.live(account);
        let head = self.head(own, &live, max_age).await?;
        if selection.resource == Resource::Groups && !head.visibility.groups {
            return Err(Error::new(
                Kind::GroupsNotPermitted,
                "the account's token may not read groups",
            ));
        }
        if let Some(hidden) = selection.filter.hidden_from(head.visibility) {
            return Err(not_permitted(hidden));
        }

        let mut verified_at = head.verified_at;
        let mut sealed_at = head.sealed_at;
        let mut version = head.version;
        let part = match want {
            Want::Record { id } => PageScope::Record {
                id: id.as_str().into(),
            },
            Want::Page { page_size, .. } => {
                if let Some(cursor) = &cursor
                    && cursor.version != head.version
                    && let Some(held) = self.version(account, cursor.version).await?
                {
                    // The cursor began on this version and it is still available, so the pages stay
                    // on it.
                    (version, verified_at, sealed_at) =
                        (cursor.version, held.verified_at, held.sealed_at);
                }
                PageScope::List {
                    page_size: *page_size,
                    after: cursor.map(|cursor| cursor.after),
                }
            }
        };
        let key = PageKey {
            list: ListKey {
                account: account.id,
                version,
                resource: selection.resource,
                filter: selection.filter.clone(),
            },
            fields: selection.fields,
            expand: selection.expand,
            raw: selection.raw,
            part,
        };
        let built = self.gateway.0.directory.pages.get(&key);
        let etag = match &built {
            Some(page) => Arc::clone(&page.etag),
            None => key.etag(),
        };
        let page = match built {
            _ if is_known(&etag) => None,
            Some(page) => Some(page),
            None => Some(self.build_page(own, key, &etag).await?),
        };
        Ok(ReadResponse {
            etag,
            page,
            version,
            age: since(self.gateway.0.clock.now(), verified_at),
            sealed_at,
            stale: self.staleness(own, &head),
        })
    }

    /// Waits up to `wait` until an account has a directory, and returns its record counts.
    ///
    /// # Errors
    /// `directory_not_ready`, and the error of a failed first walk.
    pub async fn await_directory(self, own: &OwnAccount, wait: Duration) -> Result<WalkCounts> {
        let live = self.live(&own.account);
        check_served(&own.account)?;
        self.catch_up(&live, own.latest).await?;
        let head = match live.head() {
            Some(head) => head,
            None => self.first_head(own, &live, wait).await?,
        };
        let held = self.version(&own.account, head.version).await?;
        held.map(|held| held.directory.counts())
            .ok_or_else(|| Error::internal("the version in force is not held"))
    }

    /// Why the directory may be out of date. A reason that applies to the whole account precedes
    /// the result of the last walk.
    pub(super) fn staleness(self, own: &OwnAccount, head: &CurrentSnapshot) -> Option<StaleReason> {
        let is_not_renewed = || {
            self.is_renewal_due(head)
                && self.gateway.0.store.availability() != Availability::Writable
        };
        if own.is_store_down {
            Some(StaleReason::StoreUnavailable)
        } else if own.account.needs_reauth() {
            Some(StaleReason::ReauthRequired)
        } else if is_not_renewed() {
            Some(StaleReason::StoreUnavailable)
        } else {
            head.stale
        }
    }

    /// Whether the next walk is due, by the schedule or because the directory is older than
    /// `walk.fresh_seconds`.
    fn is_renewal_due(self, head: &CurrentSnapshot) -> bool {
        let settings = &self.gateway.0.settings;
        since(self.gateway.0.clock.now(), head.verified_at)
            > settings.walk_every.min(settings.fresh_for)
    }

    /// The in-memory state of this account, created on first use.
    pub(super) fn live(self, account: &Account) -> Arc<LiveAccount> {
        let live_accounts = &self.gateway.0.directory.live_accounts;
        if let Some(live) = live_accounts
            .read()
            .expect("no holder of this lock panics")
            .get(&account.id)
        {
            return Arc::clone(live);
        }
        let mut live_accounts = live_accounts
            .write()
            .expect("no holder of this lock panics");
        Arc::clone(
            live_accounts
                .entry(account.id)
                .or_insert_with(|| Arc::new(LiveAccount::new(account))),
        )
    }

    /// The current snapshot. Waits for a walk if the request requires a younger one.
    pub(super) async fn head(
        self,
        own: &OwnAccount,
        live: &Arc<LiveAccount>,
        max_age: MaxAge,
    ) -> Result<Arc<CurrentSnapshot>> {
        check_served(&own.account)?;
        self.catch_up(live, own.latest).await?;
        let Some(head) = live.head() else {
            return self
                .first_head(own, live, self.gateway.0.settings.read_wait)
                .await;
        };
        let now = self.gateway.0.clock.now();
        let age = since(now, head.verified_at);
        if own.account.needs_reauth() {
            if age > self.gateway.0.settings.retain_for {
                return Err(inactive(&own.account));
            }
            return Ok(head);
        }
        let must_wait = match max_age {
            MaxAge::Any => false,
            MaxAge::Seconds(seconds) => age > Duration::from_secs(seconds),
            MaxAge::New => true,
        };
        if must_wait {
            let handle = self.gateway.walks().request_walk(
                live,
                walks::Attach::BeforeFirstCall,
                false,
                own.by,
            );
            self.gateway
                .walks()
                .await_walk(&handle, self.gateway.0.settings.read_wait)
                .await;
            return Ok(live.head().unwrap_or(head));
        }
        if age > self.gateway.0.settings.fresh_for && self.may_walk_again(live) {
            self.gateway
                .walks()
                .request_walk(live, walks::Attach::Any, false, Actor::System);
        }
        Ok(head)
    }

    /// Whether a read may start a walk. False shortly after a walk, so that reads of an old
    /// directory do not call a failing provider again and again.
    fn may_walk_again(self, live: &LiveAccount) -> bool {
        let now = self.gateway.0.clock.monotonic();
        live.last_walk_ended_at()
            .is_none_or(|ended_at| now.saturating_sub(ended_at) >= AFTER_FAILURE)
    }

    /// Waits for the first walk of an account. If replacing the token interrupted that walk, waits
    /// for the next one.
    async fn first_head(
        self,
        own: &OwnAccount,
        live: &Arc<LiveAccount>,
        wait: Duration,
    ) -> Result<Arc<CurrentSnapshot>> {
        if own.account.needs_reauth() {
            return Err(inactive(&own.account));
        }
        let queue = || live.queue.lock().expect("no holder of this lock panics");
        let clock = &self.gateway.0.clock;
        let began_at = clock.monotonic();
        loop {
            // While the provider keeps failing, report the last failure instead of starting another
            // walk.
            let failed = queue().last_unless_walking();
            let handle = match failed {
                Some(failed) if !self.may_walk_again(live) => failed,
                _ => self
                    .gateway
                    .walks()
                    .request_walk(live, walks::Attach::Any, false, own.by),
            };
            let waited = clock.monotonic().saturating_sub(began_at);
            let ended = self
                .gateway
                .walks()
                .await_walk(&handle, wait.saturating_sub(waited))
                .await;
            if let Some(head) = live.head() {
                return Ok(head);
            }
            match ended {
                None => return Err(not_ready(&handle)),
                // The walk was interrupted and the next one already runs or waits: wait for that.
                Some(walk)
                    if walk.reason == Some(WalkReason::Interrupted)
                        && queue().last_unless_walking().is_none() => {}
                Some(walk) => return Err(failure(&own.account, walk.reason)),
            }
        }
    }

    /// Reads the state of an account's directory from the store and applies it.
    pub(super) async fn catch_up_now(self, live: &Arc<LiveAccount>) -> Result<()> {
        match self
            .gateway
            .0
            .store
            .latest(&live.project, live.account)
            .await?
        {
            Some(latest) => self.catch_up(live, latest).await,
            None => Ok(()),
        }
    }

    /// Applies a state read from the store: loads a newer version, moves the known version's
    /// `verified_at` forward, and sets the staleness after the last walk.
    pub(super) async fn catch_up(self, live: &Arc<LiveAccount>, latest: Latest) -> Result<()> {
        if let Some(found) = latest.directory {
            if self.is_plausible(found.verified_at) {
                live.verify(found.version, found.verified_at, found.quarantined);
            }
            let is_behind = move |live: &LiveAccount| {
                let known = live.head();
                known.is_none_or(|head| head.version < found.version)
            };
            if is_behind(live) {
                let gateway = self.gateway.clone();
                let of = Arc::clone(live);
                let caught_up = self.gateway.owned(async move {
                    // One load at a time. A task that waited for the lock finds the version loaded.
                    let _one = of.catching_up.lock().await;
                    match is_behind(&of) {
                        true => gateway.directory().load(&of).await,
                        false => Ok(()),
                    }
                });
                match caught_up.await {
                    // The known version is served while a newer one cannot be loaded.
                    Ok(()) => {}
                    Err(error)
                        if error.kind() == Kind::StoreUnavailable && live.head().is_some() =>
                    {
                        live.set_stale(Some(StaleReason::StoreUnavailable));
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if let Some((walk, state, reason)) = latest.walk
            && live.is_news(walk, state)
        {
            live.set_stale(walks::stale_after(state, reason));
        }
        Ok(())
    }

    /// Loads the current version from the store and publishes it in memory.
    async fn load(self, live: &LiveAccount) -> Result<()> {
        let store = &self.gateway.0.store;
        let Some(stored) = store.latest_directory(&live.project, live.account).await? else {
            return Ok(());
        };
        let directory = Directory::decode(&stored.encoded).map_err(Error::internal)?;
        let verified_at = self.verified_at(stored.verified_at);
        self.gateway
            .walks()
            .publish(live, directory, verified_at, stored.quarantined)
            .await;
        Ok(())
    }

    /// False if the stored time is too far in the future.
    fn is_plausible(self, stored: Timestamp) -> bool {
        let now = self.gateway.0.clock.now();
        stored.duration_since(now) <= SignedDuration::try_from(CLOCK_TOLERANCE).unwrap_or_default()
    }

    /// When a loaded directory was verified. A time in the future means that the machine's date was
    /// set back before this process started, and that the age is unknown. The directory then counts
    /// as due for a walk.
    fn verified_at(self, stored: Timestamp) -> Timestamp {
        if self.is_plausible(stored) {
            return stored;
        }
        let now = self.gateway.0.clock.now();
        now.saturating_sub(self.gateway.0.settings.fresh_for)
            .unwrap_or(now)
    }

    /// A version of an account's directory, if memory or the store still has it.
    pub(super) async fn version(
        self,
        account: &Account,
        version: u64,
    ) -> Result<Option<Arc<LoadedDirectory>>> {
        self.held(account.project.clone(), account.id, version)
            .await
    }

    pub(super) async fn held(
        self,
        project: crate::model::id::ProjectId,
        account: crate::model::id::AccountId,
        version: u64,
    ) -> Result<Option<Arc<LoadedDirectory>>> {
        if let Some(held) = self
            .gateway
            .0
            .directory
            .directories
            .get(&(account, version))
            .await
        {
            return Ok(Some(held));
        }
        let gateway = self.gateway.clone();
        self.gateway
            .owned(async move {
                let Some(stored) = gateway
                    .store_of(&project)
                    .directory(&project, account, version)
                    .await?
                else {
                    return Ok(None);
                };
                let held = Arc::new(LoadedDirectory {
                    directory: Directory::decode(&stored.encoded).map_err(Error::internal)?,
                    sealed_at: stored.sealed_at,
                    verified_at: gateway.directory().verified_at(stored.verified_at),
                });
                gateway
                    .0
                    .directory
                    .directories
                    .insert((account, version), Arc::clone(&held))
                    .await;
                Ok(Some(held))
            })
            .await
    }

    async fn build_page(
        self,
        own: &OwnAccount,
        key: PageKey,
        etag: &Arc<str>,
    ) -> Result<Arc<CachedPage>> {
        let held = self
            .version(&own.account, key.list.version)
            .await?
            .ok_or_else(|| {
                let version = key.list.version;
                Error::internal(format!("version {version} is in force but not held"))
            })?;
        let page = Arc::new(CachedPage::new(
            Arc::clone(etag),
            self.build(own, &held.directory, &key)?,
        ));
        self.gateway
            .0
            .directory
            .pages
            .insert(key, Arc::clone(&page));
        Ok(page)
    }

    /// The rows that the list's filter matches. Cached unless the filter matches all.
    fn matches(self, directory: &Directory, list: &ListKey) -> Arc<Matches> {
        let find = || Arc::new(directory.matches(list.resource, &list.filter));
        if list.filter.is_all() {
            return find();
        }
        self.gateway.0.directory.matches.get_with_by_ref(list, find)
    }

    /// The member `raw` of a response, with a leading comma; empty if it was not requested.
    fn raw(self, account: &Account, origins: Option<Vec<Origin>>) -> Result<Vec<u8>> {
        let Some(origins) = origins else {
            return Ok(Vec::new());
        };
        let connector = self.gateway.connector(&account.provider)?;
        let exchanges: Vec<_> = origins
            .iter()
            .filter_map(|origin| connector.url_of(&account.endpoint, &account.identity, origin))
            .map(|url| ProviderRead {
                method: "GET",
                url: url.into(),
            })
            .collect();
        let json = serde_json::to_vec(&exchanges).map_err(Error::internal)?;
        Ok([br#","raw":"#.as_slice(), &json].concat())
    }

    fn build(self, own: &OwnAccount, directory: &Directory, key: &PageKey) -> Result<Vec<u8>> {
        let account = &own.account;
        match &key.part {
            PageScope::Record { id } => {
                let record = directory
                    .record(key.list.resource, id, key.fields, key.expand)
                    .ok_or_else(|| {
                        Error::new(
                            Kind::NotFound,
                            format!("this account has no such {}", key.list.resource.singular()),
                        )
                    })?;
                let origins = key
                    .raw
                    .then(|| directory.origins_of_record(key.list.resource, id))
                    .flatten();
                let raw = self.raw(account, origins)?;
                Ok([br#"{"data":"#.as_slice(), &record, &raw, b"}"].concat())
            }
            PageScope::List { page_size, after } => {
                let query = PageQuery {
                    resource: key.list.resource,
                    page_size: *page_size,
                    after: after.clone(),
                    fields: key.fields,
                    expand: key.expand,
                };
                let matches = self.matches(directory, &key.list);
                let page = directory.page(&query, &matches);
                let origins = key.raw.then(|| directory.origins_of_page(&query, &matches));
                let raw = self.raw(account, origins)?;
                let list = List {
                    account,
                    key: &own.mac_key,
                    resource: key.list.resource,
                    filter: &key.list.filter,
                };
                let next = page.last.map(|after: RemoteId| {
                    Cursor {
                        version: key.list.version,
                        after,
                    }
                    .to_text(list)
                });
                let next = next.map_or_else(|| "null".to_owned(), |text| format!("\"{text}\""));
                let mut body = Vec::with_capacity(page.data.len() + next.len() + 48);
                body.extend_from_slice(br#"{"next":"#);
                body.extend_from_slice(next.as_bytes());
                body.extend_from_slice(br#","data":"#);
                body.extend_from_slice(&page.data);
                body.extend_from_slice(&raw);
                body.extend_from_slice(format!(r#","total":{}}}"#, page.total).as_bytes());
                Ok(body)
            }
        }
    }
}

fn check_action(account: &Account, resource: Resource) -> Result<()> {
    let action = match resource {
        Resource::Users => ProfileAction::Users,
        Resource::Roles => ProfileAction::Roles,
        Resource::Groups => ProfileAction::Groups,
    };
    if account.actions.has(action) {
        return Ok(());
    }
    Err(Error::new(
        Kind::ActionNotEnabled,
        format!("the connector profile of this account does not allow reading {action}"),
    ))
}

/// The error for a filter on a field that is null for all users.
fn not_permitted(hidden: Warning) -> Error {
    let why = match hidden.reason {
        Reason::NotPermitted => "the account's token may not see it",
        Reason::NotSupported => "this account's plan has no such thing",
        Reason::NotFetched | Reason::Unknown | Reason::Unreadable => "it could not be read",
    };
    let field = hidden.field.as_str();
    Error::new(
        Kind::FieldNotPermitted,
        format!("users cannot be filtered by `{field}`: {why}"),
    )
}

/// Checks that data of this account may be served.
///
/// # Errors
/// `account_inactive` if it is disconnected or its connector profile is disabled.
pub(super) fn check_served(account: &Account) -> Result<()> {
    match account.inactive_reason() {
        // The last directory is served for as long as that of a refused credential.
        None | Some(Inactive::Moved) => Ok(()),
        Some(reason) => Err(not_active(reason)),
    }
}

/// Checks that the provider may be called for this account.
///
/// # Errors
/// `account_inactive` if it is disconnected or moved, or its connector profile is disabled.
pub(super) fn check_callable(account: &Account) -> Result<()> {
    match account.inactive_reason() {
        None => Ok(()),
        Some(reason) => Err(not_active(reason)),
    }
}

fn not_active(reason: Inactive) -> Error {
    let (message, hint) = match reason {
        Inactive::Disconnected => (
            "this account was disconnected",
            "Link it again: make a connect session with this account_id.",
        ),
        Inactive::ProfileDisabled => (
            "the connector profile of this account is disabled",
            "Enable the profile with PATCH /connector_profiles/{id}.",
        ),
        Inactive::Moved => (
            "another installation has this account's credential",
            "Ask there, take it back with `rolecall credentials take-back`, or link it again.",
        ),
    };
    Error::new(Kind::AccountInactive, message).with_hint(hint)
}

pub(super) fn inactive(account: &Account) -> Error {
    let since = account
        .status_reasons
        .first()
        .map(|reason| format!(", since {}", reason.timestamp))
        .unwrap_or_default();
    Error::new(
        Kind::AccountInactive,
        format!("the provider does not take this account's credential{since}"),
    )
}

fn not_ready(handle: &WalkHandle) -> Error {
    let progress = handle.progress();
    let wait = progress.eta_seconds.unwrap_or(5).clamp(1, 60);
    Error::new(
        Kind::DirectoryNotReady,
        "the first walk of this account has not ended yet",
    )
    .with_progress(progress)
    .with_retry_after(Duration::from_secs(wait))
}

/// The error of a read whose walk failed, while there is no earlier directory.
fn failure(account: &Account, reason: Option<WalkReason>) -> Error {
    let error = match reason {
        Some(WalkReason::CredentialRefused) => return inactive(account),
        Some(WalkReason::ScopeMissing) => {
            return Error::new(
                Kind::AccountInactive,
                "the account's token may no longer read users",
            );
        }
        Some(WalkReason::OrganizationChanged) => {
            return Error::new(
                Kind::AccountInactive,
                "the account's token belongs to another organization than before",
            );
        }
        Some(WalkReason::ProviderThrottled) => Error::new(
            Kind::ProviderThrottled,
            "the provider's rate limit left no room for the first walk",
        ),
        Some(WalkReason::StoreUnavailable) => super::auth::ttl_cache::store_down(),
        Some(WalkReason::Internal) => Error::internal("the first walk failed inside"),
        _ => Error::new(
            Kind::ProviderUnavailable,
            "the first walk of this account failed, and there is no earlier directory",
        ),
    };
    error.with_retry_after(AFTER_FAILURE)
}
