//! Sign-ins by the OAuth 2.0 authorization code flow (RFC 6749, 4.1) with PKCE (RFC 7636). The hub,
//! integrators with their own pages and the command line all use this module.
//!
//! A sign-in begins with a `state` of 256 random bits. It is valid once, for ten minutes, and only
//! for its owner: the browser that has the hub's cookie, or the project. The store keeps the data
//! of each sign-in under its `state`, and a callback cannot change them:
//!
//! * The token endpoint is that of the profile's own region, whichever server redirected the
//!   browser. This prevents mix-up attacks.
//! * The PKCE verifier is sent to the token endpoint only, never to a browser. This prevents the
//!   injection of a code.
//! * The redirect URL is the one that the app is registered with. In the hub, the browser must also
//!   have come back to this URL.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use super::{AccountDetails, Issuer, NewAccount, UnverifiedCredential, verify::CredentialToCheck};
use crate::gateway::{Gateway, auth::Caller, connector_profiles::check_enabled};
use crate::{
    connectors::oauth::{
        AuthorizeRequest, IssuedTokens, TokenError, TokenErrorKind, TokenGrant, TokenRequest,
    },
    error::{Error, Kind, ProviderReply, Result},
    model::{
        accounts::{Account, Credential, Endpoint},
        audit_log::Actor,
        connector_profiles::{ConnectorProfile, OAuthApp, ProfileId},
        id::{AccountId, ProjectId},
    },
    store::{NewAuthorization, ProfileApp, StateError, StateOwner},
};

/// How long a `state` is valid. Smartsheet's authorization codes are valid for about as long.
pub const STATE_LIFETIME: Duration = Duration::from_secs(600);

/// The input of a sign-in under a connector profile, outside the hub.
#[derive(Debug, Clone)]
pub struct AuthorizationInput {
    pub profile: String,
    pub callback_url: String,
    /// The details of the account to link.
    pub description: AccountDetails,
}

/// The authorization URL of a sign-in, and the `state` that its callback has.
#[derive(Debug, Clone)]
pub struct AuthorizationUrl {
    pub url: Url,
    pub state: SecretString,
    pub expires_at: Timestamp,
}

/// The OAuth app of a sign-in.
pub(in crate::gateway) enum AuthorizationApp<'a> {
    Profile(&'a ConnectorProfile),
    /// The customer's own app, at this endpoint.
    Own {
        app: &'a OAuthApp,
        endpoint: &'a Endpoint,
        provider: &'a str,
    },
}

/// The owner and the purpose of a new sign-in.
pub(in crate::gateway) struct AuthorizationRequest<'a> {
    pub(in crate::gateway) project: &'a ProjectId,
    pub(in crate::gateway) connect_session: Option<u64>,
    /// The digest of the browser's cookie; None outside the hub.
    pub(in crate::gateway) browser: Option<[u8; 32]>,
    /// The details of the account to link; None in the hub, where the connect session has them.
    pub(in crate::gateway) description: Option<&'a AccountDetails>,
}

/// The data of a sign-in that is not secret.
#[derive(Serialize, Deserialize)]
struct AuthorizationMeta {
    provider: String,
    endpoint: Endpoint,
    description: Option<AccountDetails>,
}

/// A sign-in whose `state` was accepted and whose code is not redeemed yet.
pub(in crate::gateway) struct PendingAuthorization {
    project: ProjectId,
    connect_session: Option<u64>,
    verifier: SecretString,
    app: OAuthApp,
    issuer: Issuer,
    meta: AuthorizationMeta,
}

/// A callback: the provider redirected a browser to the hub, with an authorization code.
#[derive(Debug)]
pub struct AuthorizationCallback {
    /// The URL of the callback, without its query.
    pub to: String,
    /// The `iss` parameter (RFC 9207), which few providers send.
    pub issuer: Option<String>,
    pub state: String,
    pub code: SecretString,
}

/// A sign-in whose code was redeemed. Its token pair is not verified yet.
pub(in crate::gateway) struct TokenResponse {
    pub(in crate::gateway) project: ProjectId,
    pub(in crate::gateway) connect_session: Option<u64>,
    pub(in crate::gateway) provider: String,
    pub(in crate::gateway) endpoint: Endpoint,
    pub(in crate::gateway) description: Option<AccountDetails>,
    /// The app that the pair was issued to.
    app: OAuthApp,
    pub(in crate::gateway) unproven: UnverifiedCredential,
}

