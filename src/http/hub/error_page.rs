//! Every failure while an account is linked, in a customer's words and with a next step.

use actix_web::http::StatusCode;
use askama::Template;

use super::{page::HubPage, theme::Theme, words};

/// A failure, as a customer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem<'a> {
    /// The link token is unknown or expired, the browser sent no cookie, or the page does not
    /// exist.
    InvitationUnknown,
    InvitationUsed,
    /// The customer refused consent at Smartsheet.
    ConsentDenied,
    /// The `state` was used or has expired, or the provider refused the code.
    AuthorizationExpired,
    /// The callback does not belong to a sign-in of this browser.
    OtherBrowser,
    AppSecretWrong(AppOwner),
    RedirectUrlWrong(AppOwner, &'a str),
    ClientIdUnknown(AppOwner),
    TokenRefused,
    /// The credential is valid but may not list users.
    RightsMissing,
    /// The account reads as another user (Assume-User), and this credential cannot do that.
    StandsForAnother,
    /// The provider cannot be reached, or its answer is unusable.
    ProviderSilent,
    /// The store is unavailable.
    Unavailable,
    ProviderThrottled {
        seconds: u64,
    },
    /// Too many attempts with this connect session in one minute.
    TooManyTries,
    /// An account is linked again with a credential of another organization or region.
    OrganizationMismatch {
        linked: Option<&'a str>,
    },
    /// The form failed a check: where it was sent from, media type, size, or CSRF token.
    ForeignForm,
    /// The connector profile is disabled or missing, or the session does not offer this method.
    ProfileDisabled,
    Internal,
}

/// The owner of the Smartsheet app that has the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppOwner {
    /// The customer owns the app and can fix it.
    Own,
    /// The integrator owns the app, in a connector profile. The customer cannot fix it.
    Profile,
}

/// A link to the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextStep {
    pub path: &'static str,
    pub words: &'static str,
}

const CHOOSE: NextStep = NextStep {
    path: "/connect",
    words: "Choose how to connect",
};
const TRY_AGAIN: NextStep = NextStep {
    path: "/connect",
    words: "Try again",
};
const TOKEN: NextStep = NextStep {
    path: "/connect/token",
    words: "Use another token",
};
const OWN_APP: NextStep = NextStep {
    path: "/connect/app",
    words: "Back to your app’s details",
};

/// The text of a problem page.
struct ErrorPage {
    title: &'static str,
    what: String,
    advice: Vec<String>,
    /// A value that the customer must enter elsewhere, exactly as it is shown.
    value: Option<String>,
    way: Option<NextStep>,
}

