//! The last pages: what was found, the first reading, and the end.

use actix_web::{HttpResponse, get, http::header, post, web::Payload};
use url::Url;

use super::{
    context::{HubContext, HubSession, see},
    done::{DirectoryCounts, Done},
    error_page::Problem,
    field_access::FieldAccess,
    link_methods::CANCELLED,
    progress::{FirstWalk, ProgressOut, ProgressPage},
    refusal::Refusal,
    review::{Method, ReviewPage, organisation, person},
};
use crate::{
    error::Kind,
    gateway::linking::connect_sessions::LinkStatus,
    model::{accounts::CredentialKind, walks::WalkState},
};

/// `GET /connect/review`
#[get("/review")]
pub async fn review_page(desk: HubContext) -> Result<HttpResponse, Refusal> {
    let guest = desk.guest().await?;
    let Some(review) = desk
        .gateway
        .review(&guest.session, &guest.kept.browser)
        .await?
    else {
        return Ok(see("/connect"));
    };
    let found = &review.found;
    guest.show(&ReviewPage {
        look: &desk.look,
        form_token: &guest.form_token,
        draft: review.draft,
        customer: &guest.session.details.origin_owner_name,
        method: Method::of(review.kind),
        place: &desk.place(&found.provider, &found.endpoint)?,
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

/// `POST /connect/review`: saved, or not.
#[post("/review")]
pub async fn decide(desk: HubContext, payload: Payload) -> Result<HttpResponse, Refusal> {
    let guest = desk.guest().await?;
    let form = desk.form(&guest, payload).await?;
    let browser = &guest.kept.browser;
    if form.text("decision") != "save" {
        desk.gateway.cancel(&guest.session, browser).await?;
        return Ok(see(CANCELLED));
    }
    let draft = form.text("draft").parse().unwrap_or_default();
    match desk.gateway.save(&guest.session, browser, draft).await {
        Ok(_) => Ok(see("/connect/progress")),
        // Something else waits by now, or nothing: look at that.
        Err(error) if error.kind() == Kind::InvalidBody => Ok(see("/connect/review")),
        Err(error) if error.kind() == Kind::ConnectSessionInvalid => {
            Err(Problem::InvitationUsed.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// The browser that has linked, and its account.
async fn linked(desk: &HubContext) -> Result<(HubSession, LinkStatus), Refusal> {
    let guest = desk.holder().await?;
    let (session, browser) = (&guest.session, &guest.kept.browser);
    if let Some(linked) = desk.gateway.linked(session, browser).await? {
        return Ok((guest, linked));
    }
    desk.check_open(session)?;
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
pub async fn progress_page(desk: HubContext) -> Result<HttpResponse, Refusal> {
    let (guest, linked) = linked(&desk).await?;
    let walk = first_walk(&linked);
    if walk == FirstWalk::Sealed {
        return Ok(see("/connect/done"));
    }
    guest.show(&ProgressPage {
        look: &desk.look,
        organisation: &organisation(&linked.account.identity),
        walk,
    })
}

/// `GET /connect/progress.json`
#[get("/progress.json")]
pub async fn progress_json(desk: HubContext) -> Result<HttpResponse, Refusal> {
    let (_, linked) = linked(&desk).await?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .json(ProgressOut::from(first_walk(&linked))))
}

/// `GET /connect/done`
#[get("/done")]
pub async fn done_page(desk: HubContext) -> Result<HttpResponse, Refusal> {
    let (guest, linked) = linked(&desk).await?;
    let account = &linked.account;
    let details = &guest.session.details;
    let return_url = details.return_url.as_deref();
    guest.show(&Done {
        look: &desk.look,
        organisation: &organisation(&account.identity),
        person: &person(&account.identity),
        place: &desk.place(&account.provider, &account.endpoint)?,
        directory: counted(&linked),
        sight: &FieldAccess::of(account.identity.is_admin, &linked.hidden),
        account: &account.id.to_string(),
        provider: &account.provider,
        opener_origin: details.opener_origin.as_deref(),
        return_url: return_url.and_then(|url| Url::parse(url).ok()).as_ref(),
    })
}

/// What the last walk sealed.
fn counted(linked: &LinkStatus) -> Option<DirectoryCounts> {
    let counts = linked.last_walk.as_ref()?.counts?;
    linked.is_sealed.then_some(DirectoryCounts {
        users: counts.users,
        groups: counts.groups,
    })
}
