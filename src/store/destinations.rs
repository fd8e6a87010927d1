//! The destination of a sealed secret: the provider, endpoint and OAuth client that it may be sent
//! to.
//!
//! A secret is sealed together with a digest of its destination
//! ([ADR 18](../../../docs/adr/0018-a-secret-is-bound-to-its-destination.md)). The columns that
//! name the destination are in plain text, since accounts are found and ordered by them. A row
//! whose destination was changed can no longer be decrypted, so its secret is never sent.
//!
//! A caller sends a secret to the destination that it was opened with, never to one that was read
//! separately: between two reads, the row may have been changed and restored.
//!
//! The API endpoint and the token endpoint both follow from the provider and its [`Endpoint`] in
//! the connector's code, so the digest covers both.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{
    accounts::Endpoint,
    connector_profiles::{ClientProof, OAuthApp, ProfileId},
};

/// Where a credential may be sent, and for which OAuth client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The connector's key.
    pub provider: String,
    pub endpoint: Endpoint,
    pub client: Client,
}

/// The OAuth client that a credential was issued to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Client {
    /// No client: the owner created the token.
    None,
    /// The app of a connector profile.
    Profile { id: String, client_id: String },
    /// The customer's own app.
    OwnApp { client_id: String },
}

impl Client {
    pub(super) fn of_profile(id: ProfileId, app: &OAuthApp) -> Self {
        Self::Profile {
            id: id.to_string(),
            client_id: app.client_id.clone(),
        }
    }

    pub(super) fn of_own_app(app: &OAuthApp) -> Self {
        Self::OwnApp {
            client_id: app.client_id.clone(),
        }
    }
}

impl Destination {
    /// The digest that a credential is bound to.
    pub(super) fn digest(&self) -> [u8; 32] {
        let (kind, id, client_id) = match &self.client {
            Client::None => ("none", "", ""),
            Client::Profile { id, client_id } => ("profile", id.as_str(), client_id.as_str()),
            Client::OwnApp { client_id } => ("own_app", "", client_id.as_str()),
        };
        digest(
            "credential",
            &self.provider,
            &self.endpoint,
            &[kind, id, client_id],
        )
    }
}

/// The digest for the customer's own app, which contains its client id and redirect URL itself.
pub(super) fn own_app_digest(provider: &str, endpoint: &Endpoint) -> [u8; 32] {
    digest("own app", provider, endpoint, &[])
}

/// The digest for the rest of a destroyed credential, which proves the account's destination.
pub(super) fn destroyed_digest(provider: &str, endpoint: &Endpoint) -> [u8; 32] {
    digest("destroyed", provider, endpoint, &[])
}

/// The destination that a connector profile's client secret is bound to.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProfileDestination<'a> {
    pub(super) provider: &'a str,
    pub(super) endpoint: &'a Endpoint,
    pub(super) client_id: &'a str,
    /// Whether the secret is sent as it is, or as a hash.
    pub(super) proof: ClientProof,
    pub(super) redirect_url: &'a str,
}

impl ProfileDestination<'_> {
    pub(super) fn digest(&self) -> [u8; 32] {
        let proof = match self.proof {
            ClientProof::ClientSecret => "client_secret",
            ClientProof::Hash => "hash",
        };
        let parts = [self.client_id, proof, self.redirect_url];
        digest("profile", self.provider, self.endpoint, &parts)
    }
}

/// The digest for a pending authorization. Its provider and endpoint are sealed with it.
pub(super) fn authorization_digest(
    profile: Option<&str>,
    connect_session: Option<i64>,
    browser: Option<&[u8]>,
) -> [u8; 32] {
    let session = connect_session.map(|number| number.to_string());
    let parts = [
        profile.map(str::as_bytes),
        session.as_deref().map(str::as_bytes),
        browser,
    ];
    let mut hash = Sha256::new();
    add(&mut hash, b"rolecall destination 1");
    add(&mut hash, b"authorization");
    for part in parts {
        // Distinguishes None from an empty part.
        hash.update([u8::from(part.is_some())]);
        add(&mut hash, part.unwrap_or_default());
    }
    hash.finalize().into()
}

fn digest(kind: &str, provider: &str, endpoint: &Endpoint, parts: &[&str]) -> [u8; 32] {
    let (place, value) = match endpoint {
        Endpoint::Region(region) => ("region", region.as_str()),
        Endpoint::BaseUrl(base) => ("base_url", base.as_str()),
    };
    let mut hash = Sha256::new();
    for part in ["rolecall destination 1", kind, provider, place, value]
        .iter()
        .chain(parts)
    {
        add(&mut hash, part.as_bytes());
    }
    hash.finalize().into()
}

/// Adds a part with its length first, so that two different lists of parts never hash alike.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::accounts::Region;

    fn destination(provider: &str, endpoint: Endpoint, client: Client) -> [u8; 32] {
        Destination {
            provider: provider.to_owned(),
            endpoint,
            client,
        }
        .digest()
    }

    #[test]
    fn every_part_of_a_destination_counts() {
        let us = || Endpoint::Region(Region::Us);
        let base = |url: &str| Endpoint::BaseUrl(url.to_owned());
        let profile = |id: &str, client_id: &str| Client::Profile {
            id: id.to_owned(),
            client_id: client_id.to_owned(),
        };
        let own = |client_id: &str| Client::OwnApp {
            client_id: client_id.to_owned(),
        };
        let app = |client_id, proof, redirect_url| {
            ProfileDestination {
                provider: "smartsheet",
                endpoint: &us(),
                client_id,
                proof,
                redirect_url,
            }
            .digest()
        };
        let all = [
            destination("smartsheet", us(), Client::None),
            destination("other", us(), Client::None),
            destination("smartsheet", Endpoint::Region(Region::Eu), Client::None),
            destination("smartsheet", base("us"), Client::None),
            destination("smartsheet", base("https://a.example/2.0"), Client::None),
            destination("smartsheet", us(), profile("1", "2")),
            destination("smartsheet", us(), profile("12", "")),
            destination("smartsheet", us(), profile("1", "3")),
            destination("smartsheet", us(), own("2")),
            destination("smartsheet", us(), own("3")),
            own_app_digest("smartsheet", &us()),
            destroyed_digest("smartsheet", &us()),
            app("1", ClientProof::Hash, "https://a.example/"),
            app("2", ClientProof::Hash, "https://a.example/"),
            app("1", ClientProof::ClientSecret, "https://a.example/"),
            app("1", ClientProof::Hash, "https://b.example/"),
            authorization_digest(None, None, None),
            authorization_digest(Some(""), None, None),
            authorization_digest(Some("1"), None, None),
            authorization_digest(None, Some(1), None),
            authorization_digest(None, None, Some(b"1")),
        ];
        assert_eq!(HashSet::from(all).len(), all.len());
    }
}
