//! Scans of a provider's list, page by page, and the checks of their result.
//!
//! Pages by offset are not a snapshot. If a record is removed from the front during a [`ListScan`],
//! all others move up by one, and a record that was there throughout can slip between two pages. A
//! scan with signs of that is followed by a second one: a total that changed, a record seen twice,
//! or fewer records than the provider's total. A [`MergedList`] is the union of both. Whether it is
//! complete is known only after the look-ups of missing records, so that check is in
//! [`super::assess`].

use std::collections::{BTreeMap, BTreeSet};

use super::field_loss::too_many;
use crate::model::{
    id::RemoteId,
    observed::{ObservedGroup, ObservedUser},
    walks::{ListName, WalkReason},
};

/// The pages that a list may have beyond those that its total needs.
const SPARE_PAGES: u64 = 10;

/// The most pages of a list without a total.
const PAGES_WITHOUT_TOTAL: u64 = 10_000;

/// The most pages of any list, whatever total it states.
const MOST_PAGES: u64 = 100_000;

/// A record type that the provider lists.
pub trait ListItem {
    /// Whether an empty list is accepted, once a second scan confirms it.
    const MAY_BE_EMPTY: bool;

    const LIST: ListName;

    fn remote_id(&self) -> &RemoteId;
}

impl ListItem for ObservedUser {
    /// The credential belongs to a user, so the list of users cannot be empty.
    const MAY_BE_EMPTY: bool = false;
    const LIST: ListName = ListName::Users;

    fn remote_id(&self) -> &RemoteId {
        &self.remote_id
    }
}

impl ListItem for ObservedGroup {
    const MAY_BE_EMPTY: bool = true;
    const LIST: ListName = ListName::Groups;

    fn remote_id(&self) -> &RemoteId {
        &self.remote_id
    }
}

/// One response to a request for a page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPage<T> {
    pub records: Vec<T>,
    /// Rows that could not be parsed, each with its id if the id could be parsed.
    pub quarantined: Vec<Option<RemoteId>>,
    /// The page number that the provider states.
    pub number: Option<u64>,
    /// The number of records on all pages, if the provider states it.
    pub total: Option<u64>,
    pub total_pages: Option<u64>,
    /// The size of a full page, if the provider states it. It can differ from the requested size.
    pub page_size: Option<u64>,
}

impl<T> ListedPage<T> {
    fn rows(&self) -> u64 {
        (self.records.len() + self.quarantined.len()) as u64
    }

    fn stated_size(&self) -> Option<u64> {
        self.page_size.filter(|size| *size > 0)
    }
}

/// One scan of a list, from its first page to its last.
#[derive(Debug)]
pub struct ListScan<T> {
    /// The requested page size.
    asked_size: u64,
    /// The page size that the responses state; the smallest, if they differ.
    stated_size: Option<u64>,
    /// Whether responses state different page sizes. Pages may then overlap or leave rows out.
    has_mixed_sizes: bool,
    /// The number of rows on the first page.
    first_rows: u64,
    taken: BTreeMap<u64, TakenPage>,
    /// Each with its page.
    records: Vec<(T, u32)>,
    quarantined: Vec<Option<RemoteId>>,
    /// The last page according to the newest response; None while it is unknown.
    last_page: Option<u64>,
    has_moved: bool,
    min_trusted_rows: u64,
    /// Whether records were found after the end that the totals state.
    continued_past_total: bool,
}

#[derive(Debug)]
struct TakenPage {
    ids: Vec<RemoteId>,
    total: Option<u64>,
    /// Whether the page has as many rows as a page can have, as far as that is known.
    is_full: bool,
}

impl TakenPage {
    /// A page without records, or whose records are ignored.
    const fn nothing(total: Option<u64>) -> Self {
        Self {
            ids: Vec::new(),
            total,
            is_full: false,
        }
    }
}

