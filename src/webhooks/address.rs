//! Which addresses the broker may be told to call: none of a private network, unless
//! the operator allows it. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Why an address is not taken.
pub(crate) const PRIVATE: &str = "the address is in a private network, which this broker does \
                                  not call unless WEBHOOK_ALLOW_PRIVATE is set";

/// An address as it was given: of HTTP, without a user, and not plainly private.
pub(crate) fn check(text: &str, allows_private: bool) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "`url` is an http:// or https:// address")?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("`url` is an http:// or https:// address");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("`url` has no user and no password: calls are signed");
    }
    let address = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        _ => None,
    };
    if !allows_private && address.is_some_and(|address| !is_public(address)) {
        return Err(PRIVATE);
    }
    Ok(url)
}

/// Whether an address is one of the Internet at large.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match (a, b, c) {
        // This network, private, loopback; multicast, reserved and broadcast.
        (0 | 10 | 127 | 224..=255, ..) => true,
        // Between carriers and their customers.
        (100, 64..=127, _) => true,
        (169, 254, _) | (172, 16..=31, _) | (192, 168, _) => true,
        // Protocols, documentation, relays, measuring.
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) | (198, 51, 100) => true,
        (203, 0, 113) => true,
        _ => false,
    };
    !is_special
}

/// Of IPv6 only what is given away to networks, without what leads to IPv4 addresses by
/// other ways and without documentation.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let is_given_away = (0x2000..=0x3fff).contains(&a);
    let is_special =
        matches!((a, b), (0x2001, 0..=0x1ff | 0xdb8) | (0x2002, _) | (0x3fff, 0..=0xfff));
    is_given_away && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_at_large_are_public() {
        for public in ["1.1.1.1", "100.63.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(is_public(public.parse().expect(public)), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "224.0.0.1",
            "239.1.1.1",
            "255.255.255.255",
            "240.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "203.0.113.9",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "100::1",
        ] {
            assert!(!is_public(private.parse().expect(private)), "{private}");
        }
    }

    #[test]
    fn an_address_is_checked_as_it_is_given() {
        assert!(check("https://hooks.example.org/a?b=c", false).is_ok());
        assert!(check("http://127.0.0.1:8080/", true).is_ok());
        for wrong in [
            "",
            "hooks.example.org",
            "ftp://example.org/",
            "file:///etc/passwd",
            "https://user:word@example.org/",
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
        ] {
            assert!(check(wrong, false).is_err(), "{wrong}");
        }
    }
}
