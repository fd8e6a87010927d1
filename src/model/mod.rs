//! Plain data types: the unified schema that the API serves, the records that a connector reads at
//! a provider, and the objects of a project. No I/O and no clock.
//!
//! * [`schema`]: users, roles and groups as `GET /iam/...` serves them.
//! * [`observed`]: the records of one walk, before they become a directory.
//! * [`connectors`]: the static description of a connector; [`connector_profiles`]: an OAuth app at
//!   its provider.
//! * [`brand`]: the name, logo and colors of the hub's pages.
//! * [`availability`]: whether the store can be read and written.
//! * [`budgets`]: the request budget of one token, as replicas share it.
//! * [`connect_sessions`]: a session in which a customer links an account.
//! * [`accounts`], [`api_keys`], [`walks`], [`id`]: the objects of a project and their ids.
//! * [`audit_log`]: the actor, action and subject of an audit event.
//! * [`timestamp`]: the one format of served timestamps.

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