impl Problem<'_> {
    /// `name` is the brand's name.
    fn text(&self, name: &str) -> ErrorPage {
        let tell = |title, what: &str, advice: &[&str], way| ErrorPage {
            title,
            what: what.to_owned(),
            advice: advice.iter().map(|text| (*text).to_owned()).collect(),
            value: None,
            way,
        };
        let new_invitation = format!("If that does not help, ask {name} for a new invitation.");
        let set_up_wrongly = |what: &str| {
            tell(
                "Something is set up wrongly",
                &format!("{name} has to put it right: {what} Nothing was saved."),
                &[
                    &format!("Tell {name}, with the reference below."),
                    "Meanwhile, another way to connect may be offered.",
                ],
                Some(CHOOSE),
            )
        };
        match self {
            Problem::InvitationUnknown => tell(
                "This invitation is not open",
                "It may have run out, or your browser may not have kept it. Nothing was saved.",
                &[
                    "Open the link in your invitation again, in a browser that accepts cookies.",
                    &new_invitation,
                ],
                None,
            ),
            Problem::InvitationUsed => tell(
                "This invitation has been used",
                "An account was connected with it, and each invitation connects one account.",
                &[
                    "If that was you, there is nothing left to do.",
                    &format!("If it was not you, or to connect again, turn to {name}."),
                ],
                None,
            ),
            Problem::ConsentDenied => tell(
                "You did not allow access",
                "Smartsheet says that the request was declined. Nothing was saved.",
                &[
                    "If that was a mistake, try again and choose Allow.",
                    "If you would rather not, close this page.",
                ],
                Some(TRY_AGAIN),
            ),
            Problem::AuthorizationExpired => tell(
                "That took too long",
                "Smartsheet’s permission is good for a few minutes only, and it has run out. \
                 Nothing was saved.",
                &["Try again. You will be asked to allow access once more."],
                Some(TRY_AGAIN),
            ),
            Problem::OtherBrowser => tell(
                "This was started in another browser",
                "For your safety, a sign-in has to end in the browser that it began in. Nothing \
                 was saved.",
                &[
                    "Go back to the browser where you opened the invitation, and go on there.",
                    "Or open the link in your invitation here, and begin again.",
                    "If you did not begin a sign-in, close this page: somebody may have sent you \
                     theirs.",
                ],
                None,
            ),
            Problem::AppSecretWrong(AppOwner::Profile) => {
                set_up_wrongly("Smartsheet does not take the secret of its app.")
            }
            Problem::RedirectUrlWrong(AppOwner::Profile, _) => {
                set_up_wrongly("its app at Smartsheet has another redirect URL.")
            }
            Problem::ClientIdUnknown(AppOwner::Profile) => {
                set_up_wrongly("Smartsheet does not know its app.")
            }
            Problem::AppSecretWrong(AppOwner::Own) => tell(
                "Smartsheet does not take the app secret",
                "The app is known, but this is not its secret. Nothing was saved.",
                &[
                    "In Smartsheet, open Account, then Developer Tools, then your app, and copy \
                     the app secret again.",
                    "If a new secret was made since, the old one no longer works.",
                ],
                Some(OWN_APP),
            ),
            Problem::RedirectUrlWrong(AppOwner::Own, redirect_url) => ErrorPage {
                value: Some((*redirect_url).to_owned()),
                ..tell(
                    "The app has another redirect URL",
                    "Smartsheet sends people back only to the address that the app was \
                     registered with. Nothing was saved.",
                    &[
                        "In Smartsheet, open Account, then Developer Tools, then your app.",
                        "Set its app redirect URL to exactly the one below, save, and try again.",
                    ],
                    Some(OWN_APP),
                )
            },
            Problem::ClientIdUnknown(AppOwner::Own) => tell(
                "Smartsheet does not know this app",
                "There is no app with this client id in the region that you chose. Nothing was \
                 saved.",
                &[
                    "Copy the app client id again from Developer Tools.",
                    "Check the region: an app works only in the one that it was made in.",
                ],
                Some(OWN_APP),
            ),
            Problem::TokenRefused => tell(
                "Smartsheet does not take this token",
                "It may have been revoked, or it may have run out. Nothing was saved.",
                &[
                    "In Smartsheet, open Account, then Personal Settings, then API Access, and make \
                     a new token.",
                    "Copy it whole, without spaces before or after it.",
                ],
                Some(TOKEN),
            ),
            Problem::RightsMissing => tell(
                "This account may not list people",
                "Smartsheet knows it, but does not let it read who is in your organization. \
                 Nothing was saved.",
                &[
                    "Connect with the account of a System Admin.",
                    "If you use an app of your own, it must be allowed to read users \
                     (READ_USERS).",
                    "Smartsheet’s plan must be Business or higher.",
                ],
                Some(CHOOSE),
            ),
            Problem::StandsForAnother => tell(
                "This connection stands for another person",
                "It was set up so that an administrator’s access token reads what another person \
                 sees. What you brought cannot do that. Nothing was saved.",
                &[
                    "Use an access token that a System Admin made: signing in does not work for \
                     this.",
                    "The person that it stands for must still be there, and not be an \
                     administrator too.",
                    &format!("For a connection of your own, ask {name} for a new invitation."),
                ],
                Some(TOKEN),
            ),
            Problem::ProviderSilent => tell(
                "Smartsheet does not answer",
                "It could not be reached, or gave no usable answer. Nothing was saved.",
                &[
                    "Try again in a few minutes.",
                    "If it goes on, look at status.smartsheet.com.",
                ],
                Some(TRY_AGAIN),
            ),
            Problem::Unavailable => tell(
                "We cannot save anything just now",
                "This is on our side, and nothing of yours is lost. Nothing was saved.",
                &["Try again in a few minutes."],
                Some(TRY_AGAIN),
            ),
            Problem::ProviderThrottled { seconds } => tell(
                "Smartsheet asks us to wait",
                "It answers only so many requests a minute, and they are used up for this \
                 account. Nothing was saved.",
                &[
                    &match seconds {
                        0..=60 => "Try again in a minute.".to_owned(),
                        more => format!("Try again in {}.", words::duration(*more)),
                    },
                    "If it happens again, another program may be using the same account.",
                ],
                Some(TRY_AGAIN),
            ),
            Problem::TooManyTries => tell(
                "Too many tries at once",
                "This invitation was used very often within a minute. Nothing was saved.",
                &[
                    "Wait a minute, then try again.",
                    &format!(
                        "If you did not try that often, somebody else may have your link: ask \
                         {name} for a new invitation."
                    ),
                ],
                Some(TRY_AGAIN),
            ),
            Problem::OrganizationMismatch { linked } => tell(
                "This is another organization",
                &match linked {
                    Some(linked) => format!(
                        "This invitation renews the connection of {linked}, and the account that \
                         you used belongs elsewhere. Nothing was changed."
                    ),
                    None => "This invitation renews a connection, and the account that you used \
                             belongs to another organization. Nothing was changed."
                        .to_owned(),
                },
                &[
                    "Use an account of the organization that was connected before.",
                    &format!("To connect the other one, ask {name} for an invitation of its own."),
                ],
                Some(CHOOSE),
            ),
            Problem::ForeignForm => tell(
                "This form could not be checked",
                "It was sent from another page, or had been open for too long. For your safety \
                 it was not used, and nothing was saved.",
                &["Begin again from the first page.", &new_invitation],
                Some(CHOOSE),
            ),
            Problem::ProfileDisabled => tell(
                "This way to connect is switched off",
                &format!("{name} has switched it off. Nothing was saved."),
                &[
                    "Choose another way, if one is offered.",
                    &format!("Otherwise ask {name} to switch it on again."),
                ],
                Some(CHOOSE),
            ),
            Problem::Internal => tell(
                "Something went wrong on our side",
                "It is not your fault.",
                &[
                    "Try again in a few minutes.",
                    &format!("If it happens again, tell {name}, with the reference below."),
                ],
                Some(TRY_AGAIN),
            ),
        }
    }

    pub const fn status(&self) -> StatusCode {
        match self {
            Problem::InvitationUnknown => StatusCode::NOT_FOUND,
            Problem::InvitationUsed => StatusCode::GONE,
            Problem::ConsentDenied
            | Problem::OtherBrowser
            | Problem::ForeignForm
            | Problem::ProfileDisabled => StatusCode::FORBIDDEN,
            Problem::AuthorizationExpired => StatusCode::BAD_REQUEST,
            Problem::AppSecretWrong(AppOwner::Profile)
            | Problem::RedirectUrlWrong(AppOwner::Profile, _)
            | Problem::ClientIdUnknown(AppOwner::Profile)
            | Problem::ProviderSilent => StatusCode::BAD_GATEWAY,
            Problem::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Problem::AppSecretWrong(AppOwner::Own)
            | Problem::RedirectUrlWrong(AppOwner::Own, _)
            | Problem::ClientIdUnknown(AppOwner::Own)
            | Problem::TokenRefused
            | Problem::RightsMissing
            | Problem::StandsForAnother
            | Problem::OrganizationMismatch { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Problem::ProviderThrottled { .. } | Problem::TooManyTries => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Problem::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
pub struct ProblemPage<'a> {
    theme: &'a Theme,
    /// The request id. The customer gives it when asking for help.
    reference: &'a str,
    text: ErrorPage,
    status: StatusCode,
}

impl<'a> ProblemPage<'a> {
    pub fn new(theme: &'a Theme, problem: Problem<'_>, reference: &'a str) -> Self {
        Self {
            theme,
            reference,
            text: problem.text(theme.name()),
            status: problem.status(),
        }
    }
}

impl HubPage for ProblemPage<'_> {
    fn status(&self) -> StatusCode {
        self.status
    }
}
