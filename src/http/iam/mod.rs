//! `/iam`: the directory of one account, as a summary, as pages and as single records.
//!
//! This module parses what all reads share and builds their responses; [`filter`] parses the
//! filters.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderName, HeaderValue},
};
use utoipa::IntoParams;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{
    caller::{IamRead, NamedAccount},
    error::ApiError,
    query::{Query, invalid},
};
use crate::{
    directory::{ExpandSet, FieldSet, Filter, Resource},
    error::{Result, quoted},
    gateway::{
        Gateway,
        directory::{Coding, ReadResponse, Selection, Want},
    },
};

pub mod filter;
pub mod groups;
pub mod me;
mod negotiation;
pub mod policies;
pub mod roles;
pub mod summary;
pub mod users;

use negotiation::{accepted_coding, max_age};

const PAGE_SIZE: u64 = 25;
const LARGEST_PAGE: u64 = 100;

const VARY: HeaderValue = HeaderValue::from_static("Authorization, x-account-id, Accept-Encoding");
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("private, no-cache");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const DIRECTORY_VERSION: HeaderName = HeaderName::from_static("x-directory-version");

/// The routes are mounted at the root and under `/unified`.
pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(summary::get_summary)
        .service(users::list_users)
        .service(users::get_user)
        .service(users::update_user)
        .service(users::delete_user)
        .service(roles::list_roles)
        .service(roles::get_role)
        .service(groups::list_groups)
        .service(groups::get_group)
        .service(policies::list_policies)
        .service(policies::get_policy)
        .service(me::get_me);
}

/// Parameters of every list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// The id of the linked account. The header x-account-id does the same.
    #[param(required = false, format = Uuid)]
    pub account_id: Option<String>,
    /// Records per page.
    #[param(minimum = 1, maximum = 100, default = 25, required = false)]
    pub page_size: Option<u32>,
    /// `next` of the previous page, unchanged.
    #[param(required = false, max_length = 1024)]
    pub next: Option<String>,
    /// Accepted and ignored. Use `next`.
    #[param(required = false)]
    pub page: Option<String>,
    /// Only these top-level fields, separated by commas. All if empty.
    #[param(required = false, style = Form, explode = false)]
    pub fields: Option<Vec<String>>,
    /// Nested records to return whole, separated by commas.
    #[param(required = false, style = Form, explode = false)]
    pub expand: Option<Vec<String>>,
    /// Adds the requests to the provider that the records came from.
    #[param(required = false, default = false)]
    pub raw: Option<bool>,
}

/// Parameters of a single record.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RecordParams {
    /// The id of the linked account. The header x-account-id does the same.
    #[param(required = false, format = Uuid)]
    pub account_id: Option<String>,
    /// Only these top-level fields, separated by commas. All if empty.
    #[param(required = false, style = Form, explode = false)]
    pub fields: Option<Vec<String>>,
    /// Nested records to return whole, separated by commas.
    #[param(required = false, style = Form, explode = false)]
    pub expand: Option<Vec<String>>,
    /// Adds the requests to the provider that the record came from.
    #[param(required = false, default = false)]
    pub raw: Option<bool>,
}

/// Header fields of every read. The one that names the account is missing here: the document has it
/// as the security scheme `linked_account`, so that users of Swagger UI enter it only once.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct ReadHeaders {
    /// An ETag of an earlier answer. The answer is 304 if it still matches.
    #[param(rename = "If-None-Match", value_type = String, required = false)]
    pub if_none_match: Option<String>,
    /// `no-cache`, or `max-age=SECONDS`: wait for a directory that is at most this old.
    #[param(rename = "Cache-Control", value_type = String, required = false)]
    pub cache_control: Option<String>,
}

async fn list(
    resource: Resource,
    account: NamedAccount<IamRead>,
    request: &HttpRequest,
    gateway: &Gateway,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::parse(request.query_string())?;
    // The extractor has read the account; `page` is accepted and ignored.
    query.take("account_id");
    query.take("page");
    let page_size = query
        .take_number("page_size", 1..=LARGEST_PAGE)?
        .unwrap_or(PAGE_SIZE);
    let next = query
        .take("next")
        .filter(|next| !next.is_empty())
        .map(|next| next.into_owned());
    let filter = filter::take(resource, &mut query)?;
    let selection = selection(resource, filter, &mut query)?;
    query.finish()?;
    let want = Want::Page {
        page_size: u32::try_from(page_size).expect("at most a hundred"),
        next,
    };
    read(&account, request, gateway, &selection, &want).await
}

