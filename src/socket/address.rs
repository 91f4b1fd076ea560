//! Whose address a request comes from, and what limits that address has.
//!
//! The socket's own address is the one thing that nobody can make up. What a
//! header says about it counts only if a proxy that is trusted wrote it, and
//! then it can only ever cost the client its exemption, never win it one: a
//! client is of this machine if its socket is and no proxy stands between.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use parking_lot::Mutex;

use crate::config::{Config, HttpConfig};
use crate::rates::{Client, Rates};

/// The socket's own address, put there by the listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketPeer(pub SocketAddr);

/// The address of all whom nobody vouches for: they share one limit. It is no
/// socket's.
const STRANGERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Headers that only something between client and broker writes.
const PROXY_HEADERS: [&str; 11] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fly-client-ip",
    "forwarded",
    "via",
];

/// Whether a header says that the socket is a proxy's and not the client's.
pub(crate) fn shows_proxy(headers: &HeaderMap) -> bool {
    PROXY_HEADERS.iter().any(|name| headers.contains_key(*name))
}

/// Whether a client's address, as [`Addresses::client`] has it, is its own and not that of
/// all whom nobody vouches for.
pub(crate) fn is_told_from_others(address: IpAddr) -> bool {
    address != STRANGERS
}

/// An address as proxies write it: bare, with a port, in brackets, in quotes,
/// or an IPv4 one as IPv6.
fn read_address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"').trim();
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_port = |port: &str| port.parse::<u16>().is_ok();
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return None;
        }
        without_zone(address).parse::<IpAddr>().ok()?
    } else if let Ok(address) = without_zone(text).parse::<IpAddr>() {
        address
    } else {
        text.parse::<SocketAddr>().ok()?.ip()
    };
    Some(address.to_canonical())
}

/// `fe80::1%eth0` without the name of the other machine's interface.
fn without_zone(text: &str) -> &str {
    text.split_once('%').map_or(text, |(address, _)| address)
}

/// Which address a request comes from, and the open sockets of each.
#[derive(Clone)]
pub(crate) struct Addresses(Arc<Shared>);

struct Shared {
    http: HttpConfig,
    on_fly: bool,
    counts: Mutex<HashMap<Client, u32>>,
}

/// One of an address's sockets.
pub(crate) struct AddressGuard {
    addresses: Addresses,
    client: Client,
}

/// What a socket that has just come is to its address.
pub(crate) enum Arrival {
    /// The socket cannot be told whose it is before there is a request, or nothing is
    /// counted.
    Uncounted,
    /// The socket is within what the address may have.
    Counted(AddressGuard),
    /// The socket is one too many: its peer is told so, and it is closed.
    Crowded(AddressGuard),
    /// The address has opened more than are worth an answer.
    Refused,
}

impl Addresses {
    /// Counts as `MAX_CONNECTIONS_PER_IP` says.
    pub(crate) fn new(config: &Config) -> Self {
        let (http, on_fly) = (config.http.clone(), config.node.on_fly);
        Self(Arc::new(Shared { http, on_fly, counts: Mutex::default() }))
    }

    /// The client's address: the socket's, or a header's where the socket is a
    /// proxy that is trusted to set it. It is a loopback address only where the
    /// client is of this machine; whoever cannot be told is one of the strangers,
    /// who share a limit.
    pub(crate) fn client(&self, headers: &HeaderMap, peer: SocketPeer) -> IpAddr {
        let socket = peer.0.ip().to_canonical();
        let named = if self.0.on_fly && headers.contains_key("fly-client-ip") {
            let text = headers.get("fly-client-ip").and_then(|value| value.to_str().ok());
            text.and_then(read_address)
        } else if self.0.http.trusts_proxy(socket) && headers.contains_key("x-forwarded-for") {
            self.forwarded_for(headers)
        } else if socket.is_loopback() && shows_proxy(headers) {
            None
        } else {
            return socket;
        };
        named.filter(|address| !address.is_loopback()).unwrap_or(STRANGERS)
    }

    /// The nearest address that is no trusted proxy's; the farthest, if all are.
    /// Proxies append, to the last line or as a new one: it is read from the end,
    /// and no further than it can be read.
    fn forwarded_for(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        let mut farthest = None;
        for line in lines.into_iter().rev() {
            for text in line.to_str().ok()?.rsplit(',') {
                let address = read_address(text)?;
                if !self.0.http.trusts_proxy(address) {
                    return Some(address);
                }
                farthest = Some(address);
            }
        }
        farthest
    }

    /// A socket from there has been accepted.
    pub(crate) fn arrive(&self, socket: IpAddr) -> Arrival {
        let socket = socket.to_canonical();
        let max = self.0.http.connections_per_ip_max;
        let is_proxy = || self.0.http.trusts_proxy(socket);
        if max == 0 || self.0.on_fly || socket.is_loopback() || is_proxy() {
            return Arrival::Uncounted;
        }
        // As many again are told why; a flood is not answered.
        let Some((guard, count)) = self.count(socket, max.saturating_mul(2)) else {
            return Arrival::Refused;
        };
        if count > max { Arrival::Crowded(guard) } else { Arrival::Counted(guard) }
    }

    /// A place for an upgrade; `None` if the listener has counted the socket
    /// already, and for clients of this machine, which have no limits: there,
    /// everybody has the same address.
    pub(crate) fn enter_upgrade(
        &self,
        rates: &Rates,
        address: IpAddr,
        is_counted: bool,
    ) -> Result<Option<AddressGuard>, Box<Response>> {
        may_call(rates, address)?;
        let max = self.0.http.connections_per_ip_max;
        if address.is_loopback() || is_counted || max == 0 {
            return Ok(None);
        }
        let entered = self.count(address, max).map(|(guard, _)| guard);
        entered.map(Some).ok_or_else(|| Box::new(too_many_sockets()))
    }

