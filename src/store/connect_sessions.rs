//! Connect sessions and pending authorizations.
//!
//! Only digests of the link token and of `state` are stored. A `state` is single-use, and so is a
//! link token, unless its session allows several links. Each change of state is one statement that
//! only one caller can win: a session is used up in the transaction that stores the link
//! ([`use_up`]), a `state` by [`Store::take_authorization`].

use jiff::Timestamp;
use secrecy::ExposeSecret;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{
    FieldSealer, SealedColumn, Store,
    db::{Arg, Tx},
    decode_count, decode_json, decode_timestamp,
    destinations::authorization_digest,
    json, no_such_project, parse_id, parse_project, parse_word,
    secrets::{
        decode_app, decode_credential, decode_parts, encode_app, encode_credential, encode_parts,
        secret,
    },
    word,
};
use crate::{
    error::{Error, Kind, Result},
    model::{
        accounts::Credential,
        audit_log::{Actor, AuditAction, Event, Subject, SubjectKind},
        connect_sessions::{ConnectDetails, ConnectSession},
        connector_profiles::{OAuthApp, ProfileId},
        id::{AccountId, ProjectId},
    },
};

/// A credential that the customer has brought and not saved yet, with the provider's data about it.
#[derive(Debug, Clone)]
pub struct StoredDraft {
    pub credential: Credential,
    pub profile: Option<ProfileId>,
    pub own_app: Option<OAuthApp>,
    /// Further data, in the gateway's format.
    pub meta: Vec<u8>,
}

/// An unsaved draft of a session that has ended.
#[derive(Debug)]
pub struct EndedDraft {
    pub project: ProjectId,
    session: u64,
    number: u64,
    pub draft: StoredDraft,
}

/// An authorization to store before the browser is sent to the provider.
#[derive(Debug)]
pub struct NewAuthorization<'a> {
    pub state_digest: [u8; 32],
    pub project: &'a ProjectId,
    pub profile: Option<ProfileId>,
    pub own_app: Option<&'a OAuthApp>,
    pub connect_session: Option<u64>,
    pub browser_digest: Option<[u8; 32]>,
    pub verifier: &'a SecretString,
    /// Further data, in the gateway's format.
    pub meta: &'a [u8],
    pub expires_at: Timestamp,
}

/// An authorization whose `state` was presented. It is returned only once.
#[derive(Debug)]
pub struct Authorization {
    pub project: ProjectId,
    pub profile: Option<ProfileId>,
    pub own_app: Option<OAuthApp>,
    pub connect_session: Option<u64>,
    pub verifier: SecretString,
    pub meta: Zeroizing<Vec<u8>>,
}

/// The caller that presents a `state`.
#[derive(Debug, Clone, Copy)]
pub enum StateOwner<'a> {
    /// The browser whose cookie has this digest.
    Browser([u8; 32]),
    /// A caller of this project, or the command line. No browser is involved.
    Project(&'a ProjectId),
}

/// The reason why a `state` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("unknown")]
    Unknown,
    #[error("used")]
    Used,
    #[error("expired")]
    Expired,
    /// Another browser or another project started this authorization.
    #[error("somebody else's")]
    Another,
}

type SessionRow = (
    i64,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    String,
    i64,
    String,
    Vec<u8>,
    i64,
    Option<String>,
    i64,
    i64,
    Option<i64>,
);

