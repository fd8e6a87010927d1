//! Stored credentials: `refresh` renews OAuth tokens, [`transfer`] moves a credential between
//! installations, and [`revocation`] revokes credentials and API keys after a breach.

pub(super) mod refresh;
pub mod revocation;
pub mod transfer;

use super::Gateway;

/// Stored credentials: decrypted for calls, refreshed, transferred and revoked.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}
