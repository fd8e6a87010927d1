//! Linking: a credential is verified at its provider, and only then stored.
//!
//! A credential is a personal access token, or the token pair of a sign-in. It becomes a
//! `VerifiedCredential` once the provider has identified its owner and has let it list users. Then
//! it is stored with a new account, or replaces the credential of an existing account. One case
//! skips the check: an import of a token pair whose access token has expired
//! ([`transfer`](super::credentials::transfer)).
//!
//! [`verify`] checks a credential, [`authorizations`] implements sign-ins by OAuth, and
//! [`connect_sessions`] the steps of the hub.

use std::sync::Arc;

use jiff::Timestamp;
use secrecy::SecretString;

use super::{
    Gateway,
    auth::Caller,
    linking::verify::{CredentialCheck, CredentialToCheck},
    walks::Attach,
};
use crate::{
    connectors::Connector,
    error::{Error, Kind, ProviderReply, Result},
    model::{
        accounts::{Account, AccountChange, AccountKind, AccountStatus, Credential, Endpoint},
        audit_log::Actor,
        connector_profiles::{ActionSet, OAuthApp, ProfileId},
        id::{AccountId, ProjectId},
        observed::Identity,
    },
    outbound::{CallError, CallErrorKind},
    store::{AccountUpdate, CredentialRecord, Destination, IssuedTo, NewCredential},
};

pub mod authorizations;
pub mod connect_sessions;
pub mod verify;

/// The input of linking an account with a personal access token.
pub struct NewLink {
    pub provider: String,
    pub description: AccountDetails,
    pub endpoint: Endpoint,
    pub token: SecretString,
    /// E-mail address of the user to impersonate at the provider.
    pub assume_user: Option<String>,
}

/// An account's details, as its integrator or operator states them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AccountDetails {
    pub origin_owner_id: String,
    pub origin_owner_name: String,
    pub origin_username: Option<String>,
    pub label: Option<String>,
    pub kind: AccountKind,
}

/// A credential that the provider accepts, with its owner and the OAuth app it was issued to.
#[derive(Clone)]
pub(super) struct VerifiedCredential {
    pub(super) credential: Credential,
    pub(super) issuer: Issuer,
    pub(super) refresh_at: Option<Timestamp>,
    /// The credential's owner, as the provider reports it.
    pub(super) identity: Identity,
    /// The number of the draft that contained it, if any.
    pub(super) draft: Option<u64>,
}

/// The OAuth app that a credential was issued to.
#[derive(Clone)]
pub(super) enum Issuer {
    /// No app: the owner created a personal access token.
    Owner,
    Profile(ProfileId),
    OwnApp(OAuthApp),
}

/// A credential that was not checked at the provider yet.
#[derive(Clone)]
pub(super) struct UnverifiedCredential {
    pub(super) credential: Credential,
    pub(super) issuer: Issuer,
    pub(super) refresh_at: Option<Timestamp>,
}

impl UnverifiedCredential {
    pub(super) const fn personal(token: SecretString) -> Self {
        Self {
            credential: Credential::AccessToken(token),
            issuer: Issuer::Owner,
            refresh_at: None,
        }
    }

    pub(super) fn belonging_to(self, identity: Identity) -> VerifiedCredential {
        VerifiedCredential {
            credential: self.credential,
            issuer: self.issuer,
            refresh_at: self.refresh_at,
            identity,
            draft: None,
        }
    }
}

impl VerifiedCredential {
    /// The credential in the form that the store takes.
    pub(super) fn grant(&self) -> CredentialRecord<'_> {
        CredentialRecord {
            credential: &self.credential,
            issued_to: match &self.issuer {
                Issuer::Owner => IssuedTo::Owner,
                Issuer::Profile(id) => IssuedTo::Profile(*id),
                Issuer::OwnApp(app) => IssuedTo::OwnApp(app),
            },
            refresh_at: self.refresh_at,
            draft: self.draft,
        }
    }
}

/// Links an account: verifies a credential at the provider and stores it.
#[derive(Clone, Copy)]
pub struct Linking<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}

