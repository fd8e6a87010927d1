//! Rolecall, a self-hosted identity gateway. It reads the users, roles and groups of a linked
//! account of a SaaS product and serves them as one sealed directory. Clients delete people's
//! access because of this directory. It therefore never contains guessed or partly read data, and
//! stale data is always marked as stale.
//!
//! # The map
//!
//! From the outside in. Each module uses only modules that are listed below it;
//! `tests/architecture` compares the sources with the table in `docs/ARCHITECTURE.md`.
//!
//! * [`cli`]: the commands. [`app`]: wires everything together for `serve`, `demo` and the tests.
//! * [`http`]: every route once, authentication, and the form of responses and errors.
//! * [`gateway`]: the use cases. Work that must survive a client's disconnect runs as a task that
//!   the gateway owns.
//! * [`connectors`]: one folder per provider, over [`outbound`], which sends every call: rate
//!   limit, circuit breaker, retries, timeouts, size limits.
//! * [`directory`]: which data may be sealed and how it is served. No I/O.
//! * [`store`]: persistent data, over [`crypto`], which encrypts it.
//! * [`config`], [`telemetry`], [`clock`]: settings, logs and metrics, time.
//! * [`model`] and [`error`]: types that all modules share.
//!
//! # A read
//!
//! [`http::caller`] authenticates the API key, counts the request against its
//! [quota](gateway::auth::rate_limit) and finds the caller's own account. [`http::query`] parses
//! the parameters strictly. [`gateway::directory`] answers
//! ([`DirectoryReader::read`](crate::gateway::directory::DirectoryReader::read)): it finds the current version, checks that this
//! version is new enough for the caller and that the caller does not have it already, and sends the
//! page. A page is built once per version and query. A read of an account without a directory waits
//! for the account's first walk.
//!
//! # A walk
//!
//! [`gateway::walks`] runs one walk per account at a time. A request for a walk joins one that has
//! not called the provider yet, else the next one, and so its result is never older than the
//! request. The walk decrypts the credential and reads through the
//! [`Connector`](connectors::Connector): identity, users, groups, members. [`directory::assess`]
//! compares the fetched data with the current directory and the [`Evidence`](directory::Evidence)
//! of earlier walks; the walk looks up missing records by id. It then
//! [seals](directory::Assessment::seal) the directory, is held, or fails. One transaction stores
//! walk, directory and evidence ([`Store::commit_walk`](store::Store::commit_walk)); after it, the
//! copy in memory is replaced.
//!
//! # A link
//!
//! [`Linking::link`](crate::gateway::linking::Linking::link) verifies the token before it stores anything: it reads
//! the token's owner and checks that the token may read users. It then encrypts the credential with
//! the project's data key, bound to its row, and starts the first walk without waiting for it.

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
