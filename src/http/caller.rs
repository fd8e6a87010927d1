//! Extractors that authenticate a request's caller and find the account, key or profile that it
//! names.
//!
//! A handler gets an account only from one of these extractors, and each of them requires a scope.
//! No handler can therefore skip the check. An id of another project gets the same error as an
//! unknown one.

use std::{future::Future, marker::PhantomData, pin::Pin};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{self, HeaderName},
    web::Data,
};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::{error::ApiError, middleware::RequestExt, query::Query};
use crate::{
    error::{Error, Kind, Result},
    gateway::{
        Gateway,
        api_keys::OwnKey,
        auth::{Caller, OwnAccount},
        connector_profiles::OwnProfile,
    },
    model::api_keys::Scope,
};

/// A type that stands for the scope that a route requires.
pub trait Needs: 'static {
    const SCOPE: Scope;
}

pub enum IamRead {}
pub enum AccountsRead {}
pub enum AccountsWrite {}
pub enum ProfilesWrite {}
pub enum WalksWrite {}
pub enum Admin {}

impl Needs for IamRead {
    const SCOPE: Scope = Scope::IamRead;
}
impl Needs for AccountsRead {
    const SCOPE: Scope = Scope::AccountsRead;
}
impl Needs for AccountsWrite {
    const SCOPE: Scope = Scope::AccountsWrite;
}
impl Needs for ProfilesWrite {
    const SCOPE: Scope = Scope::ProfilesWrite;
}
impl Needs for WalksWrite {
    const SCOPE: Scope = Scope::WalksWrite;
}
impl Needs for Admin {
    const SCOPE: Scope = Scope::Admin;
}

/// A caller whose key has the scope `S`.
pub struct Allowed<S>(pub Caller, PhantomData<S>);

/// An account of the caller's project, named by `x-account-id` or `account_id`.
pub struct NamedAccount<S>(pub OwnAccount, PhantomData<S>);

/// An account of the caller's project, named by `{id}` in the path.
pub struct PathAccount<S>(pub OwnAccount, PhantomData<S>);

/// An API key of the caller's project, named by `{id}` in the path.
pub struct PathKey<S>(pub OwnKey, PhantomData<S>);

/// A connector profile of the caller's project, named by `{id}` in the path.
pub struct PathProfile<S>(pub OwnProfile, PhantomData<S>);

const ACCOUNT_ID: HeaderName = HeaderName::from_static("x-account-id");

type Extracted<T> = Pin<Box<dyn Future<Output = Result<T, ApiError>>>>;

impl<S: Needs> FromRequest for Allowed<S> {
    type Error = ApiError;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { Ok(Self(caller::<S>(&request).await?, PhantomData)) })
    }
}

impl<S: Needs> FromRequest for NamedAccount<S> {
    type Error = ApiError;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let caller = caller::<S>(&request).await?;
            let id = named_account(&request)?;
            let own = gateway(&request).auth().own_account(&caller, &id).await?;
            RequestExt::account(&request, own.account.id);
            Ok(Self(own, PhantomData))
        })
    }
}

impl<S: Needs> FromRequest for PathAccount<S> {
    type Error = ApiError;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let caller = caller::<S>(&request).await?;
            let id = request.match_info().get("id").unwrap_or_default();
            let own = gateway(&request).auth().own_account(&caller, id).await?;
            RequestExt::account(&request, own.account.id);
            Ok(Self(own, PhantomData))
        })
    }
}

impl<S: Needs> FromRequest for PathKey<S> {
    type Error = ApiError;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let caller = caller::<S>(&request).await?;
            let id = request.match_info().get("id").unwrap_or_default();
            Ok(Self(
                gateway(&request).api_keys().own_key(&caller, id).await?,
                PhantomData,
            ))
        })
    }
}

impl<S: Needs> FromRequest for PathProfile<S> {
    type Error = ApiError;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let caller = caller::<S>(&request).await?;
            let id = request.match_info().get("id").unwrap_or_default();
            Ok(Self(
                gateway(&request)
                    .connector_profiles()
                    .own_profile(&caller, id)
                    .await?,
                PhantomData,
            ))
        })
    }
}

fn gateway(request: &HttpRequest) -> &Gateway {
    request
        .app_data::<Data<Gateway>>()
        .expect("the app was built with a gateway")
}

async fn caller<S: Needs>(request: &HttpRequest) -> Result<Caller> {
    let refused = || {
        Error::new(
            Kind::Unauthorized,
            "there is no valid API key in this request",
        )
    };
    let mut presented = request.headers().get_all(header::AUTHORIZATION);
    let (Some(value), None) = (presented.next(), presented.next()) else {
        return Err(refused());
    };
    let key = value.to_str().ok().and_then(key_in).ok_or_else(refused)?;
    let caller = gateway(request).auth().authenticate(&key).await?;
    RequestExt::key(request, caller.key.id);
    // Counted only after authentication, so that nobody can use up the quota of another's key.
    let quotas = gateway(request).auth().spend(&caller);
    RequestExt::set_quota(request, quotas);
    quotas.check()?;
    caller.require(S::SCOPE)?;
    Ok(caller)
}

/// The key in `Bearer KEY`, `Basic base64(KEY:)` or `Basic base64(KEY)`. The scheme is
/// case-insensitive (RFC 9110, 11.1). `KEY:PASSWORD` is taken whole as a key, so it does not
/// authenticate.
fn key_in(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once(' ')?;
    let rest = rest.trim_start_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
    let key = decoded.strip_suffix(':').unwrap_or(&decoded);
    Some(key.to_owned())
}

fn named_account(request: &HttpRequest) -> Result<String> {
    let required = |message: &'static str| Error::new(Kind::AccountRequired, message);
    let mut headers = request.headers().get_all(&ACCOUNT_ID);
    let header = headers
        .next()
        .map(|value| {
            value
                .to_str()
                .map_err(|_| required("the header x-account-id is not plain text"))
        })
        .transpose()?;
    if headers.next().is_some() {
        return Err(required("the header x-account-id is given more than once"));
    }
    let query = Query::parse(request.query_string())?.take("account_id");
    match (header, query.as_deref()) {
        (None, None) => Err(required("no account is named")),
        (Some(id), None) | (None, Some(id)) => Ok(id.to_owned()),
        // UUIDs are compared without regard to case.
        (Some(header), Some(query)) if header.eq_ignore_ascii_case(query) => Ok(header.to_owned()),
        (Some(_), Some(_)) => Err(required(
            "x-account-id and account_id name different accounts",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::key_in;

    #[test]
    fn a_key_is_taken_in_three_forms() {
        assert_eq!(key_in("Bearer k1").as_deref(), Some("k1"));
        assert_eq!(key_in("bearer  k1").as_deref(), Some("k1"));
        assert_eq!(key_in("Basic azE6").as_deref(), Some("k1"));
        assert_eq!(key_in("Basic azE=").as_deref(), Some("k1"));
    }

    #[test]
    fn anything_else_holds_no_key() {
        for other in ["", "k1", "Digest k1", "Basic !", "Basic /w=="] {
            assert_eq!(key_in(other), None, "{other}");
        }
    }
}
