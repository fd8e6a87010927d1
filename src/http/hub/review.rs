//! The review page: shows the result of a credential check and asks whether to save the draft.

use askama::Template;

use super::{field_access::FieldAccess, page::HubPage, region::RegionChoice, theme::Theme, words};
use crate::model::observed::{Identity, Seats};

#[derive(Template)]
#[template(path = "review.html")]
pub struct ReviewPage<'a> {
    pub theme: &'a Theme,
    pub form_token: &'a str,
    /// The number of the draft on the page. Saving names it, so that no other draft is saved.
    pub draft: u64,
    pub customer: &'a str,
    pub method: Method,
    pub place: &'a RegionChoice,
    /// The owner of the credential.
    pub identity: &'a Identity,
    /// Number of users that the credential can list. None if the provider does not give it.
    pub users: Option<u64>,
    pub sight: &'a FieldAccess,
}

/// The link method behind the draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    SignIn,
    OwnApp,
    AccessToken,
}

impl Method {
    const fn words(self) -> &'static str {
        match self {
            Method::SignIn => "Sign-in with Smartsheet",
            Method::OwnApp => "Your own Smartsheet app",
            Method::AccessToken => "Access token",
        }
    }
}

impl ReviewPage<'_> {
    fn person(&self) -> String {
        person(self.identity)
    }

    fn organization(&self) -> String {
        organization(self.identity)
    }

    fn people(&self) -> String {
        match self.users {
            Some(users) => format!("{} can be listed", words::count(users)),
            None => "Smartsheet does not say how many".to_owned(),
        }
    }

    fn is_token(&self) -> bool {
        self.method == Method::AccessToken
    }

    fn seats(&self) -> String {
        match &self.identity.seats {
            Seats::Readable { plan } => format!("Readable, from plan {plan}"),
            Seats::Hidden(_) => "Not readable".to_owned(),
        }
    }
}

/// Name and e-mail address, as far as they are known, or else the user's id.
pub(super) fn person(identity: &Identity) -> String {
    match (&identity.name, &identity.email) {
        (Some(name), Some(email)) => format!("{name} ({email})"),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => format!("Smartsheet user {}", identity.user),
    }
}

/// The organization's name, or else its id.
pub(super) fn organization(identity: &Identity) -> String {
    match &identity.organization_name {
        Some(name) => name.clone(),
        None => format!("Smartsheet organization {}", identity.organization),
    }
}

impl HubPage for ReviewPage<'_> {}
