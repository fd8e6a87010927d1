//! Address policy: calls use TLS and go to public addresses, unless the operator allows others.
//!
//! A base URL is user input, and this process can reach internal addresses. The resolver therefore
//! returns public addresses only, and the client connects to exactly those. A check before the
//! resolution would allow DNS rebinding.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// The addresses that may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressPolicy {
    /// `https` and global addresses only.
    Public,
    /// Any address that this machine can reach, loopback included, with or without TLS.
    Any,
}

/// Why the policy forbids a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ForbiddenAddress {
    #[error("only https is called")]
    Scheme,
    #[error("the URL names no host")]
    NoHost,
    #[error("the host has no public address")]
    NotPublic,
}

impl AddressPolicy {
    /// Checks the URL itself: its scheme, and a host that is an IP address, which no resolver sees.
    /// `url` has already normalized forms such as `0x7f.1`.
    pub(super) fn check(self, url: &Url) -> Result<(), ForbiddenAddress> {
        let host = url.host().ok_or(ForbiddenAddress::NoHost)?;
        match self {
            AddressPolicy::Any if matches!(url.scheme(), "http" | "https") => Ok(()),
            AddressPolicy::Public if url.scheme() == "https" => match host {
                Host::Domain(_) => Ok(()),
                Host::Ipv4(address) if is_public_v4(address) => Ok(()),
                Host::Ipv6(address) if is_public_v6(address) => Ok(()),
                Host::Ipv4(_) | Host::Ipv6(_) => Err(ForbiddenAddress::NotPublic),
            },
            _ => Err(ForbiddenAddress::Scheme),
        }
    }

    /// The resolver for the HTTP client.
    pub(super) fn resolver(self) -> Arc<impl Resolve> {
        Arc::new(Resolver(self))
    }

    fn admits(self, address: IpAddr) -> bool {
        self == AddressPolicy::Any
            || match address {
                IpAddr::V4(address) => is_public_v4(address),
                IpAddr::V6(address) => is_public_v6(address),
            }
    }
}

struct Resolver(AddressPolicy);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            // The client replaces the port with the URL's.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let admitted: Vec<_> = found.filter(|found| reach.admits(found.ip())).collect();
            if admitted.is_empty() {
                return Err(ForbiddenAddress::NotPublic.into());
            }
            Ok(Box::new(admitted.into_iter()) as Addrs)
        })
    }
}

/// Whether the address is globally reachable by the IANA registry of special-purpose addresses (the
/// standard library's `is_global` is unstable).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a, b & 0xc0) == (100, 64)
        || (a, b & 0xfe) == (198, 18)
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99))
}

/// Whether the address is globally reachable: in 2000::/3, but not in a special-purpose block, such
/// as those that embed an IPv4 address (6to4 and Teredo).
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    first & 0xe000 == 0x2000
        && !(first == 0x2001 && (second < 0x200 || second == 0xdb8))
        && first != 0x2002
        && !(first == 0x3fff && second < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for public in ["8.8.8.8", "99.255.1.1", "198.17.0.1", "2606:4700::1111"] {
            assert!(
                AddressPolicy::Public.admits(public.parse().unwrap()),
                "{public}"
            );
        }
        for hidden in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.19.255.255",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "64:ff9b::a00:1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
        ] {
            assert!(
                !AddressPolicy::Public.admits(hidden.parse().unwrap()),
                "{hidden}"
            );
        }
    }

    #[test]
    fn an_address_in_the_url_is_judged_however_it_is_spelt() {
        let judged = |text: &str| AddressPolicy::Public.check(&text.parse().unwrap());
        assert_eq!(judged("https://api.smartsheet.com/2.0"), Ok(()));
        assert_eq!(judged("https://8.8.8.8/"), Ok(()));
        assert_eq!(
            judged("http://api.smartsheet.com/2.0"),
            Err(ForbiddenAddress::Scheme)
        );
        assert_eq!(judged("file:///etc/passwd"), Err(ForbiddenAddress::NoHost));
        for spelling in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://[::ffff:7f00:1]/",
        ] {
            assert_eq!(
                judged(spelling),
                Err(ForbiddenAddress::NotPublic),
                "{spelling}"
            );
        }
    }

    #[test]
    fn the_operator_may_open_the_own_network() {
        let judged = |text: &str| AddressPolicy::Any.check(&text.parse().unwrap());
        assert_eq!(judged("http://127.0.0.1:7070/2.0"), Ok(()));
        assert_eq!(judged("ftp://127.0.0.1/"), Err(ForbiddenAddress::Scheme));
    }

    #[tokio::test]
    async fn a_name_that_stands_for_a_private_address_does_not_resolve() {
        let resolve = |reach: AddressPolicy| reach.resolver().resolve("localhost".parse().unwrap());
        let Err(refusal) = resolve(AddressPolicy::Public).await else {
            panic!("localhost is no public name");
        };
        assert_eq!(
            refusal.downcast_ref::<ForbiddenAddress>(),
            Some(&ForbiddenAddress::NotPublic)
        );
        assert!(resolve(AddressPolicy::Any).await.is_ok());
    }
}
