//! Whether requests should be sent to this process.
//!
//! Reads go on from memory while the store is away or takes no writes, so neither makes a process
//! unready: behind a balancer, all replicas would be taken out at once for a fault that they share.
//! What is wrong is told beside the 200, and by a metric.

use std::{sync::atomic::Ordering, time::Duration};

use super::Gateway;
use crate::{
    error::{Error, Kind, Result},
    model::availability::Availability,
};

/// How long the store may take to answer before it is taken for unreachable.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

impl Gateway {
    /// What the store can be used for, if requests should be sent here.
    ///
    /// # Errors
    /// `store_unavailable`: the process has not begun to serve, or stops, or neither the store nor
    /// memory can serve anything.
    pub async fn ready(&self) -> Result<Availability> {
        let is_set = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::Relaxed);
        if self.is_stopping() || is_set(&self.0.background.has_closed) {
            return Err(unready("this process is stopping"));
        }
        if !is_set(&self.0.background.has_joined) {
            return Err(unready("this process has not started yet"));
        }
        match self.store_state().await {
            Availability::Unreachable if !self.serves_from_memory() => Err(unready(
                "the store does not answer, and nothing is in memory",
            )),
            state => Ok(state),
        }
    }

    async fn store_state(&self) -> Availability {
        let store = self.0.store.for_unproven();
        let asking = self.0.runtime.spawn(async move { store.ping().await });
        let store = &self.0.store;
        match tokio::time::timeout(STORE_TIMEOUT, asking).await {
            Ok(Ok(Ok(()))) => store.availability(),
            // Slow, or busy with others.
            Err(_) if store.has_answered_recently() => store.availability(),
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => Availability::Unreachable,
        }
    }

    /// Whether some read could be answered without the store.
    fn serves_from_memory(&self) -> bool {
        let has_directory = || {
            let live_accounts = self
                .0
                .directory
                .live_accounts
                .read()
                .expect("no holder of this lock panics");
            live_accounts.values().any(|live| live.head().is_some())
        };
        self.0.auth.keys.has_any() && self.0.auth.accounts.has_any() && has_directory()
    }
}

fn unready(why: &'static str) -> Error {
    Error::new(Kind::StoreUnavailable, why).with_retry_after(Duration::from_secs(5))
}
