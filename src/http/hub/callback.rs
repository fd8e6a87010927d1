//! The OAuth redirect endpoint. It checks the provider's parameters and shows none of them.

use actix_web::{HttpResponse, get};
use url::form_urlencoded;

use super::{
    context::{HubContext, HubSession, see_other},
    error_page::{AppOwner, Problem},
    refusal::{ErrorContext, Refusal},
};
use crate::gateway::linking::authorizations::AuthorizationCallback;

/// The parameters of an authorization response (RFC 6749, 4.1.2).
#[derive(Default)]
struct CallbackParams {
    state: String,
    code: Option<String>,
    error: Option<String>,
    /// The issuer identifier (RFC 9207).
    iss: Option<String>,
}

impl CallbackParams {
    /// Parses a query. If a parameter is repeated, which RFC 6749, 3.1 forbids, all are empty.
    fn read(query: &str) -> Self {
        let mut answer = Self::default();
        let mut state = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let field = match name.as_ref() {
                "state" => &mut state,
                "code" => &mut answer.code,
                "error" => &mut answer.error,
                "iss" => &mut answer.iss,
                _ => continue,
            };
            if field.replace(value.into_owned()).is_some() {
                return Self::default();
            }
        }
        Self {
            state: state.unwrap_or_default(),
            ..answer
        }
    }
}

/// `GET /connect/oauth2/{callback}/callback`: `smartsheet` for apps of integrators,
/// `smartsheet_iam` for customers' own apps.
#[get("/oauth2/{callback}/callback")]
pub async fn came_back(context: HubContext) -> Result<HttpResponse, Refusal> {
    let callback = context
        .request
        .match_info()
        .get("callback")
        .unwrap_or_default();
    let provider = callback.strip_suffix("_iam").unwrap_or(callback);
    if context.gateway.provider_name(provider).is_none() {
        return Err(Problem::InvitationUnknown.into());
    }
    // Without the hub's cookie, this cannot be the browser that began the sign-in.
    if context.kept().is_none() {
        return Err(Problem::OtherBrowser.into());
    }
    let app = if callback == provider {
        AppOwner::Profile
    } else {
        AppOwner::Own
    };
    let session = context.session().await?;
    let answer = CallbackParams::read(context.request.query_string());
    match (answer.code, answer.error) {
        (Some(code), None) => {
            let back = AuthorizationCallback {
                to: format!("{}{}", context.gateway.public_url(), context.request.path()),
                issuer: answer.iss,
                state: answer.state,
                code: code.into(),
            };
            redeem(&context, &session, app, back).await
        }
        (_, Some(word)) => Err(give_up(&context, &session, (&answer.state, &word)).await),
        (None, None) => Err(Problem::OtherBrowser.into()),
    }
}

async fn redeem(
    context: &HubContext,
    session: &HubSession,
    app: AppOwner,
    back: AuthorizationCallback,
) -> Result<HttpResponse, Refusal> {
    let (connect_session, browser) = (&session.session, &session.kept.browser);
    let signed_in = context
        .gateway
        .connect_sessions()
        .signed_in(connect_session, browser, back);
    match signed_in.await {
        Ok(_) => Ok(see_other("/connect/review")),
        Err(error) => {
            let choice = context.choice(session).await?;
            Err(Refusal::Error(
                error,
                ErrorContext {
                    app,
                    redirect_url: choice.offer.own_app_callback_url.clone(),
                    ..choice.around()
                },
            ))
        }
    }
}

/// Ends a sign-in that the provider answered with an error. The `state` must belong to this
/// browser; it also tells whether the app is the customer's own.
async fn give_up(
    context: &HubContext,
    session: &HubSession,
    (state, word): (&str, &str),
) -> Refusal {
    let browser = &session.kept.browser;
    let app = match context
        .gateway
        .connect_sessions()
        .turned_back(browser, state)
        .await
    {
        Ok(true) => AppOwner::Own,
        Ok(false) => AppOwner::Profile,
        Err(error) => return error.into(),
    };
    let choice = match context.choice(session).await {
        Ok(choice) => choice,
        Err(refusal) => return refusal,
    };
    Refusal::TurnedBack(
        word.to_owned(),
        ErrorContext {
            app,
            redirect_url: choice.offer.own_app_callback_url.clone(),
            ..choice.around()
        },
    )
}
