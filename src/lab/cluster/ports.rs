//! Which ports the nodes and the servers get.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::ops::Range;

use crate::cli::Failure;
use crate::config::Config;

/// Ports for where any will do: below those that the system gives to the near ends
/// of connections, so that a server that is started again finds its port free.
const ANY: Range<u16> = 20_000..32_000;
const ANY_TRIES: usize = 200;

/// A port that is nobody else's until its server starts: from its choice to its
/// use a cluster makes a database.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    held: Option<TcpListener>,
}

impl Port {
    fn hold(address: IpAddr, number: u16) -> std::io::Result<Self> {
        let held = TcpListener::bind((address, number))?;
        Ok(Self { number: held.local_addr()?.port(), held: Some(held) })
    }

    fn any(address: IpAddr) -> std::io::Result<Self> {
        let tries = std::iter::repeat_with(|| Self::hold(address, rand::random_range(ANY)));
        match tries.take(ANY_TRIES).find_map(Result::ok) {
            Some(port) => Ok(port),
            None => Self::hold(address, 0),
        }
    }

    /// A port of loopback: `last` if it is free, else any.
    pub(super) fn again_or_any(last: Option<u16>) -> std::io::Result<Self> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let again = last.and_then(|port| Self::hold(loopback, port).ok());
        again.map_or_else(|| Self::any(loopback), Ok)
    }

    pub(super) const fn number(&self) -> u16 {
        self.number
    }

    /// Gives the port up to its server, which starts now.
    pub(super) fn release(&mut self) {
        self.held = None;
    }
}

/// The nodes' ports, in order: `wanted` and those after it; all of them must be
/// free. Without it, `first` and up, leaving out what is taken. With 0, any.
pub(super) fn choose(
    config: &Config,
    wanted: Option<u16>,
    first: u16,
    nodes: u8,
) -> anyhow::Result<Vec<Port>> {
    let address = config.listen.bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let count = usize::from(nodes);
    let ports: Vec<Port> = match wanted {
        Some(0) => (0..nodes).map(|_| Port::any(address)).collect::<Result<_, _>>()?,
        Some(wanted) => {
            let taken = |port| {
                Failure::new(
                    "port_in_use",
                    format!(
                        "port {port} is in use or may not be opened; give another --port, 0 for \
                         any that are free"
                    ),
                )
            };
            let ports = (wanted..=u16::MAX).take(count);
            ports
                .map(|port| Port::hold(address, port).map_err(|_| taken(port)))
                .collect::<Result<_, _>>()?
        }
        None => {
            let ports = (first..=u16::MAX).filter_map(|port| Port::hold(address, port).ok());
            ports.take(count).collect()
        }
    };
    if ports.len() < count {
        return Err(Failure::new(
            "port_in_use",
            format!("there are not {nodes} ports left; give a lower --port, or 0"),
        )
        .into());
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn numbers(wanted: Option<u16>, first: u16, nodes: u8) -> anyhow::Result<Vec<u16>> {
        let config = Config::for_tests(Path::new("/nowhere"));
        let ports = choose(&config, wanted, first, nodes)?;
        Ok(ports.iter().map(Port::number).collect())
    }

    #[test]
    fn what_is_taken_is_left_out_unless_it_was_asked_for() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = taken.local_addr().expect("bound").port();
        let ports = numbers(None, port, 2).expect("some are free");
        assert_eq!(ports.len(), 2);
        assert!(ports.iter().all(|next| *next > port), "{ports:?} after {port}");
        let error = numbers(Some(port), 1, 2).expect_err("it is taken").to_string();
        assert!(error.contains(&port.to_string()) && error.contains("--port"), "{error}");
    }

    #[test]
    fn free_ones_are_all_different_and_the_last_port_is_the_end() {
        let mut ports = numbers(Some(0), 1, 16).expect("free ones");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 16);
        assert!(numbers(Some(65_535), 1, 2).is_err());
    }

    #[test]
    fn a_port_is_nobody_elses_until_it_is_released() {
        let mut first = Port::again_or_any(None).expect("a port");
        let number = first.number();
        assert!(ANY.contains(&number), "{number}");
        let another = Port::again_or_any(Some(number)).expect("a port");
        assert_ne!(another.number(), number);
        first.release();
        assert_eq!(Port::again_or_any(Some(number)).expect("it is free").number(), number);
    }
}
