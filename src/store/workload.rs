//! Limits on database use for each kind of work, so that one kind does not wait behind another.
//!
//! Lookups of API keys and accounts have a connection pool of their own, since a revocation must
//! take effect even when the store is busy. Unauthenticated callers get a part of that pool. The
//! requests of one project use a part of the general pool at a time and wait in a queue of their
//! own, so a burst in one project delays only that project.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    error::{Error, Kind, Result},
    model::id::ProjectId,
};

/// Size of the connection pool for lookups.
pub(super) const LOOKUP_CONNECTIONS: u32 = 4;
/// How many of these connections unauthenticated callers may use at a time.
const UNPROVEN_LOOKUPS: usize = 2;
/// How long a statement waits for its permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The kind of work that a statement belongs to.
#[derive(Debug, Clone, Default)]
pub(super) enum Workload {
    /// Walks, refreshes, heartbeats, commands.
    #[default]
    General,
    /// The requests of one project.
    Project(Arc<StatementLimits>),
    /// Lookups of known API keys and accounts.
    Lookup,
    /// Unauthenticated callers and health checks.
    Unproven,
}

/// Limits the number of concurrent reads and of concurrent write transactions.
#[derive(Debug)]
pub(super) struct StatementLimits {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

/// A permit to use a connection. It is released on drop. None if the work has no limit.
pub(super) type StatementPermit = Option<OwnedSemaphorePermit>;

/// The limits of one store.
#[derive(Debug, Clone)]
pub(super) struct Workloads {
    projects: Arc<Mutex<HashMap<ProjectId, Arc<StatementLimits>>>>,
    reads_of_a_project: usize,
    writes_of_a_project: usize,
    unproven: Arc<StatementLimits>,
}

impl Workloads {
    pub(super) fn new(reads_of_a_project: usize, writes_of_a_project: usize) -> Self {
        Self {
            projects: Arc::default(),
            reads_of_a_project,
            writes_of_a_project,
            unproven: Arc::new(StatementLimits::new(UNPROVEN_LOOKUPS, 1)),
        }
    }

    pub(super) fn of_project(&self, project: &ProjectId) -> Workload {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        // The map stays small: only the operator creates projects.
        let lines = projects.entry(project.clone()).or_insert_with(|| {
            let (reads, writes) = (self.reads_of_a_project, self.writes_of_a_project);
            Arc::new(StatementLimits::new(reads, writes))
        });
        Workload::Project(Arc::clone(lines))
    }

    /// Waits for a permit to read.
    pub(super) async fn acquire_read(&self, workload: &Workload) -> Result<StatementPermit> {
        match workload {
            Workload::General | Workload::Lookup => Ok(None),
            Workload::Project(lines) => wait(&lines.reads).await,
            Workload::Unproven => wait(&self.unproven.reads).await,
        }
    }

    /// Waits for a permit to begin a write transaction.
    pub(super) async fn acquire_write(&self, workload: &Workload) -> Result<StatementPermit> {
        match workload {
            Workload::General | Workload::Lookup => Ok(None),
            Workload::Project(lines) => wait(&lines.writes).await,
            Workload::Unproven => wait(&self.unproven.writes).await,
        }
    }
}

impl StatementLimits {
    fn new(reads: usize, writes: usize) -> Self {
        Self {
            reads: Arc::new(Semaphore::new(reads)),
            writes: Arc::new(Semaphore::new(writes)),
        }
    }
}

impl Workload {
    /// True if the work uses the connection pool for lookups.
    pub(super) const fn is_lookup(&self) -> bool {
        matches!(self, Self::Lookup | Self::Unproven)
    }
}

async fn wait(line: &Arc<Semaphore>) -> Result<StatementPermit> {
    match tokio::time::timeout(PERMIT_TIMEOUT, Arc::clone(line).acquire_owned()).await {
        Ok(place) => place.map(Some).map_err(Error::internal),
        Err(_) => Err(Error::new(
            Kind::StoreUnavailable,
            "too many requests wait for the store; send fewer at a time",
        )
        .with_retry_after(PERMIT_TIMEOUT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_project_waits_for_itself_and_for_no_other() {
        let workloads = Workloads::new(2, 1);
        let [noisy, quiet] =
            ["noisy", "quiet"].map(|id| workloads.of_project(&id.parse::<ProjectId>().unwrap()));
        let first = workloads.acquire_read(&noisy).await.unwrap();
        let _second = workloads.acquire_read(&noisy).await.unwrap();
        let error = workloads.acquire_read(&noisy).await.unwrap_err();
        assert_eq!(error.kind(), Kind::StoreUnavailable);
        for workload in [&quiet, &Workload::General, &Workload::Lookup] {
            workloads.acquire_read(workload).await.unwrap();
        }
        drop(first);
        workloads.acquire_read(&noisy).await.unwrap();
        // Reads do not use up the permits for writes.
        let _writes = workloads.acquire_write(&noisy).await.unwrap();
        assert!(workloads.acquire_write(&noisy).await.is_err());
        workloads.acquire_write(&quiet).await.unwrap();
        // The same project in another request.
        let again = workloads.of_project(&"noisy".parse().unwrap());
        assert!(workloads.acquire_write(&again).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_unproven_lookups_leaves_connections_to_the_others() {
        let workloads = Workloads::new(2, 1);
        let mut places = Vec::new();
        for _ in 0..UNPROVEN_LOOKUPS {
            places.push(workloads.acquire_read(&Workload::Unproven).await.unwrap());
        }
        assert!(workloads.acquire_read(&Workload::Unproven).await.is_err());
        assert!(places.len() < LOOKUP_CONNECTIONS as usize);
        workloads.acquire_read(&Workload::Lookup).await.unwrap();
    }
}