impl Store {
    /// Stores a new session.
    pub async fn insert_connect_session(
        &self,
        session: &ConnectSession,
        token_digest: [u8; 32],
        by: Actor,
    ) -> Result<()> {
        let sealer = self
            .sealer_for_session(&session.project, session.number)
            .await?
            .ok_or_else(no_such_project)?;
        let details = sealer.seal(
            SealedColumn::Details,
            "",
            json(&session.details)?.as_bytes(),
        );
        let mut tx = self.db.begin().await?;
        if !tx.hold_project(&session.project).await? {
            return Err(no_such_project());
        }
        tx.execute(
            "insert into connect_sessions
                 (number, project, token_digest, provider, profile, account, kind, is_multiple,
                  origin_owner_id, sealed_details, created_at, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            [
                session.number.into(),
                (&session.project).into(),
                token_digest.to_vec().into(),
                session.provider.clone().into(),
                session.profile.map(|id| id.to_string()).into(),
                session.account.map(|id| id.to_string()).into(),
                word(&session.kind)?.into(),
                u64::from(session.is_multiple).into(),
                session.origin_owner_id.as_str().into(),
                details.into(),
                session.created_at.into(),
                session.expires_at.into(),
            ],
        )
        .await?;
        let subject = Subject::new(SubjectKind::ConnectSession, session.number);
        let created = Event::new(by, AuditAction::ConnectSessionCreated, subject);
        self.audit(&mut tx, &session.project, Some(&sealer.key), &[created])
            .await?;
        tx.commit().await
    }

    /// The session with this link token, in any state. It is looked up without a project, since the
    /// token alone identifies the session and its project.
    pub async fn connect_session(&self, token_digest: [u8; 32]) -> Result<Option<ConnectSession>> {
        let row: Option<SessionRow> = self
            .db
            .fetch_one(
                "select number, project, provider, profile, account, kind, is_multiple,
                        origin_owner_id, sealed_details, draft, linked_account, created_at,
                        expires_at, used_at
                 from connect_sessions where token_digest = $1",
                [token_digest.to_vec().into()],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let project = parse_project(&row.1)?;
        let sealer = self
            .sealer_for_session(&project, decode_count(row.0)?)
            .await?;
        sealer
            .map(|sealer| decode_session(&sealer, row))
            .transpose()
    }

    /// Replaces a browser's draft; None removes it. Returns the number of the new draft, and the
    /// former draft, of which the caller then holds the only copy. Returns None if the session was
    /// used up or has ended.
    ///
    /// # Errors
    /// `rate_limited` if too many other browsers have a draft in this session.
    pub async fn put_draft(
        &self,
        session: &ConnectSession,
        browser: [u8; 32],
        draft: Option<&StoredDraft>,
        now: Timestamp,
    ) -> Result<Option<(u64, Option<StoredDraft>)>> {
        let sealer = self
            .sealer_for_session(&session.project, session.number)
            .await?
            .ok_or_else(no_such_project)?;
        let sealed = draft.map(|draft| encode_draft(&sealer, draft));
        let mut tx = self.db.begin().await?;
        // Locks the session: other changes of its drafts wait until this transaction ends.
        let row: Option<(i64,)> = tx
            .fetch_one(
                "update connect_sessions set draft = draft + 1
                 where project = $1 and number = $2 and expires_at > $3
                     and (used_at is null or is_multiple = 1)
                 returning draft",
                [(&session.project).into(), session.number.into(), now.into()],
            )
            .await?;
        let Some((number,)) = row else {
            return Ok(None);
        };
        let former: Option<(Option<Vec<u8>>,)> = tx
            .fetch_one(
                "select sealed_draft from connect_browsers
                 where session = $1 and browser_digest = $2",
                [session.number.into(), browser.to_vec().into()],
            )
            .await?;
        if sealed.is_some() {
            check_waiting(&mut tx, session.number, browser).await?;
        }
        let former = former.and_then(|(sealed,)| sealed);
        let former = former
            .map(|sealed| decode_draft(&sealer, &sealed))
            .transpose()?;
        // Removing a draft from an unknown browser inserts no row, since a caller can invent
        // browsers at will.
        let put = if sealed.is_some() {
            "insert into connect_browsers (session, project, browser_digest, draft, sealed_draft)
             values ($1, $2, $3, $4, $5)
             on conflict (session, browser_digest)
             do update set draft = excluded.draft, sealed_draft = excluded.sealed_draft"
        } else {
            "update connect_browsers set draft = $4, sealed_draft = $5
             where session = $1 and project = $2 and browser_digest = $3"
        };
        tx.execute(
            put,
            [
                session.number.into(),
                (&session.project).into(),
                browser.to_vec().into(),
                Arg::Int(Some(number)),
                sealed.into(),
            ],
        )
        .await?;
        tx.commit().await?;
        Ok(Some((decode_count(number)?, former)))
    }

    /// This browser's unsaved draft, with its number.
    pub async fn draft(
        &self,
        session: &ConnectSession,
        browser: [u8; 32],
    ) -> Result<Option<(u64, StoredDraft)>> {
        let row: Option<(i64, Option<Vec<u8>>)> = self
            .db
            .fetch_one(
                "select draft, sealed_draft from connect_browsers
                 where session = $1 and browser_digest = $2",
                [session.number.into(), browser.to_vec().into()],
            )
            .await?;
        let Some((number, Some(sealed))) = row else {
            return Ok(None);
        };
        let sealer = self
            .sealer_for_session(&session.project, session.number)
            .await?
            .ok_or_else(no_such_project)?;
        Ok(Some((
            decode_count(number)?,
            decode_draft(&sealer, &sealed)?,
        )))
    }

    /// The account that this browser linked last through the session.
    pub async fn linked_by(
        &self,
        session: &ConnectSession,
        browser: [u8; 32],
    ) -> Result<Option<AccountId>> {
        let row: Option<(Option<String>,)> = self
            .db
            .fetch_one(
                "select linked_account from connect_browsers
                 where session = $1 and browser_digest = $2",
                [session.number.into(), browser.to_vec().into()],
            )
            .await?;
        let account = row.and_then(|(account,)| account);
        account.as_deref().map(parse_id).transpose()
    }

    /// The unsaved drafts of sessions that have ended or were used up, at most 100. A draft that
    /// cannot be decrypted is left out.
    pub async fn ended_drafts(&self, now: Timestamp) -> Result<Vec<EndedDraft>> {
        let rows: Vec<(String, i64, i64, Vec<u8>)> = self
            .db
            .fetch(
                "select b.project, b.session, b.draft, b.sealed_draft
                 from connect_browsers b join connect_sessions s on s.number = b.session
                 where b.sealed_draft is not null
                     and (s.expires_at <= $1 or (s.used_at is not null and s.is_multiple = 0))
                 order by s.expires_at desc limit 100",
                [now.into()],
            )
            .await?;
        let mut ended = Vec::new();
        for (project, session, number, sealed) in rows {
            let (project, session) = (parse_project(&project)?, decode_count(session)?);
            let opened = match self.sealer_for_session(&project, session).await {
                Ok(Some(sealer)) => decode_draft(&sealer, &sealed),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match opened {
                Ok(draft) => ended.push(EndedDraft {
                    project,
                    session,
                    number: decode_count(number)?,
                    draft,
                }),
                Err(error) => {
                    tracing::warn!(%project, session, %error, "draft of a connect session unreadable");
                }
            }
        }
        Ok(ended)
    }

    /// Deletes the draft of a session that has ended.
    pub async fn forget_ended_draft(&self, ended: &EndedDraft) -> Result<()> {
        let mut tx = self.db.begin().await?;
        tx.execute(
            "update connect_browsers set sealed_draft = null
             where session = $1 and draft = $2",
            [ended.session.into(), ended.number.into()],
        )
        .await?;
        tx.commit().await
    }

    /// Stores a pending authorization.
    pub async fn insert_authorization(
        &self,
        new: &NewAuthorization<'_>,
        now: Timestamp,
    ) -> Result<()> {
        let id = self.rng.uuid(now).to_string();
        let sealer = self
            .sealer_for(new.project, id.clone())
            .await?
            .ok_or_else(no_such_project)?;
        let app = new.own_app.map(encode_app);
        let text = encode_parts(&[
            new.verifier.expose_secret().as_bytes(),
            app.as_ref().map_or(&[][..], |app| app.as_slice()),
            new.meta,
        ]);
        let profile = new.profile.map(|id| id.to_string());
        let bound = authorization_digest(
            profile.as_deref(),
            new.connect_session.map(column_of).transpose()?,
            new.browser_digest.as_ref().map(<[u8; 32]>::as_slice),
        );
        let mut tx = self.db.begin().await?;
        if !tx.hold_project(new.project).await? {
            return Err(no_such_project());
        }
        tx.execute(
            "insert into authorizations
                 (id, state_digest, project, profile, connect_session, browser_digest, sealed,
                  created_at, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            [
                id.into(),
                new.state_digest.to_vec().into(),
                new.project.into(),
                profile.into(),
                new.connect_session.into(),
                new.browser_digest.map(Vec::from).into(),
                sealer
                    .seal_for(bound, SealedColumn::Authorization, "", &text)
                    .into(),
                now.into(),
                new.expires_at.into(),
            ],
        )
        .await?;
        tx.commit().await
    }

    /// Takes the authorization of this `state`, once. A caller that did not start it gets
    /// [`StateError::Another`], and the `state` stays valid for its owner.
    pub async fn take_authorization(
        &self,
        state_digest: [u8; 32],
        bringer: StateOwner<'_>,
        now: Timestamp,
    ) -> Result<Result<Authorization, StateError>> {
        type SessionRow = (
            String,
            String,
            Option<String>,
            Option<i64>,
            Option<Vec<u8>>,
            Vec<u8>,
            i64,
            Option<i64>,
        );
        let mut tx = self.db.begin().await?;
        let row: Option<SessionRow> = tx
            .fetch_one(
                "select id, project, profile, connect_session, browser_digest, sealed, expires_at,
                        used_at
                 from authorizations where state_digest = $1",
                [state_digest.to_vec().into()],
            )
            .await?;
        let Some((id, project, profile, session, browser, sealed, expires_at, used_at)) = row
        else {
            return Ok(Err(StateError::Unknown));
        };
        let is_theirs = match bringer {
            StateOwner::Browser(digest) => browser.as_deref() == Some(&digest),
            StateOwner::Project(asking) => browser.is_none() && asking.as_str() == project,
        };
        if !is_theirs {
            return Ok(Err(StateError::Another));
        }
        if used_at.is_some() {
            return Ok(Err(StateError::Used));
        }
        if expires_at <= now.as_millisecond() {
            return Ok(Err(StateError::Expired));
        }
        let taken = tx
            .execute(
                "update authorizations set used_at = $2 where id = $1 and used_at is null",
                [id.as_str().into(), now.into()],
            )
            .await?;
        // Another transaction took it after it was read above.
        if taken == 0 {
            return Ok(Err(StateError::Used));
        }
        tx.commit().await?;
        let project = parse_project(&project)?;
        let sealer = self
            .sealer_for(&project, id)
            .await?
            .ok_or_else(no_such_project)?;
        let bound = authorization_digest(profile.as_deref(), session, browser.as_deref());
        let text = sealer.open_for(bound, SealedColumn::Authorization, "", &sealed)?;
        let unreadable = || Error::internal("a stored sign-in is not in the form of one");
        let [verifier, app, meta] = decode_parts(&text).ok_or_else(unreadable)?;
        Ok(Ok(Authorization {
            profile: profile.as_deref().map(parse_id).transpose()?,
            own_app: match app {
                [] => None,
                app => Some(decode_app(app)?),
            },
            connect_session: session.map(decode_count).transpose()?,
            verifier: secret(verifier).ok_or_else(unreadable)?,
            meta: Zeroizing::new(meta.to_vec()),
            project,
        }))
    }

    /// Deletes sessions and authorizations that expired before `before`.
    pub async fn forget_ended_sessions(&self, before: Timestamp) -> Result<()> {
        let mut tx = self.db.begin().await?;
        tx.execute(
            "delete from authorizations where expires_at < $1",
            [before.into()],
        )
        .await?;
        tx.execute(
            "delete from connect_sessions where expires_at < $1",
            [before.into()],
        )
        .await?;
        tx.commit().await
    }

    async fn sealer_for_session<'a>(
        &'a self,
        project: &'a ProjectId,
        number: u64,
    ) -> Result<Option<FieldSealer<'a>>> {
        self.sealer_for(project, format!("connect_session/{number}"))
            .await
    }

    async fn sealer_for<'a>(
        &'a self,
        project: &'a ProjectId,
        account: String,
    ) -> Result<Option<FieldSealer<'a>>> {
        Ok(self.data_key(project).await?.map(|key| FieldSealer {
            key,
            rng: &self.rng,
            project,
            account,
        }))
    }
}

