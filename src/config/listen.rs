//! Where the broker listens.

use std::net::IpAddr;

use super::reader::Reader;

/// Where the broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// `BROKER_BIND`: the address. Default none: `[::]`, or `0.0.0.0` where
    /// there is no IPv6. An IP address.
    pub bind: Option<IpAddr>,
    /// `BROKER_PORT`: the TCP port. Default 7900. 0 to 65535; 0 takes a free one.
    pub port: u16,
}

impl ListenConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let bind = reader.text("BROKER_BIND").and_then(|text| {
            let parsed = bare(&text).parse().ok();
            if parsed.is_none() {
                reader.refuse("BROKER_BIND", "set an IP address such as 127.0.0.1 or ::");
            }
            parsed
        });
        Self { bind, port: reader.number("BROKER_PORT", 0..=u16::MAX) }
    }

    /// Whether only this machine can reach the broker.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.bind.is_some_and(|bind| bind.to_canonical().is_loopback())
    }
}

/// `[::1]` as URLs write it, without the brackets.
fn bare(text: &str) -> &str {
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bind: &'static str) -> (ListenConfig, usize) {
        let env = move |name: &str| (name == "BROKER_BIND").then(|| bind.to_owned());
        let mut reader = Reader::new(&env);
        let listen = ListenConfig::read(&mut reader);
        (listen, reader.into_problems().len())
    }

    #[test]
    fn an_address_is_taken_with_or_without_brackets() {
        assert_eq!(read("[::1]").0.bind, "::1".parse().ok());
        assert_eq!(read("127.0.0.1").0.bind, "127.0.0.1".parse().ok());
        assert_eq!(read("localhost").1, 1, "names are not looked up");
    }

    #[test]
    fn only_a_loopback_address_is_loopback() {
        assert!(read("127.0.0.5").0.is_loopback());
        assert!(read("::ffff:127.0.0.1").0.is_loopback());
        assert!(!read("::").0.is_loopback());
        assert!(!read("").0.is_loopback(), "the default is reachable from outside");
    }
}
