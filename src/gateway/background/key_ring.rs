//! Follows changes that are made outside this process and that no request would notice in time: to
//! the key file, and the deletion of projects.
//!
//! * The key file is read about once a second. A new ring is used if it opens the database. Data
//!   keys are then re-wrapped in small batches until the active key wraps all of them
//!   ([`Store::rewrap`](crate::store::Store::rewrap)).
//! * The in-memory state of a deleted project is dropped, and its walks are abandoned. Its keys and
//!   accounts are rejected like any that another process revoked (see `auth::ttl_cache`).

use std::{collections::HashSet, error::Error as _, time::Duration};

use jiff::Timestamp;

use super::Background;
use crate::gateway::Gateway;
use crate::{
    clock::since,
    crypto::{KeyRing, OpenFault},
    error::{Error, Result},
    model::{
        audit_log::Actor,
        id::{AccountId, ProjectId},
    },
    store::FirstKey,
};

/// Time between two checks. A deletion must take effect within a second.
const POLL_INTERVAL: Duration = Duration::from_millis(800);

/// Time after which a check that found nothing to do is repeated, and a persistent fault is logged
/// again. Meanwhile another process may have wrapped a key with a former ring key, or a request may
/// have loaded dropped state again.
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(60);

impl Background<'_> {
    /// Checks the key ring and the projects regularly, until it is aborted.
    pub async fn keep_watch(self) {
        let mut watch = KeyRingReloader {
            told: self.gateway.0.store.ring(),
            first: None,
            locked: Vec::new(),
            in_order_at: None,
            deleted_projects: 0,
            file: LogOnce::default(),
            store: LogOnce::default(),
            date: LogOnce::default(),
            mode: LogOnce::default(),
            gateway: self.gateway.clone(),
        };
        loop {
            watch.look().await;
            tokio::select! {
                () = watch.gateway.0.clock.sleep(POLL_INTERVAL) => {}
                () = watch.gateway.0.background.reload_now.notified() => watch.reset_logs(),
            }
        }
    }

    /// Runs all checks now, and logs persistent faults again.
    pub fn reload_now(self) {
        self.gateway.0.background.reload_now.notify_one();
    }

    fn known_accounts(self) -> Vec<(ProjectId, AccountId)> {
        let live_accounts = self
            .gateway
            .0
            .directory
            .live_accounts
            .read()
            .expect("no holder of this lock panics");
        let live_accounts = live_accounts.values();
        live_accounts
            .map(|live| (live.project.clone(), live.account))
            .collect()
    }
}

/// The state that one check leaves for the next.
struct KeyRingReloader {
    gateway: Gateway,
    /// The ring that was last published to the other processes.
    told: KeyRing,
    /// The state of the ring's first key and the id of the active key, as last logged.
    /// The data keys that could not be decrypted, as last logged.
    first: Option<(FirstKey, String)>,
    locked: Vec<(ProjectId, OpenFault)>,
    /// When all data keys were last found wrapped correctly; None if some are not.
    in_order_at: Option<Timestamp>,
    deleted_projects: u64,
    file: LogOnce,
    store: LogOnce,
    date: LogOnce,
    /// The access rights of the key file.
    mode: LogOnce,
}

impl KeyRingReloader {
    fn reset_logs(&mut self) {
        self.first = None;
        self.locked.clear();
        self.in_order_at = None;
        self.file = LogOnce::default();
        self.store = LogOnce::default();
        self.date = LogOnce::default();
        self.mode = LogOnce::default();
    }

    async fn look(&mut self) {
        let now = self.gateway.0.clock.now();
        self.look_at_date(now);
        self.reload(now).await;
        let is_due = |at| since(now, at) >= LOOK_AGAIN_EVERY;
        let is_due = self.in_order_at.is_none_or(is_due);
        let rewrapped = match is_due {
            true => self.rewrap().await,
            false => Ok(false),
        };
        if let Ok(true) = rewrapped {
            self.in_order_at = Some(now);
        }
        let is_wrong =
            self.file.said.is_some() || self.mode.said.is_some() || !self.locked.is_empty();
        self.gateway.0.metrics.key_ring_trouble(is_wrong);
        let dropped = self.drop_deleted_projects(is_due).await;
        let fault = rewrapped.and(dropped).err();
        if let Some(error) = self.store.says(fault.as_ref().map(in_full), now) {
            tracing::error!(
                error,
                "key ring and projects are not looked at in the store"
            );
        }
    }

    fn look_at_date(&mut self, now: Timestamp) {
        let ahead = since(now, self.gateway.0.clock.date()).as_secs();
        let fault = (ahead > 1).then(|| "the machine's date was set back".to_owned());
        if let Some(error) = self.date.says(fault, now) {
            tracing::warn!(
                error,
                ahead_seconds = ahead,
                "this process goes on by its own clock until it is started again"
            );
        }
    }