impl<T: ListItem> ListScan<T> {
    /// A scan with pages of `page_size`, which must be above zero.
    pub fn new(page_size: u64) -> Self {
        Self {
            asked_size: page_size.max(1),
            stated_size: None,
            has_mixed_sizes: false,
            first_rows: 0,
            taken: BTreeMap::new(),
            records: Vec::new(),
            quarantined: Vec::new(),
            last_page: None,
            has_moved: false,
            min_trusted_rows: 0,
            continued_past_total: false,
        }
    }

    /// Does not trust the total while the scan has fewer than `rows` rows: if the last page is
    /// full, one more page is requested. Some providers state the rows of the page as the total.
    #[must_use]
    pub fn distrust_totals_below(mut self, rows: u64) -> Self {
        self.min_trusted_rows = rows;
        self
    }

    /// The pages to request next, which may be requested in parallel. Empty: the scan is complete.
    pub fn wanted(&self) -> Vec<u64> {
        let Some(last) = self.last_page else {
            return vec![self.taken.keys().last().map_or(1, |page| page + 1)];
        };
        let mut wanted: Vec<_> = (1..=last)
            .filter(|page| !self.taken.contains_key(page))
            .collect();
        if wanted.is_empty() {
            wanted.extend(self.past_end(last));
        }
        wanted
    }

    /// The page after `last`, if it must be requested too.
    fn past_end(&self, last: u64) -> Option<u64> {
        let last = last.max(1);
        let is_doubted = self.continued_past_total || self.rows() < self.min_trusted_rows;
        let is_full = self.taken.get(&last).is_some_and(|page| page.is_full);
        (is_doubted && is_full && !self.taken.contains_key(&(last + 1))).then_some(last + 1)
    }

    /// Whether page `asked` is after the end that the totals state, so that the provider may not
    /// have it.
    pub fn is_past_end(&self, asked: u64) -> bool {
        self.last_page.is_some_and(|last| asked > last.max(1)) && self.wanted() == [asked]
    }

    /// Records that the provider has no page `asked`, which [is past the end](Self::is_past_end).
    pub fn take_nothing(&mut self, asked: u64) {
        self.taken.insert(asked, TakenPage::nothing(None));
    }

    /// Adds the response for page `asked`. An error ends the walk.
    pub fn take(&mut self, asked: u64, page: ListedPage<T>) -> Result<(), WalkReason> {
        if self.is_past_end(asked) {
            return self.take_past_end(asked, page);
        }
        let rows = page.rows();
        if rows == 0 && asked == 1 && (page.total.is_none() || !T::MAY_BE_EMPTY) {
            return Err(WalkReason::InvalidReply);
        }
        if let Some(TakenPage { total, .. }) = self.taken.values().next() {
            self.has_moved |= *total != page.total;
        }
        if asked == 1 {
            self.first_rows = rows;
        }
        let last_page = self.last_page_by(asked, &page)?;
        self.last_page = last_page;
        // After the end, a provider may repeat its last page. This page was not after the end when
        // the length became known, so the list has shrunk, and the records of this response are
        // ignored.
        if last_page.is_some_and(|last| last.max(1) < asked) {
            self.has_moved = true;
            self.taken.insert(asked, TakenPage::nothing(page.total));
            return Ok(());
        }
        if page.number.is_some_and(|number| number != asked) {
            return Err(WalkReason::RepeatedPage);
        }
        let ids = ids(&page.records);
        let is_repeated = !ids.is_empty()
            && self
                .taken
                .values()
                .any(|other| other.ids == ids && other.total == page.total);
        if is_repeated {
            return Err(WalkReason::RepeatedPage);
        }
        let taken = TakenPage {
            ids,
            total: page.total,
            is_full: self.is_full(asked, &page),
        };
        self.keep(asked, taken, page);
        Ok(())
    }

