//! The first page: who invites whom to what, and the ways to do it.

use askama::Template;

use super::{page::HubPage, region::RegionChoice, theme::Theme, words};

#[derive(Template)]
#[template(path = "start.html")]
pub struct Start<'a> {
    pub theme: &'a Theme,
    pub form_token: &'a str,
    /// For whom an account is linked: the `origin_owner_name` of the invitation.
    pub customer: &'a str,
    /// What is linked again, where it is not for the first time.
    pub again: Option<Again<'a>>,
    pub notice: Option<Notice>,
    pub methods: Methods<'a>,
    /// For how long the invitation can still be used.
    pub seconds_left: u64,
}

/// An account that was linked before, and wants a new credential.
pub struct Again<'a> {
    /// Its organisation at the provider, as far as that has a name.
    pub organisation: Option<&'a str>,
}

/// What came just before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The customer looked at what was found, and did not want to save it.
    Cancelled,
}

/// What this invitation lets a customer choose from.
pub struct Methods<'a> {
    pub sign_in: Vec<ProfileMethod<'a>>,
    pub own_app: bool,
    pub access_token: bool,
}

/// A connector profile: an app of the integrator's, in one region.
pub struct ProfileMethod<'a> {
    pub profile: &'a str,
    /// What the integrator calls it; shown only where a region has more than one.
    pub label: &'a str,
    pub place: &'a RegionChoice,
}

impl Methods<'_> {
    /// Whether there is anything to choose.
    pub fn is_choice(&self) -> bool {
        self.sign_in.len() + usize::from(self.own_app) + usize::from(self.access_token) > 1
    }

    /// Whether another profile is for the same region, so that the region does not tell them apart.
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
