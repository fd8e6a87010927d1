//! The state of each credential's refresh: which process may redeem the refresh token, and the
//! result.
//!
//! A refresh token can be redeemed only once. A process therefore takes the row before it redeems
//! ([`Store::begin_refresh`]): one statement changes the state, and it is synced to disk before any
//! request is sent. The process then reports the result in one of two ways. A new pair
//! ([`Store::commit_pair`]) is stored if the row still has the redeemed generation, however late
//! the pair arrives and whichever process has the row by then: the provider accepts no other pair.
//! A failure ([`Store::end_refresh`]) counts only while the process still has the row.
//!
//! | state | meaning | `due_at` |
//! |---|---|---|
//! | `idle` | no refresh is in flight | when the next refresh is due |
//! | `in_flight` | a process is redeeming the refresh token | when others take over |
//! | `uncertain` | the refresh token may have been redeemed | when it is tried again |
//! | `reauth` | the provider refused the refresh token twice, or refuses the access token | – |
//! | `moved` | another installation refreshes the credential | – |
//! | `destroyed` | the account was disconnected | – |
//!
//! The state `uncertain` ends with a new pair or with a second refusal. A second refusal does not
//! end it while the process that may have redeemed the token is still running, up to
//! [`LONG_IN_DOUBT`]. Otherwise the row becomes `idle` again after [`MAX_UNCERTAIN`]
//! ([`Store::expire_uncertain`]), since nothing proves that the token is invalid. Such a row keeps the
//! fault `reply_lost` ([`Doubt::Given`]) and is still retried. Another lost response does not make
//! it `uncertain` again; only a refusal does.
//!
//! Not here: the requests to the provider ([`crate::gateway`]), and the storage of a pair that the
//! database does not accept (`journal`).

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;

use super::{
    FieldSealer, SealedColumn, Store,
    credentials::{CredentialRow, DESTROYED, shown},
    db::Tx,
    decode_count, decode_timestamp,
    destinations::Destination,
    journal::PendingPair,
    no_such_account, parse_id, parse_project, plausible_until,
    replicas::HEARTBEAT_TIMEOUT,
    secrets::{decode_credential, encode_credential},
};
use crate::{
    crypto::DataKey,
    error::{Error, Kind, Result},
    model::{
        accounts::{Credential, CredentialState, TokenPair},
        audit_log::{Actor, AuditAction, Event},
        connector_profiles::OAuthApp,
        id::{AccountId, ProjectId},
    },
};

/// Other processes take over a refresh in flight that has no result after this time.
pub const REFRESH_LEASE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long after a first refusal (`invalid_grant`) the refresh token is tried again. Only two
/// refusals together prove that it is invalid.
pub const SECOND_REFUSAL_AFTER: Duration = Duration::from_secs(90);

/// How long a credential is uncertain at most. Then it counts as usable again.
pub const MAX_UNCERTAIN: Duration = Duration::from_secs(12 * 60);

/// After a credential has been uncertain for this long, its access token counts too: if the
/// provider refuses it, the refresh token is invalid. A process that may hold a new pair no longer
/// counts, even if it is still running.
const LONG_IN_DOUBT: Duration = Duration::from_secs(10 * 60);

/// The longest wait before the next attempt while a credential is uncertain, unless the last
/// attempt was a refusal.
const IN_DOUBT_ASKED_WITHIN: Duration = Duration::from_secs(60);

/// The longest wait before a retry that a caller of [`Store::end_refresh`] passes.
const LONGEST_WAIT: Duration = Duration::from_secs(900);

/// Why a refresh is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Refresh only if it is due, or if another process's refresh is overdue.
    WhenDue,
    /// Refresh even before it is due: on request, or because the provider no longer accepts the
    /// access token of this generation.
    Now { generation: Option<u64> },
}

/// The result of a request to begin a refresh.
#[derive(Debug)]
pub enum BeginRefreshResult {
    /// The caller has the lease and redeems the refresh token. No other process does.
    Here(Box<RefreshLease>),
    /// Another process is redeeming the refresh token.
    Elsewhere,
    /// Nothing to do: the refresh is not due, or another one has finished meanwhile.
    NotNow,
    /// The credential has no refresh token, was destroyed, or moved to another installation.
    Never,
}

