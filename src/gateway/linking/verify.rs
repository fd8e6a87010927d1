//! A token before it is stored: whose is it, may it read users, and what would stay unseen? The
//! provider is asked, and nobody else; there need be no store yet.

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

/// A token, and where it is said to be good.
pub struct TokenToCheck {
    pub provider: String,
    pub endpoint: Endpoint,
    pub token: SecretString,
}

/// What the provider says of a token.
pub struct CheckResult {
    pub connector: ConnectorMeta,
    /// Whose it is.
    pub identity: Identity,
    /// How many users it can list; None where the provider does not say.
    pub users: Option<u64>,
    /// The fields of users that would be null for everybody, and why.
    pub hidden: Vec<Warning>,
}

/// Tries a token, and looks at what it may see.
///
/// # Errors
/// As [`Linking::link`](crate::gateway::linking::Linking::link).
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

/// What is tried: whose calls these are, where, and in whose place.
pub(in crate::gateway) struct CredentialToCheck<'a> {
    /// An account's id, or a word for one that is none yet.
    pub(in crate::gateway) account: String,
    pub(in crate::gateway) endpoint: &'a Endpoint,
    pub(in crate::gateway) assume_user: Option<&'a str>,
}

/// A way to the provider with a token that is not stored.
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

    /// What the provider says of it.
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

    /// Whose token it is and how many users it lists, if it may list them.
    pub(in crate::gateway) async fn accepted(&self) -> Result<(Identity, Option<u64>), CallError> {
        let identity = self.connector.identify(&self.session).await?;
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
