//! Readiness: whether requests should be sent to this process.
//!
//! Reads continue from memory while the store does not answer or rejects writes, so neither makes a
//! process unready. Behind a load balancer, all replicas would otherwise be removed at once for a
//! fault that they share. The 200 response and a metric report the state of the store.

use std::{sync::atomic::Ordering, time::Duration};

use super::Gateway;
use crate::{
    error::{Error, Kind, Result},
    model::availability::Availability,
};

/// The store counts as unreachable if it takes longer than this to answer.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

impl Gateway {
    /// The availability of the store, if requests should be sent to this process.
    ///
    /// # Errors
    /// `store_unavailable`: the process has not joined yet or is stopping, or the store does not
    /// answer and memory cannot serve any request.
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
        let store = self.0.store.for_unauthenticated();
        let asking = self.0.runtime.spawn(async move { store.ping().await });
        let store = &self.0.store;
        match tokio::time::timeout(STORE_TIMEOUT, asking).await {
            Ok(Ok(Ok(()))) => store.availability(),
            // The ping was slow, but other queries were answered.
            Err(_) if store.has_answered_recently() => store.availability(),
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => Availability::Unreachable,
        }
    }

    /// Whether any read could be answered without the store.
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