/// A session's number as a column value.
fn column_of(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(Error::internal)
}

fn decode_draft(sealer: &FieldSealer<'_>, sealed: &[u8]) -> Result<StoredDraft> {
    let text = sealer.open(SealedColumn::Draft, "", sealed)?;
    let unreadable = || Error::internal("a stored draft is not in the form of one");
    let [credential, profile, app, meta] = decode_parts(&text).ok_or_else(unreadable)?;
    let profile = std::str::from_utf8(profile).map_err(|_| unreadable())?;
    Ok(StoredDraft {
        credential: decode_credential(credential)?,
        profile: match profile {
            "" => None,
            id => Some(parse_id(id)?),
        },
        own_app: match app {
            [] => None,
            app => Some(decode_app(app)?),
        },
        meta: meta.to_vec(),
    })
}

/// Uses up the connect session that a link comes from, in the transaction that stores the link.
/// Returns the event for the audit log; None if `by` is no connect session.
///
/// # Errors
/// `connect_session_invalid` if the session was used up meanwhile or has ended, or the browser's
/// draft is not `draft` any more.
pub(super) async fn use_up(
    tx: &mut Tx,
    project: &ProjectId,
    by: Actor,
    draft: Option<u64>,
    account: AccountId,
    now: Timestamp,
) -> Result<Option<Event>> {
    let Actor::ConnectSession(number) = by else {
        return Ok(None);
    };
    let draft = draft.ok_or_else(|| Error::internal("a link of a session's that was no draft"))?;
    let used = tx
        .execute(
            "update connect_sessions
             set used_at = $4, linked_account = $3
             where project = $1 and number = $2 and expires_at > $4
                 and (used_at is null or is_multiple = 1)",
            [project.into(), number.into(), account.into(), now.into()],
        )
        .await?;
    let saved = tx
        .execute(
            "update connect_browsers set sealed_draft = null, linked_account = $3
             where session = $1 and draft = $2 and sealed_draft is not null",
            [number.into(), draft.into(), account.into()],
        )
        .await?;
    if used == 0 || saved == 0 {
        return Err(Error::new(
            Kind::ConnectSessionInvalid,
            "this invitation was used, or has ended, or something else waits to be saved",
        ));
    }
    let session = Subject::new(SubjectKind::ConnectSession, number);
    let linked =
        Event::new(by, AuditAction::ConnectSessionLinked, session).with("account", account);
    Ok(Some(linked))
}

