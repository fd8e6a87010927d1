//! Heartbeats: keep this replica registered in a shared store, and end the walks of failed
//! replicas.
//!
//! A replica also learns from the reply to its heartbeat which of its walks the store still lists
//! as running, and abandons the others. Another replica's new directory version is noticed
//! elsewhere: every read of the account finds it
//! ([ADR 8](../../../docs/adr/0008-replicas-meet-in-the-store.md)).

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::Background;
use crate::gateway::{Gateway, Inner, walks::WalkHandle};
use crate::{error::Result, model::id::WalkId, store::HEARTBEAT_TIMEOUT};

/// Time between two heartbeats, and so the time after which a replica notices that the store has
/// ended one of its walks. A disconnect must take effect on all replicas within a second.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(800);

/// Time between two heartbeats of a process that has the store to itself. They show whether the
/// database accepts writes.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// How long the loop waits for one write before it continues.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// A replica without a successful heartbeat for this long abandons its walks, well before others
/// count it as failed.
const STOP_AFTER: Duration = Duration::from_secs(5);

const _: () = assert!(
    (STOP_AFTER.as_millis() + WRITE_TIMEOUT.as_millis() + HEARTBEAT_INTERVAL.as_millis())
        < HEARTBEAT_TIMEOUT.as_millis()
);

impl Background<'_> {
    /// Joins the serving processes: registers this replica, ends walks that failed processes left
    /// running, recovers refreshes of earlier runs of this node, and starts the heartbeats of a
    /// shared store.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn join(self) -> Result<()> {
        let interrupted = self.gateway.0.store.join().await?;
        self.tell_of(interrupted);
        self.gateway.credentials().recover_refreshes().await;
        self.gateway
            .0
            .background
            .has_joined
            .store(true, Ordering::Relaxed);
        if self.gateway.0.store.is_shared() {
            self.gateway
                .0
                .runtime
                .spawn(run_heartbeats(Arc::downgrade(&self.gateway.0)));
        }
        Ok(())
    }

    /// Writes regularly to a store that is not shared, to find out whether it accepts writes. In a
    /// shared store, [`Background::join`] starts heartbeats instead.
    pub fn keep_probing_store(self) -> impl Future<Output = ()> + Send + use<> {
        let is_shared = self.gateway.0.store.is_shared();
        let inner = Arc::downgrade(&self.gateway.0);
        async move {
            if !is_shared {
                run_heartbeats(inner).await;
            }
        }
    }

    /// Ends the walks of this process, waits for refreshes in flight, and closes the store.
    pub async fn close(self) {
        let running = self.running_walks();
        for handle in &running {
            handle.abandon();
        }
        join_all(
            running
                .iter()
                .map(|handle| self.gateway.walks().cancel_walk(handle)),
        )
        .await;
        self.gateway.credentials().end_refreshes().await;
        let gateway = self.gateway.clone();
        let left = self.gateway.0.runtime.spawn(async move {
            if gateway.0.store.is_shared() {
                // A heartbeat that arrives after `leave` would register this replica again.
                let _signing = gateway.0.background.write_lock.lock().await;
                gateway
                    .0
                    .background
                    .has_closed
                    .store(true, Ordering::Relaxed);
                if let Err(error) = gateway.0.store.leave().await {
                    tracing::warn!(%error, "the other processes were not told that this one ends");
                }
            } else {
                // No write is needed: the next process that serves the file knows that this one has
                // ended. A write to a locked file could delay the close.
                gateway
                    .0
                    .background
                    .has_closed
                    .store(true, Ordering::Relaxed);
            }
            gateway.0.store.close().await;
        });
        // A database that does not answer must not prevent the shutdown.
        if tokio::time::timeout(STOP_AFTER, left).await.is_err() {
            tracing::warn!("the store could not be closed in time");
        }
    }

    /// Writes one heartbeat, abandons walks that the store no longer lists, and ends stored walks
    /// that no longer run.
    async fn write_heartbeat(self) -> Result<()> {
        let _signing = self.gateway.0.background.write_lock.lock().await;
        if self.gateway.0.background.has_closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Listed before the write, so that a walk that begins in between is not mistaken for one
        // that the store has ended.
        let begun = self.running_walks().into_iter();
        let begun: Vec<_> = begun.filter(|handle| handle.has_begun()).collect();
        let stored = self.gateway.0.store.write_heartbeat().await?;
        for handle in begun {
            if !stored.contains(&handle.id) {
                handle.abandon();
            }
        }
        // Listed again after the write, so that a walk that began in between is not an orphan. An
        // orphan is stored as running but no longer runs: the store did not accept its end.
        let running = self.running_walks();
        let is_orphan = |id: &WalkId| !running.iter().any(|handle| handle.id == *id);
        let orphans: Vec<_> = stored.into_iter().filter(is_orphan).collect();
        if !orphans.is_empty() {
            self.gateway.0.store.end_orphans(&orphans).await?;
        }
        Ok(())
    }

    /// Logs and counts walks that were ended because their process had failed.
    fn tell_of(self, interrupted: u64) {
        if interrupted > 0 {
            self.gateway.0.metrics.walks_interrupted(interrupted);
            tracing::info!(
                interrupted,
                "walks of a process that ended were marked as failed"
            );
        }
    }

    fn running_walks(self) -> Vec<Arc<WalkHandle>> {
        let live_accounts = self
            .gateway
            .0
            .directory
            .live_accounts
            .read()
            .expect("no holder of this lock panics");
        live_accounts
            .values()
            .filter_map(|live| live.running())
            .collect()
    }
}

