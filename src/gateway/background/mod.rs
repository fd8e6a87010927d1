//! Loops that run beside requests: [`schedule`] starts walks that are due, `heartbeat` keeps this
//! replica registered in the store, [`key_ring`] follows changes of the key file and deletions of
//! projects.

mod heartbeat;
pub mod key_ring;
pub mod schedule;

use std::sync::atomic::AtomicBool;

use super::Gateway;

#[derive(Default)]
pub(in crate::gateway) struct BackgroundState {
    pub(in crate::gateway) has_joined: AtomicBool,
    pub(in crate::gateway) has_closed: AtomicBool,
    /// Locked while a heartbeat, or the end of this process, is written to the store.
    write_lock: tokio::sync::Mutex<()>,
    /// Wakes the check of the key ring and the projects before its interval has passed.
    reload_now: tokio::sync::Notify,
}

/// The loops of this process: heartbeats, scheduled walks, key ring.
#[derive(Clone, Copy)]
pub struct Background<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}