    /// One more socket, unless that is more than `max`; and how many there are then.
    fn count(&self, address: IpAddr, max: u32) -> Option<(AddressGuard, u32)> {
        let client = Client::from(address);
        let mut counts = self.0.counts.lock();
        let count = counts.entry(client).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some((AddressGuard { addresses: self.clone(), client }, *count))
    }
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.counts.lock();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// What a socket too many is told.
pub(crate) fn too_many_sockets() -> Response {
    let text = "too many open connections from this address";
    retry_later(StatusCode::TOO_MANY_REQUESTS, 10, text)
}

/// Whether a stranger at that address may ask for something that costs.
pub(crate) fn may_call(rates: &Rates, address: IpAddr) -> Result<(), Box<Response>> {
    if address.is_loopback() {
        return Ok(());
    }
    rates.may_hello(address).map_err(|seconds| {
        let text = "too many calls from this address in the last minute";
        Box::new(retry_later(StatusCode::TOO_MANY_REQUESTS, seconds, text))
    })
}

pub(crate) fn retry_later(status: StatusCode, seconds: u64, text: &str) -> Response {
    (status, [(header::RETRY_AFTER, seconds.to_string())], format!("{text}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn config(proxies: &[&str]) -> Config {
        let mut config = Config::for_tests(std::path::Path::new("."));
        config.http.trusted_proxies =
            proxies.iter().map(|net| net.parse().expect("a net")).collect();
        config
    }

    fn address(config: &Config, socket: &str, headers: &[(&'static str, &str)]) -> IpAddr {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        Addresses::new(config).client(&map, SocketPeer(SocketAddr::new(ip(socket), 4000)))
    }

    #[test]
    fn an_address_is_read_in_every_form_that_proxies_write() {
        for (text, read) in [
            ("203.0.113.1", "203.0.113.1"),
            (" 203.0.113.1:4711 ", "203.0.113.1"),
            ("::ffff:203.0.113.1", "203.0.113.1"),
            ("[::ffff:203.0.113.1]:80", "203.0.113.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("\"[2001:db8::1]:443\"", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
        ] {
            assert_eq!(read_address(text), Some(ip(read)), "{text}");
        }
        for text in ["", "unknown", "_hidden", "203.0.113", "[2001:db8::1", "[::1]x", "a.b:80"] {
            assert_eq!(read_address(text), None, "{text}");
        }
    }

    #[test]
    fn only_a_socket_of_this_machine_without_a_proxy_is_exempt() {
        let open = config(&[]);
        for socket in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(address(&open, socket, &[]).is_loopback(), "{socket}");
            for name in PROXY_HEADERS {
                assert_eq!(address(&open, socket, &[(name, "127.0.0.1")]), STRANGERS, "{name}");
            }
        }
        assert_eq!(address(&open, "::ffff:203.0.113.1", &[]), ip("203.0.113.1"));
        let forged = [("x-forwarded-for", "127.0.0.1")];
        assert_eq!(address(&open, "203.0.113.1", &forged), ip("203.0.113.1"), "not trusted");
        let behind = config(&["127.0.0.0/8", "10.0.0.0/8"]);
        assert!(address(&behind, "127.0.0.1", &[]).is_loopback(), "no proxy this time");
        for text in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "unknown", "", "[::1]:80"] {
            for socket in ["127.0.0.1", "10.1.2.3"] {
                assert_eq!(
                    address(&behind, socket, &[("x-forwarded-for", text)]),
                    STRANGERS,
                    "{text}"
                );
            }
        }
        let mut fly = config(&[]);
        fly.node.on_fly = true;
        for text in ["127.0.0.1", "nonsense"] {
            assert_eq!(address(&fly, "172.16.0.1", &[("fly-client-ip", text)]), STRANGERS);
        }
    }

    #[test]
    fn the_nearest_address_that_is_no_proxy_counts_and_nothing_left_of_it() {
        let behind = config(&["10.0.0.0/8"]);
        let of = |text| address(&behind, "10.1.2.3", &[("x-forwarded-for", text)]);
        assert_eq!(of("127.0.0.1, 203.0.113.1:99, 10.0.0.7"), ip("203.0.113.1"));
        assert_eq!(of("203.0.113.1, unknown, 10.0.0.7"), STRANGERS);
        assert_eq!(of("10.0.0.9, 10.0.0.7"), ip("10.0.0.9"), "all within: the farthest");
        let lines = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "203.0.113.1")];
        assert_eq!(address(&behind, "10.1.2.3", &lines), ip("203.0.113.1"));
    }

    #[test]
    fn every_socket_counts_and_a_flood_is_not_answered() {
        let mut limited = config(&["10.0.0.0/8"]);
        limited.http.connections_per_ip_max = 2;
        let addresses = Addresses::new(&limited);
        for free in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "::ffff:10.0.0.1"] {
            assert!(matches!(addresses.arrive(ip(free)), Arrival::Uncounted), "{free}");
        }
        let stranger = ip("203.0.113.1");
        let first = addresses.arrive(stranger);
        let _second = addresses.arrive(ip("::ffff:203.0.113.1"));
        assert!(matches!(first, Arrival::Counted(_)));
        let crowded = [addresses.arrive(stranger), addresses.arrive(stranger)];
        assert!(crowded.iter().all(|arrival| matches!(arrival, Arrival::Crowded(_))));
        assert!(matches!(addresses.arrive(stranger), Arrival::Refused));
        assert!(matches!(addresses.arrive(ip("203.0.113.2")), Arrival::Counted(_)), "another");
        drop((first, crowded));
        assert!(matches!(addresses.arrive(stranger), Arrival::Counted(_)), "given back");
    }
}
