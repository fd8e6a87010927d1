//! The check of a credential before it is stored: its owner, whether it may list users, and which
//! fields it cannot read.
//!
//! The check sends requests to the provider only. It needs no store.

use std::sync::Arc;

use secrecy::SecretString;

use super::link_error;
use crate::gateway::{GatewaySettings, accounts::token_key, meta};
use crate::{
    connectors::{Connector, Session},
    directory::Visibility,
    error::{Error, Kind, Result},
    model::{
        accounts::{Credential, Endpoint},
        connectors::ConnectorMeta,
        observed::Identity,
        schema::Warning,
    },
    outbound::{CallError, CallErrorKind, ClientScope, Outbound, Priority},
};

/// An access token to check, and the endpoint to check it at.
pub struct TokenToCheck {
    pub provider: String,
    pub endpoint: Endpoint,
    pub token: SecretString,
}

/// The result of checking a credential.
pub struct CheckResult {
    pub connector: ConnectorMeta,
    /// The credential's owner.
    pub identity: Identity,
    /// How many users it can list; None if the provider reports no total.
    pub users: Option<u64>,
    /// The fields that would be null for every user, and why.
    pub hidden: Vec<Warning>,
}

/// Checks an access token without a store or a gateway.
///
/// # Errors
/// Those of [`Linking::link`](super::Linking::link).
pub async fn examine(
    outbound: &Outbound,
    connectors: Vec<Arc<dyn Connector>>,
    settings: &GatewaySettings,
    candidate: TokenToCheck,
) -> Result<CheckResult> {
    let TokenToCheck {
        provider,
        endpoint,
        token,
    } = candidate;
    let connector = connectors.iter().find(|each| each.key() == provider);
    let connector = connector
        .ok_or_else(|| unknown_provider(connectors.iter().map(|each| each.key()).collect()))?;
    settings.check_endpoint(&endpoint)?;
    let credential = Credential::AccessToken(token);
    let of = CredentialToCheck {
        account: "trial".to_owned(),
        endpoint: &endpoint,
        assume_user: None,
    };
    CredentialCheck::new(outbound, connector.as_ref(), of, &credential)
        .findings()
        .await
        .map_err(|error| link_error(&error, false))
}

/// The parameters of a check, apart from the credential itself.
pub(in crate::gateway) struct CredentialToCheck<'a> {
    /// The id of the account, or a label if there is no account yet.
    pub(in crate::gateway) account: String,
    pub(in crate::gateway) endpoint: &'a Endpoint,
    /// E-mail address of the user to impersonate.
    pub(in crate::gateway) assume_user: Option<&'a str>,
}

/// A session at the provider with a credential that is not stored yet.
pub(in crate::gateway) struct CredentialCheck<'a> {
    connector: &'a dyn Connector,
    session: Session,
}

impl<'a> CredentialCheck<'a> {
    pub(in crate::gateway) fn new(
        outbound: &Outbound,
        connector: &'a dyn Connector,
        of: CredentialToCheck<'_>,
        credential: &Credential,
    ) -> Self {
        let route = ClientScope {
            provider: connector.key(),
            account: of.account,
            token: token_key(credential),
            priority: Priority::Interactive,
            is_newly_linked: true,
        };
        let token = credential.access_token().clone();
        let session = Session::new(of.endpoint.clone(), token, outbound.caller(route))
            .assuming(of.assume_user);
        Self { connector, session }
    }

    /// Runs the whole check.
    pub(in crate::gateway) async fn findings(&self) -> Result<CheckResult, CallError> {
        let (identity, users) = self.accepted().await?;
        let sees_groups = self.sees_groups().await?;
        let visibility = Visibility::of(identity.is_admin, &identity.seats, sees_groups);
        Ok(CheckResult {
            connector: meta(self.connector),
            identity,
            users,
            hidden: visibility.hidden_fields(),
        })
    }

    /// The owner and the number of users. An error if the credential may not list users.
    pub(in crate::gateway) async fn accepted(&self) -> Result<(Identity, Option<u64>), CallError> {
        let identity = self.connector.identify(&self.session).await?;
        // The first page proves the permission and has the total.
        let page = self.connector.users(&self.session, &identity, 1).await?;
        Ok((identity, page.total))
    }

    async fn sees_groups(&self) -> Result<bool, CallError> {
        match self.connector.groups(&self.session, 1).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == CallErrorKind::Forbidden => Ok(false),
            Err(error) => Err(error),
        }
    }
}

pub(in crate::gateway) fn unknown_provider(mut known: Vec<&'static str>) -> Error {
    known.sort_unstable();
    Error::new(
        Kind::InvalidBody,
        format!("`provider` must be one of: {}", known.join(", ")),
    )
    .with_hint("Check the provider; GET /connectors/meta lists the connectors.")
}
