//! `/audit`: lists the audit log of a project.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, get, web::Data};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{
    caller::{Admin, Allowed},
    error::ApiError,
    errors::AuditErrors,
    query::{PageParams, Query, invalid},
};
use crate::{
    error::Result,
    gateway::Gateway,
    model::{
        audit_log::{ActorKind, AuditAction, AuditEntry, AuditFilter, SubjectKind},
        id::AccountId,
        timestamp,
    },
};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(list_audit_entries);
}

/// An entry of the audit log.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct EntryOut {
    /// The entry's number in the project's log. Counts from 1 without gaps.
    pub sequence: u64,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: Timestamp,
    pub actor: ActorOut,
    pub action: AuditAction,
    pub subject: SubjectOut,
    /// Details, as names and plain words. Never a secret, a name or an address.
    pub detail: BTreeMap<String, String>,
}

/// The actor of an entry.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditActor)]
pub struct ActorOut {
    /// `operator` is the command line, `system` is Rolecall itself.
    pub kind: ActorKind,
    /// Null for `operator` and `system`.
    pub id: Option<String>,
}

/// The subject of an entry, such as an account.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditSubject)]
pub struct SubjectOut {
    pub kind: SubjectKind,
    pub id: String,
}

/// Entries, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditPage)]
pub struct EntryPage {
    pub data: Vec<EntryOut>,
    pub next: Option<String>,
}

impl From<AuditEntry> for EntryOut {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { seq, at, event } = entry;
        Self {
            sequence: seq,
            created_at: at,
            actor: ActorOut {
                kind: event.actor.kind(),
                id: event.actor.id(),
            },
            action: event.action,
            subject: SubjectOut {
                kind: event.subject.kind,
                id: event.subject.id,
            },
            detail: event.detail.served(),
        }
    }
}

/// Takes the filters of the list from the query string.
fn filter(query: &mut Query<'_>) -> Result<AuditFilter> {
    let unknown = |_| invalid("action is none that there is; the API document lists them");
    let action = query.take("action").map(|word| word.parse::<AuditAction>());
    let subject_id = query.take("subject_id").map(|id| {
        let is_id = (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        // UUIDs are stored in lower case. Ids of other subjects have only one spelling.
        let stored = || {
            id.parse::<AccountId>()
                .map_or_else(|_| id.to_string(), |id| id.to_string())
        };
        is_id
            .then(stored)
            .ok_or_else(|| invalid("subject_id must be an id, as an entry has it"))
    });
    Ok(AuditFilter {
        action: action.transpose().map_err(unknown)?,
        subject_id: subject_id.transpose()?,
    })
}

/// List the audit log
///
/// Lists every use of a stored credential, and every change of an account, an API key or the
/// project itself, newest first. Entries are never changed or removed, and the operator can prove
/// it.
#[utoipa::path(
    tag = "audit",
    operation_id = "list_audit_entries",
    params(
        ("page_size" = Option<u64>, Query, minimum = 1, maximum = 100, description = "Entries per page, 25 by default."),
        ("next" = Option<String>, Query, max_length = 1024, description = "`next` of the page before; the filters as they were."),
        ("action" = Option<AuditAction>, Query, description = "Only entries of this action."),
        ("subject_id" = Option<String>, Query, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$", description = "Only entries about what has this id, such as an account."),
    ),
    responses((status = 200, description = "Entries, newest first", body = EntryPage), AuditErrors),
)]
#[get("/audit")]
pub async fn list_audit_entries(
    caller: Allowed<Admin>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::parse(request.query_string())?;
    let page = PageParams::take(&mut query)?;
    let filter = filter(&mut query)?;
    query.finish()?;
    // The filters are part of the list's name, so a cursor is valid only with the same filters.
    let list = format!("audit/{:?}/{:?}", filter.action, filter.subject_id);
    let cursors = gateway.directory().list_cursors(&caller.0, &list).await?;
    let entries = gateway
        .audit_log(&caller.0, &filter, page.after(&cursors)?, page.reach())
        .await?;
    let (entries, next) = page.cut(entries, &cursors, |entry| entry.seq.to_string());
    let data = entries.into_iter().map(EntryOut::from).collect();
    Ok(HttpResponse::Ok().json(EntryPage { data, next }))
}
