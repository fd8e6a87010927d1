//! The reasons why a walk ends early: errors of the provider, of the store, or in the fetched data.

use crate::{
    error::{Error, Kind},
    model::walks::WalkReason,
    outbound::{CallError, CallErrorKind},
};

/// The failure that ended a walk early.
#[derive(Debug)]
pub(super) struct WalkFailure {
    pub reason: WalkReason,
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// Whether the provider refused the credential.
    pub was_refused: bool,
}

impl From<WalkReason> for WalkFailure {
    fn from(reason: WalkReason) -> Self {
        Self {
            reason,
            source: None,
            was_refused: false,
        }
    }
}

impl From<CallError> for WalkFailure {
    fn from(error: CallError) -> Self {
        let reason = match error.kind {
            CallErrorKind::Unauthorized => WalkReason::CredentialRefused,
            CallErrorKind::Forbidden => WalkReason::ScopeMissing,
            CallErrorKind::AssumeUserRefused | CallErrorKind::AssumeUserMissing => {
                WalkReason::AssumeUserRefused
            }
            CallErrorKind::Throttled => WalkReason::ProviderThrottled,
            CallErrorKind::Unavailable => WalkReason::ProviderUnavailable,
            // The store has the shared budgets.
            CallErrorKind::BudgetUnknown => WalkReason::StoreUnavailable,
            CallErrorKind::NotFound | CallErrorKind::Refused | CallErrorKind::InvalidReply => {
                WalkReason::InvalidReply
            }
        };
        let was_refused = error.kind == CallErrorKind::Unauthorized;
        Self {
            reason,
            source: Some(error.into()),
            was_refused,
        }
    }
}

impl From<Error> for WalkFailure {
    fn from(error: Error) -> Self {
        let reason = match error.kind() {
            Kind::StoreUnavailable => WalkReason::StoreUnavailable,
            // The account was deleted during the walk.
            Kind::AccountNotFound => WalkReason::Interrupted,
            Kind::AccountInactive => WalkReason::CredentialRefused,
            Kind::RefreshInProgress => WalkReason::CredentialUncertain,
            Kind::CredentialLocked => WalkReason::CredentialLocked,
            Kind::BaseUrlNotAllowed => WalkReason::BaseUrlNotAllowed,
            _ => WalkReason::Internal,
        };
        Self {
            reason,
            source: Some(error.into()),
            was_refused: false,
        }
    }
}
