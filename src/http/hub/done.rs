//! The last page: what was linked, what is served, and the way back to where the customer came from.

use askama::Template;
use url::Url;

use super::{field_access::FieldAccess, page::HubPage, region::RegionChoice, theme::Theme, words};

#[derive(Template)]
#[template(path = "done.html")]
pub struct Done<'a> {
    pub theme: &'a Theme,
    /// What was linked: an organisation's name, or what there is in place of one.
    pub organisation: &'a str,
    /// Whose credential reads it.
    pub person: &'a str,
    pub place: &'a RegionChoice,
    pub directory: Option<DirectoryCounts>,
    pub sight: &'a FieldAccess,
    pub account: &'a str,
    pub provider: &'a str,
    /// The origin of the page that opened this one, as it was registered.
    pub opener_origin: Option<&'a str>,
    /// Where the customer goes next, as it was registered.
    pub return_url: Option<&'a Url>,
}

/// What the first directory holds; without one, it is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryCounts {
    pub users: u64,
    pub groups: u64,
}

impl DirectoryCounts {
    fn words(self) -> String {
        let users = words::counted(self.users, "person", "people");
        let groups = words::counted(self.groups, "group", "groups");
        format!("{users} and {groups}")
    }
}

impl Done<'_> {
    fn return_host(&self) -> &str {
        let host = self.return_url.and_then(Url::host_str);
        host.unwrap_or_default()
    }
}

impl HubPage for Done<'_> {}
