//! Which node of the cluster this process is.

use super::reader::{LABEL_BYTES_MAX, Reader, is_label_char};
use crate::id::NodeId;

/// Which node this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// `NODE_ID`, else `FLY_MACHINE_ID`, else host name and port: the node's
    /// name, unique in the cluster and the same after a restart. With port 0
    /// and no name it is different at each start. Up to 64 letters, digits,
    /// dots, hyphens, underscores.
    pub id: NodeId,
    /// `REGION`, else `FLY_REGION`: the region. Default none. Characters as `id`.
    pub region: Option<String>,
    /// `FLY_APP_NAME` is there: the process runs on Fly.io, whose proxy alone
    /// reaches it and sets `Fly-Client-IP`.
    pub on_fly: bool,
}

impl NodeConfig {
    pub(super) fn read(reader: &mut Reader<'_>, port: u16) -> Self {
        // All are read whichever wins, so that a wrong one is always reported.
        let ids = [reader.label("NODE_ID"), reader.label("FLY_MACHINE_ID")];
        let regions = [reader.label("REGION"), reader.label("FLY_REGION")];
        let id = ids.into_iter().flatten().next().unwrap_or_else(|| host_id(&host_name(), port));
        Self {
            id: NodeId::from(id),
            region: regions.into_iter().flatten().next(),
            on_fly: reader.text("FLY_APP_NAME").is_some(),
        }
    }
}

/// A node id for one of possibly several brokers of a machine.
fn host_id(host: &str, port: u16) -> String {
    let suffix = if port == 0 {
        // Which port it will be is not known yet, and two such nodes of one
        // machine must not share an id.
        crate::id::generate().split_off(20)
    } else {
        port.to_string()
    };
    let room = LABEL_BYTES_MAX - suffix.len() - 1;
    let host: String =
        host.chars().map(|c| if is_label_char(c) { c } else { '-' }).take(room).collect();
    let host = if host.is_empty() { "node" } else { host.as_str() };
    format!("{host}-{suffix}")
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::reader::is_label;
    use super::*;

    fn read(set: &[(&str, &str)]) -> NodeConfig {
        let env = |name: &str| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        NodeConfig::read(&mut Reader::new(&env), 7900)
    }

    #[test]
    fn an_explicit_name_wins_over_the_platform() {
        let fly = [("FLY_MACHINE_ID", "e286"), ("FLY_REGION", "fra"), ("FLY_APP_NAME", "mesh")];
        let node = read(&fly);
        assert_eq!(
            (node.id.as_str(), node.region.as_deref(), node.on_fly),
            ("e286", Some("fra"), true)
        );
        let node = read(&[&fly[..], &[("NODE_ID", "a"), ("REGION", "eu")]].concat());
        assert_eq!((node.id.as_str(), node.region.as_deref()), ("a", Some("eu")));
        assert!(!read(&[("FLY_REGION", "fra")]).on_fly);
    }

    #[test]
    fn a_name_from_the_host_is_stable_and_always_valid() {
        assert_eq!(host_id("web 1", 7900), "web-1-7900");
        assert_eq!(host_id("", 7900), "node-7900");
        assert_ne!(host_id("a", 0), host_id("a", 0), "two nodes on free ports share no id");
        for host in ["ü.example", &"x".repeat(300)] {
            for port in [0, 1, u16::MAX] {
                let id = host_id(host, port);
                assert!(is_label(&id), "{id}");
            }
        }
    }
}
