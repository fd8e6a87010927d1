//! The directory: what a walk read, sealed. This is the heart of Rolecall, and pure: no I/O, no
//! clock, no chance, so that every rule in it can be tried thousands of times in a second.
//!
//! Other systems delete people's access on its word, and that shapes both halves of it.
//!
//! **Sealing** decides what may be said. Lists are read in [`ListScan`]es and united in a
//! [`MergedList`]; with the groups that [`plan_group_reads`] asks for, and who the credential
//! belongs to, that is a [`FetchedDirectory`]. [`assess`] judges it against the [`Directory`] in force
//! and the [`Evidence`] that earlier walks left. Absence is suspicion, never fact: an
//! [`Assessment`] names whom to look up by id, and only with those answers does
//! [`Assessment::seal`] come to a [`SealResult`].
//!
//! **Serving** must cost nothing to speak of. A [`Directory`] is immutable and compact: rows in
//! order of remote id, text in one arena, memberships as numbers. So a page is a slice, a
//! cursor is a key, "go on after this one" holds across versions, and a look-up is a binary
//! search: ids need no index. [`Directory::page`] and [`Directory::record`] speak JSON, as who
//! asks for a part wants it; [`Directory::users`] is for who writes out all of it.
//!
//! Read next: `list_scan` for reading lists, `assess`, `field_loss` and `seal` for the rules, `snapshot_builder` for how a
//! directory is put together, `columns` for how it lies in memory, `filter` for who is asked for,
//! `serve` for how it is shown, `origin` for where it came from.

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