/// The SHA-256 digest under which the store keeps a `state`, link token or browser secret.
pub(in crate::gateway) fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// OAuth authorization requests, from the authorization URL to the token response.
#[derive(Clone, Copy)]
pub struct Authorizations<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}

impl Authorizations<'_> {
    /// Begins a sign-in for an integrator with its own pages. `callback_url` must equal the
    /// profile's redirect URL.
    ///
    /// # Errors
    /// `not_found`, `account_inactive` while the profile is disabled, `invalid_body`.
    pub async fn authorization_url(
        self,
        caller: &Caller,
        new: AuthorizationInput,
    ) -> Result<AuthorizationUrl> {
        let profile = self
            .gateway
            .connector_profiles()
            .profile_in(caller.project(), &new.profile)
            .await?;
        self.begin_for_project(&profile, &new.callback_url, new.description)
            .await
    }

    pub(in crate::gateway) async fn begin_for_project(
        self,
        profile: &ConnectorProfile,
        callback_url: &str,
        description: AccountDetails,
    ) -> Result<AuthorizationUrl> {
        check_enabled(profile)?;
        if profile.redirect_url != callback_url {
            return Err(Error::new(
                Kind::InvalidBody,
                "`callback_url` must be the redirect URL of the connector profile, letter for letter",
            ));
        }
        let sets_out = AuthorizationRequest {
            project: &profile.project,
            connect_session: None,
            browser: None,
            description: Some(&description),
        };
        self.begin_sign_in(AuthorizationApp::Profile(profile), sets_out)
            .await
    }

    /// Completes a sign-in that [`Authorizations::authorization_url`] began: redeems the code,
    /// verifies the token pair, and links an account with it.
    ///
    /// # Errors
    /// `authorization_invalid`, `authorization_refused`, `app_refused`, and those of
    /// [`Linking::link`](super::Linking::link). If the exchange fails after the `state` was
    /// accepted, the sign-in is spent, and issued tokens are revoked.
    pub async fn exchange(
        self,
        caller: &Caller,
        state: &str,
        code: SecretString,
    ) -> Result<Arc<Account>> {
        self.exchange_in(caller.project().clone(), state, code, caller.actor())
            .await
    }

    pub(in crate::gateway) async fn exchange_in(
        self,
        project: ProjectId,
        state: &str,
        code: SecretString,
        by: Actor,
    ) -> Result<Arc<Account>> {
        let (gateway, state) = (self.gateway.clone(), digest(state));
        self.gateway
            .owned(async move {
                let begun = gateway
                    .authorizations()
                    .begun(state, StateOwner::Project(&project))
                    .await?;
                let mut signed_in = gateway.authorizations().redeemed(begun, code).await?;
                let id = gateway.new_id();
                let project = signed_in.project.clone();
                let mut linked = gateway
                    .authorizations()
                    .link_signed_in(id, &signed_in, by)
                    .await;
                if let Err(refused) = &linked
                    && gateway
                        .authorizations()
                        .renewed(&mut signed_in, refused)
                        .await
                {
                    linked = gateway
                        .authorizations()
                        .link_signed_in(id, &signed_in, by)
                        .await;
                }
                let connector = gateway.connector(&signed_in.provider)?;
                let token = signed_in.unproven.credential.access_token().clone();
                // If the store's reply was lost, the account may exist and use these tokens.
                // Revoke them only if it certainly does not exist.
                if linked.is_err()
                    && matches!(gateway.0.store.account(&project, id).await, Ok(None))
                {
                    gateway
                        .credentials()
                        .revoke_unstored(connector.as_ref(), &signed_in.endpoint, token)
                        .await;
                }
                linked
            })
            .await
    }

    /// Verifies the token pair of a sign-in, and links an account with it.
    async fn link_signed_in(
        self,
        id: AccountId,
        signed_in: &TokenResponse,
        by: Actor,
    ) -> Result<Arc<Account>> {
        let connector = self.gateway.connector(&signed_in.provider)?;
        let description = signed_in.description.clone();
        let description =
            description.ok_or_else(|| Error::internal("a sign-in that is to become nothing"))?;
        let of = CredentialToCheck {
            account: id.to_string(),
            endpoint: &signed_in.endpoint,
            assume_user: None,
        };
        let proven = self
            .gateway
            .linking()
            .verify_credential(connector.as_ref(), of, signed_in.unproven.clone())
            .await?;
        let new = NewAccount {
            id,
            project: signed_in.project.clone(),
            provider: signed_in.provider.clone(),
            description,
            endpoint: signed_in.endpoint.clone(),
            assume_user: None,
            by,
        };
        self.gateway.linking().store_account(new, &proven).await
    }

    /// Begins a sign-in: stores it under a new `state` and returns its authorization URL.
    pub(in crate::gateway) async fn begin_sign_in(
        self,
        app: AuthorizationApp<'_>,
        sets_out: AuthorizationRequest<'_>,
    ) -> Result<AuthorizationUrl> {
        let found = match &app {
            AuthorizationApp::Profile(profile) => {
                let found = self
                    .gateway
                    .0
                    .store
                    .oauth_app(&profile.project, profile.id)
                    .await?;
                Some(found.ok_or_else(crate::gateway::connector_profiles::no_such_profile)?)
            }
            AuthorizationApp::Own { .. } => None,
        };
        // The destination that the client secret is sealed for is also where the browser goes. The
        // profile's row is not sealed and could have been changed.
        let (provider, endpoint, oauth_app) = match (&app, &found) {
            (AuthorizationApp::Profile(_), None) => {
                return Err(crate::gateway::connector_profiles::no_such_profile());
            }
            (AuthorizationApp::Profile(_), Some(found)) => {
                (found.provider.as_str(), &found.endpoint, &found.app)
            }
            (
                AuthorizationApp::Own {
                    app,
                    endpoint,
                    provider,
                },
                _,
            ) => (*provider, *endpoint, *app),
        };
        self.gateway.0.settings.check_endpoint(endpoint)?;
        let connector = self.gateway.connector(provider)?;
        let now = self.gateway.0.clock.now();
        let expires_at = now
            .saturating_add(STATE_LIFETIME)
            .map_err(Error::internal)?;
        let state = self.random_text();
        let verifier = self.random_text();
        let default_scopes: Vec<_> = connector
            .read_scopes()
            .iter()
            .map(|scope| (*scope).to_owned())
            .collect();
        let (profile, own_app, scopes) = match &app {
            AuthorizationApp::Profile(profile) => (Some(profile.id), None, &profile.scopes),
            AuthorizationApp::Own { app, .. } => (None, Some(*app), &default_scopes),
        };
        let url = connector
            .authorize_url(&AuthorizeRequest {
                endpoint,
                client_id: &oauth_app.client_id,
                redirect_url: &oauth_app.redirect_url,
                scopes,
                state: state.expose_secret(),
                verifier: &verifier,
            })
            .ok_or_else(|| {
                let message = "nobody can sign in at this endpoint";
                Error::new(Kind::InvalidBody, message)
            })?;
        let meta = AuthorizationMeta {
            provider: provider.to_owned(),
            endpoint: endpoint.clone(),
            description: sets_out.description.cloned(),
        };
        let new = NewAuthorization {
            state_digest: digest(state.expose_secret()),
            project: sets_out.project,
            profile,
            own_app,
            connect_session: sets_out.connect_session,
            browser_digest: sets_out.browser,
            verifier: &verifier,
            meta: &serde_json::to_vec(&meta).map_err(Error::internal)?,
            expires_at,
        };
        self.gateway
            .store_of(new.project)
            .insert_authorization(&new, now)
            .await?;
        Ok(AuthorizationUrl {
            url,
            state,
            expires_at,
        })
    }

    /// Takes the sign-in of this `state`, which cannot be used again.
    ///
    /// # Errors
    /// `authorization_invalid`; `account_inactive` if the profile is disabled; `not_found` if it is
    /// gone; `credential_locked`.
    pub(in crate::gateway) async fn begun(
        self,
        state: [u8; 32],
        bringer: StateOwner<'_>,
    ) -> Result<PendingAuthorization> {
        let store = self.gateway.0.store.for_unauthenticated();
        let now = self.gateway.0.clock.now();
        let taken = store.take_authorization(state, bringer, now).await?;
        let taken = taken.map_err(state_refused)?;
        let meta: AuthorizationMeta =
            serde_json::from_slice(&taken.meta).map_err(Error::internal)?;
        let (app, issuer) = match (taken.own_app, taken.profile) {
            (Some(app), _) => (app.clone(), Issuer::OwnApp(app)),
            (None, Some(id)) => {
                let found = self.app_of_enabled(&taken.project, id).await?;
                let app = found.for_endpoint(&meta.provider, &meta.endpoint)?;
                (app.clone(), Issuer::Profile(id))
            }
            (None, None) => return Err(Error::internal("a sign-in of no app")),
        };
        Ok(PendingAuthorization {
            project: taken.project,
            connect_session: taken.connect_session,
            verifier: taken.verifier,
            app,
            issuer,
            meta,
        })
    }

    /// Checks that a callback arrived at the app's redirect URL, and that its issuer (if stated) is
    /// the provider. Otherwise the `state` may have been used with another app or authorization
    /// server, whose code must not be sent to this token endpoint (RFC 9700, 4.4).
    ///
    /// # Errors
    /// `authorization_invalid`.
    pub(in crate::gateway) fn verify_redirect(
        self,
        begun: &PendingAuthorization,
        back: &AuthorizationCallback,
    ) -> Result<()> {
        let refused = |message| Err(Error::new(Kind::AuthorizationInvalid, message));
        if back.to != begun.app.redirect_url {
            return refused("the sign-in of this `state` was to come back elsewhere");
        }
        let Some(issuer) = &back.issuer else {
            return Ok(());
        };
        let AuthorizationMeta {
            provider, endpoint, ..
        } = &begun.meta;
        // The consent page and the API may have different origins: accept both.
        let origin = Url::parse(issuer).map(|url| url.origin().ascii_serialization());
        let api = self.gateway.connect_sessions().api_url(provider, endpoint);
        let own = [
            self.gateway
                .connect_sessions()
                .consent_origin(provider, endpoint),
            api.map(|url| url.origin().ascii_serialization()),
        ];
        if origin.is_ok_and(|origin| own.contains(&Some(origin))) {
            return Ok(());
        }
        refused("another server than the one that this sign-in is for sent it back")
    }

    /// Redeems the code of a sign-in, once. The future must not be dropped before it completes: the
    /// issued tokens would be lost.
    pub(in crate::gateway) async fn redeemed(
        self,
        begun: PendingAuthorization,
        code: SecretString,
    ) -> Result<TokenResponse> {
        let PendingAuthorization { app, meta, .. } = begun;
        let grant = TokenGrant::Code {
            code: &code,
            verifier: &begun.verifier,
        };
        let mut issued = self.issued(&meta, &app, grant).await?;
        if issued.access_token.is_none()
            && let Some(token) = issued.refresh_token
        {
            // The access token is missing or unreadable. Redeem the refresh token for another one.
            let grant = TokenGrant::RefreshToken(&token);
            issued = self.issued(&meta, &app, grant).await?;
            issued.refresh_token.get_or_insert(token);
        }
        let pair = self.gateway.credentials().pair_of(issued).ok_or_else(|| {
            let detail = "the reply has no access token";
            code_refused(&TokenError::new(TokenErrorKind::Doubtful, detail))
        })?;
        let refresh_at = self.gateway.credentials().refresh_at(&pair);
        Ok(TokenResponse {
            project: begun.project,
            connect_session: begun.connect_session,
            provider: meta.provider,
            endpoint: meta.endpoint,
            description: meta.description,
            app,
            unproven: UnverifiedCredential {
                credential: Credential::OAuth(pair),
                issuer: begun.issuer,
                refresh_at,
            },
        })
    }

    /// Redeems a grant at the token endpoint. Revokes an issued token that cannot be used.
    async fn issued(
        self,
        meta: &AuthorizationMeta,
        app: &OAuthApp,
        grant: TokenGrant<'_>,
    ) -> Result<IssuedTokens> {
        let connector = self.gateway.connector(&meta.provider)?;
        let request = TokenRequest {
            endpoint: &meta.endpoint,
            app,
            grant,
        };
        match self
            .gateway
            .credentials()
            .issue_tokens(connector.as_ref(), request)
            .await
        {
            Ok(issued) => Ok(issued),
            Err(mut error) => {
                if let Some(token) = error.unusable.take() {
                    self.gateway
                        .credentials()
                        .revoke_unstored(connector.as_ref(), &meta.endpoint, token)
                        .await;
                }
                Err(code_refused(&error))
            }
        }
    }

    /// Refreshes the pair of a sign-in if the provider refuses the access token that it just
    /// issued. That token may have been read wrongly from the response, and nothing could be
    /// revoked with it. Returns whether there is a new pair.
    pub(in crate::gateway) async fn renewed(
        self,
        signed_in: &mut TokenResponse,
        refused: &Error,
    ) -> bool {
        let credential = &signed_in.unproven.credential;
        let (Kind::CredentialRefused, Some(token)) = (refused.kind(), credential.refresh_token())
        else {
            return false;
        };
        let former = token.clone();
        let meta = AuthorizationMeta {
            provider: signed_in.provider.clone(),
            endpoint: signed_in.endpoint.clone(),
            description: None,
        };
        let grant = TokenGrant::RefreshToken(&former);
        let Ok(issued) = self.issued(&meta, &signed_in.app, grant).await else {
            return false;
        };
        let Some(mut pair) = self.gateway.credentials().pair_of(issued) else {
            return false;
        };
        pair.refresh_token.get_or_insert(former);
        signed_in.unproven.refresh_at = self.gateway.credentials().refresh_at(&pair);
        signed_in.unproven.credential = Credential::OAuth(pair);
        true
    }

    async fn app_of_enabled(self, project: &ProjectId, id: ProfileId) -> Result<ProfileApp> {
        let store = self.gateway.store_of(project);
        let profile = store.profile(project, id).await?;
        check_enabled(&profile.ok_or_else(crate::gateway::connector_profiles::no_such_profile)?)?;
        let app = store.oauth_app(project, id).await?;
        app.ok_or_else(crate::gateway::connector_profiles::no_such_profile)
    }

    /// 256 random bits as URL-safe text. Its 43 characters are the minimum length of a PKCE
    /// verifier (RFC 7636, 4.1).
    pub(in crate::gateway) fn random_text(self) -> SecretString {
        use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
        let bytes = zeroize::Zeroizing::new(self.gateway.0.rng.bytes::<32>());
        BASE64_URL_SAFE_NO_PAD.encode(*bytes).into()
    }
}

