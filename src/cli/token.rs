//! A secret as the operator gives it: on standard input, and where it is good as arguments. An
//! argument is seen by everybody on the machine and kept by the shell; a secret never is one.

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

/// More than any secret has, and so little that a file given by mistake is not read to its end.
const LONGEST: u64 = 8 * 1024;

/// Where a token is good.
#[derive(Args)]
pub struct AtProvider {
    /// The connector
    #[arg(long, default_value = "smartsheet")]
    pub provider: String,
    #[command(flatten)]
    place: EndpointArg,
}

/// One of the two, beside the secret that is read from standard input.
#[derive(Args)]
#[group(multiple = false)]
pub struct EndpointArg {
    /// Where the customer's data lives
    #[arg(long, value_parser = region(), requires = "token_stdin")]
    region: Option<Region>,
    /// The provider's API base, where `provider.base_urls` allows it
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

/// The token on standard input, less the end of its line.
pub fn read_token() -> Result<SecretString, Failure> {
    let token = read("token", "--token-stdin < token.txt")?;
    http::accounts::access_token("the token on standard input", token).map_err(Failure::other)
}

/// The client secret on standard input, less the end of its line.
pub fn read_client_secret() -> Result<SecretString, Failure> {
    let secret = read("client secret", "--secret-stdin < secret.txt")?;
    http::connector_profiles::client_secret("the client secret on standard input", secret)
        .map_err(Failure::other)
}

/// The passphrase on standard input, less the end of its line.
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
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize));
    stdin.take(LONGEST).read_to_end(&mut bytes)?;
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.is_empty() {
        return Err(Failure::Other(format!(
            "there is no {what} on standard input; send it from a file, as in `… {how}`"
        )));
    }
    // What is no UTF-8 is no visible ASCII either, and gets the same answer.
    Ok(SecretString::from(
        std::str::from_utf8(text).unwrap_or_default(),
    ))
}