/// The right to redeem one refresh token, once.
#[derive(Debug)]
pub struct RefreshLease {
    pub project: ProjectId,
    pub account: AccountId,
    /// The generation of the pair that is redeemed.
    pub generation: u64,
    pub pair: TokenPair,
    /// The refresh token of `pair`.
    pub refresh_token: SecretString,
    /// The app that the refresh token was issued to.
    pub app: OAuthApp,
    /// The destination that the refresh token and the app's secret are bound to.
    pub destination: Destination,
    /// How many attempts in a row have failed before this one.
    pub attempts: u64,
    doubt: Doubt,
    lineage: u64,
    id: String,
    key: DataKey,
}

/// What earlier attempts left unknown about a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    /// It may have been redeemed.
    Open,
    /// It may have been redeemed, and this has been unknown for [`LONG_IN_DOUBT`].
    Long,
    /// The credential was uncertain for [`MAX_UNCERTAIN`] and then became `idle` again.
    Given,
    /// The credential needs reauthorization. This attempt was requested anyway.
    Dead,
}

impl Doubt {
    /// The uncertainty of a row that is about to be taken.
    fn of(
        state: &str,
        is_doubtful: bool,
        state_since: Timestamp,
        fault: Option<&str>,
        now: Timestamp,
    ) -> Self {
        match state {
            "reauth" => Self::Dead,
            _ if is_doubtful && crate::clock::since(now, state_since) >= LONG_IN_DOUBT => {
                Self::Long
            }
            // A refresh in flight at this point belongs to another process and is overdue.
            "uncertain" | "in_flight" => Self::Open,
            _ if fault == Some(RefreshFailure::Doubtful.as_str()) => Self::Given,
            _ => Self::None,
        }
    }
}

/// How a refresh ended without a new pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshFailure {
    /// No request was sent.
    Unsent,
    /// The provider refused for a reason other than the refresh token, which stays valid.
    Refused,
    /// The provider rejected the app's client authentication.
    AppRefused,
    /// A request was sent, but no response tells its result.
    Doubtful,
    /// The provider says that the refresh token is invalid.
    InvalidGrant,
    /// The state of the refresh token has been unknown for long, and the provider refuses the
    /// access token, which is invalidated together with it.
    TokenRefused,
}

impl RefreshFailure {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unsent => "provider_unreachable",
            Self::Refused => "provider_refused",
            Self::AppRefused => "app_refused",
            Self::Doubtful => "reply_lost",
            Self::InvalidGrant => "invalid_grant",
            Self::TokenRefused => "access_token_refused",
        }
    }
}

/// The result of storing a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitPairResult {
    /// The account has this pair.
    Stored,
    /// The account already has a later pair, or another pair that was issued for the same refresh
    /// token. The caller must not revoke this pair, since that might revoke the account's pair too.
    Behind,
    /// The account was disconnected, or has another credential.
    Superseded,
}

/// The result of recovering the refreshes of this node's earlier runs.
#[derive(Debug)]
pub struct Recovered {
    /// How many journaled pairs the database has now, or has a later pair for.
    pub stored: u64,
    /// How many refreshes in flight were released for takeover.
    pub taken_over: u64,
    /// Journaled pairs of accounts that were disconnected or linked again since. The provider still
    /// accepts these pairs, and only the journal has them.
    pub superseded: Vec<PendingPair>,
}

impl Store {
    /// Accounts of all projects with a credential that is due to be refreshed, taken over or tried
    /// again. At most `limit`, those that are overdue longest first.
    pub async fn due_refreshes(&self, limit: u32) -> Result<Vec<(ProjectId, AccountId)>> {
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        let rows: Vec<(String, String)> = tx
            .fetch(
                "select project, account from credentials where due_at <= $1
                 order by due_at, account limit $2",
                [now.into(), u64::from(limit).into()],
            )
            .await?;
        tx.commit().await?;
        rows.iter()
            .map(|(project, account)| Ok((parse_project(project)?, parse_id(account)?)))
            .collect()
    }

