//! The directory: the sealed result of a walk. This module is pure: no I/O, no clock and no random
//! numbers, so tests can run its rules thousands of times a second.
//!
//! Other systems delete accounts by this feed, so its two halves have these rules.
//!
//! **Sealing** decides which changes are published. Lists are read in [`ListScan`]s and merged into
//! a [`MergedList`]. Together with the groups that [`plan_group_reads`] selects and the identity of
//! the credential, that is a [`FetchedDirectory`]. [`assess`] compares it with the current
//! [`Directory`] and the [`Evidence`] of earlier walks. Absence from a list alone removes nobody:
//! an [`Assessment`] names the users and groups to look up by id, and [`Assessment::seal`] needs
//! those answers to produce a [`SealResult`].
//!
//! **Serving** must be cheap. A [`Directory`] is immutable and compact: rows in order of remote id,
//! text in one arena, memberships as row numbers. A page is a slice, a cursor is a key that stays
//! valid across versions, and a look-up is a binary search, so ids need no index.
//! [`Directory::page`] and [`Directory::record`] return JSON; [`Directory::users`] iterates over
//! all users, for an export.
//!
//! Read next: `list_scan` for reading lists; `assess`, `field_loss` and `seal` for the rules;
//! `snapshot_builder` for building a directory; `columns` for its memory layout; `filter` for list
//! filters; `serve` for the JSON; `origin` for the provider's pages that records came from.

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
