//! The rows of the tables, for paper and screen alike.

use std::time::Duration;

use super::shown::Shown;
use crate::cli::output;
use crate::clock::Timestamp;
use crate::http::admin::views::{HeldView, MeshDetail, MeshView, NodeView, PeerView};
use crate::vitals::series::Point;

pub(super) const NODE_HEADINGS: [&str; 9] =
    ["node", "region", "state", "version", "sockets", "accepted", "delivered", "bus lag", "up for"];
pub(super) const MESH_HEADINGS: [&str; 7] =
    ["mesh", "members", "places", "sockets", "waiting", "accepted", "delivered"];
pub(super) const PEER_HEADINGS: [&str; 7] =
    ["peer", "key", "status", "for", "groups", "node", "lease"];
pub(super) const HELD_HEADINGS: [&str; 3] = ["held for", "messages", "oldest"];

/// Prints everything as tables.
pub(super) fn print(shown: &Shown) -> anyhow::Result<()> {
    output::table(NODE_HEADINGS, shown.nodes.iter().map(node))?;
    output::line("")?;
    if shown.meshes.is_empty() {
        output::line("There is no mesh yet; `claudemesh-broker mesh create <slug>` makes one.")?;
    } else {
        output::table(MESH_HEADINGS, shown.meshes.iter().map(mesh))?;
    }
    if let Some(mesh) = &shown.mesh {
        output::line("")?;
        if mesh.peers.is_empty() {
            output::line(&format!("Nobody is in {}.", output::printable(&mesh.slug)))?;
        } else {
            output::table(PEER_HEADINGS, peers(mesh, shown.at))?;
        }
        if !mesh.held.is_empty() {
            output::line("")?;
            output::table(HELD_HEADINGS, mesh.held.iter().map(|waiting| held(waiting, shown.at)))?;
        }
    }
    if let Some(point) = &shown.point {
        output::line("")?;
        output::line(&latency(point))?;
    }
    Ok(())
}

pub(super) fn node(node: &NodeView) -> [String; 9] {
    [
        node.id.to_string(),
        output::or_dash(node.region.as_ref()),
        node.state.clone(),
        node.version.clone(),
        node.sockets.to_string(),
        rate(node.accepted_per_second),
        rate(node.delivered_per_second),
        output::or_dash(node.bus_lag_ms.map(millis)),
        span(node.uptime_seconds),
    ]
}

pub(super) fn mesh(mesh: &MeshView) -> [String; 7] {
    let slug = match mesh.archived_at {
        Some(_) => format!("{} (archived)", mesh.slug),
        None => mesh.slug.clone(),
    };
    [
        slug,
        mesh.members.to_string(),
        format!("{} of {}", mesh.places, mesh.cap),
        mesh.sockets.to_string(),
        mesh.queued.to_string(),
        rate(mesh.accepted_per_second),
        rate(mesh.delivered_per_second),
    ]
}

pub(super) fn peers(mesh: &MeshDetail, now: Timestamp) -> impl Iterator<Item = [String; 7]> {
    mesh.peers.iter().map(move |peer| {
        let lease = mesh.leases.iter().find(|lease| lease.presence == peer.presence);
        let lease =
            lease.map(|lease| format!("{}, {}", lease.state, span(seconds(now, lease.expires_at))));
        peer_row(peer, lease, now)
    })
}

fn peer_row(peer: &PeerView, lease: Option<String>, now: Timestamp) -> [String; 7] {
    let status = if peer.online { peer.status.clone() } else { "away".to_owned() };
    let groups: Vec<String> = peer.groups.iter().map(|group| format!("@{group}")).collect();
    [
        peer.name.clone(),
        peer.key.clone(),
        status,
        span(seconds(peer.status_since, now)),
        groups.join(" "),
        peer.node.clone(),
        output::or_dash(lease),
    ]
}

pub(super) fn held(held: &HeldView, now: Timestamp) -> [String; 3] {
    let whom = match &held.name {
        Some(name) => format!("{name} {}", held.target),
        None => held.target.clone(),
    };
    [whom, held.messages.to_string(), span(seconds(held.oldest_at, now))]
}

/// The newest point as a sentence.
pub(super) fn latency(point: &Point) -> String {
    if point.accepted_per_second == 0.0 {
        return "No message in the last ten seconds.".to_owned();
    }
    format!(
        "Kept on disk within {} (99 of 100: {}), on its way out within {} (99 of 100: {}).",
        millis(point.accept_p50_ms),
        millis(point.accept_p99_ms),
        millis(point.deliver_p50_ms),
        millis(point.deliver_p99_ms),
    )
}

pub(super) fn rate(per_second: f64) -> String {
    if per_second == 0.0 || per_second >= 10.0 {
        format!("{per_second:.0}/s")
    } else {
        format!("{per_second:.1}/s")
    }
}

fn millis(ms: f64) -> String {
    if ms >= 10.0 { format!("{ms:.0} ms") } else { format!("{ms:.2} ms") }
}

fn seconds(from: Timestamp, to: Timestamp) -> u64 {
    to.ms_since(from).max(0).unsigned_abs() / 1000
}

/// A span of time in its two largest units.
fn span(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_exact_as_anybody_needs() {
        assert_eq!([rate(0.0), rate(0.26), rate(12.6)], ["0/s", "0.3/s", "13/s"]);
        assert_eq!([millis(0.123), millis(123.4)], ["0.12 ms", "123 ms"]);
        assert_eq!([span(0), span(61), span(90_061)], ["0s", "1m 1s", "1day 1h"]);
    }
}
