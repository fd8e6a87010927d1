//! The rows' part in refreshing credentials: who may redeem a refresh token, and what became of it.
//!
//! A refresh token is good once. So whoever wants to redeem one first takes the row
//! ([`Store::begin_refresh`]): one statement from one state to the next, on disk before a byte is
//! sent. What the redeemer then learns is told by one of two methods. A new pair
//! ([`Store::commit_pair`]) wins as long as the row still has the generation that was redeemed,
//! whoever has the row by then and however late it comes: it is the only pair that the provider
//! takes. Anything else ([`Store::end_refresh`]) counts only for whoever still has the row.
//!
//! | state | means | `due_at` |
//! |---|---|---|
//! | `idle` | nobody redeems | when the next refresh is due |
//! | `in_flight` | somebody redeems | when others take over |
//! | `uncertain` | the refresh token may be spent | when it is tried again |
//! | `reauth` | the provider was asked twice and said no; or it no longer takes a personal token | – |
//! | `moved` | another installation refreshes it | – |
//! | `destroyed` | the account was disconnected | – |
//!
//! `uncertain` ends. A new pair, or a second no, ends it at once; else it lasts for
//! [`DOUBT_LASTS`], and the row is `idle` again ([`Store::end_doubts`]), since nothing has said
//! that it is dead. Such a row keeps the fault `reply_lost` ([`Doubt::Given`]): it goes on being
//! tried, and another lost reply does not make it `uncertain` again. Only a no does.
//!
//! Not here: the calls themselves ([`crate::gateway`]), and where a pair waits that the database
//! does not take (`journal`).

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
    replicas::DEAD_AFTER,
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

/// After this, others take over a refresh whose end nobody has told.
pub const TAKEN_OVER_AFTER: Duration = Duration::from_secs(75);

/// How long after the provider's first no its second is asked for. Only both together mean that a
/// refresh token is dead.
pub const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(90);

/// How long a credential is in doubt at most, before it is taken for good again.
pub const DOUBT_LASTS: Duration = Duration::from_secs(12 * 60);

/// After this much doubt, other signs than the provider's answers to a refresh count too: whether
/// it takes the access token, and not whether a process still lives that may hold a successor.
const LONG_IN_DOUBT: Duration = Duration::from_secs(10 * 60);

/// What is in doubt is tried again within this, whatever kept the last try from saying more.
const IN_DOUBT_ASKED_WITHIN: Duration = Duration::from_secs(60);

/// Nobody asks for a longer wait before another try.
const LONGEST_WAIT: Duration = Duration::from_secs(900);

/// Why a refresh is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// If it is due, or somebody else's is overdue.
    WhenDue,
    /// Also before it is due: somebody asks, or the provider no longer takes the access token of
    /// this generation.
    Now { generation: Option<u64> },
}

/// What became of a wish to refresh.
#[derive(Debug)]
pub enum BeginRefreshResult {
    /// Here: whoever has this, and nobody else, redeems.
    Here(Box<RefreshLease>),
    /// Somebody else redeems.
    Elsewhere,
    /// There is nothing to do: it is not due, or was refreshed meanwhile.
    NotNow,
    /// It has no refresh token, or another installation has it.
    Never,
}

/// The right to redeem one refresh token, once.
#[derive(Debug)]
pub struct RefreshLease {
    pub project: ProjectId,
    pub account: AccountId,
    /// The generation that is redeemed.
    pub generation: u64,
    pub pair: TokenPair,
    /// What is redeemed: the refresh token of the pair.
    pub refresh_token: SecretString,
    /// The app that it was issued to.
    pub app: OAuthApp,
    /// Where both may be sent.
    pub destination: Destination,
    /// How often in a row it came to nothing before.
    pub attempts: u64,
    doubt: Doubt,
    lineage: u64,
    id: String,
    key: DataKey,
}

/// What earlier tries have left open about a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    /// It may be spent.
    Open,
    /// It may be, and nobody has learnt more for [`LONG_IN_DOUBT`].
    Long,
    /// The doubt was given up after [`DOUBT_LASTS`].
    Given,
    /// The provider has refused it twice; somebody asks all the same.
    Dead,
}

impl Doubt {
    /// Of a row that is about to be taken.
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
            // What is in flight here is somebody else's, and overdue.
            "uncertain" | "in_flight" => Self::Open,
            _ if fault == Some(RefreshFailure::Doubtful.as_str()) => Self::Given,
            _ => Self::None,
        }
    }
}

/// How a refresh ended that brought no new pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshFailure {
    /// Nothing was sent.
    Unsent,
    /// The provider refused for another reason than the refresh token, which is good still.
    Refused,
    /// The provider does not take the app's proof of itself.
    AppRefused,
    /// Something was sent, and no answer came that says what became of it.
    Doubtful,
    /// The provider says that the refresh token is no good.
    InvalidGrant,
    /// Nothing has said for long what became of the refresh token, and the provider no longer
    /// takes the access token, which ends with it.
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

/// What became of a pair that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitPairResult {
    /// The account has it.
    Stored,
    /// The account has gone on from it already, or from another pair that was issued for the same
    /// refresh token. To revoke this one might end that, too.
    Behind,
    /// The account was disconnected, or has another credential.
    Superseded,
}

