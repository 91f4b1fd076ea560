//! One mesh over several nodes: what every `Cluster` must keep, and what peers, and
//! those who mean harm, find in it.

mod banned;
mod conformance;
mod costs;
mod directory;
mod ends;
mod forged;
mod heads;
mod moderation;
mod recovery;
mod redis;
mod regions;
mod relay;
mod restored;
mod schedules;
mod sealing;
mod sim_clock;
mod state;
mod tasks;
mod topics;
mod visitors;
mod webhooks;
mod wire;

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{Key, MemberId, MeshId};
use claudemesh_broker::record::PresenceRecord;

/// The session of that name, of the same member as all others, that has no socket yet.
fn session(mesh: &MeshId, name: &str) -> PresenceRecord {
    let (member, key) = (MemberId::from("member"), Key::from("a".repeat(64)));
    let began = Timestamp::from_ms(1_700_000_000_000);
    PresenceRecord {
        session_key: Some(Key::from(format!("key of {name}"))),
        session_id: name.to_owned(),
        display_name: name.to_owned(),
        last_seen_at: began.plus_ms(1),
        cwd: "/work".to_owned(),
        pid: 42,
        hostname: Some("host".to_owned()),
        channel: Some("claudemesh-session".to_owned()),
        node: "node".to_owned(),
        online: false,
        ..PresenceRecord::new(mesh.clone(), member, key, began)
    }
}
