//! The first pages: the choice of a link method, and a form for each method.

use actix_web::{HttpResponse, get, post, web::Payload};
use secrecy::{ExposeSecret, SecretString};

use super::{
    context::{Choice, HubContext, HubSession, see_other},
    error_page::Problem,
    own_app::{OwnApp, OwnAppFault},
    refusal::{ErrorContext, Refusal},
    region::RegionChoice,
    start::{Again, Methods, Notice, ProfileMethod, Start},
    token::{Token, TokenFault},
};
use crate::{error::Kind, model::accounts::Endpoint};

/// The first page, with the notice that the customer canceled.
pub const CANCELED: &str = "/connect?canceled";

/// The longest token, app secret and client id in bytes. The API has the same limits.
const LONGEST_SECRET: usize = 4096;
const LONGEST_CLIENT_ID: usize = 255;

/// `GET /connect`
#[get("")]
pub async fn start_page(context: HubContext) -> Result<HttpResponse, Refusal> {
    let session = context.session_even_if_used().await?;
    if session.session.linked_account.is_some() && context.check_open(&session.session).is_err() {
        // The session is used up: show the progress of the account that it linked.
        return Ok(see_other("/connect/progress"));
    }
    let choice = context.choice(&session).await?;
    let is_canceled = context.request.query_string() == "canceled";
    let left = session
        .session
        .expires_at
        .duration_since(context.gateway.clock().now());
    session.show(&Start {
        theme: &context.theme,
        form_token: &session.form_token,
        customer: &session.session.details.origin_owner_name,
        again: choice.again(),
        notice: is_canceled.then_some(Notice::Canceled),
        methods: choice.methods(),
        seconds_left: left.as_secs().unsigned_abs(),
    })
}

impl Choice {
    fn again(&self) -> Option<Again<'_>> {
        let account = self.offer.account.as_ref()?;
        Some(Again {
            organization: account.identity.organization_name.as_deref(),
        })
    }

    /// The context for an error page.
    pub fn around(&self) -> ErrorContext {
        let again = self.again().and_then(|again| again.organization);
        ErrorContext {
            linked: again.map(str::to_owned),
            ..ErrorContext::default()
        }
    }

    fn methods(&self) -> Methods<'_> {
        let sign_in = self.offer.profiles.iter().zip(&self.profile_ids);
        let sign_in = sign_in.filter_map(|(profile, id)| {
            Some(ProfileMethod {
                profile: id,
                label: profile.label.as_deref().unwrap_or(&profile.client_id),
                place: self.place_of(&profile.endpoint)?,
            })
        });
        Methods {
            sign_in: sign_in.collect(),
            own_app: self.offer.takes_own_app,
            access_token: self.offer.takes_token,
        }
    }
}

/// `POST /connect/sign-in`: redirects to the provider's consent page.
#[post("/sign-in")]
pub async fn begin_sign_in(context: HubContext, payload: Payload) -> Result<HttpResponse, Refusal> {
    let session = context.session().await?;
    let form = context.form(&session, payload).await?;
    let browser = &session.kept.browser;
    let url = context
        .gateway
        .connect_sessions()
        .sign_in(&session.session, browser, form.text("profile"))
        .await?;
    Ok(see_other(url.as_str()))
}

/// `GET /connect/token`
#[get("/token")]
pub async fn token_page(context: HubContext) -> Result<HttpResponse, Refusal> {
    let session = context.session().await?;
    let choice = context.choice(&session).await?;
    if !choice.offer.takes_token {
        return Ok(see_other("/connect"));
    }
    ask_token(&context, &session, &choice, None, None)
}

/// The form for a token. It never contains the token that was submitted.
fn ask_token(
    context: &HubContext,
    session: &HubSession,
    choice: &Choice,
    chosen: Option<&str>,
    fault: Option<TokenFault<'_>>,
) -> Result<HttpResponse, Refusal> {
    session.show(&Token {
        theme: &context.theme,
        form_token: &session.form_token,
        places: &choice.places,
        chosen,
        fault,
        has_other_ways: choice.methods().is_choice(),
    })
}

/// `POST /connect/token`: checks the token in the chosen region, and in no other.
#[post("/token")]
pub async fn bring_token(context: HubContext, payload: Payload) -> Result<HttpResponse, Refusal> {
    let session = context.session().await?;
    let form = context.form(&session, payload).await?;
    let choice = context.choice(&session).await?;
    let ask = |chosen, fault| ask_token(&context, &session, &choice, chosen, Some(fault));
    let Some((endpoint, place)) = choice.named(form.text("region")) else {
        return ask(None, TokenFault::NoRegion);
    };
    let token = form.secret("token");
    match secret_fault(&token) {
        Some(Unfit::Missing) => ask(Some(&place.value), TokenFault::NoToken),
        Some(Unfit::Malformed) => ask(Some(&place.value), TokenFault::NotAToken),
        None => match try_token(&context, &session, &choice, endpoint, token).await? {
            Tried::Good => Ok(see_other("/connect/review")),
            Tried::Unknown => ask(None, TokenFault::UnknownAt(place)),
        },
    }
}

