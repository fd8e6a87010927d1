//! The page for an access token: its region, how to make one, and a form for it.

use actix_web::http::StatusCode;
use askama::Template;

use super::{page::HubPage, region::RegionChoice, theme::Theme};

/// The form for an access token. The token is never filled in again.
#[derive(Template)]
#[template(path = "token.html")]
pub struct Token<'a> {
    pub theme: &'a Theme,
    pub form_token: &'a str,
    /// At least one.
    pub places: &'a [RegionChoice],
    /// The `value` of the chosen region, once one is chosen.
    pub chosen: Option<&'a str>,
    pub fault: Option<TokenFault<'a>>,
    /// Whether the connect session offers another method.
    pub has_other_ways: bool,
}

/// Why the form is shown again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault<'a> {
    NoRegion,
    NoToken,
    /// The input cannot be a token, so it was not sent to anyone.
    NotAToken,
    /// Smartsheet does not know the token in this region.
    UnknownAt(&'a RegionChoice),
}

impl Token<'_> {
    fn is_chosen(&self, place: &RegionChoice) -> bool {
        self.chosen == Some(place.value.as_str())
    }

    /// Whether this is the region in which the token was just found to be unknown.
    fn is_tried(&self, place: &RegionChoice) -> bool {
        matches!(self.fault, Some(TokenFault::UnknownAt(tried)) if tried == place)
    }

    /// The fault of the field `region`.
    fn region_fault(&self) -> Option<&'static str> {
        match self.fault? {
            TokenFault::NoRegion => Some("Choose the region of your account."),
            TokenFault::UnknownAt(_) => Some("Choose another region, if your account is there."),
            TokenFault::NoToken | TokenFault::NotAToken => None,
        }
    }

    fn has_token_fault(&self) -> bool {
        matches!(
            self.fault,
            Some(TokenFault::NoToken | TokenFault::NotAToken)
        )
    }
}

impl HubPage for Token<'_> {
    fn status(&self) -> StatusCode {
        match self.fault {
            None => StatusCode::OK,
            Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}
