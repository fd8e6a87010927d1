//! Credentials after they were stored: `refresh` before they expire, [`transfer`] to another
//! installation, [`revocation`] of all at once.

pub(super) mod refresh;
pub mod revocation;
pub mod transfer;
