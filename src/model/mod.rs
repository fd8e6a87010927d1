//! The words of Rolecall as plain types: the unified schema that we serve, what a connector
//! observes at a provider, and the things that a project owns. No I/O, no clock; no policy but the
//! figures of a budget.
//!
//! * [`schema`]: users, roles and groups as `GET /iam/...` serves them.
//! * [`observed`]: the same people as one walk saw them, before they are sealed into a directory.
//! * [`connectors`]: what a connector says of itself; [`connector_profiles`]: an OAuth app at its provider.
//! * [`brand`]: whose name and colours the hub's pages carry.
//! * [`availability`]: what the store can be used for.
//! * [`budgets`]: what may be asked of a provider with one token, as processes share it.
//! * [`connect_sessions`]: an invitation to link.
//! * [`accounts`], [`api_keys`], [`walks`], [`id`]: what belongs to a project.
//! * [`audit_log`]: who did what to what.
//! * [`timestamp`]: the one form in which times are served.

pub mod accounts;
pub mod api_keys;
pub mod audit_log;
pub mod availability;
pub mod brand;
pub mod budgets;
pub mod connect_sessions;
pub mod connector_profiles;
pub mod connectors;
pub mod id;
pub mod observed;
pub mod schema;
pub mod timestamp;
pub mod walks;
