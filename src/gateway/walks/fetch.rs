//! Fetches a provider's lists and records for a walk: pages and look-ups concurrently, at most
//! `walk.parallel_reads` at once. The rate limiter of the account's token admits each call.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use futures_util::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};

use super::{WalkHandle, failure::WalkFailure};
use crate::{
    clock::Clock,
    connectors::{Connector, ListPage, Presence, QuarantinedRow, Session},
    directory::{
        Answers, GroupAnswer, GroupRead, ListItem, ListScan, ListedPage, Lookups, MemberList,
        MergedList, UserAnswer, too_many,
    },
    model::{
        id::{AccountId, RemoteId, WalkId},
        observed::{Identity, ObservedGroup, ObservedMember},
        schema::Reason,
        walks::{ListName, WalkReason},
    },
    outbound::{CallError, CallErrorKind},
};

/// Maximum number of rows without a usable id that are logged for one walk.
const MOST_ROWS_LOGGED: usize = 20;

/// A call in flight, as a connector returns it.
type Call<'a, T> = BoxFuture<'a, Result<T, CallError>>;

type Fetched<'a, T> = Call<'a, ListPage<T>>;

/// Fetches data for one walk.
pub(super) struct Reader<'a> {
    pub connector: &'a dyn Connector,
    pub session: &'a Session,
    pub account: AccountId,
    pub handle: &'a WalkHandle,
    pub clock: &'a Clock,
    pub parallel: usize,
}

