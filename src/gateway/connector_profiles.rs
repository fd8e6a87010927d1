//! Connector profiles: the OAuth apps under which a project's customers sign in.

use secrecy::SecretString;

use super::{Gateway, auth::Caller};
use crate::{
    error::{Error, Kind, Result},
    model::{
        accounts::Endpoint,
        audit_log::Actor,
        connector_profiles::{ActionSet, ClientProof, ConnectorProfile, ProfileChange, ProfileId},
        id::ProjectId,
    },
};

/// The input of a new profile.
#[derive(Debug)]
pub struct NewProfile {
    pub provider: String,
    pub label: Option<String>,
    pub client_id: String,
    pub client_secret: SecretString,
    pub proof: ClientProof,
    pub endpoint: Endpoint,
    /// None: the scopes that reading a directory needs.
    pub scopes: Option<Vec<String>>,
    /// None: the hub's callback URL.
    pub redirect_url: Option<String>,
    pub actions: ActionSet,
}

/// A profile that was checked to belong to the caller's project.
#[derive(Debug, Clone)]
pub struct OwnProfile {
    pub profile: ConnectorProfile,
    pub(super) by: Actor,
}

/// The OAuth apps that a project has registered at its providers.
#[derive(Clone, Copy)]
pub struct ConnectorProfiles<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}