impl Linking<'_> {
    /// Verifies an access token, stores a new account with it, and starts the account's first walk.
    ///
    /// # Errors
    /// `credential_refused`, `scope_missing`, `assume_user_refused`, `provider_unavailable`,
    /// `provider_throttled`, `base_url_not_allowed`; nothing is stored then.
    pub async fn link(self, caller: &Caller, link: NewLink) -> Result<Arc<Account>> {
        self.link_into(caller.project().clone(), link, caller.actor())
            .await
    }

    pub(super) async fn link_into(
        self,
        project: ProjectId,
        link: NewLink,
        by: Actor,
    ) -> Result<Arc<Account>> {
        let connector = self.gateway.connector(&link.provider)?;
        self.gateway.0.settings.check_endpoint(&link.endpoint)?;
        let id: AccountId = self.gateway.new_id();
        let gateway = self.gateway.clone();
        self.gateway
            .owned(async move {
                let proven = gateway
                    .linking()
                    .verify_credential(
                        connector.as_ref(),
                        CredentialToCheck {
                            account: id.to_string(),
                            endpoint: &link.endpoint,
                            assume_user: link.assume_user.as_deref(),
                        },
                        UnverifiedCredential::personal(link.token),
                    )
                    .await?;
                let new = NewAccount {
                    id,
                    project,
                    provider: link.provider,
                    description: link.description,
                    endpoint: link.endpoint,
                    assume_user: link.assume_user,
                    by,
                };
                gateway.linking().store_account(new, &proven).await
            })
            .await
    }

    /// Stores a new account with a verified credential, and starts its first walk.
    pub(super) async fn store_account(
        self,
        new: NewAccount,
        proven: &VerifiedCredential,
    ) -> Result<Arc<Account>> {
        let now = self.gateway.0.clock.now();
        let description = new.description;
        let account = Account {
            id: new.id,
            project: new.project,
            provider: new.provider,
            origin_owner_id: description.origin_owner_id,
            origin_owner_name: description.origin_owner_name,
            origin_username: description.origin_username,
            label: description.label,
            kind: description.kind,
            status: AccountStatus::Active,
            status_reasons: Vec::new(),
            endpoint: new.endpoint,
            identity: proven.identity.clone(),
            assume_user: new.assume_user,
            credential: None,
            held_walk: None,
            actions: ActionSet::ALL,
            created_at: now,
            updated_at: now,
        };
        let store = self.gateway.store_of(&account.project);
        store
            .insert_account(&account, &proven.grant(), new.by)
            .await?;
        tracing::info!(account = %account.id, provider = account.provider, "account linked");
        self.gateway.walks().request_walk(
            &self.gateway.directory().live(&account),
            Attach::Any,
            false,
            new.by,
        );
        // Read the account back: the store adds the actions that its profile allows. The account is
        // linked even if this read fails.
        let stored = store.account(&account.project, account.id).await;
        Ok(Arc::new(stored.ok().flatten().unwrap_or(account)))
    }

    /// Applies a change to an account. A verified credential replaces the present one and starts a
    /// walk.
    pub(super) async fn replace_credential(
        self,
        account: &Account,
        change: &AccountChange,
        proven: Option<&VerifiedCredential>,
        by: Actor,
    ) -> Result<Arc<Account>> {
        let update = AccountUpdate {
            change,
            credential: proven.map(|proven| NewCredential {
                grant: proven.grant(),
                identity: &proven.identity,
            }),
            by,
        };
        let updated = self
            .gateway
            .store_of(&account.project)
            .update_account(
                &account.project,
                account.id,
                update,
                self.gateway.0.clock.now(),
            )
            .await?;
        self.gateway
            .0
            .auth
            .accounts
            .invalidate(&(account.project.clone(), account.id));
        let updated =
            updated.ok_or_else(|| Error::new(Kind::AccountNotFound, "there is no such account"))?;
        if proven.is_some() {
            tracing::info!(account = %account.id, "credential replaced");
            self.gateway.walks().request_walk(
                &self.gateway.directory().live(&updated),
                Attach::BeforeFirstCall,
                false,
                by,
            );
        }
        Ok(Arc::new(updated))
    }

    /// Verifies that the provider accepts a credential and lets it list users.
    pub(super) async fn verify_credential(
        self,
        connector: &dyn Connector,
        of: CredentialToCheck<'_>,
        unproven: UnverifiedCredential,
    ) -> Result<VerifiedCredential> {
        self.gateway.0.settings.check_endpoint(of.endpoint)?;
        let trial = CredentialCheck::new(
            &self.gateway.0.outbound,
            connector,
            of,
            &unproven.credential,
        );
        match trial.accepted().await {
            Ok((identity, _)) => Ok(unproven.belonging_to(identity)),
            Err(error) => Err(link_error(&error, false)),
        }
    }

    /// Verifies a credential for an existing account. It must belong to the account's organization.
    pub(super) async fn verify_for(
        self,
        account: &Account,
        unproven: UnverifiedCredential,
    ) -> Result<VerifiedCredential> {
        let destination = self.destination(account).await?;
        let connector = self.gateway.connector(&destination.provider)?;
        let of = CredentialToCheck {
            account: account.id.to_string(),
            endpoint: &destination.endpoint,
            assume_user: account.assume_user.as_deref(),
        };
        let proven = self
            .verify_credential(connector.as_ref(), of, unproven)
            .await?;
        same_organization(account, &proven.identity)?;
        Ok(proven)
    }

    /// The only destination that an account's credential may be sent to, as the credential's seal
    /// proves it.
    ///
    /// # Errors
    /// `credential_locked` if the account's row names another destination; `account_not_found`.
    pub(super) async fn destination(self, account: &Account) -> Result<Destination> {
        let store = &self.gateway.0.store;
        let proven = store.destination(&account.project, account.id).await?;
        proven.ok_or_else(|| Error::new(Kind::AccountNotFound, "there is no such account"))
    }
}

