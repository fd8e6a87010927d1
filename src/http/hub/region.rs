//! The region of a customer's Smartsheet account, as a page offers it.

use url::Url;

/// A region of the provider, or another API base URL that the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionChoice {
    /// The value of the form field `region`.
    pub value: String,
    /// The name that people read, such as `Europe`.
    pub name: String,
    /// The only host that receives a credential of this region.
    pub api_host: String,
    /// Origin of the pages for sign-in and consent, such as `https://app.smartsheet.eu`. None if
    /// the region has no sign-in.
    pub sign_in_origin: Option<String>,
}

impl RegionChoice {
    /// `api` and `sign_in` must be http or https URLs.
    pub fn new(value: &str, name: &str, api: &Url, sign_in: Option<&Url>) -> Self {
        Self {
            value: value.to_owned(),
            name: name.to_owned(),
            api_host: host(&origin(api)),
            sign_in_origin: sign_in.map(origin),
        }
    }

    /// The same region with another name.
    #[must_use]
    pub fn called(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The host in the browser's address bar while people use the provider.
    pub fn sign_in_host(&self) -> Option<String> {
        self.sign_in_origin.as_deref().map(host)
    }
}

/// Serialized in ASCII, since the origin goes into a header.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn host(origin: &str) -> String {
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    host.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shown_by_its_hosts() {
        let url = |text: &str| Url::parse(text).unwrap();
        let api = url("https://api.smartsheet.eu/2.0");
        let sign_in = url("https://app.smartsheet.eu/b/authorize");
        let place = RegionChoice::new("eu", "Europe", &api, Some(&sign_in));
        assert_eq!(place.api_host, "api.smartsheet.eu");
        assert_eq!(
            place.sign_in_origin.as_deref(),
            Some("https://app.smartsheet.eu")
        );
        assert_eq!(place.sign_in_host().as_deref(), Some("app.smartsheet.eu"));

        let api = url("http://127.0.0.1:4010/2.0");
        let place = RegionChoice::new(api.as_str(), "Smartsheet simulator", &api, None);
        assert_eq!(place.api_host, "127.0.0.1:4010");
        assert_eq!(place.sign_in_host(), None);
    }
}
