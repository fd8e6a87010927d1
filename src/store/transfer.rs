//! Export of a credential to another installation, and import from one.
//!
//! A refresh token can be redeemed only once, so only one installation may hold it. One statement
//! both marks a token pair as exported and stops its refresh here ([`Store::export_credential`]):
//! the caller gets a pair that this installation no longer uses. The pair stays in its row, so the
//! operator can reclaim it as long as nobody has imported it ([`Store::reclaim`]).

use zeroize::Zeroizing;

use super::{
    Store, StoredCredential, no_such_account,
    secrets::{
        decode_app, decode_credential, decode_parts, encode_app, encode_credential, encode_parts,
    },
};
use crate::{
    error::{Error, Kind, Result},
    model::{
        accounts::{Credential, CredentialState},
        audit_log::{Actor, AuditAction, Event},
        connector_profiles::OAuthApp,
        id::{AccountId, ProjectId},
    },
};

/// A credential with everything that another installation needs to use it.
#[derive(Debug)]
pub struct CredentialExport {
    pub credential: Credential,
    /// The app that the credential was issued to.
    pub app: Option<OAuthApp>,
    /// Metadata without secrets, encoded by the caller.
    pub meta: Vec<u8>,
}

impl CredentialExport {
    /// Encodes the export, to be sealed.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let app = self.app.as_ref().map(encode_app).unwrap_or_default();
        encode_parts(&[&self.meta, &encode_credential(&self.credential), &app])
    }

    /// None if `text` is not an export.
    pub fn from_bytes(text: &[u8]) -> Option<Self> {
        let [meta, credential, app] = decode_parts(text)?;
        let app = match app {
            [] => None,
            app => Some(decode_app(app).ok()?),
        };
        Some(Self {
            credential: decode_credential(credential).ok()?,
            app,
            meta: meta.to_vec(),
        })
    }
}

impl Store {
    /// Exports an account's credential with the app that it was issued to. A token pair becomes
    /// `moved` and is no longer refreshed here. On return this is synced to disk.
    ///
    /// # Errors
    /// `refresh_in_progress` if a refresh is in flight or its result is uncertain.
    /// `account_inactive` if there is no credential to export.
    pub async fn export_credential(
        &self,
        project: &ProjectId,
        account: AccountId,
        by: Actor,
    ) -> Result<(StoredCredential, Option<OAuthApp>)> {
        let stored = self.credential(project, account).await?;
        let stored = stored.ok_or_else(|| inactive("this account has no credential any more"))?;
        match stored.state {
            CredentialState::Healthy => {}
            CredentialState::Refreshing | CredentialState::Uncertain => return Err(busy()),
            CredentialState::ReauthRequired => {
                return Err(inactive("the provider no longer takes this credential"));
            }
            CredentialState::Moved => {
                return Err(inactive("this credential was exported before"));
            }
        }
        let app = self.app_of_stored(project, &stored).await?;
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        // Only a refresh token must have a single holder. Other credentials keep their state.
        let is_rotating = stored.credential.refresh_token().is_some();
        // Takes effect only if the credential read above is still current.
        let given = tx
            .execute(
                "update credentials
                 set state = case when $5 = 1 then 'moved' else state end,
                     state_since = case when $5 = 1 then $4 else state_since end,
                     due_at = case when $5 = 1 then null else due_at end
                 where project = $1 and account = $2 and generation = $3 and state = 'idle'",
                [
                    project.into(),
                    account.into(),
                    stored.generation.into(),
                    now.into(),
                    u64::from(is_rotating).into(),
                ],
            )
            .await?;
        if given == 0 {
            return Err(busy());
        }
        let exported = Event::new(by, AuditAction::CredentialExported, account)
            .with("generation", stored.generation);
        self.audit(&mut tx, project, None, &[exported]).await?;
        tx.commit().await?;
        Ok((stored, app))
    }

    /// Reclaims an exported credential that nobody has imported: its next refresh is due at once.
    /// False if it was not exported.
    pub async fn reclaim(
        &self,
        project: &ProjectId,
        account: AccountId,
        by: Actor,
    ) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        let taken = tx
            .execute(
                "update credentials set state = 'idle', state_since = $3, due_at = $3
                 where project = $1 and account = $2 and state = 'moved'",
                [project.into(), account.into(), now.into()],
            )
            .await?;
        if taken > 0 {
            let taken_back = Event::new(by, AuditAction::CredentialTakenBack, account);
            self.audit(&mut tx, project, None, &[taken_back]).await?;
        }
        tx.commit().await?;
        Ok(taken > 0)
    }

    async fn app_of_stored(
        &self,
        project: &ProjectId,
        stored: &StoredCredential,
    ) -> Result<Option<OAuthApp>> {
        match (&stored.own_app, stored.profile) {
            (Some(app), _) => Ok(Some(app.clone())),
            (None, Some(profile)) => {
                let found = self.oauth_app(project, profile).await?;
                let found = found.ok_or_else(no_such_account)?;
                let at = &stored.destination;
                let app = found.for_endpoint(&at.provider, &at.endpoint)?;
                Ok(Some(app.clone()))
            }
            (None, None) => Ok(None),
        }
    }
}

fn busy() -> Error {
    Error::new(
        Kind::RefreshInProgress,
        "this credential is being refreshed, or what became of its last refresh is not known yet",
    )
}

fn inactive(message: &'static str) -> Error {
    Error::new(Kind::AccountInactive, message)
        .with_hint("`rolecall accounts show ACCOUNT` says how the account is doing.")
}
