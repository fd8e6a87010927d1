//! The registered OAuth apps: client id, secret, and redirect URL.
//!
//! As with Smartsheet, an app has exactly one redirect URL. The first app exists from the start;
//! tests register more. `tokens` keeps the tokens that were issued to them.

use serde::Serialize;

use crate::chance::Chance;

/// A registered OAuth app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OauthClient {
    pub client_id: String,
    pub client_secret: String,
    pub redirect_url: String,
    /// The name on the consent page; if absent, the page shows the `client_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// All registered apps. There is always a first one.
#[derive(Clone, Debug)]
pub struct Clients {
    all: Vec<OauthClient>,
    chance: Chance,
}

impl Clients {
    /// Only the first app. The same seed gives the same id and secret.
    pub fn new(seed: u64, redirect_url: String) -> Self {
        let mut clients = Self {
            all: Vec::new(),
            chance: Chance::new(seed, "client"),
        };
        clients.add(redirect_url, None);
        clients
    }

    pub fn first(&self) -> &OauthClient {
        self.all.first().expect("the first app is never taken away")
    }

    /// Registers an app. Fails, and changes nothing, if the redirect URL is invalid.
    pub fn register(
        &mut self,
        redirect_url: &str,
        name: Option<&str>,
    ) -> Result<&OauthClient, String> {
        check_redirect_url(redirect_url)?;
        Ok(self.add(redirect_url.to_owned(), name.map(str::to_owned)))
    }

    fn add(&mut self, redirect_url: String, name: Option<String>) -> &OauthClient {
        let client = OauthClient {
            client_id: self.chance.text(12).to_lowercase(),
            client_secret: self.chance.text(19).to_lowercase(),
            redirect_url,
            name,
        };
        self.all.push(client);
        self.all.last().expect("an app was added just now")
    }

    pub fn find(&self, client_id: &str) -> Option<&OauthClient> {
        self.all.iter().find(|client| client.client_id == client_id)
    }

    pub fn all(&self) -> &[OauthClient] {
        &self.all
    }
}

/// A redirect URL is absolute, has no fragment, and fits into a header unchanged.
fn check_redirect_url(url: &str) -> Result<(), String> {
    let is_plain = url.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    let host = ["https://", "http://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .and_then(|rest| rest.split(['/', '?']).next());
    if is_plain && !url.contains('#') && host.is_some_and(|host| !host.is_empty()) {
        Ok(())
    } else {
        Err(format!(
            "{url:?} is no redirect URL: http or https, in printable ASCII, without a fragment"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_registers_the_same_apps_in_the_same_order() {
        let apps = |seed| {
            let mut clients = Clients::new(seed, "http://127.0.0.1:1/".to_owned());
            clients.register("https://app.example/back", None).unwrap();
            clients.all().to_vec()
        };
        assert_eq!(apps(1), apps(1));
        assert_ne!(apps(1), apps(2));
        assert_ne!(apps(1)[0].client_id, apps(1)[1].client_id);
    }

    #[test]
    fn a_redirect_url_is_one_that_a_browser_can_be_sent_to() {
        for good in [
            "https://app.example",
            "http://127.0.0.1:8123/callback?tenant=1",
            "http://localhost:3000/callback",
        ] {
            assert_eq!(check_redirect_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/callback",
            "ftp://app.example/",
            "https://",
            "https:///callback",
            "https://app.example/#there",
            "https://app.example/\r\nx: y",
            "https://app.example/a b",
            "https://app.example/ü",
        ] {
            assert!(check_redirect_url(bad).is_err(), "{bad:?}");
        }
    }
}
