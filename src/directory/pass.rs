//! Reading a list page by page, and judging what was read (a walk's rules 1 to 3).
//!
//! Pages by offset are no snapshot. Somebody removed from the front while a [`Pass`] is under
//! way pulls everybody behind by one, and one who was there throughout falls between two pages.
//! So a pass that shows signs of that (totals that moved, somebody met twice, fewer people than
//! the provider's own total) is followed by a second one, and a [`Listing`] is the union of the
//! two. Whether the union is whole can only be said once the missing were looked up, so that
//! verdict is not here but in [`super::assess`].

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    id::RemoteId,
    observed::{ObservedGroup, ObservedUser},
    walk::WalkReason,
};

/// Pages that a list may have beyond what its total needs.
const SPARE_PAGES: u64 = 10;

/// How many pages a list of unknown length may have.
const PAGES_WITHOUT_TOTAL: u64 = 10_000;

/// What lists are made of.
pub trait Listed {
    /// Whether a list without a single record can be believed, if a second pass confirms it.
    const MAY_BE_EMPTY: bool;

    fn remote_id(&self) -> &RemoteId;
}

impl Listed for ObservedUser {
    /// The credential itself belongs to a user.
    const MAY_BE_EMPTY: bool = false;

    fn remote_id(&self) -> &RemoteId {
        &self.remote_id
    }
}

impl Listed for ObservedGroup {
    const MAY_BE_EMPTY: bool = true;

    fn remote_id(&self) -> &RemoteId {
        &self.remote_id
    }
}

/// One reply to the question for a page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPage<T> {
    pub records: Vec<T>,
    /// Rows that could not be read, by their id as far as that could.
    pub quarantined: Vec<Option<RemoteId>>,
    /// The page number that the provider says this is.
    pub number: Option<u64>,
    /// How many records there are in all, where the provider says.
    pub total: Option<u64>,
    pub total_pages: Option<u64>,
}

/// One reading of a list from its first page to its last.
#[derive(Debug)]
pub struct Pass<T> {
    page_size: u64,
    taken: BTreeMap<u64, TakenPage>,
    /// Each with the page that it was on.
    records: Vec<(T, u32)>,
    quarantined: Vec<Option<RemoteId>>,
    /// The last page by the newest reply; None until a reply says, or where none will.
    last_page: Option<u64>,
    has_moved: bool,
}

#[derive(Debug)]
struct TakenPage {
    ids: Vec<RemoteId>,
    total: Option<u64>,
}

impl<T: Listed> Pass<T> {
    /// A pass over pages of `page_size`, which is above zero.
    pub fn new(page_size: u64) -> Self {
        Self {
            page_size: page_size.max(1),
            taken: BTreeMap::new(),
            records: Vec::new(),
            quarantined: Vec::new(),
            last_page: None,
            has_moved: false,
        }
    }

    /// The pages to ask for next, which may be asked for at the same time. None: the pass is over.
    pub fn wanted(&self) -> Vec<u64> {
        match self.last_page {
            None => vec![self.taken.keys().last().map_or(1, |page| page + 1)],
            Some(last) => (1..=last)
                .filter(|page| !self.taken.contains_key(page))
                .collect(),
        }
    }

    /// Takes the reply to the question for page `asked`. An error ends the walk.
    pub fn take(&mut self, asked: u64, page: ListedPage<T>) -> Result<(), WalkReason> {
        let rows = page.records.len() + page.quarantined.len();
        if rows == 0 && asked == 1 && (page.total.is_none() || !T::MAY_BE_EMPTY) {
            return Err(WalkReason::InvalidReply);
        }
        if let Some(TakenPage { total, .. }) = self.taken.values().next() {
            self.has_moved |= *total != page.total;
        }
        let last_page = match page.total {
            Some(total) => {
                let needed = total.div_ceil(self.page_size);
                let last = page.total_pages.unwrap_or(needed);
                if last > needed + SPARE_PAGES {
                    return Err(WalkReason::RepeatedPage);
                }
                Some(last)
            }
            None if (rows as u64) < self.page_size => Some(asked),
            None if asked >= PAGES_WITHOUT_TOTAL => return Err(WalkReason::RepeatedPage),
            None => None,
        };
        self.last_page = last_page;
        let mut taken = TakenPage {
            ids: Vec::new(),
            total: page.total,
        };
        // Past the end a provider may repeat its last page. A page that is past the end now was
        // not when we learned how long the list is: it shrank, and this reply says nothing else.
        if last_page.is_some_and(|last| last.max(1) < asked) {
            self.has_moved = true;
            self.taken.insert(asked, taken);
            return Ok(());
        }
        if page.number.is_some_and(|number| number != asked) {
            return Err(WalkReason::RepeatedPage);
        }
        taken.ids = page
            .records
            .iter()
            .map(|record| record.remote_id().clone())
            .collect();
        let is_repeated = !taken.ids.is_empty()
            && self
                .taken
                .values()
                .any(|other| other.ids == taken.ids && other.total == taken.total);
        if is_repeated {
            return Err(WalkReason::RepeatedPage);
        }
        self.taken.insert(asked, taken);
        let number = u32::try_from(asked).unwrap_or(u32::MAX);
        let records = page.records.into_iter();
        self.records.extend(records.map(|record| (record, number)));
        self.quarantined.extend(page.quarantined);
        Ok(())
    }