impl Reader<'_> {
    /// The identity of the credential's owner.
    pub async fn identify(&self) -> Result<Identity, WalkFailure> {
        let identity = self.connector.identify(self.session);
        self.handle
            .unless_abandoned(async { Ok(identity.await?) })
            .await
    }

    /// A complete list, after one scan or, if one is not conclusive, two. Totals below `plausible`
    /// rows are not trusted.
    pub async fn list<'f, T: ListItem + Send + 'f>(
        &self,
        plausible: u64,
        fetch: impl Fn(u64) -> Fetched<'f, T>,
    ) -> Result<MergedList<T>, WalkFailure> {
        let mut listing = MergedList::of(self.pass(plausible, &fetch).await?)?;
        if listing.needs_second_pass() {
            listing = listing.join(self.pass(plausible, &fetch).await?)?;
        }
        self.handle.note_quarantined(T::LIST, listing.quarantined());
        Ok(listing)
    }

    async fn pass<'f, T: ListItem + Send + 'f>(
        &self,
        plausible: u64,
        fetch: &impl Fn(u64) -> Fetched<'f, T>,
    ) -> Result<ListScan<T>, WalkFailure> {
        let page_size = self.connector.page_size();
        let mut pass = ListScan::new(page_size).distrust_totals_below(plausible);
        let mut quarantined = BTreeMap::new();
        loop {
            let wanted = pass.wanted();
            if wanted.is_empty() {
                break;
            }
            self.handle.expect(wanted.len());
            let mut replies =
                self.side_by_side(wanted.into_iter().map(|number| (number, fetch(number))));
            while let Some((number, reply)) = replies.next().await {
                let mut page = match reply {
                    // Some providers reject a page after the last one instead of returning an empty
                    // page.
                    Err(error) if pass.is_past_end(number) && is_no_such_page(&error) => {
                        self.handle.note(0, self.clock);
                        pass.take_nothing(number);
                        continue;
                    }
                    reply => reply?,
                };
                self.handle.note(page.records.len(), self.clock);
                let rows = std::mem::take(&mut page.quarantined);
                let ids = rows.iter().map(|(_, row)| row.remote_id.clone()).collect();
                let rows = rows.into_iter().map(|(row, why)| ((number, row), why));
                quarantined.extend(rows);
                pass.take(number, listed(page, ids))?;
            }
        }
        self.tell_of_quarantined(T::LIST, &quarantined);
        Ok(pass)
    }

    /// Logs rows without a usable id by page and index, so that they can be found at the provider.
    /// A second scan of the same list logs none, because it most likely meets the same rows.
    fn tell_of_quarantined(&self, list: ListName, rows: &BTreeMap<(u64, usize), QuarantinedRow>) {
        if self.handle.note_quarantined(list, rows.len() as u64) > 0 {
            return;
        }
        let (account, walk) = (self.account, self.handle.id);
        let list = list.as_str();
        let mut logged = 0;
        for ((page, row), quarantined) in rows.iter().take(self.handle.may_log(rows.len())) {
            let id = quarantined.remote_id.as_ref().map(RemoteId::as_str);
            let fault = quarantined.fault.as_str();
            logged += 1;
            tracing::warn!(
                %account, %walk, list, page, row, id, field = "id", fault,
                "row quarantined: it has no usable id"
            );
        }
        let more = rows.len() - logged;
        if more > 0 {
            tracing::warn!(%account, %walk, list, more, "more rows quarantined");
        }
    }

    /// The members of these groups. One unreadable group does not end the walk. If the provider
    /// fails for too many of them, the remaining groups are not requested: the first walk of an
    /// account then fails, and a later one keeps the known members.
    pub async fn groups(
        &self,
        ids: &[RemoteId],
        is_first_walk: bool,
    ) -> Result<BTreeMap<RemoteId, GroupRead>, WalkFailure> {
        self.handle.expect(ids.len());
        let mut reads = self.side_by_side(
            ids.iter()
                .map(|id| (id, self.connector.group(self.session, id))),
        );
        let mut groups = BTreeMap::new();
        let mut unread = UnreadGroups::default();
        while let Some((id, read)) = reads.next().await {
            let read = match read {
                Ok(read) => self.group_read(read),
                Err(error) => GroupRead::Unread(unread.reason(id, error)?),
            };
            self.handle.note(1, self.clock);
            groups.insert(id.clone(), read);
            if too_many(unread.unanswered, ids.len()) {
                break;
            }
        }
        // Cancels the calls in flight after an early end of the loop.
        drop(reads);
        unread.log(self.handle.id);
        if is_first_walk && too_many(unread.unanswered, ids.len()) {
            return Err(WalkReason::ProviderUnavailable.into());
        }
        for id in ids {
            let unasked = GroupRead::Unread(Reason::NotFetched);
            groups.entry(id.clone()).or_insert(unasked);
        }
        Ok(groups)
    }

    /// Looks up these users and groups by id. A failed look-up proves nothing and does not end the
    /// walk. Only a refused credential does.
    pub async fn look_up(&self, lookups: &Lookups) -> Result<Answers, WalkFailure> {
        self.handle
            .expect(lookups.users.len() + lookups.groups.len());
        let mut answers = Answers::default();
        let mut users = self.side_by_side(
            lookups
                .users
                .iter()
                .map(|id| (id, self.connector.user(self.session, id))),
        );
        while let Some((id, answer)) = users.next().await {
            self.handle.note(0, self.clock);
            if let Some(presence) = unless_refused(answer)? {
                let answer = match presence {
                    Presence::Found(user) => UserAnswer::Found(Box::new(user)),
                    Presence::Departed => UserAnswer::Departed,
                };
                answers.users.insert(id.clone(), answer);
            }
        }
        let mut groups = self.side_by_side(
            lookups
                .groups
                .iter()
                .map(|id| (id, self.connector.group(self.session, id))),
        );
        while let Some((id, answer)) = groups.next().await {
            self.handle.note(0, self.clock);
            if let Some(presence) = unless_refused(answer)? {
                let answer = match presence {
                    Presence::Found(_) => GroupAnswer::Found,
                    Presence::Departed => GroupAnswer::Departed,
                };
                answers.groups.insert(id.clone(), answer);
            }
        }
        Ok(answers)
    }

    /// Runs calls concurrently, up to the limit, and yields each outcome with its key as it
    /// completes.
    fn side_by_side<'f, K: Send + 'f, T: Send + 'f>(
        &self,
        calls: impl Iterator<Item = (K, Call<'f, T>)>,
    ) -> BoxStream<'f, (K, Result<T, CallError>)> {
        let calls: Vec<BoxFuture<'f, _>> = calls
            .map(|(about, call)| async move { (about, call.await) }.boxed())
            .collect();
        stream::iter(calls).buffer_unordered(self.parallel).boxed()
    }

    fn group_read(&self, read: Presence<(ObservedGroup, Vec<ObservedMember>)>) -> GroupRead {
        match read {
            Presence::Found((_, members)) => GroupRead::Members(MemberList {
                members,
                read_at: self.clock.now(),
            }),
            Presence::Departed => GroupRead::Departed,
        }
    }
}

