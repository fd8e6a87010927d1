//! Credentials after they were stored: `refresh` before they expire, [`transfer`] to another
//! installation, [`revocation`] of all at once.

pub(super) mod refresh;
pub mod revocation;
pub mod transfer;

use super::Gateway;

/// Credentials in use: opened for calls, refreshed, transferred and revoked.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}
