//! Moving credentials between installations: export, import and reclaim.
//!
//! An export file is a [`CredentialExport`], sealed with a passphrase. After the export of a token
//! pair this installation does not refresh it any more, since a refresh token can be redeemed only
//! once.

use std::{sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::refresh::RefreshResult;
use crate::gateway::{
    admin::Operator,
    auth::OwnAccount,
    linking::{
        AccountDetails, Issuer, NewAccount, UnverifiedCredential, same_organization,
        verify::CredentialToCheck,
    },
};
use crate::{
    crypto::{open_with_passphrase, seal_with_passphrase},
    error::{Error, Kind, Result},
    model::{
        accounts::{Account, AccountChange, Endpoint},
        audit_log::{Actor, AuditAction, Event},
        connector_profiles::OAuthApp,
        id::ProjectId,
        observed::Identity,
    },
    store::{CredentialExport, Trigger},
};

/// How long an import waits for its refresh: as long as a refresh can take.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(75);

/// The account's data that an export contains beside the credential.
#[derive(Serialize, Deserialize)]
struct CredentialMeta {
    account: String,
    provider: String,
    endpoint: Endpoint,
    description: AccountDetails,
    assume_user: Option<String>,
    identity: Identity,
}

/// An exported credential.
pub struct Exported {
    /// The encoded [`CredentialExport`], not sealed yet.
    pub parcel: Zeroizing<Vec<u8>>,
    /// True if the credential has a refresh token, which this installation no longer redeems.
    pub is_moved: bool,
}

/// The destination of an imported credential.
pub enum ImportTarget<'a> {
    /// A new account in this project.
    Project(&'a ProjectId),
    /// This account, whose credential is replaced.
    Account(&'a OwnAccount),
}

/// An account with an imported credential.
pub struct Imported {
    pub own: OwnAccount,
    /// False if the credential has a refresh token that was not redeemed successfully yet. The
    /// export file may still be needed then.
    pub is_settled: bool,
}

impl Operator {
    /// Exports an account's credential. A token pair is not refreshed here any more, unless it is
    /// [reclaimed](Operator::reclaim).
    ///
    /// # Errors
    /// `refresh_in_progress`, `account_inactive`.
    pub async fn export(&self, own: &OwnAccount) -> Result<Exported> {
        let account = &own.account;
        let gateway = self.gateway();
        let store = &gateway.0.store;
        let (stored, app) = store
            .export_credential(&account.project, account.id, own.by)
            .await?;
        gateway
            .0
            .auth
            .accounts
            .invalidate(&(account.project.clone(), account.id));
        let credential = stored.credential;
        let meta = CredentialMeta {
            account: account.id.to_string(),
            provider: stored.destination.provider,
            endpoint: stored.destination.endpoint,
            description: AccountDetails {
                origin_owner_id: account.origin_owner_id.clone(),
                origin_owner_name: account.origin_owner_name.clone(),
                origin_username: account.origin_username.clone(),
                label: account.label.clone(),
                kind: account.kind,
            },
            assume_user: account.assume_user.clone(),
            identity: account.identity.clone(),
        };
        let meta = serde_json::to_vec(&meta).map_err(Error::internal)?;
        let is_moved = credential.refresh_token().is_some();
        let parcel = CredentialExport {
            credential,
            app,
            meta,
        };
        Ok(Exported {
            parcel: parcel.to_bytes(),
            is_moved,
        })
    }

    /// Reclaims an exported credential. The operator ensures that nobody has imported it: this
    /// installation cannot check that.
    ///
    /// # Errors
    /// `account_inactive` if the credential was not exported.
    pub async fn reclaim(&self, own: &OwnAccount) -> Result<()> {
        let (project, id) = (&own.account.project, own.account.id);
        let store = &self.gateway().0.store;
        if store.reclaim(project, id, own.by).await? {
            self.gateway()
                .0
                .auth
                .accounts
                .invalidate(&(project.clone(), id));
            return Ok(());
        }
        Err(Error::new(
            Kind::AccountInactive,
            "the credential of this account was not exported, or never left",
        )
        .with_hint("`rolecall accounts show ACCOUNT` says how the account is doing."))
    }

    /// Seals an export with a passphrase.
    pub fn sealed(&self, exported: &Exported, passphrase: &SecretString) -> Vec<u8> {
        seal_with_passphrase(passphrase, &exported.parcel, &self.gateway().0.rng)
    }

    /// Links a new account with an exported credential, or gives it to an existing account in place
    /// of the present credential.
    ///
    /// The access token is verified first, unless it has expired. A token pair is stored before its
    /// refresh token is redeemed, so that no issued token is lost. It is redeemed at once, so that
    /// the export file becomes unusable.
    ///
    /// # Errors
    /// `invalid_body` if the file cannot be decrypted or decoded; `organisation_mismatch`; those of
    /// [`Linking::link`](crate::gateway::linking::Linking::link).
    pub async fn import(
        &self,
        to: ImportTarget<'_>,
        sealed: &[u8],
        passphrase: &SecretString,
    ) -> Result<Imported> {
        let text = open_with_passphrase(passphrase, sealed).map_err(|fault| {
            Error::new(
                Kind::InvalidBody,
                format!("the file cannot be opened: {fault}"),
            )
        })?;
        let damaged = || Error::new(Kind::InvalidBody, "the file holds no credential");
        let parcel = CredentialExport::from_bytes(&text).ok_or_else(damaged)?;
        let meta: CredentialMeta = serde_json::from_slice(&parcel.meta).map_err(|_| damaged())?;
        let gateway = self.gateway().clone();
        let (project, existing) = match to {
            ImportTarget::Project(project) => {
                self.require(project).await?;
                (project.clone(), None)
            }
            ImportTarget::Account(own) => {
                (own.account.project.clone(), Some(Arc::clone(&own.account)))
            }
        };
        let work = gateway.clone();
        let (account, is_settled) = gateway
            .owned(async move { import(&work, project, existing, parcel, meta).await })
            .await?;
        let own = self.account(&account.id.to_string()).await?;
        Ok(Imported { own, is_settled })
    }
}

async fn import(
    gateway: &crate::gateway::Gateway,
    project: ProjectId,
    existing: Option<Arc<Account>>,
    parcel: CredentialExport,
    meta: CredentialMeta,
) -> Result<(Arc<Account>, bool)> {
    let connector = gateway.connector(&meta.provider)?;
    gateway.0.settings.check_endpoint(&meta.endpoint)?;
    if let Some(account) = &existing {
        let proven = gateway.linking().destination(account).await?;
        if proven.provider != meta.provider || proven.endpoint != meta.endpoint {
            return Err(Error::new(
                Kind::OrganizationMismatch,
                "this credential is of another provider or region than the account",
            ));
        }
        same_organization(account, &meta.identity)?;
    }
    let now = gateway.0.clock.now();
    let is_rotating = parcel.credential.refresh_token().is_some();
    let is_over = is_rotating && parcel.credential.expires_at().is_some_and(|end| end <= now);
    let issuer = match parcel.app {
        None => Issuer::Owner,
        Some(app) => issuer(gateway, &project, &meta, app).await?,
    };
    let unproven = UnverifiedCredential {
        credential: parcel.credential,
        issuer,
        refresh_at: is_rotating.then_some(now),
    };
    let id = existing
        .as_ref()
        .map_or_else(|| gateway.new_id(), |it| it.id);
    let assume_user = match &existing {
        Some(account) => account.assume_user.clone(),
        None => meta.assume_user,
    };
    let proven = if is_over {
        // Only a redemption can verify a pair whose access token has expired. The pair must be
        // stored before that, so that the new pair can be stored too.
        unproven.belonging_to(meta.identity)
    } else {
        let of = CredentialToCheck {
            account: id.to_string(),
            endpoint: &meta.endpoint,
            assume_user: assume_user.as_deref(),
        };
        let tried = gateway
            .linking()
            .verify_credential(connector.as_ref(), of, unproven)
            .await;
        tried.map_err(|error| match error.kind() {
            Kind::CredentialRefused => no_longer_good(error),
            _ => error,
        })?
    };
    let by = Actor::Operator;
    let account = match existing {
        Some(account) => {
            same_organization(&account, &proven.identity)?;
            let change = AccountChange::default();
            gateway
                .linking()
                .replace_credential(&account, &change, Some(&proven), by)
                .await?
        }
        None => {
            let new = NewAccount {
                id,
                project,
                provider: meta.provider,
                description: meta.description,
                endpoint: meta.endpoint,
                assume_user,
                by,
            };
            gateway.linking().store_account(new, &proven).await?
        }
    };
    let imported =
        Event::new(by, AuditAction::CredentialImported, account.id).with("from", meta.account);
    gateway.0.store.note(&account.project, imported).await?;
    // Redeem the refresh token now: that invalidates the copy in the export file.
    let is_settled = !is_rotating
        || gateway
            .credentials()
            .refreshed(&account, Trigger::Now { generation: None }, REFRESH_TIMEOUT)
            .await?
            == RefreshResult::Renewed;
    Ok((account, is_settled))
}

fn no_longer_good(refused: Error) -> Error {
    Error::new(
        Kind::CredentialRefused,
        "the provider no longer takes the credential in this file",
    )
    .with_hint(
        "It was imported before, refreshed after a take-back, or revoked: export it anew where the \
         account is healthy, or link the account again.",
    )
    .with_source(refused)
}

/// Returns the project's own enabled profile of the app that a pair was issued to. Without one, the
/// app is stored with the account.
async fn issuer(
    gateway: &crate::gateway::Gateway,
    project: &ProjectId,
    meta: &CredentialMeta,
    app: OAuthApp,
) -> Result<Issuer> {
    let profiles = gateway.0.store.profiles(project).await?;
    for profile in profiles {
        let is_it = profile.is_enabled
            && profile.provider == meta.provider
            && profile.endpoint == meta.endpoint
            && profile.client_id == app.client_id;
        if is_it {
            let known = gateway.0.store.oauth_app(project, profile.id).await?;
            let is_same = known.is_some_and(|known| {
                let known = &known.app.client_secret;
                known.expose_secret() == app.client_secret.expose_secret()
            });
            if is_same {
                return Ok(Issuer::Profile(profile.id));
            }
        }
    }
    Ok(Issuer::OwnApp(app))
}
