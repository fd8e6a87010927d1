//! Rolecall, a self-hosted identity gateway: it reads who is in a linked account of a SaaS
//! product and what they may do, and serves that as one sealed directory of users, roles and
//! groups. Others delete people's access on its word, so nothing it says is guessed, half read,
//! or stale without saying so.
//!
//! # The map
//!
//! From the outside in; each module uses only what stands below it, and `tests/architecture`
//! holds the sources to the table in `docs/ARCHITECTURE.md`.
//!
//! * [`cli`]: the commands. [`app`]: wires everything together, for `serve`, `demo` and the tests.
//! * [`http`]: every route once, who may call it, how answers and errors travel.
//! * [`gateway`]: the use-cases. What must outlive a caller is a task that the gateway owns.
//! * [`connectors`]: one folder per provider, over [`outbound`], the one way out: budget, breaker,
//!   retries, time-outs, size limits.
//! * [`directory`]: what may be said (sealing) and how it is said (serving). Pure.
//! * [`store`]: what outlives the process, over [`crypto`], which seals it.
//! * [`config`], [`telemetry`], [`clock`]: settings, log and metrics, time.
//! * [`model`] and [`error`]: the words that all of these share.
//!
//! # A read
//!
//! [`http::caller`] proves the key, counts the request against its [quota](gateway::auth::rate_limit) and finds
//! the caller's own account, [`http::query`] reads the parameters strictly, and [`gateway::directory`] answers: which version is in force
//! ([`Gateway::read`](gateway::Gateway::read)), is it new enough for this caller, does the caller
//! have it already, and else the page, which is built once per version and query. An account
//! without a directory makes the read wait for its first walk.
//!
//! # A walk
//!
//! [`gateway::walks`] sees to it that one walk per account runs at a time and that whoever asks
//! gets an answer that does not predate the question. The walk opens the credential, reads
//! through the [`Connector`](connectors::Connector) (who am I, users, groups, members), has
//! [`directory::assess`] judge what was read against the directory in force and the
//! [`Evidence`](directory::Evidence) of earlier walks, looks the missing up by id, and
//! [seals](directory::Assessment::seal), holds or fails. Walk, directory and evidence are stored
//! in one transaction ([`Store::commit_walk`](store::Store::commit_walk)); then memory is
//! swapped.
//!
//! # A link
//!
//! [`Gateway::link`](gateway::Gateway::link) tries the token before it stores anything: whose is
//! it, and may it read users? Then the credential is sealed under its project's data key, bound
//! to its row, and the first walk begins without being waited for.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connectors;
pub mod crypto;
pub mod directory;
pub mod error;
pub mod gateway;
pub mod http;
pub mod model;
pub mod outbound;
pub mod store;
pub mod telemetry;
