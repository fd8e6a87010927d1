//! Reads secrets from standard input, and defines the arguments for a token's endpoint. A secret is
//! never an argument: every user of the machine can see arguments, and the shell stores them.

use std::io::{self, IsTerminal, Read};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::Failure;
use crate::{
    http,
    model::accounts::{Endpoint, Region},
};

/// Read limit in bytes: larger than any secret, small enough for a file given by mistake.
const LONGEST: u64 = 8 * 1024;

/// The provider and the endpoint of a token.
#[derive(Args)]
pub struct AtProvider {
    /// The connector
    #[arg(long, default_value = "smartsheet")]
    pub provider: String,
    #[command(flatten)]
    place: EndpointArg,
}

/// The region or the base URL, given together with a secret on standard input.
#[derive(Args)]
#[group(multiple = false)]
pub struct EndpointArg {
    /// The provider's region that stores the customer's data
    #[arg(long, value_parser = region(), requires = "token_stdin")]
    region: Option<Region>,
    /// The provider's API base URL; `provider.base_urls` must allow it
    #[arg(long, value_name = "URL", requires = "token_stdin")]
    base_url: Option<String>,
}

impl AtProvider {
    pub fn endpoint(&self) -> Endpoint {
        self.place.endpoint()
    }
}

impl EndpointArg {
    pub fn endpoint(&self) -> Endpoint {
        match (self.region, &self.base_url) {
            (Some(region), _) => Endpoint::Region(region),
            (None, Some(base)) => Endpoint::BaseUrl(base.clone()),
            (None, None) => unreachable!("the secret's option requires one of the two"),
        }
    }
}

fn region() -> impl TypedValueParser<Value = Region> {
    PossibleValuesParser::new(Region::ALL.map(Region::as_str)).map(|word| {
        let region = Region::ALL.into_iter().find(|it| it.as_str() == word);
        region.expect("only these words are possible")
    })
}

/// Reads an access token from standard input, without its line end.
pub fn read_token() -> Result<SecretString, Failure> {
    let token = read("token", "--token-stdin < token.txt")?;
    http::accounts::access_token("the token on standard input", token).map_err(Failure::other)
}

/// Reads a client secret from standard input, without its line end.
pub fn read_client_secret() -> Result<SecretString, Failure> {
    let secret = read("client secret", "--secret-stdin < secret.txt")?;
    http::connector_profiles::client_secret("the client secret on standard input", secret)
        .map_err(Failure::other)
}

/// Reads a passphrase from standard input, without its line end.
pub fn read_passphrase() -> Result<SecretString, Failure> {
    read("passphrase", "--passphrase-stdin < passphrase.txt")
}

fn read(what: &str, how: &str) -> Result<SecretString, Failure> {
    let stdin = io::stdin().lock();
    if stdin.is_terminal() {
        return Err(Failure::Other(format!(
            "standard input is a terminal, which would show the {what}; send it from a file, as in \
             `… {how}`"
        )));
    }
    // The full capacity, since a growing vector would leave copies of the secret in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize));
    stdin.take(LONGEST).read_to_end(&mut bytes)?;
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.is_empty() {
        return Err(Failure::Other(format!(
            "there is no {what} on standard input; send it from a file, as in `… {how}`"
        )));
    }
    // Invalid UTF-8 becomes an empty text, which every caller refuses.
    Ok(SecretString::from(
        std::str::from_utf8(text).unwrap_or_default(),
    ))
}