/// Statistics of the groups whose members could not be read.
#[derive(Default)]
struct UnreadGroups {
    groups: usize,
    /// The groups among them for which the provider did not answer.
    unanswered: usize,
    first: Option<(RemoteId, CallError)>,
}

impl UnreadGroups {
    /// The reason why this group's members are unknown. An error that concerns more than this group
    /// ends the walk.
    fn reason(&mut self, id: &RemoteId, error: CallError) -> Result<Reason, WalkFailure> {
        let reason = match error.kind {
            CallErrorKind::Forbidden if error.code.is_some() => Reason::NotPermitted,
            CallErrorKind::Forbidden
            | CallErrorKind::NotFound
            | CallErrorKind::Refused
            | CallErrorKind::Unavailable
            | CallErrorKind::InvalidReply => Reason::NotFetched,
            CallErrorKind::Unauthorized
            | CallErrorKind::AssumeUserRefused
            | CallErrorKind::AssumeUserMissing
            | CallErrorKind::Throttled
            | CallErrorKind::BudgetUnknown => return Err(error.into()),
        };
        self.groups += 1;
        self.unanswered += usize::from(error.kind == CallErrorKind::Unavailable);
        self.first.get_or_insert_with(|| (id.clone(), error));
        Ok(reason)
    }

    fn log(&self, walk: WalkId) {
        if let Some((group, error)) = &self.first {
            tracing::warn!(%walk, groups = self.groups, %group, %error, "members not read");
        }
    }
}

fn unless_refused<T>(answer: Result<T, CallError>) -> Result<Option<T>, WalkFailure> {
    match answer {
        Ok(presence) => Ok(Some(presence)),
        Err(error) if error.kind == CallErrorKind::Unauthorized => Err(error.into()),
        Err(error) => {
            tracing::debug!(%error, "a look-up gave no answer");
            Ok(None)
        }
    }
}

/// Whether the provider states that this page does not exist.
fn is_no_such_page(error: &CallError) -> bool {
    matches!(error.kind, CallErrorKind::Refused | CallErrorKind::NotFound) && error.code.is_some()
}

fn listed<T>(page: ListPage<T>, quarantined: Vec<Option<RemoteId>>) -> ListedPage<T> {
    ListedPage {
        records: page.records,
        quarantined,
        number: page.number,
        total: page.total,
        total_pages: page.total_pages,
        page_size: page.page_size,
    }
}

impl WalkHandle {
    /// Adds reads to the expected total.
    fn expect(&self, reads: usize) {
        self.meter
            .pages_total
            .fetch_add(reads as u64, Ordering::Relaxed);
    }

    /// Records the number of rows of a list without a usable id. Returns the previous number.
    fn note_quarantined(&self, list: ListName, rows: u64) -> u64 {
        let known = match list {
            ListName::Users => &self.meter.quarantined_users,
            ListName::Groups => &self.meter.quarantined_groups,
        };
        known.swap(rows, Ordering::Relaxed)
    }

    /// How many of these rows may still be logged.
    fn may_log(&self, rows: usize) -> usize {
        let logged = &self.meter.rows_logged;
        let before = logged.fetch_add(rows, Ordering::Relaxed);
        MOST_ROWS_LOGGED.saturating_sub(before)
    }

    /// Counts one completed read and its records, and updates the estimate of the remaining time.
    fn note(&self, records: usize, clock: &Clock) {
        let done = self.meter.pages.fetch_add(1, Ordering::Relaxed) + 1;
        self.meter
            .records
            .fetch_add(records as u64, Ordering::Relaxed);
        let total = self.meter.pages_total.load(Ordering::Relaxed);
        let elapsed = crate::clock::since(clock.now(), self.asked_at).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX / 1_000_000);
        let left = elapsed.saturating_mul(total.saturating_sub(done)) / done;
        self.meter.eta_millis.store(left, Ordering::Relaxed);
    }
}
