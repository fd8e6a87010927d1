//! Which problem an error is to a customer: the one table, and the page that it becomes.

use std::{fmt, time::Duration};

use actix_web::{HttpResponse, ResponseError, http::StatusCode};

use super::error_page::{AppOwner, Problem};
use crate::{
    error::{Error, Kind},
    gateway::linking::authorizations::is_late,
};

/// Why there is another page than the one that was asked for.
#[derive(Debug)]
pub enum Refusal {
    Problem(Problem<'static>),
    /// The gateway's, in linking.
    Error(Error, ErrorContext),
    /// The provider's, by its word for it, which is the provider's and never shown.
    TurnedBack(String, ErrorContext),
}

/// What a page says beside what went wrong.
#[derive(Debug)]
pub struct ErrorContext {
    /// Whose app was in the way, if one was.
    pub app: AppOwner,
    /// Where that app is to send people back to.
    pub redirect_url: String,
    /// The organisation of the account that is linked again, as far as it has a name.
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

    /// What happened, for the log.
    pub const fn error(&self) -> Option<&Error> {
        match self {
            Self::Problem(_) | Self::TurnedBack(..) => None,
            Self::Error(error, _) => Some(error),
        }
    }
}

/// The one table.
fn problem<'a>(error: &Error, around: &'a ErrorContext) -> Problem<'a> {
    match error.kind() {
        Kind::ConnectSessionInvalid => Problem::InvitationUnknown,
        Kind::AuthorizationInvalid if is_late(error) => Problem::AuthorisationExpired,
        Kind::AuthorizationInvalid => Problem::OtherBrowser,
        Kind::AuthorizationRefused => Problem::AuthorisationExpired,
        Kind::AppRefused => match error.provider().and_then(|provider| provider.code) {
            Some(1067) => Problem::ClientIdUnknown(around.app),
            Some(1073) => Problem::RedirectUrlWrong(around.app, &around.redirect_url),
            _ => Problem::AppSecretWrong(around.app),
        },
        Kind::CredentialRefused => Problem::TokenRefused,
        Kind::ScopeMissing => Problem::RightsMissing,
        // A token that its maker bound to assume somebody says nothing of the account.
        Kind::AssumeUserRefused
            if error
                .provider()
                .is_some_and(|provider| provider.code == Some(1044)) =>
        {
            Problem::RightsMissing
        }
        Kind::AssumeUserRefused => Problem::StandsForAnother,
        Kind::OrganisationMismatch => Problem::OrganisationMismatch {
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

/// What the provider sends people back with in place of a code (RFC 6749, 4.1.2.1). An app that is
/// registered with another redirect URL than it names is an `invalid_request`, and nothing else that
/// we ask with can be.
fn turned_back<'a>(word: &str, around: &'a ErrorContext) -> Problem<'a> {
    match word {
        "access_denied" => Problem::ConsentDenied,
        "invalid_scope" => Problem::RightsMissing,
        "invalid_client" | "unauthorized_client" => Problem::ClientIdUnknown(around.app),
        "invalid_request" => Problem::RedirectUrlWrong(around.app, &around.redirect_url),
        // `server_error`, `temporarily_unavailable`, and words that are no standard's.
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

    /// The bare status; [`super::context::finish`] makes the page of it.
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
        // That the store is away passes by itself.
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
