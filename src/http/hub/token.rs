//! An access token: where it is good, how it is made, and where it goes.

use actix_web::http::StatusCode;
use askama::Template;

use super::{page::HubPage, region::RegionChoice, theme::Theme};

/// The form for an access token. What was typed into it never comes back.
#[derive(Template)]
#[template(path = "token.html")]
pub struct Token<'a> {
    pub theme: &'a Theme,
    pub form_token: &'a str,
    /// At least one.
    pub places: &'a [RegionChoice],
    /// The value of the place that was chosen, once one was.
    pub chosen: Option<&'a str>,
    pub fault: Option<TokenFault<'a>>,
    /// Whether the invitation offers another way.
    pub has_other_ways: bool,
}

/// Why the form comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault<'a> {
    NoRegion,
    NoToken,
    /// What was pasted cannot be a token, and so was sent to nobody.
    NotAToken,
    /// Smartsheet does not know it there.
    UnknownAt(&'a RegionChoice),
}

impl Token<'_> {
    fn is_chosen(&self, place: &RegionChoice) -> bool {
        self.chosen == Some(place.value.as_str())
    }

    /// Where Smartsheet has just said that it does not know the token.
    fn is_tried(&self, place: &RegionChoice) -> bool {
        matches!(self.fault, Some(TokenFault::UnknownAt(tried)) if tried == place)
    }

    /// What is wrong with the region.
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
