//! The first page: the organization that asks for the connection, the customer, and the link
//! methods.

use askama::Template;

use super::{page::HubPage, region::RegionChoice, theme::Theme, words};

#[derive(Template)]
#[template(path = "start.html")]
pub struct Start<'a> {
    pub theme: &'a Theme,
    pub form_token: &'a str,
    /// The customer whose account is linked: the session's `origin_owner_name`.
    pub customer: &'a str,
    /// Set if an account is linked again.
    pub again: Option<Again<'a>>,
    pub notice: Option<Notice>,
    pub methods: Methods<'a>,
    /// Seconds until the connect session expires.
    pub seconds_left: u64,
}

/// The account that is linked again with a new credential.
pub struct Again<'a> {
    /// Name of its organization at the provider, if it has one.
    pub organization: Option<&'a str>,
}

/// The result of the previous step, shown above the link methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The customer did not save the draft on the review page.
    Canceled,
}

/// The link methods that the connect session offers.
pub struct Methods<'a> {
    pub sign_in: Vec<ProfileMethod<'a>>,
    pub own_app: bool,
    pub access_token: bool,
}

/// Sign-in with a connector profile: an OAuth app of the integrator, in one region.
pub struct ProfileMethod<'a> {
    pub profile: &'a str,
    /// The profile's label, or else its client id. Shown only if the region has several profiles.
    pub label: &'a str,
    pub place: &'a RegionChoice,
}

impl Methods<'_> {
    /// Whether there are at least two methods to choose from.
    pub fn is_choice(&self) -> bool {
        self.sign_in.len() + usize::from(self.own_app) + usize::from(self.access_token) > 1
    }

    /// Whether another profile has the same region, so that the region alone does not identify it.
    fn is_ambiguous(&self, one: &ProfileMethod<'_>) -> bool {
        let same = |other: &&ProfileMethod<'_>| other.place.value == one.place.value;
        self.sign_in.iter().filter(same).count() > 1
    }
}

impl Start<'_> {
    fn time_left(&self) -> String {
        words::duration(self.seconds_left)
    }
}

impl HubPage for Start<'_> {
    fn form_origins(&self) -> Vec<&str> {
        let places = self.methods.sign_in.iter().map(|each| each.place);
        places
            .filter_map(|place| place.sign_in_origin.as_deref())
            .collect()
    }
}
