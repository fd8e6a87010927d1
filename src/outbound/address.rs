//! Where a call may go: over TLS and to the public internet, unless the operator said otherwise.
//!
//! A base URL or a webhook URL is somebody's input, and this process stands inside a network
//! that has more to offer than its front door shows. So the rule is kept where a name becomes
//! an address: the resolver hands on public addresses only, and the connection is made to that
//! very answer. Checking the name beforehand would leave time to change what it stands for.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Which addresses may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressPolicy {
    /// `https` and global addresses only.
    Public,
    /// Whatever the operator's network has, loopback included, also without TLS.
    Any,
}

/// Why a call is not made: where it would go.
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
    /// Judges what can be told from the URL alone: the scheme, and a host that is an address
    /// already, which no resolver gets to see. (`url` has by then read `0x7f.1` and its like as
    /// the address that they are.)
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

    /// The resolver that the client connects by.
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
            // The port is the URL's; the client puts it in.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let admitted: Vec<_> = found.filter(|found| reach.admits(found.ip())).collect();
            if admitted.is_empty() {
                return Err(ForbiddenAddress::NotPublic.into());
            }
            Ok(Box::new(admitted.into_iter()) as Addrs)
        })
    }
}

/// Whether this address is globally reachable, by the IANA registry of special-purpose
/// addresses (the standard library's own `is_global` is not stable).
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

/// Only 2000::/3 is handed out for global use; of that, the blocks that stand for something
/// else are left out, above all those that carry an IPv4 address inside (6to4 and Teredo).
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
