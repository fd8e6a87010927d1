//! Connect sessions, and the steps of the hub that a link token authorizes.
//!
//! An integrator creates a session and gives its link to a customer. The link token authorizes
//! exactly these steps: choose a method, submit a token or sign in, review the result, save. It
//! gives no other access to the project. A submitted credential is stored sealed beside the session
//! (a *draft*) until the customer saves it, so that no page ever contains it. Saving names the
//! draft that was reviewed. Unless a session allows several links, its first link uses it up.
//!
//! The hub identifies a browser by a secret in a cookie. A draft belongs to the browser that
//! submitted it: another browser with the same link can neither see, save nor cancel it. The hub
//! refuses a `state` that another browser presents ([`super::authorizations`]).

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    AccountDetails, Issuer, NewAccount, UnverifiedCredential, VerifiedCredential,
    authorizations::{
        AuthorizationApp, AuthorizationCallback, AuthorizationRequest, TokenResponse, digest,
        state_refused,
    },
    link_error, same_organization,
    verify::{CheckResult, CredentialCheck, CredentialToCheck},
};
use crate::gateway::{Gateway, auth::Caller, connector_profiles::check_enabled};
use crate::{
    directory::Visibility,
    error::{Error, Kind, Result, WalkProgress},
    model::{
        accounts::{
            Account, AccountChange, AccountKind, Credential, CredentialKind, Endpoint, Region,
        },
        audit_log::Actor,
        connect_sessions::{ConnectDetails, ConnectSession, LARGEST_NUMBER, LinkToken},
        connector_profiles::{ClientProof, ConnectorProfile, OAuthApp, ProfileId},
        id::{AccountId, ProjectId},
        observed::Identity,
        schema::Warning,
        walks::{Walk, WalkState},
    },
    store::{StateOwner, StoredDraft},
};

/// The default lifetime of a session.
pub const DEFAULT_LIFE: Duration = Duration::from_secs(1800);

/// The longest lifetime of a session, for a link that is sent by e-mail.
pub const LONGEST_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// How many attempts with tokens and sign-ins one session allows a minute. This is more than a
/// person needs, and too few to test stolen tokens through this server.
pub(in crate::gateway) const ATTEMPTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).unwrap();

/// The connector of a session that names none.
const ONLY_PROVIDER: &str = "smartsheet";

/// The input of a new connect session.
#[derive(Debug, Clone)]
pub struct NewConnectSession {
    pub provider: Option<String>,
    /// The connector profile to sign in under.
    pub profile: Option<String>,
    /// The account to link again.
    pub account: Option<String>,
    pub kind: AccountKind,
    pub is_multiple: bool,
    pub origin_owner_id: String,
    pub details: ConnectDetails,
    pub expires_in: Duration,
}

/// A new connect session and its link token.
#[derive(Debug, Clone)]
pub struct CreatedSession {
    pub session: ConnectSession,
    pub token: LinkToken,
}

/// The ways to link that a session offers its customer.
pub struct LinkOptions {
    /// The provider's display name.
    pub provider_name: &'static str,
    pub provider: String,
    /// The project's OAuth apps that the customer can sign in under.
    pub profiles: Vec<ConnectorProfile>,
    /// True if the customer may submit a personal access token.
    pub takes_token: bool,
    /// True if the customer may use an OAuth app of their own.
    pub takes_own_app: bool,
    /// The endpoints to choose from.
    pub endpoints: Vec<Endpoint>,
    /// The redirect URL to register the customer's own app with.
    pub own_app_callback_url: String,
    /// The account to link again, if the session names one.
    pub account: Option<Account>,
}

/// An unsaved credential, with the provider's data about it.
#[derive(Debug, Clone)]
pub struct LinkDraft {
    /// The number of the draft, which saving names.
    pub draft: u64,
    pub kind: CredentialKind,
    pub found: VerifiedIdentity,
}

/// The provider's data about a credential.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifiedIdentity {
    pub provider: String,
    pub endpoint: Endpoint,
    pub identity: Identity,
    /// How many users it can list; None if the provider reports no total.
    pub users: Option<u64>,
    /// The fields that would be null for every user, and why.
    pub hidden: Vec<Warning>,
    refresh_at: Option<Timestamp>,
}