async fn record(
    resource: Resource,
    account: NamedAccount<IamRead>,
    request: &HttpRequest,
    gateway: &Gateway,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::parse(request.query_string())?;
    // The extractor has read it.
    query.take("account_id");
    let selection = selection(resource, Filter::default(), &mut query)?;
    query.finish()?;
    let id = request.match_info().query("record");
    let id = percent_encoding::percent_decode_str(id)
        .decode_utf8()
        .map_err(|_| invalid("the id in the path is not UTF-8 once percent-decoded"))?;
    let want = Want::Record {
        id: id.into_owned(),
    };
    read(&account, request, gateway, &selection, &want).await
}

fn selection(resource: Resource, filter: Filter, query: &mut Query<'_>) -> Result<Selection> {
    let unknown = |what: &str, name: &str| {
        invalid(format!(
            "{} is not a value of `{what}` for {}",
            quoted(name),
            resource.as_str()
        ))
    };
    let fields = query.take("fields").unwrap_or_default();
    let expand = query.take("expand").unwrap_or_default();
    Ok(Selection {
        resource,
        filter,
        raw: query.take_bool("raw")?.unwrap_or(false),
        fields: FieldSet::parse(resource, &fields).map_err(|name| unknown("fields", &name))?,
        expand: ExpandSet::parse(resource, &expand).map_err(|name| unknown("expand", &name))?,
    })
}

async fn read(
    account: &NamedAccount<IamRead>,
    request: &HttpRequest,
    gateway: &Gateway,
    selection: &Selection,
    want: &Want,
) -> Result<HttpResponse, ApiError> {
    let max_age = max_age(request)?;
    let known = known_etags(request);
    let answer = gateway
        .directory()
        .read(&account.0, selection, want, max_age, |etag| {
            is_known(&known, etag)
        })
        .await?;
    Ok(respond(request, &known, answer))
}

/// Builds the response. `known` are the ETags that the caller sent.
fn respond(request: &HttpRequest, known: &[&str], mut answer: ReadResponse) -> HttpResponse {
    if known.contains(&"*") {
        // `*` matches any page that exists, and only now is it certain that one does.
        answer.page = None;
    }
    let mut response = match &answer.page {
        None => HttpResponse::NotModified(),
        Some(_) => HttpResponse::Ok(),
    };
    response
        .insert_header((header::ETAG, &*answer.etag))
        .insert_header((header::VARY, VARY))
        .insert_header((header::CACHE_CONTROL, CACHE_CONTROL))
        .insert_header((header::AGE, HeaderValue::from(answer.age.as_secs())))
        .insert_header((header::LAST_MODIFIED, http_date(answer.sealed_at)))
        .insert_header((DIRECTORY_VERSION, HeaderValue::from(answer.version)));
    if let Some(stale) = answer.stale {
        response.insert_header(("x-directory-stale", stale.as_str()));
    }
    let Some(page) = &answer.page else {
        return response.finish();
    };
    let (body, coding) = page.body(accepted_coding(request));
    match coding {
        Coding::Identity => {}
        Coding::Gzip => {
            response.insert_header((header::CONTENT_ENCODING, "gzip"));
        }
        Coding::Zstd => {
            response.insert_header((header::CONTENT_ENCODING, "zstd"));
        }
    }
    response
        .insert_header((header::CONTENT_TYPE, JSON))
        .body(body)
}

/// An IMF-fixdate (RFC 9110, 5.6.7), such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(moment: jiff::Timestamp) -> String {
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&moment)
        .unwrap_or_else(|_| moment.to_string())
}

/// The ETags of `If-None-Match` (RFC 9110, 13.1.2).
fn known_etags(request: &HttpRequest) -> Vec<&str> {
    request
        .headers()
        .get_all(header::IF_NONE_MATCH)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|etag| !etag.is_empty())
        .collect()
}

fn is_known(known: &[&str], etag: &str) -> bool {
    known.iter().any(|known| weakly(known) == weakly(etag))
}

/// The part of an ETag for weak comparison (RFC 9110, 8.8.3.2): without `W/`.
fn weakly(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}
