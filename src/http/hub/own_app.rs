//! A customer's own app: how it is registered at Smartsheet, and its client id and secret.

use actix_web::http::StatusCode;
use askama::Template;

use super::{page::HubPage, region::RegionChoice, theme::Theme};

/// The form for an app of the customer's. The client secret never comes back.
#[derive(Template)]
#[template(path = "own_app.html")]
pub struct OwnApp<'a> {
    pub theme: &'a Theme,
    pub form_token: &'a str,
    /// At least one, each with a sign-in.
    pub places: &'a [RegionChoice],
    /// The value of the place that was chosen, once one was.
    pub chosen: Option<&'a str>,
    /// What was typed before.
    pub client_id: &'a str,
    /// Where this hub is, for the app's URL.
    pub hub_url: &'a str,
    /// Where Smartsheet is to send the customer back to.
    pub redirect_url: &'a str,
    pub fault: Option<OwnAppFault>,
    /// Whether the invitation offers another way.
    pub has_other_ways: bool,
}

/// Why the form comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnAppFault {
    NoRegion,
    NoClientId,
    NoClientSecret,
    /// What was typed cannot be a client id, and so was sent to nobody.
    NotAClientId,
    /// What was typed cannot be an app secret, and so was sent to nobody.
    NotAClientSecret,
}

impl OwnApp<'_> {
    fn is_chosen(&self, place: &RegionChoice) -> bool {
        self.chosen == Some(place.value.as_str())
    }

    /// Here no region has been tried: Smartsheet is asked only after the customer's consent.
    fn is_tried(&self, _place: &RegionChoice) -> bool {
        false
    }

    /// What is wrong with the region.
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