async fn run_heartbeats(inner: Weak<Inner>) {
    let Some(gateway) = inner.upgrade() else {
        return;
    };
    let clock = gateway.clock.clone();
    let is_shared = gateway.store.is_shared();
    drop(gateway);
    let every = match is_shared {
        true => HEARTBEAT_INTERVAL,
        false => PROBE_INTERVAL,
    };
    let mut last_success_at = clock.monotonic();
    let mut pending: Option<(Duration, JoinHandle<Result<()>>)> = None;
    loop {
        clock.sleep(every).await;
        let Some(inner) = inner.upgrade() else { return };
        let gateway = Gateway(inner);
        if gateway.0.background.has_closed.load(Ordering::Relaxed) {
            return;
        }
        // In its own task: a database that does not answer must not keep this loop from noticing
        // that the heartbeats fail.
        let (asked_at, mut write_heartbeat) = pending.take().unwrap_or_else(|| {
            let gateway = gateway.clone();
            let write_heartbeat =
                tokio::spawn(async move { gateway.background().write_heartbeat().await });
            (clock.monotonic(), write_heartbeat)
        });
        match tokio::time::timeout(WRITE_TIMEOUT, &mut write_heartbeat).await {
            Ok(Ok(Ok(()))) => {
                // The reply may be late, so only the time of the request is certain.
                last_success_at = asked_at;
                if is_shared {
                    let reaping = tokio::spawn(reap_expired(gateway.clone()));
                    // The next heartbeat does not wait for this if it takes longer.
                    let _ = tokio::time::timeout(WRITE_TIMEOUT, reaping).await;
                }
            }
            Ok(Ok(Err(error))) => tracing::warn!(%error, "heartbeat failed"),
            Ok(Err(error)) => tracing::error!(%error, "heartbeat failed"),
            Err(_) if clock.monotonic().saturating_sub(asked_at) < STOP_AFTER => {
                tracing::warn!("heartbeat not answered yet");
                pending = Some((asked_at, write_heartbeat));
            }
            Err(_) => {
                // The server may be gone without closing the connections. Open new ones.
                tracing::warn!("heartbeat not answered; connections are opened anew");
                gateway.0.store.renew_connections();
                write_heartbeat.abort();
            }
        }
        let is_silent = clock.monotonic().saturating_sub(last_success_at) > STOP_AFTER;
        if is_shared && is_silent {
            // Others may soon end these walks and start new ones.
            for handle in gateway.background().running_walks() {
                handle.abandon();
            }
        }
    }
}

async fn reap_expired(gateway: Gateway) {
    match gateway.0.store.reap_expired().await {
        Ok(interrupted) => gateway.background().tell_of(interrupted),
        Err(error) => tracing::debug!(%error, "the dead are left for later"),
    }
}
