//! The directory: the sealed result of a walk. This module is pure: no I/O, no clock and no random
//! numbers, so tests can run its rules thousands of times a second.
//!
//! Other systems delete accounts by this feed, so sealing must not remove a user by mistake.

mod assess;
mod codec;
mod columns;
mod evidence;
mod fetched;
mod field_loss;
mod filter;
mod list_scan;
mod origin;
mod page;
mod record;
mod seal;
mod serve;
mod snapshot_builder;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod text;

pub use assess::{Assessment, Policy, assess, plausible_rows};
pub use codec::DecodeError;
pub use columns::Directory;
pub use evidence::Evidence;
pub use fetched::{
    Answers, FetchedDirectory, GroupAnswer, GroupRead, Lookups, MemberList, UserAnswer,
    plan_group_reads,
};
pub use field_loss::too_many;
pub use filter::{Filter, Matches};
pub use list_scan::{ListItem, ListScan, ListedPage, MergedList};
pub use page::{ExpandSet, FieldSet, Page, PageQuery, Resource};
pub use record::Visibility;
pub use seal::{ReleaseCandidate, SealResult};