pub(in crate::gateway) fn state_refused(fault: StateError) -> Error {
    let message = match fault {
        // Do not reveal that the state belongs to someone else.
        StateError::Unknown | StateError::Another => {
            "there is no sign-in of this `state` that was begun here"
        }
        StateError::Used => "the sign-in of this `state` has come back already",
        StateError::Expired => "the sign-in of this `state` took too long",
    };
    Error::new(Kind::AuthorizationInvalid, message).with_source(fault)
}

/// True if a `state` is refused only because it has expired or was used before. It then belongs to
/// the caller that presented it.
pub fn is_late(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let fault = source.and_then(|source| source.downcast_ref::<StateError>());
    matches!(fault, Some(StateError::Used | StateError::Expired))
}

/// Returns the error for a code that the token endpoint did not accept.
fn code_refused(error: &TokenError) -> Error {
    let (kind, message) = match error.kind {
        TokenErrorKind::InvalidGrant => (
            Kind::AuthorizationRefused,
            "the provider does not take this code: it was used, or issued to another app",
        ),
        TokenErrorKind::GrantExpired => (
            Kind::AuthorizationRefused,
            "the provider does not take this code any more: it is too old",
        ),
        TokenErrorKind::AppRefused => (
            Kind::AppRefused,
            "the provider knows the app, and does not take its client secret",
        ),
        TokenErrorKind::UnknownApp => (
            Kind::AppRefused,
            "the provider knows no app of this client id",
        ),
        TokenErrorKind::RedirectMismatch => (
            Kind::AppRefused,
            "the redirect URL is not the one that the app is registered with",
        ),
        TokenErrorKind::Throttled => (
            Kind::ProviderThrottled,
            "the provider's rate limit is spent",
        ),
        TokenErrorKind::Unsent | TokenErrorKind::Doubtful | TokenErrorKind::Refused => (
            Kind::ProviderUnavailable,
            "the provider did not give a usable answer to the code",
        ),
    };
    let mut answer = Error::new(kind, message)
        .with_provider(ProviderReply {
            status: error.status,
            code: error.code,
            reference: None,
        })
        .with_source(error.clone());
    if matches!(kind, Kind::ProviderThrottled | Kind::ProviderUnavailable) {
        answer = answer.with_retry_after(Duration::from_secs(30));
    }
    answer
}