/// A linked account and the progress of its walk.
pub struct LinkStatus {
    pub account: Arc<Account>,
    pub progress: Option<WalkProgress>,
    /// The last walk that has ended.
    pub last_walk: Option<Walk>,
    /// True if the account has a sealed directory.
    pub is_sealed: bool,
    /// The fields that are null for every user, and why.
    pub hidden: Vec<Warning>,
}

/// Connect sessions, and the steps of the hub that a link token authorizes.
#[derive(Clone, Copy)]
pub struct ConnectSessions<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}

impl ConnectSessions<'_> {
    /// Creates a connect session in the caller's project.
    ///
    /// # Errors
    /// `invalid_body`, `not_found` for an unknown profile, `account_not_found`,
    /// `public_url_missing`, `account_inactive` if the profile is disabled.
    pub async fn create_connect_session(
        self,
        caller: &Caller,
        new: NewConnectSession,
    ) -> Result<CreatedSession> {
        self.gateway.must_be_reachable()?;
        let project = caller.project().clone();
        if let Some(provider) = &new.provider {
            self.gateway.connector(provider)?;
        }
        let mut provider = new.provider;
        let profile = match &new.profile {
            None => None,
            Some(id) => {
                let profile = self
                    .gateway
                    .connector_profiles()
                    .profile_in(&project, id)
                    .await?;
                check_enabled(&profile)?;
                if provider.as_ref().is_some_and(|it| *it != profile.provider) {
                    return Err(invalid("`provider` is not that of the connector profile"));
                }
                provider = Some(profile.provider.clone());
                Some(profile.id)
            }
        };
        let account = match &new.account {
            None => None,
            Some(id) => {
                let own = self.gateway.auth().own_account(caller, id).await?;
                if provider
                    .as_ref()
                    .is_some_and(|it| *it != own.account.provider)
                {
                    return Err(invalid("`provider` is not that of the account"));
                }
                provider = Some(own.account.provider.clone());
                Some(own.account.id)
            }
        };
        let details = self.registered(&project, new.details).await?;
        let now = self.gateway.0.clock.now();
        let session = ConnectSession {
            number: u64::from_be_bytes(self.gateway.0.rng.bytes()) & LARGEST_NUMBER,
            project,
            provider,
            profile,
            account,
            kind: new.kind,
            is_multiple: new.is_multiple,
            origin_owner_id: new.origin_owner_id,
            details,
            draft: 0,
            linked_account: None,
            created_at: now,
            expires_at: now
                .saturating_add(new.expires_in)
                .map_err(Error::internal)?,
            used_at: None,
        };
        let token = self.gateway.authorizations().random_text();
        let store = self.gateway.store_of(caller.project());
        store
            .insert_connect_session(&session, digest(token.expose_secret()), caller.actor())
            .await?;
        tracing::info!(connect_session = session.number, "connect session made");
        Ok(CreatedSession { session, token })
    }

    /// Checks the return URL and the opener origin: each must be registered for the project. If one
    /// is missing and the project has only one registered, that one is filled in.
    async fn registered(
        self,
        project: &crate::model::id::ProjectId,
        mut details: ConnectDetails,
    ) -> Result<ConnectDetails> {
        let registered = self.gateway.store_of(project).hub_targets(project).await?;
        for (name, chosen, registered) in [
            (
                "return_url",
                &mut details.return_url,
                &registered.return_urls,
            ),
            (
                "opener_origin",
                &mut details.opener_origin,
                &registered.opener_origins,
            ),
        ] {
            match chosen {
                Some(chosen) if !registered.contains(chosen) => {
                    return Err(Error::new(
                        Kind::InvalidBody,
                        format!("`{name}` is not among those that are registered for this project"),
                    )
                    .with_hint("The operator registers it with `rolecall projects update`."));
                }
                None => {
                    if let [only] = registered.as_slice() {
                        *chosen = Some(only.clone());
                    }
                }
                Some(_) => {}
            }
        }
        Ok(details)
    }

    /// The hub's URL for a link token.
    pub fn auth_link_url(self, token: &LinkToken) -> String {
        format!(
            "{}/connect/{}",
            self.gateway.public_url(),
            token.expose_secret()
        )
    }

    /// The session with this token, if it belongs to the caller's project and can still be used.
    /// This does not use it up.
    ///
    /// # Errors
    /// `connect_session_invalid`, alike for an unknown, a used and an expired session, and for one
    /// of another project.
    pub async fn authenticate_connect_session(
        self,
        caller: &Caller,
        token: &SecretString,
    ) -> Result<ConnectSession> {
        let session = self.open_connect_session(token).await?;
        if session.project == *caller.project() {
            return Ok(session);
        }
        Err(session_invalid())
    }

    /// The session with this token, if it can still be used.
    ///
    /// # Errors
    /// `connect_session_invalid`.
    pub async fn open_connect_session(self, token: &SecretString) -> Result<ConnectSession> {
        let session = self.connect_session(token).await?;
        if session.is_open_at(self.gateway.0.clock.now()) {
            return Ok(session);
        }
        Err(session_invalid())
    }

    /// The session with this token, if it has not expired. A used session is valid here, so that
    /// the customer can follow the walk of the linked account.
    ///
    /// # Errors
    /// `connect_session_invalid`.
    pub async fn connect_session(self, token: &SecretString) -> Result<ConnectSession> {
        let digest = digest(token.expose_secret());
        let session = self
            .gateway
            .0
            .store
            .for_unauthenticated()
            .connect_session(digest)
            .await?;
        let session = session
            .filter(|session| self.gateway.0.clock.now() < session.expires_at)
            .ok_or_else(session_invalid)?;
        self.account_again(&session).await?;
        Ok(session)
    }

    /// The ways to link that a session offers its customer.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn offer(self, session: &ConnectSession) -> Result<LinkOptions> {
        let provider = session.provider.as_deref().unwrap_or(ONLY_PROVIDER);
        let connector = self.gateway.connector(provider)?;
        let profiles = self
            .gateway
            .store_of(&session.project)
            .profiles(&session.project)
            .await?;
        let account = self.account_again(session).await?;
        let stands_for_another = account.as_ref().is_some_and(stands_for_another);
        // Offer only profiles whose sign-ins come back to the hub and, for an account that is
        // linked again, those at its endpoint. An account that assumes a user takes personal access
        // tokens only.
        let profiles = profiles.into_iter().filter(|profile| {
            profile.is_enabled
                && !stands_for_another
                && account
                    .as_ref()
                    .is_none_or(|account| account.endpoint == profile.endpoint)
                && profile.provider == provider
                && profile.redirect_url == self.gateway.connector_profiles().callback_url(provider)
                && session.profile.is_none_or(|only| only == profile.id)
        });
        let profiles: Vec<_> = profiles.collect();
        let endpoints = match &account {
            Some(account) => vec![account.endpoint.clone()],
            None => self.endpoints(&profiles),
        };
        Ok(LinkOptions {
            provider_name: connector.name(),
            provider: provider.to_owned(),
            profiles,
            takes_token: session.profile.is_none() || stands_for_another,
            takes_own_app: session.profile.is_none() && !stands_for_another,
            endpoints,
            own_app_callback_url: self
                .gateway
                .connector_profiles()
                .own_app_callback_url(provider),
            account,
        })
    }

    /// The regions, the base URLs that the operator allows, and the endpoints of these profiles.
    fn endpoints(self, profiles: &[ConnectorProfile]) -> Vec<Endpoint> {
        let bases = self.gateway.0.settings.base_urls.iter().cloned();
        let mut endpoints: Vec<_> = Region::ALL
            .map(Endpoint::Region)
            .into_iter()
            .chain(bases.map(Endpoint::BaseUrl))
            .collect();
        for profile in profiles {
            if !endpoints.contains(&profile.endpoint) {
                endpoints.push(profile.endpoint.clone());
            }
        }
        endpoints
    }

    /// The account to link again, if the session names one.
    ///
    /// # Errors
    /// `connect_session_invalid` if that account is gone: no other account is linked in its place.
    async fn account_again(self, session: &ConnectSession) -> Result<Option<Account>> {
        let Some(id) = session.account else {
            return Ok(None);
        };
        let account = self
            .gateway
            .store_of(&session.project)
            .account(&session.project, id)
            .await?;
        account.map(Some).ok_or_else(session_invalid)
    }

    /// Verifies a personal access token at this endpoint only, and stores it as a draft.
    ///
    /// # Errors
    /// Those of [`Linking::link`](super::Linking::link), `organisation_mismatch`,
    /// `connect_session_invalid`, `rate_limited`; nothing is stored then.
    pub async fn bring_token(
        self,
        session: &ConnectSession,
        browser: &SecretString,
        endpoint: Endpoint,
        token: SecretString,
    ) -> Result<LinkDraft> {
        let (gateway, session) = (self.gateway.clone(), session.clone());
        let browser = digest(browser.expose_secret());
        self.check_attempts(&session)?;
        self.gateway
            .owned(async move {
                gateway.0.settings.check_endpoint(&endpoint)?;
                let provider = session.provider.as_deref().unwrap_or(ONLY_PROVIDER);
                let unproven = UnverifiedCredential::personal(token);
                gateway
                    .connect_sessions()
                    .keep(&session, browser, provider.to_owned(), endpoint, unproven)
                    .await
            })
            .await
    }

    /// Begins a sign-in of this browser under one of the project's profiles.
    ///
    /// # Errors
    /// `not_found`, `account_inactive` while the profile is disabled, `assume_user_refused`,
    /// `rate_limited`.
    pub async fn sign_in(
        self,
        session: &ConnectSession,
        browser: &SecretString,
        profile: &str,
    ) -> Result<Url> {
        self.check_attempts(session)?;
        let profile = self
            .gateway
            .connector_profiles()
            .profile_in(&session.project, profile)
            .await?;
        check_enabled(&profile)?;
        if session.profile.is_some_and(|only| only != profile.id) {
            return Err(crate::gateway::connector_profiles::no_such_profile());
        }
        self.check_may_sign_in(session).await?;
        let sign_in = self
            .gateway
            .authorizations()
            .begin_sign_in(
                AuthorizationApp::Profile(&profile),
                self.sets_out(session, browser),
            )
            .await?;
        Ok(sign_in.url)
    }

    /// Begins a sign-in of this browser under the customer's own app. The app's secret is stored
    /// sealed and never shown again.
    ///
    /// # Errors
    /// `base_url_not_allowed`, `invalid_body`, `assume_user_refused`, `rate_limited`.
    pub async fn sign_in_with_own_app(
        self,
        session: &ConnectSession,
        browser: &SecretString,
        endpoint: Endpoint,
        (client_id, client_secret): (String, SecretString),
    ) -> Result<Url> {
        self.check_attempts(session)?;
        self.check_may_sign_in(session).await?;
        self.gateway.0.settings.check_endpoint(&endpoint)?;
        let provider = session.provider.as_deref().unwrap_or(ONLY_PROVIDER);
        // The secret is sent to this endpoint before the provider identifies the user. Check the
        // endpoint first.
        if let Some(account) = self.account_again(session).await? {
            self.check_place(&account, provider, &endpoint).await?;
        }
        let app = OAuthApp {
            client_id,
            client_secret,
            proof: ClientProof::ClientSecret,
            redirect_url: self
                .gateway
                .connector_profiles()
                .own_app_callback_url(provider),
        };
        let app = AuthorizationApp::Own {
            app: &app,
            endpoint: &endpoint,
            provider,
        };
        let sign_in = self
            .gateway
            .authorizations()
            .begin_sign_in(app, self.sets_out(session, browser))
            .await?;
        Ok(sign_in.url)
    }

    /// Refuses a sign-in for an account that assumes a user, which takes a personal access token.
    async fn check_may_sign_in(self, session: &ConnectSession) -> Result<()> {
        let account = self.account_again(session).await?;
        if !account.as_ref().is_some_and(stands_for_another) {
            return Ok(());
        }
        Err(Error::new(
            Kind::AssumeUserRefused,
            "the account assumes a user, which takes a personal access token",
        ))
    }

    /// Counts an attempt with this session.
    ///
    /// # Errors
    /// `rate_limited`.
    fn check_attempts(self, session: &ConnectSession) -> Result<()> {
        let standing = self.gateway.0.link_attempts.spend(&session.number);
        standing.map_or(Ok(()), |standing| standing.check("invitation"))
    }

    fn sets_out<'a>(
        self,
        session: &'a ConnectSession,
        browser: &SecretString,
    ) -> AuthorizationRequest<'a> {
        AuthorizationRequest {
            project: &session.project,
            connect_session: Some(session.number),
            browser: Some(digest(browser.expose_secret())),
            description: None,
        }
    }

    /// The base URL of the provider's API at this endpoint.
    pub fn api_url(self, provider: &str, endpoint: &Endpoint) -> Option<Url> {
        self.gateway.connector(provider).ok()?.api_url(endpoint)
    }

    /// The origin of the provider's consent page. Besides this server, it is the only host that a
    /// form of the hub may lead to.
    pub fn consent_origin(self, provider: &str, endpoint: &Endpoint) -> Option<String> {
        // Only the origin of the URL is used, so its parameters stay empty.
        let verifier = SecretString::default();
        let connector = self.gateway.connector(provider).ok()?;
        let url = connector.authorize_url(&crate::connectors::oauth::AuthorizeRequest {
            endpoint,
            client_id: "",
            redirect_url: "",
            scopes: &[],
            state: "",
            verifier: &verifier,
        })?;
        Some(url.origin().ascii_serialization())
    }

    /// Completes a sign-in of this session and browser: redeems the code, verifies the token pair,
    /// and stores it as a draft. If that fails, the pair is revoked.
    ///
    /// # Errors
    /// `authorization_invalid`, `authorization_refused`, `app_refused`, and those of
    /// [`ConnectSessions::bring_token`].
    pub async fn signed_in(
        self,
        session: &ConnectSession,
        browser: &SecretString,
        back: AuthorizationCallback,
    ) -> Result<LinkDraft> {
        let (gateway, session) = (self.gateway.clone(), session.clone());
        let browser = digest(browser.expose_secret());
        self.gateway
            .owned(async move {
                let bringer = StateOwner::Browser(browser);
                let begun = gateway
                    .authorizations()
                    .begun(digest(&back.state), bringer)
                    .await?;
                gateway.authorizations().verify_redirect(&begun, &back)?;
                let mut signed_in = gateway.authorizations().redeemed(begun, back.code).await?;
                let keep = async |signed_in: &TokenResponse| {
                    if signed_in.connect_session != Some(session.number) {
                        return Err(Error::new(
                            Kind::AuthorizationInvalid,
                            "this sign-in was begun from another invitation",
                        ));
                    }
                    let (provider, endpoint) =
                        (signed_in.provider.clone(), signed_in.endpoint.clone());
                    gateway
                        .connect_sessions()
                        .keep(
                            &session,
                            browser,
                            provider,
                            endpoint,
                            signed_in.unproven.clone(),
                        )
                        .await
                };
                let mut kept = keep(&signed_in).await;
                if let Err(refused) = &kept
                    && gateway
                        .authorizations()
                        .renewed(&mut signed_in, refused)
                        .await
                {
                    kept = keep(&signed_in).await;
                }
                if kept.is_err() {
                    let connector = gateway.connector(&signed_in.provider)?;
                    let token = signed_in.unproven.credential.access_token().clone();
                    gateway
                        .credentials()
                        .revoke_unstored(connector.as_ref(), &signed_in.endpoint, token)
                        .await;
                }
                kept
            })
            .await
    }

    /// Ends a sign-in of this browser whose callback has no code. Returns whether it used the
    /// customer's own app.
    ///
    /// # Errors
    /// `authorization_invalid`.
    pub async fn turned_back(self, browser: &SecretString, state: &str) -> Result<bool> {
        let bringer = StateOwner::Browser(digest(browser.expose_secret()));
        let now = self.gateway.0.clock.now();
        let taken = self
            .gateway
            .0
            .store
            .for_unauthenticated()
            .take_authorization(digest(state), bringer, now)
            .await?;
        Ok(taken.map_err(state_refused)?.own_app.is_some())
    }

    /// Verifies a credential and stores it as this browser's draft. Revokes the former draft.
    async fn keep(
        self,
        session: &ConnectSession,
        browser: [u8; 32],
        provider: String,
        endpoint: Endpoint,
        unproven: UnverifiedCredential,
    ) -> Result<LinkDraft> {
        let connector = self.gateway.connector(&provider)?;
        self.gateway.0.settings.check_endpoint(&endpoint)?;
        let again = self.account_again(session).await?;
        if let Some(account) = &again {
            self.check_place(account, &provider, &endpoint).await?;
        }
        let of = CredentialToCheck {
            account: format!("connect_session/{}", session.number),
            endpoint: &endpoint,
            assume_user: again
                .as_ref()
                .and_then(|account| account.assume_user.as_deref()),
        };
        let trial = CredentialCheck::new(
            &self.gateway.0.outbound,
            connector.as_ref(),
            of,
            &unproven.credential,
        );
        let CheckResult {
            identity,
            users,
            hidden,
            ..
        } = trial
            .findings()
            .await
            .map_err(|error| link_error(&error, false))?;
        if let Some(account) = &again {
            same_organization(account, &identity)?;
        }
        let found = VerifiedIdentity {
            provider,
            endpoint,
            identity,
            users,
            hidden,
            refresh_at: unproven.refresh_at,
        };
        let (profile, own_app) = match unproven.issuer {
            Issuer::Owner => (None, None),
            Issuer::Profile(id) => (Some(id), None),
            Issuer::OwnApp(app) => (None, Some(app)),
        };
        let draft = StoredDraft {
            credential: unproven.credential,
            profile,
            own_app,
            meta: serde_json::to_vec(&found).map_err(Error::internal)?,
        };
        let kind = kind_of(&draft);
        let now = self.gateway.0.clock.now();
        let store = self.gateway.store_of(&session.project);
        let put = store.put_draft(session, browser, Some(&draft), now).await?;
        let (number, former) = put.ok_or_else(session_invalid)?;
        if let Some(former) = former {
            self.revoke_draft(&session.project, &former).await;
        }
        Ok(LinkDraft {
            draft: number,
            kind,
            found,
        })
    }

    /// Checks that a credential for this provider and endpoint may replace the account's.
    ///
    /// # Errors
    /// `organisation_mismatch`.
    async fn check_place(
        self,
        account: &Account,
        provider: &str,
        endpoint: &Endpoint,
    ) -> Result<()> {
        let proven = self.gateway.linking().destination(account).await?;
        if proven.provider == provider && proven.endpoint == *endpoint {
            return Ok(());
        }
        Err(Error::new(
            Kind::OrganizationMismatch,
            "the account that is to be linked again is in another region",
        ))
    }

    /// This browser's unsaved draft.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn review(
        self,
        session: &ConnectSession,
        browser: &SecretString,
    ) -> Result<Option<LinkDraft>> {
        let browser = digest(browser.expose_secret());
        let store = self.gateway.store_of(&session.project);
        let Some((number, draft)) = store.draft(session, browser).await? else {
            return Ok(None);
        };
        let found = serde_json::from_slice(&draft.meta).map_err(Error::internal)?;
        Ok(Some(LinkDraft {
            draft: number,
            kind: kind_of(&draft),
            found,
        }))
    }

    /// Saves this browser's draft of this number: links an account with it, uses the session up and
    /// starts a walk.
    ///
    /// # Errors
    /// `connect_session_invalid` if the session was used or has expired; `invalid_body` if the
    /// browser has another draft by now, or none.
    pub async fn save(
        self,
        session: &ConnectSession,
        browser: &SecretString,
        draft: u64,
    ) -> Result<Arc<Account>> {
        let (gateway, session) = (self.gateway.clone(), session.clone());
        let browser = digest(browser.expose_secret());
        self.gateway
            .owned(async move {
                let store = gateway.store_of(&session.project);
                let waiting = store.draft(&session, browser).await?;
                let Some((_, waiting)) = waiting.filter(|(number, _)| *number == draft) else {
                    return Err(invalid("what was looked at is not what waits to be saved"));
                };
                let found: VerifiedIdentity =
                    serde_json::from_slice(&waiting.meta).map_err(Error::internal)?;
                let again = gateway.connect_sessions().account_again(&session).await?;
                if let Some(account) = &again {
                    // Check again: the session names the account in plain text, not sealed with
                    // the draft, so its row could have been changed.
                    gateway
                        .connect_sessions()
                        .check_place(account, &found.provider, &found.endpoint)
                        .await?;
                    same_organization(account, &found.identity)?;
                }
                let proven = VerifiedCredential {
                    issuer: match (waiting.own_app, waiting.profile) {
                        (Some(app), _) => Issuer::OwnApp(app),
                        (None, Some(id)) => Issuer::Profile(id),
                        (None, None) => Issuer::Owner,
                    },
                    credential: waiting.credential,
                    refresh_at: found.refresh_at,
                    identity: found.identity,
                    draft: Some(draft),
                };
                let by = Actor::ConnectSession(session.number);
                if let Some(account) = again {
                    let change = AccountChange::default();
                    return gateway
                        .linking()
                        .replace_credential(&account, &change, Some(&proven), by)
                        .await;
                }
                let new = NewAccount {
                    id: gateway.new_id(),
                    project: session.project,
                    provider: found.provider,
                    description: AccountDetails {
                        origin_owner_id: session.origin_owner_id,
                        origin_owner_name: session.details.origin_owner_name,
                        origin_username: session.details.origin_username,
                        label: session.details.label,
                        kind: session.kind,
                    },
                    endpoint: found.endpoint,
                    assume_user: None,
                    by,
                };
                gateway.linking().store_account(new, &proven).await
            })
            .await
    }

    /// Deletes this browser's draft. Tokens from a sign-in are revoked.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn cancel(self, session: &ConnectSession, browser: &SecretString) -> Result<()> {
        let (gateway, session) = (self.gateway.clone(), session.clone());
        let browser = digest(browser.expose_secret());
        self.gateway
            .owned(async move {
                let now = gateway.0.clock.now();
                let store = gateway.store_of(&session.project);
                let put = store.put_draft(&session, browser, None, now).await?;
                // A draft that was saved meanwhile is not returned here: the account uses it.
                if let Some((_, Some(former))) = put {
                    gateway
                        .connect_sessions()
                        .revoke_draft(&session.project, &former)
                        .await;
                }
                Ok(())
            })
            .await
    }

    /// Deletes the unsaved drafts of ended sessions. Tokens from a sign-in are revoked first: if
    /// this process stops or the provider does not answer, the draft remains for the next run.
    pub(in crate::gateway) async fn drop_ended_drafts(self) -> Result<()> {
        let store = &self.gateway.0.store;
        for ended in store.ended_drafts(self.gateway.0.clock.now()).await? {
            if self.revoke_draft(&ended.project, &ended.draft).await {
                store.forget_ended_draft(&ended).await?;
            }
        }
        Ok(())
    }

    /// Revokes the token pair of a draft that is not saved. Personal access tokens are not revoked,
    /// since their owners created them. Returns whether nothing is left that can be revoked.
    async fn revoke_draft(self, project: &ProjectId, draft: &StoredDraft) -> bool {
        let Credential::OAuth(pair) = &draft.credential else {
            return true;
        };
        let Ok(found) = serde_json::from_slice::<VerifiedIdentity>(&draft.meta) else {
            return true;
        };
        let Ok(connector) = self.gateway.connector(&found.provider) else {
            return true;
        };
        let app = match (&draft.own_app, draft.profile) {
            (Some(app), _) => Ok(Some(app.clone())),
            (None, Some(profile)) => {
                let at = (found.provider.as_str(), &found.endpoint);
                self.app_of_profile(project, profile, at).await
            }
            (None, None) => Ok(None),
        };
        let (connector, endpoint) = (connector.as_ref(), &found.endpoint);
        match app {
            Ok(Some(app)) => {
                self.gateway
                    .credentials()
                    .revoke_draft_pair(connector, endpoint, (pair, &app))
                    .await
            }
            // The profile is gone, and the refresh token cannot be redeemed without its app. Only
            // the access token is left to revoke with.
            Ok(None) => {
                let token = pair.access_token.clone();
                self.gateway
                    .credentials()
                    .revoke_unstored(connector, endpoint, token)
                    .await
            }
            Err(error) => {
                tracing::warn!(%error, "what nobody saved could not be revoked");
                false
            }
        }
    }

    /// A profile's app, if its secret may be sent to this endpoint; None if the project has no such
    /// profile.
    async fn app_of_profile(
        self,
        project: &ProjectId,
        profile: ProfileId,
        (provider, endpoint): (&str, &Endpoint),
    ) -> Result<Option<OAuthApp>> {
        let Some(found) = self.gateway.0.store.oauth_app(project, profile).await? else {
            return Ok(None);
        };
        found.for_endpoint(provider, endpoint).cloned().map(Some)
    }

    /// The account that this browser linked last in the session, and the progress of its walk.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn linked(
        self,
        session: &ConnectSession,
        browser: &SecretString,
    ) -> Result<Option<LinkStatus>> {
        let browser = digest(browser.expose_secret());
        let store = self.gateway.store_of(&session.project);
        let Some(id) = store.linked_by(session, browser).await? else {
            return Ok(None);
        };
        self.linked_account(session, id).await
    }

    async fn linked_account(
        self,
        session: &ConnectSession,
        id: AccountId,
    ) -> Result<Option<LinkStatus>> {
        let project = &session.project;
        let store = self.gateway.store_of(project);
        let Some(account) = store.account(project, id).await? else {
            return Ok(None);
        };
        let walks = store.walks(project, id, None, 2).await?;
        let last_walk = walks
            .into_iter()
            .find(|walk| walk.state != WalkState::Running);
        let latest = store.latest(project, id).await?;
        let is_sealed = latest.is_some_and(|latest| latest.directory.is_some());
        Ok(Some(LinkStatus {
            progress: self.gateway.walks().walk_progress(&account),
            hidden: self.hidden_of(&account, is_sealed).await?,
            is_sealed,
            last_walk,
            account: Arc::new(account),
        }))
    }

    /// The hidden fields of the current directory. While there is none, those that the first
    /// directory will have if the credential may read groups.
    async fn hidden_of(self, account: &Account, is_sealed: bool) -> Result<Vec<Warning>> {
        if is_sealed {
            let live = self.gateway.directory().live(account);
            self.gateway.directory().catch_up_now(&live).await?;
            if let Some(head) = live.head() {
                return Ok(head.visibility.hidden_fields());
            }
        }
        let Identity {
            is_admin, seats, ..
        } = &account.identity;
        Ok(Visibility::of(*is_admin, seats, true).hidden_fields())
    }

    /// A new secret for the cookie by which the hub identifies a browser.
    pub fn new_browser(self) -> SecretString {
        self.gateway.authorizations().random_text()
    }
}

const fn kind_of(draft: &StoredDraft) -> CredentialKind {
    match (&draft.credential, &draft.own_app) {
        (Credential::AccessToken(_), _) => CredentialKind::AccessToken,
        (Credential::OAuth(_), None) => CredentialKind::OAuth,
        (Credential::OAuth(_), Some(_)) => CredentialKind::OAuthOwnApp,
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(Kind::InvalidBody, message)
}

/// True if the account's token impersonates another user. Smartsheet allows that for personal
/// access tokens only.
fn stands_for_another(account: &Account) -> bool {
    account.assume_user.is_some()
}

fn session_invalid() -> Error {
    Error::new(
        Kind::ConnectSessionInvalid,
        "there is no connect session of this token that can be used",
    )
}