/// An account to be stored.
pub(super) struct NewAccount {
    pub(super) id: AccountId,
    pub(super) project: ProjectId,
    pub(super) provider: String,
    pub(super) description: AccountDetails,
    pub(super) endpoint: Endpoint,
    pub(super) assume_user: Option<String>,
    /// The actor that links it. A connect session is used up by that.
    pub(super) by: Actor,
}

/// # Errors
/// `organisation_mismatch`.
pub(super) fn same_organization(account: &Account, identity: &Identity) -> Result<()> {
    if identity.organization == account.identity.organization {
        return Ok(());
    }
    Err(Error::new(
        Kind::OrganizationMismatch,
        "this token is of another organization than the account",
    ))
}

/// Returns the error for a failed check of a credential. `was_linked` is true when a caller
/// requests a walk of a linked account whose credential the provider refused before.
pub(super) fn link_error(error: &CallError, was_linked: bool) -> Error {
    let (kind, message) = match error.kind {
        CallErrorKind::Unauthorized if was_linked => (
            Kind::AccountInactive,
            "the provider still does not take this account's credential",
        ),
        CallErrorKind::Unauthorized => (
            Kind::CredentialRefused,
            "the provider does not take this token in this region",
        ),
        CallErrorKind::Forbidden => (
            Kind::ScopeMissing,
            "the provider takes this token, but it may not read users",
        ),
        CallErrorKind::AssumeUserRefused => (
            Kind::AssumeUserRefused,
            "the provider does not let this token stand for that user",
        ),
        CallErrorKind::AssumeUserMissing => (
            Kind::AssumeUserRefused,
            "the provider takes this token in the place of a user alone, and `assume_user` names none",
        ),
        CallErrorKind::Throttled => (
            Kind::ProviderThrottled,
            "the provider's rate limit for this token is spent",
        ),
        // The store has the shared budgets and did not answer.
        CallErrorKind::BudgetUnknown => return super::auth::ttl_cache::store_down(),
        CallErrorKind::NotFound
        | CallErrorKind::Refused
        | CallErrorKind::Unavailable
        | CallErrorKind::InvalidReply => (
            Kind::ProviderUnavailable,
            "the provider did not give a usable answer",
        ),
    };
    let mut answer = Error::new(kind, message)
        .with_provider(ProviderReply {
            status: error.status,
            code: error.code,
            reference: error.reference.clone(),
        })
        .with_source(error.clone());
    if matches!(kind, Kind::ProviderThrottled | Kind::ProviderUnavailable) {
        let wait = error
            .retry_after
            .unwrap_or(std::time::Duration::from_secs(30));
        answer = answer.with_retry_after(wait);
    }
    answer
}
