//! Which ports the nodes and the servers get.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use crate::cli::Failure;
use crate::config::Config;

/// The nodes' ports, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ports(pub(super) Vec<u16>);

impl Ports {
    /// `wanted` and those after it; all of them must be free. Without it,
    /// `first` and up, leaving out what is taken. With 0, any.
    pub(super) fn choose(
        config: &Config,
        wanted: Option<u16>,
        first: u16,
        nodes: u8,
    ) -> anyhow::Result<Self> {
        let address = config.listen.bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let count = usize::from(nodes);
        let ports: Vec<u16> = match wanted {
            Some(0) => {
                // Held until all are known, or one would come twice.
                let held: Vec<TcpListener> = (0..nodes)
                    .map(|_| TcpListener::bind((address, 0)))
                    .collect::<Result<_, _>>()?;
                held.iter()
                    .map(|listener| Ok(listener.local_addr()?.port()))
                    .collect::<std::io::Result<_>>()?
            }
            Some(wanted) => {
                let ports: Vec<u16> = (wanted..=u16::MAX).take(count).collect();
                if let Some(taken) = ports.iter().find(|port| !is_free(address, **port)) {
                    return Err(Failure::new(
                        "port_in_use",
                        format!(
                            "port {taken} is in use or may not be opened; give another --port, \
                             0 for any that are free"
                        ),
                    )
                    .into());
                }
                ports
            }
            None => (first..=u16::MAX).filter(|port| is_free(address, *port)).take(count).collect(),
        };
        if ports.len() < count {
            return Err(Failure::new(
                "port_in_use",
                format!("there are not {nodes} ports left; give a lower --port, or 0"),
            )
            .into());
        }
        Ok(Self(ports))
    }
}

/// A port of loopback: `last` if it is free, else any.
pub(super) fn again_or_any(last: Option<u16>) -> std::io::Result<u16> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    match last {
        Some(port) if is_free(loopback, port) => Ok(port),
        _ => Ok(TcpListener::bind((loopback, 0))?.local_addr()?.port()),
    }
}

fn is_free(address: IpAddr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn choose(wanted: Option<u16>, first: u16, nodes: u8) -> anyhow::Result<Ports> {
        Ports::choose(&Config::for_tests(Path::new("/nowhere")), wanted, first, nodes)
    }

    #[test]
    fn what_is_taken_is_left_out_unless_it_was_asked_for() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = taken.local_addr().expect("bound").port();
        let Ports(ports) = choose(None, port, 2).expect("some are free");
        assert_eq!(ports.len(), 2);
        assert!(ports.iter().all(|it| *it > port), "{ports:?} after {port}");
        let error = choose(Some(port), 1, 2).expect_err("it is taken").to_string();
        assert!(error.contains(&port.to_string()) && error.contains("--port"), "{error}");
    }

    #[test]
    fn free_ones_are_all_different_and_the_last_port_is_the_end() {
        let Ports(mut ports) = choose(Some(0), 1, 16).expect("free ones");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 16);
        assert!(choose(Some(65_535), 1, 2).is_err());
    }
}
