//! What is read and heard in orders that only a race brings about.

use super::*;
use crate::id::{Key, MemberId, PresenceId};
use crate::protocol::PeerRole;
use crate::protocol::SealingPolicy::Preferred;
use crate::record::PresenceRecord;
use crate::store::{Member, testing};

fn member(id: &str, key: &str, mode: &str) -> Member {
    Member { key: Key::from(key), message_mode: mode.to_owned(), ..testing::member(id) }
}

/// Of that member, whose key is `<member>-key`; with the role of a session it has proven
/// its session key, with another it merely names it.
fn record(id: &str, member: &str, role: PeerRole, session_key: &str) -> PresenceRecord {
    PresenceRecord {
        id: PresenceId::from(id),
        session_key: Some(Key::from(session_key)),
        role,
        display_name: id.to_owned(),
        ..testing::record(&testing::member(member))
    }
}

fn room() -> Arc<Room> {
    Arc::new(Room::new(MeshId::from("mesh"), Arc::default()))
}

fn ids(room: &Room) -> Vec<String> {
    let mut ids: Vec<_> = room.records().iter().map(|record| record.id.to_string()).collect();
    ids.sort();
    ids
}

fn mode(room: &Room, id: &str) -> Option<String> {
    room.member(&MemberId::from(id)).map(|member| member.message_mode.clone())
}

// --- members ---------------------------------------------------------------------------

#[test]
fn a_ban_that_was_read_later_is_not_undone_by_a_hello_that_read_earlier() {
    let room = room();
    let hello = room.begin_refresh();
    // Meanwhile the member is banned, and the room is read.
    let all = room.begin_refresh();
    assert!(room.set_members(all, vec![member("ada", "ada-key", "push")], Preferred));
    assert!(!room.set_member(hello, member("bob", "bob-key", "push")));
    assert_eq!(mode(&room, "bob"), None);
    assert!(room.member_by_key("bob-key").is_none());
}

#[test]
fn a_grant_that_was_read_later_is_not_undone_by_a_hello_that_read_earlier() {
    let room = room();
    let hello = room.begin_refresh();
    let all = room.begin_refresh();
    assert!(room.set_members(all, vec![member("bob", "bob-key", "off")], Preferred));
    assert!(!room.set_member(hello, member("bob", "bob-key", "push")));
    assert_eq!(mode(&room, "bob").as_deref(), Some("off"));
    // Of two hellos the later read counts, too.
    let (first, second) = (room.begin_refresh(), room.begin_refresh());
    assert!(room.set_member(second, member("bob", "bob-key", "inbox")));
    assert!(!room.set_member(first, member("bob", "bob-key", "push")));
    assert_eq!(mode(&room, "bob").as_deref(), Some("inbox"));
}

#[test]
fn a_newcomer_is_not_forgotten_by_a_read_that_began_before_it_joined() {
    let room = room();
    let all = room.begin_refresh();
    let hello = room.begin_refresh();
    assert!(room.set_member(hello, member("bob", "bob-key", "push")));
    assert!(room.set_members(all, vec![member("ada", "ada-key", "push")], Preferred));
    assert_eq!(mode(&room, "bob").as_deref(), Some("push"));
    assert!(room.member_by_key("bob-key").is_some());
    let later = room.begin_refresh();
    assert!(room.set_members(later, vec![member("ada", "ada-key", "push")], Preferred));
    assert_eq!(mode(&room, "bob"), None);
}

// --- who somebody is ---------------------------------------------------------------------

#[test]
fn a_record_under_a_members_name_with_another_key_is_refused() {
    let room = room();
    let read = room.begin_refresh();
    room.set_members(
        read,
        vec![member("ada", "ada-key", "push"), member("bob", "bob-key", "push")],
        Preferred,
    );
    let forged = PresenceRecord {
        member_key: Key::from("bob-key"),
        ..record("forged", "ada", PeerRole::ControlPlane, "s")
    };
    let elsewhere = PresenceRecord {
        mesh: MeshId::from("other"),
        ..record("elsewhere", "ada", PeerRole::Session, "s")
    };
    for odd in [&forged, &elsewhere] {
        assert!(room.mirror(odd.clone()).is_refused);
    }
    room.begin_reading().finish(vec![
        forged,
        elsewhere,
        record("good", "ada", PeerRole::Session, "s"),
    ]);
    assert_eq!(ids(&room), ["good"]);
    // One that just joined may be heard of before the members are read again.
    assert!(!room.mirror(record("new", "eve", PeerRole::Session, "t")).is_refused);
    let read = room.begin_refresh();
    room.set_members(
        read,
        vec![member("ada", "ada-key", "push"), member("eve", "else", "push")],
        Preferred,
    );
    assert_eq!(ids(&room), ["good"]);
}

#[test]
fn a_claim_does_not_survive_the_proof_of_its_owner_in_either_order() {
    let (claim, proof) = (
        record("claim", "eve", PeerRole::ControlPlane, "s"),
        record("proof", "ada", PeerRole::Session, "s"),
    );
    let room = room();
    room.mirror(claim.clone());
    let ended = room.mirror(proof.clone()).claims;
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].record.id, PresenceId::from("claim"));
    assert_eq!(ids(&room), ["proof"]);
    assert!(room.mirror(claim.clone()).claims.is_empty());
    assert_eq!(ids(&room), ["proof"], "it does not come back");
    // As the directory has them, in whatever order.
    for records in [[claim.clone(), proof.clone()], [proof.clone(), claim]] {
        room.begin_reading().finish(records.into());
        assert_eq!(ids(&room), ["proof"]);
    }
    // The owner's own claim of it, and another key's, are nobody's business.
    for other in [
        record("own", "ada", PeerRole::ControlPlane, "s"),
        record("other", "eve", PeerRole::ControlPlane, "t"),
    ] {
        room.mirror(other);
    }
    assert_eq!(ids(&room), ["other", "own", "proof"]);
}

#[test]
fn a_claim_is_not_a_members_own_key() {
    let room = room();
    let read = room.begin_refresh();
    room.set_members(read, vec![member("ada", "ada-key", "push")], Preferred);
    room.mirror(record("claim", "eve", PeerRole::ControlPlane, "ada-key"));
    assert!(ids(&room).is_empty());
}

// --- rooms ---------------------------------------------------------------------------------

#[test]
fn a_room_is_let_go_of_when_its_reading_does_not_end() {
    let registry = Arc::new(Registry::default());
    let mesh = MeshId::from("mesh");
    let (guard, _) = registry.hold(&mesh);
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _guard = guard;
        panic!("in the middle of a reading");
    }));
    assert!(unwound.is_err());
    let later = Instant::now() + ROOM_LINGER;
    assert_eq!(registry.take_unused(later), [mesh]);
}