    /// Corrects times in the future, which were stored before the database's clock was set back.
    /// Without this a refresh would wait until the clock reaches them again. Must run regularly.
    /// Returns how many values it changed.
    pub async fn rebase_refreshes(&self) -> Result<u64> {
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        let ahead = plausible_until(now)?;
        let after = |wait| now.saturating_add(wait).map_err(Error::internal);
        let moved = tx
            .execute(
                "update credentials set due_at = due_at - (state_since - $1), state_since = $1
                 where state_since > $2 and due_at is not null",
                [now.into(), ahead.into()],
            )
            .await?;
        // Retries of an uncertain credential keep `state_since`, so it may be in the past although
        // `due_at` is far in the future.
        let shortened = tx
            .execute(
                "update credentials set due_at = $1
                 where state in ('in_flight', 'uncertain') and due_at > $2",
                [
                    after(SECOND_REFUSAL_AFTER)?.into(),
                    after(LONGEST_WAIT + super::CLOCK_TOLERANCE)?.into(),
                ],
            )
            .await?;
        let refused = tx
            .execute(
                "update credentials set refused_at = $1 where refused_at > $2",
                [now.into(), ahead.into()],
            )
            .await?;
        tx.commit().await?;
        Ok(moved + shortened + refused)
    }

    /// Postpones a due refresh by `wait`, for example because the credential does not decrypt.
    pub async fn postpone_refresh(
        &self,
        project: &ProjectId,
        account: AccountId,
        wait: Duration,
    ) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        let later = now.saturating_add(wait).map_err(Error::internal)?;
        tx.execute(
            "update credentials set due_at = $3
             where project = $1 and account = $2 and due_at <= $4",
            [project.into(), account.into(), later.into(), now.into()],
        )
        .await?;
        tx.commit().await
    }

    /// Takes a credential's row in order to redeem its refresh token. On return this is synced to
    /// disk.
    ///
    /// # Errors
    /// `account_not_found` if the project has no such account.
    pub async fn begin_refresh(
        &self,
        project: &ProjectId,
        account: AccountId,
        wanted: Trigger,
    ) -> Result<BeginRefreshResult> {
        let Some(key) = self.data_key(project).await? else {
            return Err(no_such_account());
        };
        let sealer = FieldSealer {
            key: key.clone(),
            rng: &self.rng,
            project,
            account: account.to_string(),
        };
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        let Some(row) = CredentialRow::read(&mut tx, project, account).await? else {
            return Err(no_such_account());
        };
        let is_due = row
            .due_at
            .is_some_and(|due_at| due_at <= now.as_millisecond());
        let is_wanted = match wanted {
            Trigger::WhenDue => is_due,
            Trigger::Now { generation: None } => true,
            Trigger::Now {
                generation: Some(refused),
            } => refused == decode_count(row.generation)?,
        };
        if row.state == DESTROYED || row.state == "moved" {
            return Ok(BeginRefreshResult::Never);
        }
        if row.state == "in_flight" && !is_due {
            return Ok(BeginRefreshResult::Elsewhere);
        }
        if !is_wanted {
            return Ok(BeginRefreshResult::NotNow);
        }
        let (destination, Some(stored)) = row.opened(&sealer)? else {
            return Ok(BeginRefreshResult::Never);
        };
        let Credential::OAuth(pair) = stored.credential else {
            return Ok(BeginRefreshResult::Never);
        };
        let Some(refresh_token) = pair.refresh_token.clone() else {
            return Ok(BeginRefreshResult::Never);
        };
        let app = match (stored.own_app, stored.profile) {
            (Some(app), _) => app,
            (None, Some(profile)) => {
                let found = self.app_of(&mut tx, &key, project, profile).await?;
                let found = found.ok_or_else(|| {
                    Error::internal("a credential of a profile that is not there")
                })?;
                found
                    .for_endpoint(&destination.provider, &destination.endpoint)?
                    .clone()
            }
            (None, None) => return Err(Error::internal("an OAuth credential of no app")),
        };
        let doubt = Doubt::of(
            &row.state,
            row.is_doubtful != 0,
            decode_timestamp(row.state_since)?,
            row.fault.as_deref(),
            now,
        );
        let id = self.rng.uuid(now).to_string();
        let deadline = now
            .saturating_add(REFRESH_LEASE_TIMEOUT)
            .map_err(Error::internal)?;
        // Another process's refresh is overdue. It may have redeemed the refresh token, so the
        // credential becomes uncertain.
        let is_taken_over = row.state == "in_flight";
        // Compare and swap: this takes no row that another process took since it was read.
        let taken = tx
            .execute(
                "update credentials
                 set state = 'in_flight', state_since = case when is_doubtful = 1 then state_since
                         else $8 end,
                     due_at = $9, intent = $5, intent_node = $6, intent_replica = $7,
                     is_doubtful = case when $10 = 1 then 1 when state = 'reauth' then 0
                         else is_doubtful end,
                     doubted_replica = case when $10 = 1 then intent_replica
                         else doubted_replica end
                 where project = $1 and account = $2 and generation = $3
                     and coalesce(intent, '') = $4",
                [
                    project.into(),
                    account.into(),
                    stored.generation.into(),
                    row.intent.unwrap_or_default().into(),
                    id.as_str().into(),
                    self.node().into(),
                    self.replica.into(),
                    now.into(),
                    deadline.into(),
                    u64::from(is_taken_over).into(),
                ],
            )
            .await?;
        if taken == 0 {
            return Ok(BeginRefreshResult::Elsewhere);
        }
        tx.commit().await?;
        Ok(BeginRefreshResult::Here(Box::new(RefreshLease {
            project: project.clone(),
            account,
            generation: stored.generation,
            pair,
            refresh_token,
            app,
            destination,
            attempts: decode_count(row.attempts)?,
            doubt,
            lineage: stored.lineage,
            id,
            key,
        })))
    }

    /// Stores the new pair of a refresh, unless the account has another pair by now. In that case
    /// only the caller has this pair.
    pub async fn commit_pair(&self, pair: &PendingPair) -> Result<CommitPairResult> {
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        let stored = tx
            .execute(
                "update credentials
                 set generation = $4, sealed = $5, state = case when state = 'moved' then 'moved'
                         else 'idle' end,
                     state_since = $6, expires_at = $7,
                     due_at = case when state = 'moved' then null else cast($8 as bigint) end,
                     intent = null, intent_node = null, intent_replica = null, attempts = 0,
                     refused_at = null, is_doubtful = 0, doubted_replica = null, fault = null
                 where project = $1 and account = $2 and generation = $3",
                [
                    (&pair.project).into(),
                    pair.account.into(),
                    pair.redeemed.into(),
                    (pair.redeemed + 1).into(),
                    pair.sealed.clone().into(),
                    now.into(),
                    pair.expires_at.into(),
                    pair.refresh_at.into(),
                ],
            )
            .await?;
        let committed = if stored > 0 {
            CommitPairResult::Stored
        } else {
            let row: Option<(i64, i64, Vec<u8>)> = tx
                .fetch_one(
                    "select generation, lineage, sealed from credentials
                     where project = $1 and account = $2",
                    [(&pair.project).into(), pair.account.into()],
                )
                .await?;
            match row {
                Some((_, lineage, _)) if decode_count(lineage)? != pair.lineage => {
                    CommitPairResult::Superseded
                }
                // An earlier attempt stored this same pair, but its response was lost.
                Some((generation, _, sealed))
                    if decode_count(generation)? == pair.redeemed + 1 && sealed == pair.sealed =>
                {
                    CommitPairResult::Stored
                }
                Some(_) => CommitPairResult::Behind,
                None => CommitPairResult::Superseded,
            }
        };
        if stored > 0 {
            let refreshed = Event::new(
                Actor::System,
                AuditAction::CredentialRefreshed,
                pair.account,
            )
            .with("generation", pair.redeemed + 1);
            self.audit(&mut tx, &pair.project, None, &[refreshed])
                .await?;
        }
        tx.commit().await?;
        Ok(committed)
    }

    /// Records that a refresh brought no new pair, and returns the new state of the credential. A
    /// retry is due `again_after` from now, unless the state determines its own time. None if
    /// another process has taken the row; its result counts.
    pub async fn end_refresh(
        &self,
        intent: &RefreshLease,
        end: RefreshFailure,
        again_after: Duration,
    ) -> Result<Option<CredentialState>> {
        type RefreshRow = (Option<i64>, Option<String>, Option<String>);
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        let row: Option<RefreshRow> = tx
            .fetch_one(
                "select refused_at, doubted_replica, fault from credentials
                 where project = $1 and account = $2 and generation = $3 and intent = $4",
                [
                    (&intent.project).into(),
                    intent.account.into(),
                    intent.generation.into(),
                    intent.id.as_str().into(),
                ],
            )
            .await?;
        let Some((refused_at, doubted, former_fault)) = row else {
            return Ok(None);
        };
        let first_no = refused_at.map(decode_timestamp).transpose()?;
        let after = |moment: Timestamp, wait| {
            let due_at = moment.saturating_add(wait).map_err(Error::internal)?;
            Ok::<_, Error>(Some(due_at))
        };
        let (state, refused_at, due_at) = match (end, intent.doubt) {
            // No automatic retry.
            (_, Doubt::Dead) => ("reauth", first_no, None),
            (RefreshFailure::TokenRefused, _) => ("reauth", first_no.or(Some(now)), None),
            (RefreshFailure::InvalidGrant, doubt) => match first_no {
                None => ("uncertain", Some(now), after(now, SECOND_REFUSAL_AFTER)?),
                Some(first) if crate::clock::since(now, first) < SECOND_REFUSAL_AFTER => (
                    "uncertain",
                    Some(first),
                    after(first, SECOND_REFUSAL_AFTER)?,
                ),
                // The process that may have redeemed the token has failed, or has had so long to
                // store a new pair that it has none.
                Some(first)
                    if doubt == Doubt::Long
                        || !self.is_alive(&mut tx, doubted.as_deref(), now).await? =>
                {
                    ("reauth", Some(first), None)
                }
                Some(first) => ("uncertain", Some(first), after(now, SECOND_REFUSAL_AFTER)?),
            },
            (_, Doubt::Open | Doubt::Long) => {
                let soon = again_after.min(IN_DOUBT_ASKED_WITHIN);
                ("uncertain", first_no, after(now, soon)?)
            }
            (RefreshFailure::Doubtful, Doubt::None) => {
                ("uncertain", None, after(now, again_after)?)
            }
            (_, Doubt::None | Doubt::Given) => ("idle", None, after(now, again_after)?),
        };
        let fault = match (end, intent.doubt) {
            (_, Doubt::Dead) => former_fault.as_deref().unwrap_or(end.as_str()),
            // This fault marks `Doubt::Given`, so keep it.
            (RefreshFailure::Unsent | RefreshFailure::Refused, Doubt::Given) => {
                RefreshFailure::Doubtful.as_str()
            }
            _ => end.as_str(),
        };
        // True if the row returns to the state that it had before this attempt: keep `state_since`.
        let goes_on = match intent.doubt {
            Doubt::Open | Doubt::Long => state == "uncertain",
            Doubt::Dead => true,
            Doubt::None | Doubt::Given => false,
        };
        let is_doubtful = matches!(state, "uncertain" | "reauth");
        tx.execute(
            "update credentials
             set state = $5, state_since = case when $11 = 1 then state_since else $6 end,
                 due_at = $7, refused_at = $8, is_doubtful = $9, attempts = attempts + 1,
                 fault = $10, intent = null, intent_node = null, intent_replica = null
             where project = $1 and account = $2 and generation = $3 and intent = $4",
            [
                (&intent.project).into(),
                intent.account.into(),
                intent.generation.into(),
                intent.id.as_str().into(),
                state.into(),
                now.into(),
                due_at.into(),
                refused_at.into(),
                u64::from(is_doubtful).into(),
                fault.into(),
                u64::from(goes_on).into(),
            ],
        )
        .await?;
        let told = match (end, state) {
            (_, "reauth") => Some(AuditAction::CredentialReauthRequired),
            (RefreshFailure::InvalidGrant | RefreshFailure::Doubtful, "uncertain") => {
                Some(AuditAction::CredentialUncertain)
            }
            (RefreshFailure::Unsent | RefreshFailure::Doubtful, _) => None,
            _ => Some(AuditAction::CredentialRefreshRefused),
        };
        let events: Vec<_> = told
            .map(|action| {
                Event::new(Actor::System, action, intent.account).with("reason", end.as_str())
            })
            .into_iter()
            .collect();
        self.audit(&mut tx, &intent.project, Some(&intent.key), &events)
            .await?;
        tx.commit().await?;
        shown(state, is_doubtful).map(Some)
    }

    /// Ends the uncertainty of credentials that have been uncertain for [`MAX_UNCERTAIN`] without a
    /// proof that they are invalid: they become `idle` and are refreshed as usual. Returns how
    /// many.
    pub async fn expire_uncertain(&self) -> Result<u64> {
        // This runs often and seldom finds anything, so query first, without a write transaction.
        let projects: Vec<(String,)> = self
            .db
            .fetch(
                "select distinct project from credentials where is_doubtful = 1
                     and state in ('uncertain', 'in_flight') order by project",
                [],
            )
            .await?;
        let (mut ended, mut failed) = (0, Ok(()));
        for (project,) in &projects {
            // A project whose audit log cannot be written must not stop the others.
            match self.end_doubts_of(&parse_project(project)?).await {
                Ok(count) => ended += count,
                Err(error) => failed = Err(error),
            }
        }
        failed.map(|()| ended)
    }

    async fn end_doubts_of(&self, project: &ProjectId) -> Result<u64> {
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        let begun_by = now.saturating_sub(MAX_UNCERTAIN).map_err(Error::internal)?;
        // Skip a refresh in flight that is not overdue: its result is still to come. Keep the fault
        // `app_refused`: it is a response, and tells more than `reply_lost`.
        let ended: Vec<(String,)> = tx
            .fetch(
                "update credentials
                 set state = 'idle', state_since = $1, is_doubtful = 0, refused_at = null,
                     doubted_replica = null,
                     fault = case when fault = $4 then fault else $3 end,
                     intent = null, intent_node = null, intent_replica = null
                 where project = $5 and is_doubtful = 1 and state_since <= $2
                     and (state = 'uncertain' or (state = 'in_flight' and due_at <= $1))
                 returning account",
                [
                    now.into(),
                    begun_by.into(),
                    RefreshFailure::Doubtful.as_str().into(),
                    RefreshFailure::AppRefused.as_str().into(),
                    project.into(),
                ],
            )
            .await?;
        let events: Result<Vec<_>> = ended
            .iter()
            .map(|(account,)| {
                let account: AccountId = parse_id(account)?;
                let given_up = Event::new(
                    Actor::System,
                    AuditAction::CredentialRefreshRefused,
                    account,
                );
                Ok(given_up.with("reason", RefreshFailure::Doubtful.as_str()))
            })
            .collect();
        let events = events?;
        self.audit(&mut tx, project, None, &events).await?;
        tx.commit().await?;
        Ok(ended.len() as u64)
    }

    /// Recovers the refreshes of this node's earlier runs: stores the pairs from the journal, and
    /// takes over the refreshes in flight at once. A failure with one pair does not stop the
    /// others. Superseded pairs stay in the journal until the caller removes them.
    ///
    /// None while the journal cannot be used, for example because an earlier run still has it
    /// locked. No refresh is taken over then, since the journal may contain its new pair.
    pub async fn recover_refreshes(&self) -> Result<Option<Recovered>> {
        if !self.claim_journal().unwrap_or(false) {
            return Ok(None);
        }
        let (mut stored, mut superseded, mut failed) = (0, Vec::new(), Ok(()));
        for pair in self.journaled_pairs()? {
            let pair = match self.bound(pair).await {
                Ok(pair) => pair,
                Err(error) if error.kind() == Kind::CredentialLocked => {
                    tracing::error!(%error, "a journaled pair of tokens is locked; it is left there");
                    continue;
                }
                Err(error) => {
                    failed = Err(error);
                    continue;
                }
            };
            match self.commit_pair(&pair).await {
                Ok(CommitPairResult::Superseded) => superseded.push(pair),
                Ok(CommitPairResult::Stored | CommitPairResult::Behind) => {
                    self.unjournal_pair(&pair);
                    stored += 1;
                }
                Err(error) => failed = Err(error),
            }
        }
        failed?;
        Ok(Some(Recovered {
            stored,
            taken_over: self.take_over_own().await?,
            superseded,
        }))
    }

    /// Returns a journaled pair in the current format. Earlier versions sealed pairs without their
    /// destination. Such a pair is bound to the authenticated destination of the account's present
    /// credential.
    async fn bound(&self, pair: PendingPair) -> Result<PendingPair> {
        if pair.destination.is_some() {
            return Ok(pair);
        }
        let destination = self.destination(&pair.project, pair.account).await?;
        let sealer = FieldSealer::of(self, &pair.project, pair.account).await?;
        let (Some(destination), Some(sealer)) = (destination, sealer) else {
            // The account was purged, so nobody commits this pair.
            return Ok(pair);
        };
        let generation = (pair.redeemed + 1).to_string();
        let text = sealer.open(SealedColumn::Credential, &generation, &pair.sealed)?;
        let bound = destination.digest();
        Ok(PendingPair {
            sealed: sealer.seal_for(bound, SealedColumn::Credential, &generation, &text),
            destination: Some(destination),
            ..pair
        })
    }

    /// Decrypts a journaled pair. Returns it with its destination; None if its project was deleted.
    pub async fn open_pair(&self, pair: &PendingPair) -> Result<Option<(TokenPair, Destination)>> {
        let sealer = FieldSealer::of(self, &pair.project, pair.account).await?;
        let (Some(sealer), Some(destination)) = (sealer, &pair.destination) else {
            return Ok(None);
        };
        let generation = (pair.redeemed + 1).to_string();
        let bound = destination.digest();
        let text = sealer.open_for(bound, SealedColumn::Credential, &generation, &pair.sealed)?;
        match decode_credential(&text)? {
            Credential::OAuth(pair) => Ok(Some((pair, destination.clone()))),
            Credential::AccessToken(_) => Err(Error::internal("a token in the journal of pairs")),
        }
    }

    /// Makes the refreshes that this node's earlier runs left in flight overdue, since those runs
    /// will not report a result any more.
    async fn take_over_own(&self) -> Result<u64> {
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        let freed = tx
            .execute(
                "update credentials set due_at = $1
                 where state = 'in_flight' and intent_node = $2 and intent_replica <> $3",
                [now.into(), self.node().into(), self.replica.into()],
            )
            .await?;
        tx.commit().await?;
        Ok(freed)
    }

    /// True if the other process that may hold a new pair is still running.
    async fn is_alive(&self, tx: &mut Tx, replica: Option<&str>, now: Timestamp) -> Result<bool> {
        let Some(replica) = replica else {
            return Ok(false);
        };
        let alive_after = now
            .saturating_sub(HEARTBEAT_TIMEOUT)
            .map_err(Error::internal)?;
        let row: Option<(String,)> = tx
            .fetch_one(
                "select id from replicas where id = $1 and seen_at >= $2 and id <> $3",
                [replica.into(), alive_after.into(), self.replica.into()],
            )
            .await?;
        Ok(row.is_some())
    }
}

impl RefreshLease {
    /// True if the state of the refresh token has been unknown for long. The caller then also
    /// checks whether the provider accepts the access token.
    pub fn is_long_in_doubt(&self) -> bool {
        matches!(self.doubt, Doubt::Long | Doubt::Given)
    }

    /// Seals a new pair, for the database or the journal.
    pub fn seal(&self, store: &Store, pair: &TokenPair, refresh_at: Timestamp) -> PendingPair {
        let sealer = FieldSealer {
            key: self.key.clone(),
            rng: &store.rng,
            project: &self.project,
            account: self.account.to_string(),
        };
        let generation = (self.generation + 1).to_string();
        PendingPair {
            project: self.project.clone(),
            account: self.account,
            redeemed: self.generation,
            lineage: self.lineage,
            sealed: sealer.seal_for(
                self.destination.digest(),
                SealedColumn::Credential,
                &generation,
                &encode_credential(&Credential::OAuth(pair.clone())),
            ),
            destination: Some(self.destination.clone()),
            expires_at: pair.expires_at,
            refresh_at,
        }
    }
}
