//! The last page: the linked organization, the fields that are read, and the return link.

use askama::Template;
use url::Url;

use super::{field_access::FieldAccess, page::HubPage, region::RegionChoice, theme::Theme, words};

#[derive(Template)]
#[template(path = "done.html")]
pub struct Done<'a> {
    pub theme: &'a Theme,
    /// The organization's name, or else a text with its id.
    pub organization: &'a str,
    /// The owner of the credential that reads the directory.
    pub person: &'a str,
    pub place: &'a RegionChoice,
    pub directory: Option<DirectoryCounts>,
    pub sight: &'a FieldAccess,
    pub account: &'a str,
    pub provider: &'a str,
    /// The registered origin of the page that opened the hub.
    pub opener_origin: Option<&'a str>,
    /// The registered URL that the customer returns to.
    pub return_url: Option<&'a Url>,
}

/// The size of the directory, once a walk is sealed.
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
