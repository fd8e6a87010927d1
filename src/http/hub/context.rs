//! The context of a hub request: the gateway, the theme, and the connect session of the browser.
//! Also the processing that all responses of the hub share ([`finish`]).

use std::convert::Infallible;

use actix_web::{
    Error as ActixError, FromRequest, HttpMessage, HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{self, ServiceRequest, ServiceResponse},
    http::header::{self, HeaderName},
    middleware::Next,
    web::{Data, Payload},
};
use futures_util::future::{Ready, ok};
use url::Url;

use super::{
    cookie::SessionCookie,
    error_page::{Problem, ProblemPage},
    form::Form,
    page::{self, HubPage},
    refusal::Refusal,
    region::RegionChoice,
    theme::Theme,
};
use crate::{
    error::Error,
    gateway::{Gateway, linking::connect_sessions::LinkOptions},
    http::middleware::{Rendered, RequestExt, log_cause},
    model::{
        accounts::{Endpoint, Region},
        connect_sessions::ConnectSession,
    },
};

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// The context of one hub request.
pub struct HubContext {
    pub gateway: Data<Gateway>,
    pub theme: Data<Theme>,
    pub request: HttpRequest,
}

/// The connect session that the browser's cookie names.
pub struct HubSession {
    pub session: ConnectSession,
    /// The content of the cookie.
    pub kept: SessionCookie,
    /// The CSRF token for forms of this session.
    pub form_token: String,
}

/// The link options of a connect session, as the pages show them.
pub struct Choice {
    pub offer: LinkOptions,
    /// The id of each profile in `offer.profiles`, in the same order.
    pub profile_ids: Vec<String>,
    /// The region choice of each endpoint in `offer.endpoints`, in the same order.
    pub places: Vec<RegionChoice>,
}

impl FromRequest for HubContext {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        ok(Self::of(request))
    }
}

impl HubContext {
    fn of(request: &HttpRequest) -> Self {
        let gateway: Option<&Data<Gateway>> = request.app_data();
        let theme: Option<&Data<Theme>> = request.app_data();
        Self {
            gateway: gateway.expect("the app was built with a gateway").clone(),
            theme: theme.expect("the app was built with a theme").clone(),
            request: request.clone(),
        }
    }

    pub fn is_secure(&self) -> bool {
        self.gateway.public_url().starts_with("https://")
    }

    /// The cookie that the browser sent, if it is well-formed.
    pub fn kept(&self) -> Option<SessionCookie> {
        SessionCookie::of(&self.request, self.is_secure())
    }

    /// This browser's connect session, even a used one, as long as it has not expired.
    pub async fn session_even_if_used(&self) -> Result<HubSession, Refusal> {
        let kept = self.kept().ok_or(Problem::InvitationUnknown)?;
        let session = self
            .gateway
            .connect_sessions()
            .connect_session(&kept.token)
            .await?;
        Ok(HubSession {
            session,
            form_token: kept.form_token(),
            kept,
        })
    }

    /// This browser's connect session, if it can still be used.
    pub async fn session(&self) -> Result<HubSession, Refusal> {
        let session = self.session_even_if_used().await?;
        self.check_open(&session.session)?;
        Ok(session)
    }

    pub fn check_open(&self, session: &ConnectSession) -> Result<(), Refusal> {
        if session.is_open_at(self.gateway.clock().now()) {
            return Ok(());
        }
        Err(Problem::InvitationUsed.into())
    }

    /// The form that the browser posted, if it passes the checks of [`Form::read`].
    pub async fn form(&self, session: &HubSession, payload: Payload) -> Result<Form, Refusal> {
        let origin = Url::parse(self.gateway.public_url()).map(|url| url.origin());
        let origin = origin.map_or_else(|_| String::new(), |it| it.ascii_serialization());
        let form = Form::read(&self.request, payload, &origin, &session.kept).await;
        form.ok_or(Problem::ForeignForm.into())
    }

    pub async fn choice(&self, session: &HubSession) -> Result<Choice, Refusal> {
        let offer = self
            .gateway
            .connect_sessions()
            .offer(&session.session)
            .await?;
        let profiles = offer.profiles.iter();
        let places = offer.endpoints.iter();
        let places = places.map(|endpoint| {
            let place = self.place(&offer.provider, endpoint)?;
            Ok::<_, Refusal>(match label_of(&offer, endpoint) {
                Some(label) => place.called(label),
                None => place,
            })
        });
        Ok(Choice {
            profile_ids: profiles.map(|profile| profile.id.to_string()).collect(),
            places: places.collect::<Result<_, _>>()?,
            offer,
        })
    }