    /// Adds a page after the stated end. It is ignored unless it has records that were not seen
    /// before. In that case the totals were wrong, and the scan continues to a page that is not
    /// full.
    fn take_past_end(&mut self, asked: u64, mut page: ListedPage<T>) -> Result<(), WalkReason> {
        let is_another = page.number.is_some_and(|number| number != asked);
        let known: BTreeSet<_> = self
            .records
            .iter()
            .map(|(record, _)| record.remote_id())
            .collect();
        let ids = ids(&page.records);
        let is_known: Vec<_> = ids.iter().map(|id| known.contains(id)).collect();
        if is_another || is_known.iter().all(|is_known| *is_known) {
            self.take_nothing(asked);
            return Ok(());
        }
        // Without this bound, a list without an end would never stop the scan.
        if asked >= PAGES_WITHOUT_TOTAL {
            return Err(WalkReason::RepeatedPage);
        }
        let first_total = self.taken.values().next().map(|page| page.total);
        self.has_moved |= first_total != Some(page.total) || is_known.contains(&true);
        self.continued_past_total = true;
        self.last_page = Some(asked);
        let taken = TakenPage {
            ids,
            total: page.total,
            is_full: self.is_full(asked, &page),
        };
        let mut is_known = is_known.into_iter();
        page.records.retain(|_| is_known.next() != Some(true));
        self.keep(asked, taken, page);
        Ok(())
    }

    fn keep(&mut self, asked: u64, taken: TakenPage, page: ListedPage<T>) {
        self.taken.insert(asked, taken);
        let number = u32::try_from(asked).unwrap_or(u32::MAX);
        let records = page.records.into_iter();
        self.records.extend(records.map(|record| (record, number)));
        self.quarantined.extend(page.quarantined);
    }

    /// Whether this page has as many rows as a page can have. A provider may return fewer rows than
    /// requested; if no response states the page size, a page is full that has as many rows as the
    /// first.
    fn is_full(&self, asked: u64, page: &ListedPage<T>) -> bool {
        let size = match page.stated_size() {
            Some(size) => size.min(self.asked_size),
            None if asked == 1 => 1,
            None => self.first_rows.clamp(1, self.asked_size),
        };
        page.rows() >= size
    }

    /// The last page according to this response; None if it is not known yet.
    fn last_page_by(
        &mut self,
        asked: u64,
        page: &ListedPage<T>,
    ) -> Result<Option<u64>, WalkReason> {
        let rows = page.rows();
        let Some(total) = page.total else {
            let size = page.stated_size().unwrap_or(self.asked_size);
            return match self.last_page {
                // An earlier response gave the last page.
                Some(last) => Ok(Some(last)),
                None if rows < size.min(self.asked_size) => Ok(Some(asked)),
                None if asked >= PAGES_WITHOUT_TOTAL => Err(WalkReason::RepeatedPage),
                None => Ok(None),
            };
        };
        let told_pages = page.total_pages.filter(|pages| *pages > 0 || total == 0);
        // A last page may state its own number of rows as the page size.
        let is_end = asked > 1 && self.last_page.is_some_and(|last| asked >= last);
        if let Some(size) = page.stated_size()
            && !is_end
        {
            let former = *self.stated_size.get_or_insert(size);
            self.has_mixed_sizes |= former != size;
            self.stated_size = Some(former.min(size));
        }
        self.has_moved |= self.has_mixed_sizes;
        let size = match self.stated_size {
            Some(size) => size,
            None if told_pages.is_none() && (1..total).contains(&self.first_rows) => {
                self.first_rows.min(self.asked_size)
            }
            None => self.asked_size,
        };
        let needed = total.div_ceil(size);
        let last = match told_pages {
            // The stated number of pages may belong to another page size.
            Some(pages) if self.has_mixed_sizes => pages.max(needed),
            Some(pages) => pages,
            None => needed,
        };
        let smallest = match self.first_rows {
            0 => size,
            first_rows => size.min(first_rows),
        };
        // Far more pages than the total can fill: the list might never end.
        if last > total.div_ceil(smallest).saturating_add(SPARE_PAGES) || last > MOST_PAGES {
            return Err(WalkReason::RepeatedPage);
        }
        Ok(Some(last))
    }