impl ConnectorProfiles<'_> {
    /// Creates an enabled profile in the caller's project.
    ///
    /// # Errors
    /// `invalid_body`, `base_url_not_allowed`; `public_url_missing` if the profile uses the hub's
    /// callback URL.
    pub async fn create_profile(
        self,
        caller: &Caller,
        new: NewProfile,
    ) -> Result<ConnectorProfile> {
        self.create_profile_in(caller.project().clone(), new, caller.actor())
            .await
    }

    pub(super) async fn create_profile_in(
        self,
        project: ProjectId,
        new: NewProfile,
        by: Actor,
    ) -> Result<ConnectorProfile> {
        let connector = self.gateway.connector(&new.provider)?;
        self.gateway.0.settings.check_endpoint(&new.endpoint)?;
        if new.redirect_url.is_none() {
            self.gateway.must_be_reachable()?;
        }
        let now = self.gateway.0.clock.now();
        let scopes = new.scopes.unwrap_or_else(|| {
            let scopes = connector.read_scopes().iter();
            scopes.map(|scope| (*scope).to_owned()).collect()
        });
        let profile = ConnectorProfile {
            id: self.gateway.new_id(),
            project,
            redirect_url: new
                .redirect_url
                .unwrap_or_else(|| self.callback_url(&new.provider)),
            provider: new.provider,
            label: new.label,
            client_id: new.client_id,
            proof: new.proof,
            endpoint: new.endpoint,
            scopes,
            actions: new.actions,
            is_enabled: true,
            created_at: now,
            updated_at: now,
        };
        self.check_profile(&profile)?;
        let (gateway, secret) = (self.gateway.clone(), new.client_secret);
        self.gateway.owned(async move {
            gateway.store_of(&profile.project).insert_profile(&profile, &secret, by).await?;
            tracing::info!(profile = %profile.id, provider = profile.provider, "connector profile made");
            Ok(profile)
        })
        .await
    }

    /// The profiles of the caller's project, oldest first.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn profiles(self, caller: &Caller) -> Result<Vec<ConnectorProfile>> {
        self.gateway
            .store_of(caller.project())
            .profiles(caller.project())
            .await
    }

    /// The profile with this id in the caller's project.
    ///
    /// # Errors
    /// `not_found`, alike for an unknown id, a malformed id and an id of another project.
    pub async fn own_profile(self, caller: &Caller, id: &str) -> Result<OwnProfile> {
        let profile = self.profile_in(caller.project(), id).await?;
        let by = caller.actor();
        Ok(OwnProfile { profile, by })
    }

    pub(super) async fn profile_in(
        self,
        project: &ProjectId,
        id: &str,
    ) -> Result<ConnectorProfile> {
        let id: ProfileId = id.parse().map_err(|_| no_such_profile())?;
        let profile = self.gateway.store_of(project).profile(project, id).await?;
        profile.ok_or_else(no_such_profile)
    }

    /// Changes a profile completely or not at all. A new secret is used from the next token request
    /// on. Accounts stay linked.
    ///
    /// # Errors
    /// `invalid_body`, `not_found`.
    pub async fn update_profile(
        self,
        own: &OwnProfile,
        change: ProfileChange,
    ) -> Result<ConnectorProfile> {
        let mut changed = own.profile.clone();
        change.apply(&mut changed);
        self.check_profile(&changed)?;
        let (gateway, own) = (self.gateway.clone(), own.clone());
        self.gateway.owned(async move {
            let (project, id) = (&own.profile.project, own.profile.id);
            let now = gateway.0.clock.now();
            let updated = gateway
                .store_of(project)
                .update_profile(project, id, &change, own.by, now)
                .await?
                .ok_or_else(no_such_profile)?;
            tracing::info!(profile = %id, enabled = updated.is_enabled, "connector profile changed");
            let accounts = &gateway.0.auth.accounts;
            if !updated.is_enabled || updated.actions != own.profile.actions {
                // Remove the profile's cached accounts, which may allow more than the profile
                // does now. An invalidated entry could still be served while the store is down.
                accounts.remove_where(|seen| {
                    let credential = seen.account.credential.as_ref();
                    credential.is_some_and(|credential| credential.profile == Some(id))
                });
            }
            accounts.invalidate_all();
            Ok(updated)
        })
        .await
    }

    /// The redirect URL to register a profile's app with, for sign-ins in the hub.
    pub fn callback_url(self, provider: &str) -> String {
        let base = self.gateway.public_url();
        format!("{base}/connect/oauth2/{provider}/callback")
    }

    /// The redirect URL to register a customer's own app with.
    pub fn own_app_callback_url(self, provider: &str) -> String {
        let base = self.gateway.public_url();
        format!("{base}/connect/oauth2/{provider}_iam/callback")
    }

    fn check_profile(self, profile: &ConnectorProfile) -> Result<()> {
        let invalid = |message: String| Err(Error::new(Kind::InvalidBody, message));
        let connector = self.gateway.connector(&profile.provider)?;
        let mut scopes = profile.scopes.iter();
        if let Some(at) = scopes.position(|scope| !connector.knows_scope(scope)) {
            // Do not repeat the scope: it may be a secret in the wrong field.
            let (at, name) = (at + 1, connector.name());
            return invalid(format!("word {at} of `scopes` is none that {name} knows"));
        }
        let needed = connector.read_scopes();
        if let Some(missing) = needed
            .iter()
            .find(|needed| profile.scopes.iter().all(|scope| scope != *needed))
        {
            return invalid(format!(
                "`scopes` must have {missing}: without it no directory can be read"
            ));
        }
        if !is_redirect_url(&profile.redirect_url) {
            return invalid(
                "`redirect_url` must be an https URL without a fragment, or http to localhost or \
                 a loopback address, exactly as it is registered at the provider"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// True for a valid redirect URL of an app: https, or http to localhost or a loopback address.
/// It has no user, password or fragment, and at most 2,000 bytes.
pub fn is_redirect_url(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else {
        return false;
    };
    let is_loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => return false,
    };
    (url.scheme() == "https" || url.scheme() == "http" && is_loopback)
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none()
        && text.len() <= 2000
}

pub(super) fn no_such_profile() -> Error {
    Error::new(Kind::NotFound, "there is no such connector profile").with_hint(
        "Check the profile's id; GET /connector_profiles lists the profiles of this key's project.",
    )
}

/// # Errors
/// `account_inactive` if the profile is disabled.
pub(super) fn check_enabled(profile: &ConnectorProfile) -> Result<()> {
    if profile.is_enabled {
        return Ok(());
    }
    Err(
        Error::new(Kind::AccountInactive, "this connector profile is disabled")
            .with_hint("Enable the profile with PATCH /connector_profiles/{id}."),
    )
}

#[cfg(test)]
mod tests {
    use super::is_redirect_url;

    #[test]
    fn a_redirect_url_is_over_tls_or_to_the_own_machine() {
        for good in [
            "https://gateway.example.org/connect/oauth2/smartsheet/callback",
            "https://example.org/cb?x=1",
            "http://localhost:3000/callback",
            "http://127.0.0.1:3000/callback",
            "http://[::1]:3000/",
        ] {
            assert!(is_redirect_url(good), "{good}");
        }
        for bad in [
            "http://example.org/cb",
            "https://example.org/cb#part",
            "https://u:p@example.org/cb",
            "http://localhost.example.org/",
            "javascript:alert(1)",
            "custom-scheme://callback",
            "/callback",
            "",
        ] {
            assert!(!is_redirect_url(bad), "{bad}");
        }
    }
}
