//! Smartsheet's OAuth 2.0 token endpoint; `consent` is the authorization page.
//!
//! A code or a refresh token works once, and only for the app to which it was issued. A client
//! authenticates with its secret or with a hash of it. If its authorization request had a PKCE
//! challenge, it also needs the verifier. Error bodies have both families of keys by default.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::call::{Call, Query, Reply};
use crate::refusal::{self, Code, Refusal};
use crate::state::State;
use crate::switches::Pkce;
use crate::tokens::{NotRedeemable, Pair, RefreshRules};

/// `POST /token` and `DELETE /token`
pub fn token(state: &mut State, call: &Call) -> Reply {
    match call.method.as_str() {
        "POST" => match issue(state, call) {
            Ok(pair) => Reply::json(200, &pair),
            Err(refusal) => state.token_refused(refusal),
        },
        "DELETE" => revoke(state, call).unwrap_or_else(|refusal| state.refused(refusal)),
        _ => state.refused(refusal::METHOD_NOT_ALLOWED.into()),
    }
}

/// The parameters of a request, from its form, its query, or both.
pub fn parameters(call: &Call) -> Query {
    let content_type = call.content_type.as_deref().unwrap_or_default();
    if content_type.starts_with("application/x-www-form-urlencoded") {
        call.query.clone().and(Query::parse(&call.body))
    } else {
        call.query.clone()
    }
}

/// The refresh token in a token request.
pub fn refresh_token_of(call: &Call) -> Option<String> {
    parameters(call).get("refresh_token").map(str::to_owned)
}

fn issue(state: &mut State, call: &Call) -> Result<Pair, Refusal> {
    let parameters = parameters(call);
    let need = |name: &str| {
        parameters.get(name).ok_or_else(|| {
            refusal::TOKEN_PARAMETER_MISSING.because(format!("The parameter {name} is missing."))
        })
    };
    let client = state
        .clients
        .find(need("client_id")?)
        .ok_or(refusal::CLIENT_UNKNOWN)?;
    let grant_type = need("grant_type")?;
    let (mine, other) = match grant_type {
        "authorization_code" => ("code", "refresh_token"),
        "refresh_token" => ("refresh_token", "code"),
        _ => return Err(refusal::GRANT_TYPE_UNSUPPORTED.into()),
    };
    if parameters.get(mine).is_none() && parameters.get(other).is_some() {
        return Err(refusal::GRANT_TYPE_INCONSISTENT.into());
    }
    let grant = need(mine)?;
    let proof = Proof::of(&parameters)?;
    if let Proof::Secret(secret) = proof
        && secret != client.client_secret
    {
        return Err(refusal::CLIENT_SECRET_WRONG.into());
    }
    for name in ["redirect_uri", "redirect_url"] {
        if parameters
            .get(name)
            .is_some_and(|url| url != client.redirect_url)
        {
            return Err(refusal::REDIRECT_MISMATCH.into());
        }
    }
    if let Proof::Hash(hash) = proof
        && hash != hash_of(&client.client_secret, grant)
    {
        return Err(refusal::HASH_MISMATCH.into());
    }
    let now = state.clock.now();
    let pair = if mine == "code" {
        let answers = |challenge: &str| match state.switches.pkce {
            Pkce::Ignored => true,
            Pkce::Enforced => parameters
                .get("code_verifier")
                .is_some_and(|verifier| challenge_of(verifier).as_deref() == Some(challenge)),
        };
        state
            .tokens
            .redeem_code(grant, &client.client_id, answers, now)
    } else {
        let rules = RefreshRules {
            life_s: state.switches.refresh_life_s,
            grace_s: state.switches.refresh_grace_s,
        };
        state.tokens.refresh(grant, &client.client_id, now, rules)
    };
    pair.map_err(|why| Refusal::from(code_of(why)))
}

fn code_of(why: NotRedeemable) -> Code {
    match why {
        NotRedeemable::Invalid => refusal::GRANT_INVALID,
        NotRedeemable::Expired => refusal::CODE_EXPIRED,
        NotRedeemable::Revoked => refusal::TOKEN_REVOKED,
    }
}

/// The client authentication, of which exactly one kind is allowed.
#[derive(Clone, Copy)]
enum Proof<'a> {
    Secret(&'a str),
    Hash(&'a str),
}

impl<'a> Proof<'a> {
    fn of(parameters: &'a Query) -> Result<Self, Refusal> {
        match (parameters.get("client_secret"), parameters.get("hash")) {
            (Some(secret), None) => Ok(Proof::Secret(secret)),
            (None, Some(hash)) => Ok(Proof::Hash(hash)),
            (None, None) => Err(refusal::CLIENT_PROOF_MISSING.into()),
            (Some(_), Some(_)) => Err(refusal::CLIENT_PROOF_TWICE.into()),
        }
    }
}

/// Lowercase hex SHA-256 of the secret, `|` and the code or refresh token.
fn hash_of(secret: &str, grant: &str) -> String {
    use std::fmt::Write;
    let digest = Sha256::digest(format!("{secret}|{grant}").as_bytes());
    digest
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes all");
            hex
        })
}

/// The S256 challenge of a verifier; None if RFC 7636 does not allow the verifier.
fn challenge_of(verifier: &str) -> Option<String> {
    let is_verifier = (43..=128).contains(&verifier.len())
        && verifier
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    is_verifier.then(|| URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())))
}

fn revoke(state: &mut State, call: &Call) -> Result<Reply, Refusal> {
    let bearer = call.bearer().ok_or(refusal::TOKEN_REQUIRED)?;
    // An expired token may be revoked; a revoked one is refused.
    match state.tokens.usable(bearer, state.now()) {
        Ok(_) | Err(crate::tokens::Unusable::Expired) => {}
        Err(_) => return Err(refusal::TOKEN_INVALID.into()),
    }
    let all = call.query.flag("deleteAllForApiClient")?.unwrap_or(false);
    state.tokens.revoke(bearer, all);
    Ok(Reply::json(
        200,
        &json!({"message": "SUCCESS", "resultCode": 0}),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha256_of_secret_pipe_grant_in_lowercase_hex() {
        assert_eq!(
            hash_of("secret", "code"),
            "875ccbea123ce4cf3682ad9f52be303c7a92c2eddf00e24bbeb583c3bf28765a"
        );
    }

    /// The example of RFC 7636, appendix B.
    #[test]
    fn the_challenge_is_sha256_of_the_verifier_in_base64url_without_padding() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(
            challenge_of(verifier).as_deref(),
            Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")
        );
        for bad in [
            &verifier[1..],
            &"a".repeat(129),
            &verifier.replace('d', "+"),
        ] {
            assert_eq!(challenge_of(bad), None, "{bad}");
        }
    }
}