    /// The number of rows so far.
    fn rows(&self) -> u64 {
        (self.records.len() + self.quarantined.len()) as u64
    }

    /// The largest total that a page of this scan stated.
    fn largest_total(&self) -> Option<u64> {
        self.taken.values().filter_map(|page| page.total).max()
    }

    /// Fails if the scan is incomplete or if too many rows could not be parsed.
    fn judge(&self) -> Result<(), WalkReason> {
        if !self.wanted().is_empty() {
            return Err(WalkReason::Incomplete);
        }
        let (read, quarantined) = (self.records.len(), self.quarantined.len());
        let is_all = read == 0 && quarantined > 0 && !T::MAY_BE_EMPTY;
        if is_all || too_many(quarantined, read + quarantined) {
            return Err(WalkReason::TooManyInvalidRecords);
        }
        Ok(())
    }
}

fn ids<T: ListItem>(records: &[T]) -> Vec<RemoteId> {
    records
        .iter()
        .map(|record| record.remote_id().clone())
        .collect()
}

/// The union of one or two scans of a list.
#[derive(Debug)]
pub struct MergedList<T> {
    seen: BTreeMap<RemoteId, Observation<T>>,
    /// Listed records whose row could not be parsed in any scan.
    unreadable: BTreeSet<RemoteId>,
    /// The rows without a readable id.
    nameless: u64,
    largest_total: Option<u64>,
    is_settled: bool,
    passes: u8,
}

#[derive(Debug)]
struct Observation<T> {
    record: T,
    page: u32,
    in_last_pass: bool,
}

impl<T: ListItem> MergedList<T> {
    /// The result of a first scan.
    pub fn of(pass: ListScan<T>) -> Result<Self, WalkReason> {
        pass.judge()?;
        let largest_total = pass.largest_total();
        let rows = pass.records.len();
        let nameless = pass.quarantined.iter().filter(|id| id.is_none()).count() as u64;
        let mut unreadable: BTreeSet<_> = pass.quarantined.into_iter().flatten().collect();
        let seen: BTreeMap<_, _> = pass
            .records
            .into_iter()
            .map(|(record, page)| {
                let sighting = Observation {
                    in_last_pass: true,
                    page,
                    record,
                };
                (sighting.record.remote_id().clone(), sighting)
            })
            .collect();
        unreadable.retain(|id| !seen.contains_key(id));
        Ok(Self {
            is_settled: !pass.has_moved && seen.len() == rows,
            seen,
            unreadable,
            nameless,
            largest_total,
            passes: 1,
        })
    }

    /// Whether the list must be scanned again before it can be used.
    pub fn needs_second_pass(&self) -> bool {
        self.passes == 1 && (!self.is_settled || self.falls_short_by(0) || self.count() == 0)
    }

    /// Adds a second scan.
    pub fn join(self, second: ListScan<T>) -> Result<Self, WalkReason> {
        let mut union = Self::of(second)?;
        for (id, mut first) in self.seen {
            first.in_last_pass = union.unreadable.remove(&id);
            union.seen.entry(id).or_insert(first);
        }
        let seen = &union.seen;
        union.unreadable.extend(
            self.unreadable
                .into_iter()
                .filter(|id| !seen.contains_key(id)),
        );
        union.nameless = union.nameless.max(self.nameless);
        union.passes = 2;
        Ok(union)
    }

    /// Whether there are fewer records than the provider's total minus `departed`.
    pub(super) fn falls_short_by(&self, departed: u64) -> bool {
        self.largest_total
            .is_some_and(|total| self.count() + departed < total)
    }

    /// The number of records that the list is known to contain.
    pub fn count(&self) -> u64 {
        (self.seen.len() + self.unreadable.len()) as u64 + self.nameless
    }

    /// The records in order of id, each with whether the last scan saw it.
    pub(super) fn records(&self) -> impl Iterator<Item = (&T, bool)> {
        self.seen
            .values()
            .map(|sighting| (&sighting.record, sighting.in_last_pass))
    }

