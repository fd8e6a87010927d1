//! Which work a statement belongs to, so that no work waits behind another's.
//!
//! Looking up API keys and accounts has connections of its own: a revocation must be seen however
//! busy the store is. Of these, callers who have not proven anything get a part. A project's requests
//! use a part of the general connections at a time and wait for it in a line of their own, so that one
//! project's burst delays its own requests and not its neighbors'.

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

/// Connections for look-ups.
pub(super) const LOOKUP_CONNECTIONS: u32 = 4;
/// Of these, as many serve callers who have not proven anything.
const UNPROVEN_LOOKUPS: usize = 2;
/// How long work waits in its line.
const LINE_TIMEOUT: Duration = Duration::from_secs(5);

/// The work that a statement belongs to.
#[derive(Debug, Clone, Default)]
pub(super) enum Workload {
    /// Walks, refreshes, heartbeats, commands.
    #[default]
    General,
    /// The requests of one project.
    Project(Arc<StatementLimits>),
    /// Looking up a key or an account that is known.
    Lookup,
    /// Callers who have not proven anything, and health checks.
    Unproven,
}

/// How many statements that read, and transactions that write, run at a time.
#[derive(Debug)]
pub(super) struct StatementLimits {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

/// A place among those who use the connections; free again when it is dropped.
pub(super) type StatementPermit = Option<OwnedSemaphorePermit>;

/// The lines of one store.
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
        // An operator makes projects, so that they are few.
        let lines = projects.entry(project.clone()).or_insert_with(|| {
            let (reads, writes) = (self.reads_of_a_project, self.writes_of_a_project);
            Arc::new(StatementLimits::new(reads, writes))
        });
        Workload::Project(Arc::clone(lines))
    }

    /// A place for a statement that reads.
    pub(super) async fn to_read(&self, workload: &Workload) -> Result<StatementPermit> {
        match workload {
            Workload::General | Workload::Lookup => Ok(None),
            Workload::Project(lines) => wait(&lines.reads).await,
            Workload::Unproven => wait(&self.unproven.reads).await,
        }
    }

    /// A place for a transaction that writes.
    pub(super) async fn to_write(&self, workload: &Workload) -> Result<StatementPermit> {
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
    /// Whether it uses the connections for look-ups.
    pub(super) const fn is_lookup(&self) -> bool {
        matches!(self, Self::Lookup | Self::Unproven)
    }
}

async fn wait(line: &Arc<Semaphore>) -> Result<StatementPermit> {
    match tokio::time::timeout(LINE_TIMEOUT, Arc::clone(line).acquire_owned()).await {
        Ok(place) => place.map(Some).map_err(Error::internal),
        Err(_) => Err(Error::new(
            Kind::StoreUnavailable,
            "too many requests wait for the store; send fewer at a time",
        )
        .with_retry_after(LINE_TIMEOUT)),
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
        let first = workloads.to_read(&noisy).await.unwrap();
        let _second = workloads.to_read(&noisy).await.unwrap();
        let error = workloads.to_read(&noisy).await.unwrap_err();
        assert_eq!(error.kind(), Kind::StoreUnavailable);
        for workload in [&quiet, &Workload::General, &Workload::Lookup] {
            workloads.to_read(workload).await.unwrap();
        }
        drop(first);
        workloads.to_read(&noisy).await.unwrap();
        // Those that read do not keep those from writing that write.
        let _writes = workloads.to_write(&noisy).await.unwrap();
        assert!(workloads.to_write(&noisy).await.is_err());
        workloads.to_write(&quiet).await.unwrap();
        // The same project by another request.
        let again = workloads.of_project(&"noisy".parse().unwrap());
        assert!(workloads.to_write(&again).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_unproven_lookups_leaves_connections_to_the_others() {
        let workloads = Workloads::new(2, 1);
        let mut places = Vec::new();
        for _ in 0..UNPROVEN_LOOKUPS {
            places.push(workloads.to_read(&Workload::Unproven).await.unwrap());
        }
        assert!(workloads.to_read(&Workload::Unproven).await.is_err());
        assert!(places.len() < LOOKUP_CONNECTIONS as usize);
        workloads.to_read(&Workload::Lookup).await.unwrap();
    }
}
