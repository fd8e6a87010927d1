//! The page for a customer's own app: how to register it at Smartsheet, and a form for its client
//! id and secret.

use actix_web::http::StatusCode;
use askama::Template;

use super::{page::HubPage, region::RegionChoice, theme::Theme};

/// The form for the customer's own app. The client secret is never filled in again.
#[derive(Template)]
#[template(path = "own_app.html")]
pub struct OwnApp<'a> {
    pub theme: &'a Theme,
    pub form_token: &'a str,
    /// At least one.
    pub places: &'a [RegionChoice],
    /// The `value` of the chosen region, once one is chosen.
    pub chosen: Option<&'a str>,
    /// The client id from the previous attempt.
    pub client_id: &'a str,
    /// The hub's public URL, which is registered as the app's URL.
    pub hub_url: &'a str,
    /// The redirect URL to register for the app.
    pub redirect_url: &'a str,
    pub fault: Option<OwnAppFault>,
    /// Whether the connect session offers another method.
    pub has_other_ways: bool,
}

/// Why the form is shown again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnAppFault {
    NoRegion,
    NoClientId,
    NoClientSecret,
    /// The input cannot be a client id, so it was not sent to anyone.
    NotAClientId,
    /// The input cannot be an app secret, so it was not sent to anyone.
    NotAClientSecret,
}

impl OwnApp<'_> {
    fn is_chosen(&self, place: &RegionChoice) -> bool {
        self.chosen == Some(place.value.as_str())
    }

    /// Always false: Smartsheet is asked only after the customer's consent, so no region was tried
    /// yet. The template `regions.html` calls this.
    fn is_tried(&self, _place: &RegionChoice) -> bool {
        false
    }

    /// The fault of the field `region`.
    fn region_fault(&self) -> Option<&'static str> {
        let is_missing = self.fault == Some(OwnAppFault::NoRegion);
        is_missing.then_some("Choose the region of your account.")
    }

    fn has_id_fault(&self) -> bool {
        matches!(
            self.fault,
            Some(OwnAppFault::NoClientId | OwnAppFault::NotAClientId)
        )
    }

    fn has_secret_fault(&self) -> bool {
        matches!(
            self.fault,
            Some(OwnAppFault::NoClientSecret | OwnAppFault::NotAClientSecret)
        )
    }
}

impl HubPage for OwnApp<'_> {
    fn status(&self) -> StatusCode {
        match self.fault {
            None => StatusCode::OK,
            Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }

    fn form_origins(&self) -> Vec<&str> {
        let origins = self.places.iter().map(|place| &place.sign_in_origin);
        origins.filter_map(Option::as_deref).collect()
    }
}