    /// The page of each record, in order of id.
    pub(super) fn pages(&self) -> impl Iterator<Item = (&str, u32)> {
        self.seen
            .iter()
            .map(|(id, sighting)| (id.as_str(), sighting.page))
    }

    /// The number of rows that could not be parsed.
    pub fn quarantined(&self) -> u64 {
        self.unreadable.len() as u64 + self.nameless
    }

    /// The number of rows without a readable id. That many missing records may be in the list after
    /// all.
    pub(super) fn nameless(&self) -> u64 {
        self.nameless
    }

    /// Whether the record was in the list at the end of the walk, even as a row that could not be
    /// parsed.
    pub(super) fn shows(&self, id: &str) -> bool {
        self.seen.get(id).is_some_and(|seen| seen.in_last_pass) || self.unreadable.contains(id)
    }

    pub(super) fn has_record(&self, id: &str) -> bool {
        self.seen.contains_key(id)
    }

    pub(super) fn is_unreadable(&self, id: &str) -> bool {
        self.unreadable.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::testing::{group, id, listed_page, listing, user};

    const SIZE: usize = 10;

    fn people(n: usize) -> Vec<ObservedUser> {
        (0..n).map(|i| user(&format!("u{i:03}"))).collect()
    }

    fn page(all: &[ObservedUser], number: u64) -> ListedPage<ObservedUser> {
        listed_page(all, SIZE, number)
    }

    /// Reads `worlds[n]` at request n, and the last of them from then on.
    fn pass_over(worlds: &[&[ObservedUser]]) -> Result<ListScan<ObservedUser>, WalkReason> {
        let mut pass = ListScan::new(SIZE as u64);
        let mut requests = 0;
        while let Some(asked) = pass.wanted().first().copied() {
            let world = worlds[requests.min(worlds.len() - 1)];
            pass.take(asked, page(world, asked))?;
            requests += 1;
        }
        Ok(pass)
    }

    #[test]
    fn the_first_page_tells_which_others_to_ask_for_at_once() {
        let all = people(35);
        let mut pass = ListScan::new(SIZE as u64);
        assert_eq!(pass.wanted(), [1]);
        pass.take(1, page(&all, 1)).unwrap();
        assert_eq!(pass.wanted(), [2, 3, 4]);
        for asked in [4, 2, 3] {
            pass.take(asked, page(&all, asked)).unwrap();
        }
        assert!(pass.wanted().is_empty());
        let listing = MergedList::of(pass).unwrap();
        assert_eq!(listing.count(), 35);
        assert!(!listing.needs_second_pass());
    }

    #[test]
    fn somebody_who_falls_between_two_pages_is_met_by_the_second_pass() {
        let before = people(25);
        let after = before[1..].to_vec();
        let first = MergedList::of(pass_over(&[&before, &after]).unwrap()).unwrap();
        assert!(!first.shows("u010"), "shifted from page 2 to page 1");
        assert!(first.needs_second_pass());
        let union = first.join(pass_over(&[&after]).unwrap()).unwrap();
        assert!(union.shows("u010"));
        assert!(union.has_record("u000") && !union.shows("u000"));
        assert!(!union.falls_short_by(0));
    }

    #[test]
    fn a_list_that_shrinks_below_the_asked_page_has_moved_and_not_repeated() {
        let before = people(21);
        let after = people(20);
        let mut pass = ListScan::new(SIZE as u64);
        pass.take(1, page(&before, 1)).unwrap();
        pass.take(2, page(&before, 2)).unwrap();
        pass.take(3, page(&after, 2)).unwrap();
        let listing = MergedList::of(pass).unwrap();
        assert!(listing.needs_second_pass());
        assert_eq!(listing.count(), 20);
    }

    #[test]
    fn a_page_served_twice_fails_the_walk() {
        let all = people(30);
        let mut pass = ListScan::new(SIZE as u64);
        pass.take(1, page(&all, 1)).unwrap();
        let mut again = page(&all, 1);
        again.number = Some(2);
        assert_eq!(pass.take(2, again), Err(WalkReason::RepeatedPage));
        assert_eq!(pass.take(2, page(&all, 1)), Err(WalkReason::RepeatedPage));
    }

    #[test]
    fn pages_without_end_fail_the_walk() {
        let all = people(30);
        let mut endless = page(&all, 1);
        endless.total_pages = Some(14);
        let mut pass = ListScan::new(SIZE as u64);
        assert_eq!(pass.take(1, endless), Err(WalkReason::RepeatedPage));
    }

    #[test]
    fn without_totals_a_list_is_read_to_a_short_page_and_may_not_begin_empty() {
        let all = people(25);
        let untold = |number| ListedPage {
            total: None,
            total_pages: None,
            ..page(&all, number)
        };
        let mut pass = ListScan::new(SIZE as u64);
        for asked in 1..=3 {
            assert_eq!(pass.wanted(), [asked]);
            pass.take(asked, untold(asked)).unwrap();
        }
        let listing = MergedList::of(pass).unwrap();
        assert_eq!(listing.count(), 25);
        assert!(!listing.needs_second_pass());

        let mut groups = ListScan::<ObservedGroup>::new(SIZE as u64);
        let empty = ListedPage {
            total: None,
            total_pages: None,
            ..listed_page(&[], SIZE, 1)
        };
        assert_eq!(groups.take(1, empty), Err(WalkReason::InvalidReply));
    }

    #[test]
    fn no_users_is_a_failure_and_no_groups_wants_confirming() {
        assert_eq!(pass_over(&[&[]]).map(|_| ()), Err(WalkReason::InvalidReply));
        let mut pass = ListScan::<ObservedGroup>::new(SIZE as u64);
        pass.take(1, listed_page(&[], SIZE, 1)).unwrap();
        assert!(MergedList::of(pass).unwrap().needs_second_pass());
        assert!(!listing::<ObservedGroup>(&[]).needs_second_pass());
        assert!(!listing(&[group("g1")]).needs_second_pass());
    }

    #[test]
    fn fewer_people_than_the_total_want_a_second_pass_and_then_fall_short() {
        let all = people(25);
        let missing_one = |number| {
            let mut page = page(&all, number);
            if number == 3 {
                page.records.pop();
            }
            page
        };
        let pass = || {
            let mut pass = ListScan::new(SIZE as u64);
            for asked in 1..=3 {
                pass.take(asked, missing_one(asked)).unwrap();
            }
            pass
        };
        let listing = MergedList::of(pass()).unwrap();
        assert!(listing.needs_second_pass());
        let listing = listing.join(pass()).unwrap();
        assert!(listing.falls_short_by(0));
        assert!(!listing.falls_short_by(1));
    }

    #[test]
    fn a_bad_row_counts_as_seen_and_too_many_fail_the_walk() {
        let with_bad_rows = |all: usize, bad: usize| {
            let all = people(all);
            let mut pass = ListScan::new(100);
            while let Some(asked) = pass.wanted().first().copied() {
                let mut page = listed_page(&all, 100, asked);
                if asked == 1 {
                    for _ in 0..bad {
                        page.records.pop().unwrap();
                        page.quarantined.push(None);
                    }
                }
                pass.take(asked, page).unwrap();
            }
            MergedList::of(pass)
        };
        let too_many = WalkReason::TooManyInvalidRecords;
        // Three, or one row in twenty if that is more; but never all rows.
        for (all, most) in [(4, 3), (30, 3), (79, 3), (80, 4), (200, 10), (210, 10)] {
            let listing = with_bad_rows(all, most).unwrap();
            assert!(!listing.needs_second_pass() && !listing.falls_short_by(0));
            assert_eq!(listing.quarantined(), most as u64);
            let error = with_bad_rows(all, most + 1).map(|_| ()).unwrap_err();
            assert_eq!(error, too_many, "{all}");
        }
        assert_eq!(with_bad_rows(3, 3).map(|_| ()).unwrap_err(), too_many);
    }

    #[test]
    fn a_provider_may_give_fewer_rows_a_page_than_it_is_asked_for() {
        let all = people(1200);
        for (size, pages) in [
            (Some(25), Some(48)),
            (Some(25), None),
            // The provider repeats the requested size.
            (Some(100), Some(48)),
            (None, Some(48)),
            (None, None),
        ] {
            let page = |asked| ListedPage {
                page_size: size,
                total_pages: pages,
                ..listed_page(&all, 25, asked)
            };
            let mut pass = ListScan::new(100).distrust_totals_below(u64::MAX);
            pass.take(1, page(1)).unwrap();
            let wanted = pass.wanted();
            assert_eq!(wanted, (2..=48).collect::<Vec<_>>(), "{size:?} {pages:?}");
            // Parallel responses arrive in any order.
            for asked in wanted.into_iter().rev() {
                pass.take(asked, page(asked)).unwrap();
            }
            if let Some(past_end) = pass.wanted().first().copied() {
                assert_eq!(past_end, 49);
                pass.take(49, page(49)).unwrap();
            }
            assert!(pass.wanted().is_empty());
            let listing = MergedList::of(pass).unwrap();
            assert_eq!(listing.count(), 1200, "{size:?} {pages:?}");
            assert!(!listing.needs_second_pass(), "{size:?} {pages:?}");
        }
    }

    #[test]
    fn a_size_that_changes_within_a_pass_loses_nobody() {
        let all = people(500);
        let page = |asked| match asked {
            1 => listed_page(&all, 100, 1),
            _ => listed_page(&all, 25, asked),
        };
        let pass = || {
            let mut pass = ListScan::new(100);
            while let Some(asked) = pass.wanted().first().copied() {
                pass.take(asked, page(asked)).unwrap();
            }
            pass
        };
        let listing = MergedList::of(pass()).unwrap();
        assert_eq!(listing.count(), 500);
        assert!(listing.needs_second_pass());
        let listing = listing.join(pass()).unwrap();
        assert_eq!(listing.count(), 500);
        assert!(!listing.needs_second_pass() && !listing.falls_short_by(0));
    }

    /// A record was added during the second scan, and no page showed it.
    #[test]
    fn the_largest_total_of_a_pass_counts_wherever_it_was_told() {
        let all = people(20);
        for totals in [[20, 21], [21, 20]] {
            let mut second = ListScan::new(SIZE as u64);
            for (number, total) in (1..).zip(totals) {
                let mut page = page(&all, number);
                page.total = Some(total);
                second.take(number, page).unwrap();
            }
            let first = MergedList::of(pass_over(&[&all]).unwrap()).unwrap();
            let listing = first.join(second).unwrap();
            assert_eq!(listing.count(), 20);
            assert!(listing.falls_short_by(0), "{totals:?}");
            assert!(!listing.falls_short_by(1), "{totals:?}");
        }
    }

    /// Scans a list in which each page states its own total, as on a first walk.
    fn doubted(
        all: &[ObservedUser],
        total: impl Fn(&ListedPage<ObservedUser>) -> Option<u64>,
        past_end: impl Fn(u64) -> Option<ListedPage<ObservedUser>>,
    ) -> (MergedList<ObservedUser>, Vec<u64>) {
        let mut pass = ListScan::new(SIZE as u64).distrust_totals_below(u64::MAX);
        let mut asked_for = Vec::new();
        while let Some(asked) = pass.wanted().first().copied() {
            asked_for.push(asked);
            let mut reply = match page(all, asked) {
                page if page.records.is_empty() => match past_end(asked) {
                    Some(page) => page,
                    None => {
                        assert!(pass.is_past_end(asked));
                        pass.take_nothing(asked);
                        continue;
                    }
                },
                page => page,
            };
            reply.total = total(&reply);
            reply.total_pages = None;
            pass.take(asked, reply).unwrap();
        }
        (MergedList::of(pass).unwrap(), asked_for)
    }

    #[test]
    fn a_total_that_is_only_its_pages_count_is_not_believed() {
        let all = people(25);
        let rows = |page: &ListedPage<_>| Some(page.rows());
        let (listing, asked) = doubted(&all, rows, |_| None);
        assert_eq!((listing.count(), asked), (25, vec![1, 2, 3]));
        // Every page states the page size as the total.
        let (listing, asked) = doubted(&all, |_| Some(10), |_| None);
        assert_eq!((listing.count(), asked), (25, vec![1, 2, 3]));
        assert!(!listing.needs_second_pass() && !listing.falls_short_by(0));
        // The same if the last page is full.
        let (listing, asked) = doubted(&people(30), |_| Some(10), |_| None);
        assert_eq!((listing.count(), asked), (30, vec![1, 2, 3, 4]));
    }

    #[test]
    fn a_page_past_the_end_counts_only_with_records_that_were_not_seen() {
        let all = people(20);
        let right = |_: &ListedPage<_>| Some(20);
        let empty = |asked| Some(page(&all, asked));
        let last_again = |asked| {
            Some(ListedPage {
                number: Some(asked),
                ..page(&all, 2)
            })
        };
        let another_number = |_| Some(page(&people(30), 2));
        let strangers_elsewhere = |_| {
            Some(ListedPage {
                number: Some(2),
                ..page(&people(30), 3)
            })
        };
        let past_ends: [&dyn Fn(u64) -> Option<ListedPage<ObservedUser>>; 5] = [
            &|_| None,
            &empty,
            &last_again,
            &another_number,
            &strangers_elsewhere,
        ];
        for past_end in past_ends {
            let (listing, asked) = doubted(&all, right, past_end);
            assert_eq!((listing.count(), asked), (20, vec![1, 2, 3]));
            assert!(!listing.needs_second_pass() && !listing.falls_short_by(0));
        }
        // A last page that is not full is the end.
        let (_, asked) = doubted(&people(19), |_| Some(19), |_| None);
        assert_eq!(asked, [1, 2]);
    }

    #[test]
    fn whoever_is_seen_past_the_end_beside_the_known_wants_a_second_pass() {
        let all = people(20);
        let shifted = |asked| {
            let people = people(21);
            (asked == 3).then(|| ListedPage {
                number: Some(3),
                ..page(&people[11..], 1)
            })
        };
        let (listing, _) = doubted(&all, |_| Some(20), shifted);
        assert_eq!(listing.count(), 21);
        assert!(listing.needs_second_pass());
    }

    #[test]
    fn an_absurd_total_ends_the_pass() {
        let all = people(30);
        for (total, pages) in [(u64::MAX, None), (10_000_000_000, Some(1_000_000_000))] {
            let absurd = ListedPage {
                total: Some(total),
                total_pages: pages,
                ..page(&all, 1)
            };
            let mut pass = ListScan::new(SIZE as u64);
            assert_eq!(pass.take(1, absurd), Err(WalkReason::RepeatedPage));
        }
    }

    #[test]
    fn a_row_read_well_once_is_not_lost_to_a_bad_row_in_the_second_pass() {
        let all = people(200);
        let before = people(201);
        let mut first = ListScan::new(100);
        for asked in 1..=2 {
            first.take(asked, listed_page(&before, 100, asked)).unwrap();
        }
        first.take(3, listed_page(&all, 100, 2)).unwrap();
        let mut second = ListScan::new(100);
        for asked in 1..=2 {
            let mut page = listed_page(&all, 100, asked);
            if asked == 1 {
                page.records.remove(7);
                page.quarantined.push(Some(id("u007")));
            }
            second.take(asked, page).unwrap();
        }
        let union = MergedList::of(first).unwrap().join(second).unwrap();
        assert!(union.has_record("u007") && union.shows("u007"));
    }
}
