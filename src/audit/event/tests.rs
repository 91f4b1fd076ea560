use proptest::prelude::*;

use super::*;
use crate::protocol::{Ask as _, VaultSet};

fn sent(target: &str) -> AuditEvent {
    AuditEvent::MessageSent { target: target.to_owned(), priority: Priority::Now }
}

fn joined() -> AuditEvent {
    let groups = vec![Group { name: "a/b".to_owned(), role: None }];
    AuditEvent::PeerJoined { pubkey: Key::from("ab"), groups, restored: false }
}

/// Hellos cannot grow the chain by what they say of themselves.
#[test]
fn a_row_names_groups_up_to_a_budget_and_counts_the_rest() {
    let name = "\u{1}".repeat(128);
    let groups = vec![Group { name, role: None }; 64];
    let event = AuditEvent::PeerJoined { pubkey: Key::from("ab"), groups, restored: false };
    let payload = event.payload();
    assert_eq!(payload["groups"].as_array().map(Vec::len), Some(1));
    assert_eq!(payload["groupsLeftOut"], 63);
    assert!(event.canonical_payload().len() < limits::AUDIT_GROUPS_BYTES_MAX + 256);
}

#[test]
fn payloads_are_the_recorded_ones() {
    let (key, target) = (Key::from("ab"), "x".to_owned());
    let session = AuditEvent::SessionJoined {
        pubkey: key.clone(),
        session_pubkey: Key::from("cd"),
        groups: Vec::new(),
    };
    let banned = AuditEvent::MemberBanned { target: target.clone(), target_pubkey: key.clone() };
    let kicked = AuditEvent::PeerKicked { target: target.clone(), target_pubkey: key.clone() };
    let role = "admin";
    let expired = AuditEvent::Expired { message_id: MessageId::from("m1"), target };
    for (event, name, payload) in [
        (
            joined(),
            "peer_joined",
            r#"{"groups":[{"name":"a/b"}],"pubkey":"ab","restored":false,"role":"control-plane"}"#,
        ),
        (
            session,
            "peer_joined",
            r#"{"groups":[],"pubkey":"ab","role":"session","session_pubkey":"cd","via":"session_hello"}"#,
        ),
        (AuditEvent::PeerLeft, "peer_left", "{}"),
        (sent("*"), "message_sent", r#"{"priority":"now","targetSpec":"*"}"#),
        (kicked, "peer_kicked", r#"{"target":"x","targetPubkey":"ab"}"#),
        (banned, "member_banned", r#"{"target":"x","targetPubkey":"ab"}"#),
        (
            AuditEvent::MemberUnbanned { target: "x".to_owned() },
            "member_unbanned",
            r#"{"target":"x"}"#,
        ),
        (
            AuditEvent::MemberRoleChanged { target_pubkey: key.clone(), role },
            "member_role_changed",
            r#"{"role":"admin","targetPubkey":"ab"}"#,
        ),
        (
            AuditEvent::MemberJoined { pubkey: key, role },
            "member_joined",
            r#"{"pubkey":"ab","role":"admin"}"#,
        ),
        (expired, "expired", r#"{"messageId":"m1","targetSpec":"x"}"#),
        (AuditEvent::StateSet { key: "k".to_owned() }, "state_set", r#"{"key":"k"}"#),
        (AuditEvent::MemoryStored { id: "m".to_owned() }, "memory_stored", r#"{"memoryId":"m"}"#),
        (AuditEvent::SkillShared { name: "s".to_owned() }, "skill_shared", r#"{"name":"s"}"#),
        (AuditEvent::ContextShared, "context_shared", "{}"),
        (AuditEvent::VaultSet { key: "k".to_owned() }, VaultSet::TYPE, r#"{"key":"k"}"#),
        (
            AuditEvent::ApikeyCreated {
                key_id: "k".to_owned(),
                label: "ci".to_owned(),
                capabilities: vec![ApiCapability::Read],
            },
            "apikey_created",
            r#"{"capabilities":["read"],"keyId":"k","label":"ci"}"#,
        ),
        (
            AuditEvent::ApikeyRevoked { key_id: "k".to_owned() },
            "apikey_revoked",
            r#"{"keyId":"k"}"#,
        ),
        (AuditEvent::VaultDeleted { key: "k".to_owned() }, "vault_deleted", r#"{"key":"k"}"#),
    ] {
        assert_eq!(event.event_type(), name);
        assert_eq!(event.canonical_payload(), payload, "{name}");
    }
}

proptest! {
    #[test]
    fn the_fast_path_makes_the_same_text(target: String, priority: String) {
        let slow = canonical_json(&json!({"targetSpec": target, "priority": priority}));
        prop_assert_eq!(message_sent_payload(&target, &priority), slow);
        let event = AuditEvent::MessageSent { target, priority: Priority::Next };
        prop_assert_eq!(event.canonical_payload(), canonical_json(&event.payload()));
    }
}