/// The most drafts that other browsers may have in a session. The provider has accepted the
/// credential of each.
const OTHER_DRAFTS: i64 = 10;

async fn check_waiting(tx: &mut Tx, session: u64, browser: [u8; 32]) -> Result<()> {
    let others: Option<(i64,)> = tx
        .fetch_one(
            "select count(*) from connect_browsers
             where session = $1 and browser_digest <> $2 and sealed_draft is not null",
            [session.into(), browser.to_vec().into()],
        )
        .await?;
    if others.is_some_and(|(others,)| others >= OTHER_DRAFTS) {
        let message = "too many browsers have a credential waiting in this connect session";
        return Err(Error::new(Kind::RateLimited, message)
            .with_retry_after(std::time::Duration::from_secs(60)));
    }
    Ok(())
}

fn encode_draft(sealer: &FieldSealer<'_>, draft: &StoredDraft) -> Vec<u8> {
    let profile = draft.profile.map_or_else(String::new, |id| id.to_string());
    let app = draft.own_app.as_ref().map(encode_app);
    let text = encode_parts(&[
        &encode_credential(&draft.credential),
        profile.as_bytes(),
        app.as_ref().map_or(&[][..], |app| app.as_slice()),
        &draft.meta,
    ]);
    sealer.seal(SealedColumn::Draft, "", &text)
}

fn decode_session(sealer: &FieldSealer<'_>, row: SessionRow) -> Result<ConnectSession> {
    let (
        number,
        project,
        provider,
        profile,
        account,
        kind,
        is_multiple,
        origin_owner_id,
        sealed_details,
        draft,
        linked_account,
        created_at,
        expires_at,
        used_at,
    ) = row;
    let details: ConnectDetails =
        decode_json(&sealer.open(SealedColumn::Details, "", &sealed_details)?)?;
    Ok(ConnectSession {
        number: decode_count(number)?,
        project: parse_project(&project)?,
        provider,
        profile: profile.as_deref().map(parse_id).transpose()?,
        account: account.as_deref().map(parse_id).transpose()?,
        kind: parse_word(kind)?,
        is_multiple: is_multiple != 0,
        origin_owner_id,
        details,
        draft: decode_count(draft)?,
        linked_account: linked_account.as_deref().map(parse_id).transpose()?,
        created_at: decode_timestamp(created_at)?,
        expires_at: decode_timestamp(expires_at)?,
        used_at: used_at.map(decode_timestamp).transpose()?,
    })
}
