//! What was found with a credential, before anything is saved, and the question whether to save it.

use askama::Template;

use super::{field_access::FieldAccess, page::HubPage, region::RegionChoice, theme::Theme, words};
use crate::model::observed::{Identity, Seats};

#[derive(Template)]
#[template(path = "review.html")]
pub struct ReviewPage<'a> {
    pub theme: &'a Theme,
    pub form_token: &'a str,
    /// Which draft this is about: saving names the one that was looked at.
    pub draft: u64,
    pub customer: &'a str,
    pub method: Method,
    pub place: &'a RegionChoice,
    /// Whose the credential is.
    pub identity: &'a Identity,
    /// How many people it can list; None where the provider does not say.
    pub users: Option<u64>,
    pub sight: &'a FieldAccess,
}

/// How a customer lets us in.
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

    fn organisation(&self) -> String {
        organisation(self.identity)
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

/// Somebody's name and address, as far as they are known, and else their id.
pub(super) fn person(identity: &Identity) -> String {
    match (&identity.name, &identity.email) {
        (Some(name), Some(email)) => format!("{name} ({email})"),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => format!("Smartsheet user {}", identity.user),
    }
}

/// An organisation's name, or else its id.
pub(super) fn organisation(identity: &Identity) -> String {
    match &identity.organisation_name {
        Some(name) => name.clone(),
        None => format!("Smartsheet organisation {}", identity.organisation),
    }
}

impl HubPage for ReviewPage<'_> {}