    /// The largest total that a page of this pass stated.
    fn largest_total(&self) -> Option<u64> {
        self.taken.values().filter_map(|page| page.total).max()
    }

    /// Fails where more is unreadable than can be left out.
    fn judge(&self) -> Result<(), WalkReason> {
        if !self.wanted().is_empty() {
            return Err(WalkReason::Incomplete);
        }
        let rows = (self.records.len() + self.quarantined.len()) as u64;
        if self.quarantined.len() as u64 * 100 > rows {
            return Err(WalkReason::TooManyInvalidRecords);
        }
        Ok(())
    }
}

/// What one or two passes over a list saw.
#[derive(Debug)]
pub struct Listing<T> {
    seen: BTreeMap<RemoteId, Sighting<T>>,
    /// Who is in the list with a row that could not be read, and was never read otherwise.
    unreadable: BTreeSet<RemoteId>,
    /// Unreadable rows that did not even tell whose they are.
    nameless: u64,
    largest_total: Option<u64>,
    is_settled: bool,
    passes: u8,
}

#[derive(Debug)]
struct Sighting<T> {
    record: T,
    page: u32,
    in_last_pass: bool,
}

impl<T: Listed> Listing<T> {
    /// What a first pass saw.
    pub fn of(pass: Pass<T>) -> Result<Self, WalkReason> {
        pass.judge()?;
        let largest_total = pass.largest_total();
        let rows = pass.records.len();
        let nameless = pass.quarantined.iter().filter(|id| id.is_none()).count() as u64;
        let mut unreadable: BTreeSet<_> = pass.quarantined.into_iter().flatten().collect();
        let seen: BTreeMap<_, _> = pass
            .records
            .into_iter()
            .map(|(record, page)| {
                let sighting = Sighting {
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

    /// Whether the list must be read once more before anything is concluded from it.
    pub fn needs_second_pass(&self) -> bool {
        self.passes == 1 && (!self.is_settled || self.falls_short_by(0) || self.count() == 0)
    }

    /// The union with what a second pass saw.
    pub fn join(self, second: Pass<T>) -> Result<Self, WalkReason> {
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

    /// Whether fewer were seen than the provider's total less `departed`.
    pub(super) fn falls_short_by(&self, departed: u64) -> bool {
        self.largest_total
            .is_some_and(|total| self.count() + departed < total)
    }

    /// How many records the list is known to hold.
    pub fn count(&self) -> u64 {
        (self.seen.len() + self.unreadable.len()) as u64 + self.nameless
    }

    /// The records in order of id, each with whether the last pass saw it.
    pub(super) fn records(&self) -> impl Iterator<Item = (&T, bool)> {
        self.seen
            .values()
            .map(|sighting| (&sighting.record, sighting.in_last_pass))
    }

    /// The page that each record was on, in order of id.
    pub(super) fn pages(&self) -> impl Iterator<Item = (&str, u32)> {
        self.seen
            .iter()
            .map(|(id, sighting)| (id.as_str(), sighting.page))
    }

    /// Whether somebody was in the list at the end, be it with a row that could not be read.
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

    /// Reads `worlds[n]` at the nth request, and the last of them from then on.
    fn pass_over(worlds: &[&[ObservedUser]]) -> Result<Pass<ObservedUser>, WalkReason> {
        let mut pass = Pass::new(SIZE as u64);
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
        let mut pass = Pass::new(SIZE as u64);
        assert_eq!(pass.wanted(), [1]);
        pass.take(1, page(&all, 1)).unwrap();
        assert_eq!(pass.wanted(), [2, 3, 4]);
        for asked in [4, 2, 3] {
            pass.take(asked, page(&all, asked)).unwrap();
        }
        assert!(pass.wanted().is_empty());
        let listing = Listing::of(pass).unwrap();
        assert_eq!(listing.count(), 35);
        assert!(!listing.needs_second_pass());
    }

    #[test]
    fn somebody_who_falls_between_two_pages_is_met_by_the_second_pass() {
        let before = people(25);
        let after = before[1..].to_vec();
        let first = Listing::of(pass_over(&[&before, &after]).unwrap()).unwrap();
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
        let mut pass = Pass::new(SIZE as u64);
        pass.take(1, page(&before, 1)).unwrap();
        pass.take(2, page(&before, 2)).unwrap();
        pass.take(3, page(&after, 2)).unwrap();
        let listing = Listing::of(pass).unwrap();
        assert!(listing.needs_second_pass());
        assert_eq!(listing.count(), 20);
    }

    #[test]
    fn a_page_served_twice_fails_the_walk() {
        let all = people(30);
        let mut pass = Pass::new(SIZE as u64);
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
        let mut pass = Pass::new(SIZE as u64);
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
        let mut pass = Pass::new(SIZE as u64);
        for asked in 1..=3 {
            assert_eq!(pass.wanted(), [asked]);
            pass.take(asked, untold(asked)).unwrap();
        }
        let listing = Listing::of(pass).unwrap();
        assert_eq!(listing.count(), 25);
        assert!(!listing.needs_second_pass());

        let mut groups = Pass::<ObservedGroup>::new(SIZE as u64);
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
        let mut pass = Pass::<ObservedGroup>::new(SIZE as u64);
        pass.take(1, listed_page(&[], SIZE, 1)).unwrap();
        assert!(Listing::of(pass).unwrap().needs_second_pass());
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
            let mut pass = Pass::new(SIZE as u64);
            for asked in 1..=3 {
                pass.take(asked, missing_one(asked)).unwrap();
            }
            pass
        };
        let listing = Listing::of(pass()).unwrap();
        assert!(listing.needs_second_pass());
        let listing = listing.join(pass()).unwrap();
        assert!(listing.falls_short_by(0));
        assert!(!listing.falls_short_by(1));
    }

    #[test]
    fn a_bad_row_counts_as_seen_and_more_than_one_in_a_hundred_fails_the_walk() {
        let all = people(200);
        let with_bad_rows = |bad: usize| {
            let mut pass = Pass::new(100);
            for asked in 1..=2 {
                let mut page = listed_page(&all, 100, asked);
                if asked == 2 {
                    for _ in 0..bad {
                        let row = page.records.pop().unwrap();
                        page.quarantined.push(Some(row.remote_id));
                    }
                }
                pass.take(asked, page).unwrap();
            }
            Listing::of(pass)
        };
        let listing = with_bad_rows(2).unwrap();
        assert!(!listing.needs_second_pass());
        assert!(listing.shows("u199") && !listing.has_record("u199"));
        assert_eq!(
            with_bad_rows(3).map(|_| ()).unwrap_err(),
            WalkReason::TooManyInvalidRecords
        );
    }

    #[test]
    fn a_row_read_well_once_is_not_lost_to_a_bad_row_in_the_second_pass() {
        let all = people(200);
        let before = people(201);
        let mut first = Pass::new(100);
        for asked in 1..=2 {
            first.take(asked, listed_page(&before, 100, asked)).unwrap();
        }
        first.take(3, listed_page(&all, 100, 2)).unwrap();
        let mut second = Pass::new(100);
        for asked in 1..=2 {
            let mut page = listed_page(&all, 100, asked);
            if asked == 1 {
                page.records.remove(7);
                page.quarantined.push(Some(id("u007")));
            }
            second.take(asked, page).unwrap();
        }
        let union = Listing::of(first).unwrap().join(second).unwrap();
        assert!(union.has_record("u007") && union.shows("u007"));
    }
}
