//! Opens the port, and makes room for as many sockets as the system allows.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::Failure;
use crate::config::ListenConfig;

/// Connections that the kernel completes before the broker takes them; peers of those
/// beyond try again. The kernel cuts the number at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A port that is open.
pub(crate) struct Bound {
    pub(crate) listener: TcpListener,
    /// Whether IPv6 was wanted and is not to be had.
    pub(crate) ipv4_only: bool,
}

/// Binds what `config` says: without an address `[::]`, which takes IPv4 too,
/// or `0.0.0.0` where there is no IPv6. Must run inside the runtime.
pub(crate) fn bind(config: &ListenConfig) -> io::Result<Bound> {
    let Some(address) = config.bind else {
        return match bind_to(IpAddr::V6(Ipv6Addr::UNSPECIFIED), config.port) {
            Err(error) if lacks_ipv6(&error) => {
                let listener = bind_to(IpAddr::V4(Ipv4Addr::UNSPECIFIED), config.port)?;
                Ok(Bound { listener, ipv4_only: true })
            }
            bound => bound.map(|listener| Bound { listener, ipv4_only: false }),
        };
    };
    bind_to(address, config.port).map(|listener| Bound { listener, ipv4_only: false })
}

/// Listens on `port` of `address`, or on a free one when that is 0.
pub(crate) fn bind_to(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    // A broker that starts again must not wait for the old one's sockets.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

fn lacks_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let missing =
        [Errno::AFNOSUPPORT, Errno::PROTONOSUPPORT, Errno::ADDRNOTAVAIL, Errno::NOPROTOOPT];
    error
        .raw_os_error()
        .is_some_and(|code| missing.iter().any(|error| error.raw_os_error() == code))
}

/// Why the port could not be opened, and what to do. `occupant` is the broker
/// that answers there, if one does.
pub(crate) fn explain(config: &ListenConfig, error: &io::Error, occupant: Option<&str>) -> Failure {
    let port = config.port;
    let address =
        config.bind.map_or_else(|| "this machine".to_owned(), |address| address.to_string());
    match (error.kind(), occupant) {
        (ErrorKind::AddrInUse, Some(version)) => Failure::new(
            "port_in_use",
            format!(
                "port {port} is in use by a claudemesh-broker {version} that is running already; \
                 use that one, stop it, or set BROKER_PORT to another port"
            ),
        ),
        (ErrorKind::AddrInUse, None) => Failure::new(
            "port_in_use",
            format!(
                "port {port} is in use by another program; stop it (`ss -ltnp 'sport = :{port}'` \
                 names it), or set BROKER_PORT to another port, 0 for any that is free"
            ),
        ),
        (ErrorKind::PermissionDenied, _) => Failure::new(
            "port_not_permitted",
            format!(
                "port {port} may not be opened by this user; set BROKER_PORT to 1024 or above, \
                 or give the program CAP_NET_BIND_SERVICE"
            ),
        ),
        (ErrorKind::AddrNotAvailable, _) => Failure::new(
            "address_not_available",
            format!(
                "{address} is no address of this machine; set BROKER_BIND to one of its \
                 addresses, or unset it to listen on all"
            ),
        ),
        _ => Failure::new(
            "cannot_listen",
            format!(
                "cannot listen on port {port} of {address}: {error}; set BROKER_PORT and \
                 BROKER_BIND to where it can"
            ),
        ),
    }
}

/// Raises the soft limit of open files to the hard one, and says what it is
/// then; `None` when there is none.
pub(crate) fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum
        || setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok()
    {
        return maximum;
    }
    current
}

/// The limits of open files: soft and hard; `None` stands for no limit.
pub(crate) fn open_files() -> (Option<u64>, Option<u64>) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    (current, maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(bind: &str, port: u16) -> ListenConfig {
        ListenConfig { bind: Some(bind.parse().expect("an address")), port }
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_variable_to_set() {
        let bound = bind(&on("127.0.0.1", 0)).expect("a free port");
        let port = bound.listener.local_addr().expect("bound").port();
        let taken = on("127.0.0.1", port);
        let error = bind(&taken).err().expect("taken");
        let failure = explain(&taken, &error, None);
        assert_eq!(failure.code, "port_in_use");
        assert!(failure.message.contains(&port.to_string()), "{failure}");
        assert!(failure.message.contains("BROKER_PORT"), "{failure}");
        assert!(explain(&taken, &error, Some("0.1.0")).message.contains("0.1.0"));
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_said_to_be_one() {
        // Documentation addresses belong to nobody.
        let config = on("192.0.2.1", 0);
        let error = bind(&config).err().expect("not ours");
        let failure = explain(&config, &error, None);
        assert!(failure.message.contains("BROKER_BIND"), "{failure}");
        assert!(!failure.message.is_empty());
    }

    #[tokio::test]
    async fn without_an_address_ipv4_reaches_it_too() {
        let bound = bind(&ListenConfig { bind: None, port: 0 }).expect("a free port");
        let address = bound.listener.local_addr().expect("bound");
        assert_eq!(address.is_ipv4(), bound.ipv4_only);
        let reached = tokio::net::TcpStream::connect(("127.0.0.1", address.port())).await;
        assert!(reached.is_ok(), "{reached:?}");
    }

    #[test]
    fn the_limit_of_open_files_ends_at_the_hard_one() {
        let raised = raise_open_files();
        assert_eq!((raised, raised), open_files());
    }
}
