//! Maps each error to the problem that a customer sees: `problem` maps errors of the gateway,
//! `turned_back` maps error codes of authorization responses.

use std::{fmt, time::Duration};

use actix_web::{HttpResponse, ResponseError, http::StatusCode};

use super::error_page::{AppOwner, Problem};
use crate::{
    error::{Error, Kind},
    gateway::linking::authorizations::is_late,
};

/// Why a problem page replaces the requested page.
#[derive(Debug)]
pub enum Refusal {
    Problem(Problem<'static>),
    /// An error of the gateway while it links an account.
    Error(Error, ErrorContext),
    /// The provider's error code in an authorization response. It is never shown.
    TurnedBack(String, ErrorContext),
}

/// Details that an error page needs besides the error itself.
#[derive(Debug)]
pub struct ErrorContext {
    /// The owner of the app that the error is about, if it is about one.
    pub app: AppOwner,
    /// The redirect URL that the customer's own app must have.
    pub redirect_url: String,
    /// Name of the organization of the account that is linked again, if it has one.
    pub linked: Option<String>,
}

impl Default for ErrorContext {
    fn default() -> Self {
        Self {
            app: AppOwner::Profile,
            redirect_url: String::new(),
            linked: None,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error, ErrorContext::default())
    }
}

impl From<Problem<'static>> for Refusal {
    fn from(problem: Problem<'static>) -> Self {
        Self::Problem(problem)
    }
}

impl Refusal {
    pub fn problem(&self) -> Problem<'_> {
        match self {
            Self::Problem(problem) => *problem,
            Self::Error(error, around) => problem(error, around),
            Self::TurnedBack(word, around) => turned_back(word, around),
        }
    }

    /// The gateway error to log, if there is one.
    pub const fn error(&self) -> Option<&Error> {
        match self {
            Self::Problem(_) | Self::TurnedBack(..) => None,
            Self::Error(error, _) => Some(error),
        }
    }
}

/// Maps an error of the gateway.
fn problem<'a>(error: &Error, around: &'a ErrorContext) -> Problem<'a> {
    match error.kind() {
        Kind::ConnectSessionInvalid => Problem::InvitationUnknown,
        Kind::AuthorizationInvalid if is_late(error) => Problem::AuthorizationExpired,
        Kind::AuthorizationInvalid => Problem::OtherBrowser,
        Kind::AuthorizationRefused => Problem::AuthorizationExpired,
        Kind::AppRefused => match error.provider().and_then(|provider| provider.code) {
            Some(1067) => Problem::ClientIdUnknown(around.app),
            Some(1073) => Problem::RedirectUrlWrong(around.app, &around.redirect_url),
            _ => Problem::AppSecretWrong(around.app),
        },
        Kind::CredentialRefused => Problem::TokenRefused,
        Kind::ScopeMissing => Problem::RightsMissing,
        // 1044: the token requires Assume-User. This is a fault of the token, not of the account.
        Kind::AssumeUserRefused
            if error
                .provider()
                .is_some_and(|provider| provider.code == Some(1044)) =>
        {
            Problem::RightsMissing
        }
        Kind::AssumeUserRefused => Problem::StandsForAnother,
        Kind::OrganizationMismatch => Problem::OrganizationMismatch {
            linked: around.linked.as_deref(),
        },
        Kind::AccountInactive | Kind::NotFound => Problem::ProfileDisabled,
        Kind::ProviderUnavailable => Problem::ProviderSilent,
        Kind::ProviderThrottled => Problem::ProviderThrottled {
            seconds: error
                .retry_after()
                .unwrap_or(Duration::from_secs(60))
                .as_secs(),
        },
        Kind::RateLimited => Problem::TooManyTries,
        Kind::StoreUnavailable => Problem::Unavailable,
        _ => Problem::Internal,
    }
}

/// Maps an error code of an authorization response (RFC 6749, 4.1.2.1). `invalid_request` means
/// that the app has another redirect URL: no other part of our request can be invalid.
fn turned_back<'a>(word: &str, around: &'a ErrorContext) -> Problem<'a> {
    match word {
        "access_denied" => Problem::ConsentDenied,
        "invalid_scope" => Problem::RightsMissing,
        "invalid_client" | "unauthorized_client" => Problem::ClientIdUnknown(around.app),
        "invalid_request" => Problem::RedirectUrlWrong(around.app, &around.redirect_url),
        // `server_error`, `temporarily_unavailable`, and codes that the RFC does not define.
        _ => Problem::ProviderSilent,
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.problem())
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.problem().status()
    }

    /// A response with only the status. [`super::context::finish`] replaces it with a page.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ProviderReply;

    #[test]
    fn a_token_that_must_assume_somebody_says_nothing_of_the_account() {
        for (code, expected) in [
            (1030, Problem::StandsForAnother),
            (1044, Problem::RightsMissing),
        ] {
            let fault = ProviderReply {
                status: Some(403),
                code: Some(code),
                reference: None,
            };
            let error = Error::new(Kind::AssumeUserRefused, "refused").with_provider(fault);
            assert_eq!(
                problem(&error, &ErrorContext::default()),
                expected,
                "{code}"
            );
        }
    }

    #[test]
    fn an_app_that_is_refused_is_told_by_what_is_wrong_with_it() {
        let around = ErrorContext {
            app: AppOwner::Own,
            redirect_url: "https://link.example.com/back".to_owned(),
            linked: None,
        };
        for (code, expected) in [
            (Some(1067), Problem::ClientIdUnknown(AppOwner::Own)),
            (
                Some(1073),
                Problem::RedirectUrlWrong(AppOwner::Own, "https://link.example.com/back"),
            ),
            (Some(1072), Problem::AppSecretWrong(AppOwner::Own)),
            (Some(1238), Problem::AppSecretWrong(AppOwner::Own)),
            (None, Problem::AppSecretWrong(AppOwner::Own)),
        ] {
            let error = Error::new(Kind::AppRefused, "").with_provider(ProviderReply {
                status: Some(400),
                code,
                reference: None,
            });
            assert_eq!(problem(&error, &around), expected);
        }
    }

    #[test]
    fn what_no_customer_can_mend_is_a_fault_of_ours() {
        for kind in [
            Kind::Internal,
            Kind::CredentialLocked,
            Kind::BaseUrlNotAllowed,
            Kind::InvalidBody,
        ] {
            let error = Error::new(kind, "");
            assert_eq!(problem(&error, &ErrorContext::default()), Problem::Internal);
        }
        // An unavailable store is a temporary fault and has a page of its own.
        let away = Error::new(Kind::StoreUnavailable, "");
        assert_eq!(
            problem(&away, &ErrorContext::default()),
            Problem::Unavailable
        );
    }

    #[test]
    fn no_word_of_a_provider_is_a_fault_of_ours() {
        let around = ErrorContext::default();
        for word in [
            "",
            "server_error",
            "interaction_required",
            "<script>",
            "invalid_scope",
        ] {
            let status = turned_back(word, &around).status();
            assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{word}");
        }
    }
}
