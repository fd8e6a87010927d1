//! The last pages: review, progress of the first walk, and done.

use actix_web::{HttpResponse, get, http::header, post, web::Payload};
use url::Url;

use super::{
    context::{HubContext, HubSession, see_other},
    done::{DirectoryCounts, Done},
    error_page::Problem,
    field_access::FieldAccess,
    link_methods::CANCELED,
    progress::{FirstWalk, ProgressOut, ProgressPage},
    refusal::Refusal,
    review::{Method, ReviewPage, organization, person},
};
use crate::{
    error::Kind,
    gateway::linking::connect_sessions::LinkStatus,
    model::{accounts::CredentialKind, walks::WalkState},
};

/// `GET /connect/review`
#[get("/review")]
pub async fn review_page(context: HubContext) -> Result<HttpResponse, Refusal> {
    let session = context.session().await?;
    let Some(review) = context
        .gateway
        .connect_sessions()
        .review(&session.session, &session.kept.browser)
        .await?
    else {
        return Ok(see_other("/connect"));
    };
    let found = &review.found;
    session.show(&ReviewPage {
        theme: &context.theme,
        form_token: &session.form_token,
        draft: review.draft,
        customer: &session.session.details.origin_owner_name,
        method: Method::of(review.kind),
        place: &context.place(&found.provider, &found.endpoint)?,
        identity: &found.identity,
        users: found.users,
        sight: &FieldAccess::of(found.identity.is_admin, &found.hidden),
    })
}

impl Method {
    const fn of(kind: CredentialKind) -> Self {
        match kind {
            CredentialKind::AccessToken => Method::AccessToken,
            CredentialKind::OAuth => Method::SignIn,
            CredentialKind::OAuthOwnApp => Method::OwnApp,
        }
    }
}

/// `POST /connect/review`: saves the draft, or cancels it.
#[post("/review")]
pub async fn decide(context: HubContext, payload: Payload) -> Result<HttpResponse, Refusal> {
    let session = context.session().await?;
    let form = context.form(&session, payload).await?;
    let browser = &session.kept.browser;
    if form.text("decision") != "save" {
        context
            .gateway
            .connect_sessions()
            .cancel(&session.session, browser)
            .await?;
        return Ok(see_other(CANCELED));
    }
    let draft = form.text("draft").parse().unwrap_or_default();
    match context
        .gateway
        .connect_sessions()
        .save(&session.session, browser, draft)
        .await
    {
        Ok(_) => Ok(see_other("/connect/progress")),
        // The draft was replaced or is gone: show the current one.
        Err(error) if error.kind() == Kind::InvalidBody => Ok(see_other("/connect/review")),
        Err(error) if error.kind() == Kind::ConnectSessionInvalid => {
            Err(Problem::InvitationUsed.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// This browser's connect session and the account that the browser linked with it.
async fn linked(context: &HubContext) -> Result<(HubSession, LinkStatus), Refusal> {
    let session = context.session_even_if_used().await?;
    let (connect_session, browser) = (&session.session, &session.kept.browser);
    if let Some(linked) = context
        .gateway
        .connect_sessions()
        .linked(connect_session, browser)
        .await?
    {
        return Ok((session, linked));
    }
    context.check_open(connect_session)?;
    Err(Problem::InvitationUnknown.into())
}

fn first_walk(linked: &LinkStatus) -> FirstWalk {
    let has_failed = linked
        .last_walk
        .as_ref()
        .is_some_and(|walk| walk.state != WalkState::Sealed);
    match linked.progress {
        _ if linked.is_sealed => FirstWalk::Sealed,
        Some(progress) => FirstWalk::Running(progress),
        None if has_failed => FirstWalk::Failed,
        None => FirstWalk::Waiting,
    }
}

/// `GET /connect/progress`
#[get("/progress")]
pub async fn progress_page(context: HubContext) -> Result<HttpResponse, Refusal> {
    let (session, linked) = linked(&context).await?;
    let walk = first_walk(&linked);
    if walk == FirstWalk::Sealed {
        return Ok(see_other("/connect/done"));
    }
    session.show(&ProgressPage {
        theme: &context.theme,
        organization: &organization(&linked.account.identity),
        walk,
    })
}

/// `GET /connect/progress.json`
#[get("/progress.json")]
pub async fn progress_json(context: HubContext) -> Result<HttpResponse, Refusal> {
    let (_, linked) = linked(&context).await?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .json(ProgressOut::from(first_walk(&linked))))
}

/// `GET /connect/done`
#[get("/done")]
pub async fn done_page(context: HubContext) -> Result<HttpResponse, Refusal> {
    let (session, linked) = linked(&context).await?;
    let account = &linked.account;
    let details = &session.session.details;
    let return_url = details.return_url.as_deref();
    session.show(&Done {
        theme: &context.theme,
        organization: &organization(&account.identity),
        person: &person(&account.identity),
        place: &context.place(&account.provider, &account.endpoint)?,
        directory: counted(&linked),
        sight: &FieldAccess::of(account.identity.is_admin, &linked.hidden),
        account: &account.id.to_string(),
        provider: &account.provider,
        opener_origin: details.opener_origin.as_deref(),
        return_url: return_url.and_then(|url| Url::parse(url).ok()).as_ref(),
    })
}

/// The counts of the last ended walk, if the account has a sealed directory.
fn counted(linked: &LinkStatus) -> Option<DirectoryCounts> {
    let counts = linked.last_walk.as_ref()?.counts?;
    linked.is_sealed.then_some(DirectoryCounts {
        users: counts.users,
        groups: counts.groups,
    })
}
