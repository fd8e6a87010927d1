//! This process among those that serve the same store: it says that it lives, takes over from who
//! does not, and ends its own walks once the store no longer has them for running here.
//!
//! Which directory is in force is learnt with the account itself
//! ([ADR 8](../../../docs/adr/0008-replicas-meet-in-the-store.md)).

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::Background;
use crate::gateway::{Gateway, Inner, walks::WalkHandle};
use crate::{error::Result, model::id::WalkId, store::DEAD_AFTER};

/// How often a replica says that it lives, and so how soon it hears that a walk of its own is no
/// more: within the second that a disconnect may take to be felt everywhere.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(800);

/// How often a process that is alone with its database does so: that shows whether the database
/// takes writes.
const BEAT_EVERY_ALONE: Duration = Duration::from_secs(5);

/// How long one sign is waited for before the next thing is done.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Silent for so long, a replica ends its walks: well before others may take it for dead.
const STOP_AFTER: Duration = Duration::from_secs(5);

const _: () = assert!(
    (STOP_AFTER.as_millis() + WRITE_TIMEOUT.as_millis() + HEARTBEAT_INTERVAL.as_millis())
        < DEAD_AFTER.as_millis()
);

impl Background<'_> {
    /// Begins to serve: takes over from processes that ended, whose walks will not end by
    /// themselves, and from now on tells others that this one lives.
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
                .spawn(keep_beating(Arc::downgrade(&self.gateway.0)));
        }
        Ok(())
    }

    /// Writes to a store that is this process's alone every so often, which shows whether it takes
    /// writes. A shared one is written to from [`Background::join`](crate::gateway::background::Background::join) on.
    pub fn keep_probing_store(self) -> impl Future<Output = ()> + Send + use<> {
        let is_shared = self.gateway.0.store.is_shared();
        let inner = Arc::downgrade(&self.gateway.0);
        async move {
            if !is_shared {
                keep_beating(inner).await;
            }
        }
    }

    /// Ends the walks that run here, waits for refreshes that are in flight, and closes the store.
    pub async fn close(self) {
        let running = self.running_walks();
        for ticket in &running {
            ticket.abandon();
        }
        join_all(
            running
                .iter()
                .map(|ticket| self.gateway.walks().cancel_walk(ticket)),
        )
        .await;
        self.gateway.credentials().end_refreshes().await;
        let gateway = self.gateway.clone();
        let left = self.gateway.0.runtime.spawn(async move {
            if gateway.0.store.is_shared() {
                // A sign of life that is on its way would be the last one, and say the contrary.
                let _signing = gateway.0.background.signing.lock().await;
                gateway
                    .0
                    .background
                    .has_closed
                    .store(true, Ordering::Relaxed);
                if let Err(error) = gateway.0.store.leave().await {
                    tracing::warn!(%error, "the other processes were not told that this one ends");
                }
            } else {
                // The process that serves the file next knows that this one has ended. A write to
                // a locked file would keep this one from closing it in time.
                gateway
                    .0
                    .background
                    .has_closed
                    .store(true, Ordering::Relaxed);
            }
            gateway.0.store.close().await;
        });
        // A database that no longer answers keeps nobody from stopping.
        if tokio::time::timeout(STOP_AFTER, left).await.is_err() {
            tracing::warn!("the store could not be closed in time");
        }
    }

    /// One sign of life, and what follows from it.
    async fn write_heartbeat(self) -> Result<()> {
        let _signing = self.gateway.0.background.signing.lock().await;
        if self.gateway.0.background.has_closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Looked at before the store is asked: what begins in between is not missing there.
        let begun = self.running_walks().into_iter();
        let begun: Vec<_> = begun.filter(|ticket| ticket.has_begun()).collect();
        let stored = self.gateway.0.store.write_heartbeat().await?;
        for ticket in begun {
            if !stored.contains(&ticket.id) {
                ticket.abandon();
            }
        }
        // Looked at once more: what is stored as running and runs no longer was not told to the
        // store when it ended.
        let running = self.running_walks();
        let is_orphan = |id: &WalkId| !running.iter().any(|ticket| ticket.id == *id);
        let orphans: Vec<_> = stored.into_iter().filter(is_orphan).collect();
        if !orphans.is_empty() {
            self.gateway.0.store.end_orphans(&orphans).await?;
        }
        Ok(())
    }

    /// Of walks that were ended for a process that was gone.
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

async fn keep_beating(inner: Weak<Inner>) {
    let Some(gateway) = inner.upgrade() else {
        return;
    };
    let clock = gateway.clock.clone();
    let is_shared = gateway.store.is_shared();
    drop(gateway);
    let every = match is_shared {
        true => HEARTBEAT_INTERVAL,
        false => BEAT_EVERY_ALONE,
    };
    let mut heard_at = clock.monotonic();
    let mut pending: Option<(Duration, JoinHandle<Result<()>>)> = None;
    loop {
        clock.sleep(every).await;
        let Some(inner) = inner.upgrade() else { return };
        let gateway = Gateway(inner);
        if gateway.0.background.has_closed.load(Ordering::Relaxed) {
            return;
        }
        // A task of its own: a database that does not answer must not keep this from seeing that
        // it has been silent for too long.
        let (asked_at, mut write_heartbeat) = pending.take().unwrap_or_else(|| {
            let gateway = gateway.clone();
            let write_heartbeat =
                tokio::spawn(async move { gateway.background().write_heartbeat().await });
            (clock.monotonic(), write_heartbeat)
        });
        match tokio::time::timeout(WRITE_TIMEOUT, &mut write_heartbeat).await {
            Ok(Ok(Ok(()))) => {
                heard_at = asked_at;
                if is_shared {
                    let burial = tokio::spawn(reap_expired(gateway.clone()));
                    // It may take longer; the next sign does not wait for it.
                    let _ = tokio::time::timeout(WRITE_TIMEOUT, burial).await;
                }
            }
            Ok(Ok(Err(error))) => tracing::warn!(%error, "heartbeat failed"),
            Ok(Err(error)) => tracing::error!(%error, "heartbeat failed"),
            Err(_) if clock.monotonic().saturating_sub(asked_at) < STOP_AFTER => {
                tracing::warn!("heartbeat not answered yet");
                pending = Some((asked_at, write_heartbeat));
            }
            Err(_) => {
                // A server that vanished without a word: what is open leads nowhere.
                tracing::warn!("heartbeat not answered; connections are opened anew");
                gateway.0.store.renew_connections();
                write_heartbeat.abort();
            }
        }
        let is_silent = clock.monotonic().saturating_sub(heard_at) > STOP_AFTER;
        if is_shared && is_silent {
            for ticket in gateway.background().running_walks() {
                ticket.abandon();
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
