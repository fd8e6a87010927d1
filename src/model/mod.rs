//! The words of Rolecall as plain types: the unified schema that we serve, what a connector
//! observes at a provider, and the things that a project owns. No I/O, no clock; no policy but the
//! figures of a budget.
//!
//! * [`schema`]: users, roles and groups as `GET /iam/...` serves them.
//! * [`observed`]: the same people as one walk saw them, before they are sealed into a directory.
//! * [`connector`]: what a connector says of itself; [`profile`]: an OAuth app at its provider.
//! * [`brand`]: whose name and colours the hub's pages carry.
//! * [`availability`]: what the store can be used for.
//! * [`budget`]: what may be asked of a provider with one token, as processes share it.
//! * [`connect`]: an invitation to link.
//! * [`account`], [`access`], [`walk`], [`id`]: what belongs to a project.
//! * [`audit`]: who did what to what.
//! * [`timestamp`]: the one form in which times are served.

pub mod access;
pub mod account;
pub mod audit;
pub mod availability;
pub mod brand;
pub mod budget;
pub mod connect;
pub mod connector;
pub mod id;
pub mod observed;
pub mod profile;
pub mod schema;
pub mod timestamp;
pub mod walk;
