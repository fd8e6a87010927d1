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
    /// Rows without a field that every row must have.
    pub rows_lacking_required: u64,
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
    records: Vec<T>,
    quarantined: Vec<Option<RemoteId>>,
    rows_lacking_required: u64,
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
            rows_lacking_required: 0,
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
        self.records.extend(page.records);
        self.quarantined.extend(page.quarantined);
        self.rows_lacking_required += page.rows_lacking_required;
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
        if self.rows_lacking_required * 20 > rows {
            return Err(WalkReason::InvalidReply);
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
            .map(|record| {
                let sighting = Sighting {
                    in_last_pass: true,
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