    /// The region choice of an endpoint, with the name that a customer knows.
    pub fn place(&self, provider: &str, endpoint: &Endpoint) -> Result<RegionChoice, Refusal> {
        let api = self.gateway.connect_sessions().api_url(provider, endpoint);
        let api = api.ok_or_else(|| Error::internal("an endpoint that cannot be called"))?;
        let sign_in = self
            .gateway
            .connect_sessions()
            .consent_origin(provider, endpoint);
        let sign_in = sign_in.and_then(|origin| Url::parse(&origin).ok());
        let (value, name) = match endpoint {
            Endpoint::Region(region) => (region.as_str(), region_name(*region)),
            Endpoint::BaseUrl(base) => (base.as_str(), api.host_str().unwrap_or_default()),
        };
        Ok(RegionChoice::new(value, name, &api, sign_in.as_ref()))
    }
}

/// The integrator's label for a base URL: that of the first profile with this base URL. A region
/// has a name of its own, so this is None for it.
fn label_of<'a>(offer: &'a LinkOptions, endpoint: &Endpoint) -> Option<&'a str> {
    let mut profiles = offer.profiles.iter();
    let profile = profiles.find(|profile| profile.endpoint == *endpoint)?;
    let is_named = matches!(endpoint, Endpoint::Region(_));
    profile.label.as_deref().filter(|_| !is_named)
}

const fn region_name(region: Region) -> &'static str {
    match region {
        Region::Us => "United States",
        Region::Eu => "Europe",
        Region::Au => "Australia",
        Region::Gov => "US Government",
    }
}

impl HubSession {
    /// Renders a page for this session. Its opener keeps access to the window only if the session
    /// has a registered opener origin.
    pub fn show(&self, page: &impl HubPage) -> Result<HttpResponse, Refusal> {
        let mut answer = page::answer(page)?;
        if self.session.details.opener_origin.is_none() {
            let same = header::HeaderValue::from_static("same-origin");
            answer.headers_mut().insert(OPENER_POLICY, same);
        }
        Ok(answer)
    }
}

impl Choice {
    /// The endpoint and region choice that have this form value.
    pub fn named(&self, value: &str) -> Option<(&Endpoint, &RegionChoice)> {
        let mut all = self.offer.endpoints.iter().zip(&self.places);
        all.find(|(_, place)| place.value == value)
    }

    pub fn place_of(&self, endpoint: &Endpoint) -> Option<&RegionChoice> {
        let mut all = self.offer.endpoints.iter().zip(&self.places);
        all.find_map(|(each, place)| (each == endpoint).then_some(place))
    }
}

/// Redirects to another page with GET (RFC 9110, 15.4.4) and without a referrer.
pub fn see_other(url: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, url))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .finish()
}

/// Wraps every route of the hub and turns each error into a page.
///
/// # Errors
/// None: an error becomes a response here.
pub async fn finish(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, ActixError> {
    let response = next.call(request).await?.map_into_boxed_body();
    let status = response.status();
    let mut response = if status.is_client_error() || status.is_server_error() {
        refused(response)
    } else {
        response
    };
    // Keeps the app's middleware from replacing an error page with an API error.
    response.response_mut().extensions_mut().insert(Rendered);
    Ok(response)
}

/// The problem page for an error response. A response without an error is a page already, such as a
/// form that is shown again, and passes unchanged.
fn refused(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let Some(error) = response.response().error() else {
        return response;
    };
    let context = HubContext::of(response.request());
    let noted = context.request.extensions().get::<RequestExt>().cloned();
    let id = noted.map_or_else(String::new, |noted| noted.request_id().to_owned());
    let refusal = error.as_error::<Refusal>();
    if let Some(cause) = refusal.and_then(Refusal::error) {
        log_cause(cause, &id);
    }
    let problem = refusal.map_or(Problem::Internal, Refusal::problem);
    let page = ProblemPage::new(&context.theme, problem, &id);
    match page::answer(&page) {
        Ok(answer) => response.into_response(answer),
        Err(_) => response,
    }
}