    /// Reloads the key file if it has changed, and publishes the ids of the ring's keys to the
    /// other processes.
    async fn reload(&mut self, now: Timestamp) {
        let store = &self.gateway.0.store;
        let fault = store.reload_ring().await.err();
        if let Some(error) = self.file.says(fault.map(|error| error.to_string()), now) {
            tracing::error!(
                error,
                "the key file is not taken; the former ring stays in use"
            );
        }
        let exposure = store.ring_exposure().map(|exposure| exposure.to_string());
        if let Some(error) = self.mode.says(exposure, now) {
            tracing::error!(error, "the key file is not for its owner alone");
        }
        let ring = store.ring();
        if ring == self.told {
            return;
        }
        self.in_order_at = None;
        // After a failure, the next heartbeat or the next check publishes the ids.
        if store.tell_ring().await.is_ok() {
            let keys = ring.ids().collect::<Vec<_>>().join(" ");
            tracing::info!(keys, "key ring read anew");
            self.told = ring;
        }
    }

    /// Re-wraps all data keys that a former key wraps. True if this process has nothing left to do.
    async fn rewrap(&mut self) -> Result<bool> {
        let mut after = None;
        let mut locked = Vec::new();
        loop {
            let store = &self.gateway.0.store;
            let turn = store.rewrap(after.as_ref(), Actor::System).await?;
            if turn.count > 0 {
                let (key, count, left) = (turn.active.as_str(), turn.count, turn.left);
                tracing::info!(key, count, left, "data keys wrapped anew");
            }
            self.tell_of_first(turn.first, &turn.active);
            locked.extend(turn.locked);
            after = turn.next;
            if after.is_none() {
                self.tell_of_locked(locked);
                return Ok(!matches!(turn.first, FirstKey::Awaited { .. }));
            }
        }
    }

    fn tell_of_first(&mut self, first: FirstKey, active: &str) {
        let found = Some((first, active.to_owned()));
        if std::mem::replace(&mut self.first, found.clone()) == found {
            return;
        }
        let key = self.told.encrypting_id();
        match first {
            FirstKey::Active => tracing::info!(key, "this ring key encrypts"),
            FirstKey::Awaited { processes } => tracing::warn!(
                key,
                active,
                processes,
                "the first ring key is not used before these processes have it too"
            ),
            FirstKey::Former => tracing::warn!(
                key,
                active,
                "the first ring key was followed by another, which is used"
            ),
            FirstKey::Retired => tracing::error!(
                key,
                active,
                "the first ring key was retired; another is used"
            ),
        }
    }

    fn tell_of_locked(&mut self, locked: Vec<(ProjectId, OpenFault)>) {
        for one in &locked {
            if !self.locked.contains(one) {
                let (project, error) = one;
                tracing::error!(%project, %error, "a data key is locked, and left as it is");
            }
        }
        self.locked = locked;
    }

    async fn drop_deleted_projects(&mut self, is_due: bool) -> Result<()> {
        let store = &self.gateway.0.store;
        let count = store.deleted_project_count().await?;
        if count == self.deleted_projects && !is_due {
            return Ok(());
        }
        let known = self.gateway.background().known_accounts();
        if !known.is_empty() && count > 0 {
            let deleted: HashSet<_> = store.deleted_projects().await?.into_iter().collect();
            let keys = &self.gateway.0.auth.keys;
            keys.remove_where(|key| deleted.contains(&key.project));
            for of in known.into_iter().filter(|(of, _)| deleted.contains(of)) {
                self.gateway.0.auth.accounts.remove(&of);
                self.gateway.accounts().drop_from_memory(&of.0, of.1);
            }
        }
        self.deleted_projects = count;
        Ok(())
    }
}

/// Logs a fault when it appears, and again at intervals while it persists.
#[derive(Default)]
struct LogOnce {
    said: Option<(String, Timestamp)>,
}

impl LogOnce {
    /// The fault to log now, if any. `None` as argument: there is no fault.
    fn says(&mut self, fault: Option<String>, now: Timestamp) -> Option<&str> {
        let Some(fault) = fault else {
            self.said = None;
            return None;
        };
        match &self.said {
            Some((said, at)) if *said == fault && since(now, *at) < LOOK_AGAIN_EVERY => None,
            _ => {
                let (fault, _) = self.said.insert((fault, now));
                Some(fault)
            }
        }
    }
}

/// An error with its source, which names the missing key.
fn in_full(error: &Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_once_and_again_after_a_minute() {
        let mut complaint = LogOnce::default();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let fault = |text: &str| Some(text.to_owned());
        assert_eq!(complaint.says(fault("torn"), at(0)), Some("torn"));
        assert_eq!(complaint.says(fault("torn"), at(59)), None);
        assert_eq!(complaint.says(fault("gone"), at(59)), Some("gone"));
        assert_eq!(complaint.says(fault("gone"), at(119)), Some("gone"));
        assert_eq!(complaint.says(None, at(120)), None);
        assert_eq!(complaint.says(fault("gone"), at(121)), Some("gone"));
    }
}
