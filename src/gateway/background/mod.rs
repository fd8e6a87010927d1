//! Loops that run beside requests: [`schedule`] begins walks that are due, `heartbeat` tells other
//! replicas that this one is alive, [`key_ring`] follows changes of the key file and of projects.

mod heartbeat;
pub mod key_ring;
pub mod schedule;
