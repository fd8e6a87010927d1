//! Loops that run beside requests: [`schedule`] begins walks that are due, `heartbeat` tells other
//! replicas that this one is alive, [`key_ring`] follows changes of the key file and of projects.

mod heartbeat;
pub mod key_ring;
pub mod schedule;

use std::sync::atomic::AtomicBool;

use super::Gateway;

#[derive(Default)]
pub(in crate::gateway) struct BackgroundState {
    pub(in crate::gateway) has_joined: AtomicBool,
    pub(in crate::gateway) has_closed: AtomicBool,
    /// Held while a heartbeat, or the end of this process, is written to the store.
    signing: tokio::sync::Mutex<()>,
    /// Has the key ring and the projects checked before their time.
    reload_now: tokio::sync::Notify,
}

/// Loops of this process: heartbeats, scheduled walks, key ring and housekeeping.
#[derive(Clone, Copy)]
pub struct Background<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}
