//! Encoding of secrets before they are sealed: credentials, OAuth apps and lists of texts. The code
//! is written by hand, since a serializer would leave copies in buffers that nobody wipes.

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::{
    error::{Error, Result},
    model::{
        accounts::{Credential, TokenPair},
        connector_profiles::{ClientProof, OAuthApp},
    },
};

const ACCESS_TOKEN: u8 = b'a';
const OAUTH: u8 = b'o';
/// The encoding of a credential: a letter for its kind, then its content.
///
/// * `a`: the access token.
/// * `o`: the times of issue and expiry (milliseconds, 64 bits each), the length of the access
///   token (64 bits), the access token and the refresh token. An empty refresh token means that
///   there is none. Integers are big-endian.
pub(super) fn encode_credential(credential: &Credential) -> Zeroizing<Vec<u8>> {
    match credential {
        Credential::AccessToken(token) => {
            let token = token.expose_secret().as_bytes();
            let mut text = Zeroizing::new(Vec::with_capacity(1 + token.len()));
            text.push(ACCESS_TOKEN);
            text.extend_from_slice(token);
            text
        }
        Credential::OAuth(pair) => {
            let access = pair.access_token.expose_secret().as_bytes();
            let refresh = pair.refresh_token.as_ref();
            let refresh = refresh.map_or(&[][..], |token| token.expose_secret().as_bytes());
            let mut text = Zeroizing::new(Vec::with_capacity(25 + access.len() + refresh.len()));
            text.push(OAUTH);
            text.extend_from_slice(&pair.issued_at.as_millisecond().to_be_bytes());
            text.extend_from_slice(&pair.expires_at.as_millisecond().to_be_bytes());
            text.extend_from_slice(&(access.len() as u64).to_be_bytes());
            text.extend_from_slice(access);
            text.extend_from_slice(refresh);
            text
        }
    }
}

pub(super) fn decode_credential(text: &[u8]) -> Result<Credential> {
    let parse = || {
        let (kind, rest) = text.split_first()?;
        match *kind {
            ACCESS_TOKEN => Some(Credential::AccessToken(secret(rest)?)),
            OAUTH => {
                let (issued_at, rest) = rest.split_first_chunk::<8>()?;
                let (expires_at, rest) = rest.split_first_chunk::<8>()?;
                let (length, rest) = rest.split_first_chunk::<8>()?;
                let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
                let (access, refresh) = rest.split_at_checked(length)?;
                let moment = |millis: &[u8; 8]| {
                    Timestamp::from_millisecond(i64::from_be_bytes(*millis)).ok()
                };
                Some(Credential::OAuth(TokenPair {
                    access_token: secret(access)?,
                    refresh_token: match refresh {
                        [] => None,
                        refresh => Some(secret(refresh)?),
                    },
                    issued_at: moment(issued_at)?,
                    expires_at: moment(expires_at)?,
                }))
            }
            _ => None,
        }
    };
    parse().ok_or_else(|| Error::internal("a stored credential is of no kind that is known"))
}

/// The encoding of an OAuth app.
pub(super) fn encode_app(app: &OAuthApp) -> Zeroizing<Vec<u8>> {
    let proof: &[u8] = match app.proof {
        ClientProof::ClientSecret => b"s",
        ClientProof::Hash => b"h",
    };
    encode_parts(&[
        proof,
        app.client_id.as_bytes(),
        app.redirect_url.as_bytes(),
        app.client_secret.expose_secret().as_bytes(),
    ])
}

pub(super) fn decode_app(text: &[u8]) -> Result<OAuthApp> {
    let parse = || {
        let [proof, client_id, redirect_url, client_secret] = decode_parts(text)?;
        let proof = match proof {
            b"s" => ClientProof::ClientSecret,
            b"h" => ClientProof::Hash,
            _ => return None,
        };
        Some(OAuthApp {
            proof,
            client_id: std::str::from_utf8(client_id).ok()?.to_owned(),
            redirect_url: std::str::from_utf8(redirect_url).ok()?.to_owned(),
            client_secret: secret(client_secret)?,
        })
    };
    parse().ok_or_else(|| Error::internal("a stored app is not in the form of one"))
}

/// Joins several texts. Each is preceded by its length.
pub(super) fn encode_parts(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length = parts.iter().map(|part| 8 + part.len()).sum();
    let mut text = Zeroizing::new(Vec::with_capacity(length));
    for part in parts {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part);
    }
    text
}

/// Splits the output of [`encode_parts`]. None unless `text` consists of exactly `N` parts.
pub(super) fn decode_parts<const N: usize>(mut text: &[u8]) -> Option<[&[u8]; N]> {
    let mut parts = [&[][..]; N];
    for part in &mut parts {
        let (length, rest) = text.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
        (*part, text) = rest.split_at_checked(length)?;
    }
    text.is_empty().then_some(parts)
}

pub(super) fn secret(text: &[u8]) -> Option<SecretString> {
    std::str::from_utf8(text).ok().map(SecretString::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_reads_back_as_it_was_sealed() {
        let moment = |millis| Timestamp::from_millisecond(millis).unwrap();
        let pair = TokenPair {
            access_token: "access".into(),
            refresh_token: Some("refresh-\u{e9}".into()),
            issued_at: moment(1_790_000_000_123),
            expires_at: moment(1_790_604_799_123),
        };
        let Credential::OAuth(again) =
            decode_credential(&encode_credential(&Credential::OAuth(pair.clone()))).unwrap()
        else {
            panic!("a pair is a pair");
        };
        assert_eq!(again.access_token.expose_secret(), "access");
        let refresh = again.refresh_token.unwrap();
        assert_eq!(refresh.expose_secret(), "refresh-\u{e9}");
        assert_eq!(
            (again.issued_at, again.expires_at),
            (pair.issued_at, pair.expires_at)
        );
        let without = Credential::OAuth(TokenPair {
            refresh_token: None,
            ..pair
        });
        let again = decode_credential(&encode_credential(&without)).unwrap();
        assert_eq!(again.access_token().expose_secret(), "access");
        assert!(again.refresh_token().is_none());
        let app = OAuthApp {
            client_id: "id".to_owned(),
            client_secret: "secret".into(),
            proof: ClientProof::Hash,
            redirect_url: "http://localhost:3000/callback".to_owned(),
        };
        let again = decode_app(&encode_app(&app)).unwrap();
        assert_eq!(again.client_id, "id");
        assert_eq!(again.client_secret.expose_secret(), "secret");
        assert_eq!(again.proof, ClientProof::Hash);
        assert_eq!(again.redirect_url, app.redirect_url);
    }

    #[test]
    fn what_is_no_credential_is_not_read_as_one() {
        for text in [
            &b""[..],
            b"x",
            b"o",
            b"o0000000011111111\0\0\0\0\0\0\0\xff",
            b"a\xff",
        ] {
            assert!(decode_credential(text).is_err(), "{text:?}");
            assert!(decode_app(text).is_err(), "{text:?}");
        }
    }
}