/// The result of checking a token in one region.
enum Tried {
    Good,
    /// The region does not know the token; another one may.
    Unknown,
}

async fn try_token(
    context: &HubContext,
    session: &HubSession,
    choice: &Choice,
    endpoint: &Endpoint,
    token: SecretString,
) -> Result<Tried, Refusal> {
    if !choice.offer.takes_token {
        return Err(Problem::ProfileDisabled.into());
    }
    let endpoint = endpoint.clone();
    let tried = context.gateway.connect_sessions().bring_token(
        &session.session,
        &session.kept.browser,
        endpoint,
        token,
    );
    match tried.await {
        Ok(_) => Ok(Tried::Good),
        Err(error) if error.kind() == Kind::CredentialRefused => Ok(Tried::Unknown),
        Err(error) => Err(Refusal::Error(error, choice.around())),
    }
}

/// `GET /connect/app`
#[get("/app")]
pub async fn own_app_page(context: HubContext) -> Result<HttpResponse, Refusal> {
    let session = context.session().await?;
    let choice = context.choice(&session).await?;
    if !choice.offer.takes_own_app {
        return Ok(see_other("/connect"));
    }
    ask_app(&context, &session, &choice, (None, ""), None)
}

/// The form for the customer's own app. It never contains the secret that was submitted.
fn ask_app(
    context: &HubContext,
    session: &HubSession,
    choice: &Choice,
    (place, client_id): (Option<&RegionChoice>, &str),
    fault: Option<OwnAppFault>,
) -> Result<HttpResponse, Refusal> {
    session.show(&OwnApp {
        theme: &context.theme,
        form_token: &session.form_token,
        places: &choice.places,
        chosen: place.map(|place| place.value.as_str()),
        client_id,
        hub_url: context.gateway.public_url(),
        redirect_url: &choice.offer.own_app_callback_url,
        fault,
        has_other_ways: choice.methods().is_choice(),
    })
}

/// `POST /connect/app`: redirects to the provider's consent page, with the customer's own app.
#[post("/app")]
pub async fn begin_own_app(context: HubContext, payload: Payload) -> Result<HttpResponse, Refusal> {
    let session = context.session().await?;
    let form = context.form(&session, payload).await?;
    let choice = context.choice(&session).await?;
    let (id, secret) = (form.text("client_id"), form.secret("client_secret"));
    if !choice.offer.takes_own_app {
        return Err(Problem::ProfileDisabled.into());
    }
    let named = choice.named(form.text("region"));
    let ask = |fault| {
        ask_app(
            &context,
            &session,
            &choice,
            (named.map(|it| it.1), id),
            Some(fault),
        )
    };
    let Some((endpoint, _)) = named else {
        return ask(OwnAppFault::NoRegion);
    };
    if let Some(fault) = app_fault(id, &secret) {
        return ask(fault);
    }
    let (session, browser) = (&session.session, &session.kept.browser);
    let app = (id.to_owned(), secret);
    let url = context
        .gateway
        .connect_sessions()
        .sign_in_with_own_app(session, browser, endpoint.clone(), app)
        .await?;
    Ok(see_other(url.as_str()))
}

/// Why an input was rejected before it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unfit {
    Missing,
    Malformed,
}

/// Accepts 1 to `longest` visible ASCII characters.
fn fault(text: &str, longest: usize) -> Option<Unfit> {
    if text.is_empty() {
        return Some(Unfit::Missing);
    }
    let is_fit = text.len() <= longest && text.bytes().all(|byte| byte.is_ascii_graphic());
    (!is_fit).then_some(Unfit::Malformed)
}

fn secret_fault(secret: &SecretString) -> Option<Unfit> {
    fault(secret.expose_secret(), LONGEST_SECRET)
}

fn app_fault(id: &str, secret: &SecretString) -> Option<OwnAppFault> {
    match (fault(id, LONGEST_CLIENT_ID), secret_fault(secret)) {
        (Some(Unfit::Missing), _) => Some(OwnAppFault::NoClientId),
        (Some(Unfit::Malformed), _) => Some(OwnAppFault::NotAClientId),
        (None, Some(Unfit::Missing)) => Some(OwnAppFault::NoClientSecret),
        (None, Some(Unfit::Malformed)) => Some(OwnAppFault::NotAClientSecret),
        (None, None) => None,
    }
}