/// What this node's earlier runs left.
#[derive(Debug)]
pub struct Recovered {
    /// How many pairs waited in the journal.
    pub stored: u64,
    /// How many refreshes were in flight.
    pub taken_over: u64,
    /// Those pairs in the journal whose accounts were disconnected since, or linked again. The
    /// provider takes them still, and nobody but the journal has them.
    pub superseded: Vec<PendingPair>,
}

impl Store {
    /// The accounts, of every project, whose credentials are to be refreshed, taken over or tried
    /// again by now: at most `limit`, those first that have waited longest.
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

    /// Brings moments that lie in the future within reach: they were stored before the database's
    /// date was set back, and a refresh would wait until it is that late again. To be called now
    /// and then.
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
        // One that is in doubt keeps the moment since when it is.
        let shortened = tx
            .execute(
                "update credentials set due_at = $1
                 where state in ('in_flight', 'uncertain') and due_at > $2",
                [
                    after(ASKED_AGAIN_AFTER)?.into(),
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

    /// Has a credential that is due be due after this wait, as where it cannot be read.
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

    /// Takes the row of a credential for redeeming its refresh token. On return that survives a
    /// power cut.
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
            .saturating_add(TAKEN_OVER_AFTER)
            .map_err(Error::internal)?;
        // Somebody else's that is overdue: whether they redeemed it nobody can tell.
        let is_taken_over = row.state == "in_flight";
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

    /// Stores a pair that a refresh brought, unless the account has another by now: then nobody but
    /// the caller has this one.
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
                // Where the answer to an earlier try was lost, what is there is this very pair.
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

    /// Tells that a refresh brought nothing, and gives the state that the credential is in then.
    /// `again_after` is when to try again where nothing else says so. None if somebody else has
    /// the row by now, and what they find counts.
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
            // It is not asked for again by itself.
            (_, Doubt::Dead) => ("reauth", first_no, None),
            (RefreshFailure::TokenRefused, _) => ("reauth", first_no.or(Some(now)), None),
            (RefreshFailure::InvalidGrant, doubt) => match first_no {
                None => ("uncertain", Some(now), after(now, ASKED_AGAIN_AFTER)?),
                Some(first) if crate::clock::since(now, first) < ASKED_AGAIN_AFTER => {
                    ("uncertain", Some(first), after(first, ASKED_AGAIN_AFTER)?)
                }
                // Who has lived for so long without a word of a successor has none.
                Some(first)
                    if doubt == Doubt::Long
                        || !self.is_alive(&mut tx, doubted.as_deref(), now).await? =>
                {
                    ("reauth", Some(first), None)
                }
                Some(first) => ("uncertain", Some(first), after(now, ASKED_AGAIN_AFTER)?),
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
            // That a doubt was given up is known by this word.
            (RefreshFailure::Unsent | RefreshFailure::Refused, Doubt::Given) => {
                RefreshFailure::Doubtful.as_str()
            }
            _ => end.as_str(),
        };
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

    /// Gives up what has been in doubt for [`DOUBT_LASTS`] without a word of the provider that it
    /// is dead: it is taken for good again, and tried on. How many there were.
    pub async fn end_doubts(&self) -> Result<u64> {
        // A glance first: this is asked often, and seldom is there one.
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
            // One whose audit log cannot be written keeps no other from this.
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
        let begun_by = now.saturating_sub(DOUBT_LASTS).map_err(Error::internal)?;
        // One in flight that is not overdue is about to say more. That there is an app to mend is
        // an answer, and worth more than that others were lost.
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

    /// Sees to what this node's earlier runs left: pairs that wait in the journal are stored, and
    /// refreshes that were in flight are taken over at once. What one pair meets keeps no other
    /// from being stored. What is superseded stays in the journal until the caller takes it out.
    ///
    /// None while the journal is not to be had, as where an earlier run is not at its end yet:
    /// nobody replays what a pair that may wait in there was redeemed for.
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

    /// A pair that waits in the journal as it is sealed now. Versions before this one sealed pairs
    /// without their destination: such a pair gets the destination that the account's present
    /// credential proves.
    async fn bound(&self, pair: PendingPair) -> Result<PendingPair> {
        if pair.destination.is_some() {
            return Ok(pair);
        }
        let destination = self.destination(&pair.project, pair.account).await?;
        let sealer = FieldSealer::of(self, &pair.project, pair.account).await?;
        let (Some(destination), Some(sealer)) = (destination, sealer) else {
            // Its account was purged, and nobody commits it.
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

    /// A pair that waits in the journal, opened, with where it may be sent; None if its project is no
    /// more.
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

    /// From now on this process, and no other, sees to what its node's earlier runs left in
    /// flight: they will not tell any more.
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

    /// Whether the process that may hold a successor still runs, and so may yet come out with it.
    async fn is_alive(&self, tx: &mut Tx, replica: Option<&str>, now: Timestamp) -> Result<bool> {
        let Some(replica) = replica else {
            return Ok(false);
        };
        let alive_after = now.saturating_sub(DEAD_AFTER).map_err(Error::internal)?;
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
    /// Whether nothing has said for long what became of the refresh token, so that it counts
    /// whether the provider takes the access token.
    pub fn is_long_in_doubt(&self) -> bool {
        matches!(self.doubt, Doubt::Long | Doubt::Given)
    }

    /// The new pair as it is stored, wherever it waits for that.
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
