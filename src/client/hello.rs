//! The first frame: who this is, with the proof.

use serde_json::{Map, Value, json};

use super::options::{ClientOptions, HelloKind};
use crate::auth::{SecretKey, sign_attestation, sign_hello, sign_session_hello};
use crate::clock::Timestamp;

/// How long a member's word for a session key holds. It is given anew with
/// each hello.
const ATTESTATION_MS: i64 = 12 * 60 * 60 * 1000;

/// A hello signed at `now`. Every connection needs its own: a signature is
/// good once.
pub(crate) fn hello(options: &ClientOptions, session_key: &SecretKey, now: Timestamp) -> Value {
    let identity = &options.identity;
    let member_pubkey = identity.member_pubkey();
    let session_pubkey = session_key.public_key();
    let mut frame = about(options);
    let proof = match options.hello {
        HelloKind::Session => {
            let expires_at = now.plus_ms(ATTESTATION_MS);
            json!({
                "type": "session_hello",
                "meshId": identity.mesh,
                "parentMemberId": identity.member,
                "parentMemberPubkey": member_pubkey,
                "sessionPubkey": session_pubkey,
                "parentAttestation": {
                    "sessionPubkey": session_pubkey,
                    "parentMemberPubkey": member_pubkey,
                    "expiresAt": expires_at.as_ms(),
                    "signature": sign_attestation(&identity.member_key, &session_pubkey, expires_at),
                },
                "signature": sign_session_hello(session_key, &identity.mesh, &member_pubkey, now),
            })
        }
        HelloKind::Member | HelloKind::MemberWithSessionKey => json!({
            "type": "hello",
            "meshId": identity.mesh,
            "memberId": identity.member,
            "pubkey": member_pubkey,
            "signature": sign_hello(&identity.member_key, &identity.mesh, &identity.member, now),
        }),
    };
    if let Value::Object(proof) = proof {
        frame.extend(proof);
    }
    if options.hello == HelloKind::MemberWithSessionKey {
        frame.insert("sessionPubkey".to_owned(), json!(session_pubkey));
    }
    if options.visit && options.hello != HelloKind::Session {
        frame.insert("visit".to_owned(), json!(true));
    }
    frame.insert("timestamp".to_owned(), json!(now.as_ms()));
    Value::Object(frame)
}

fn about(options: &ClientOptions) -> Map<String, Value> {
    let mut about = options.about.clone();
    about.display_name.clone_from(&options.identity.display_name);
    match serde_json::to_value(about) {
        Ok(Value::Object(fields)) => fields,
        // Text and numbers always have a form.
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{
        Attestation, HelloProof, SessionHelloProof, verify_attestation, verify_hello,
        verify_session_hello,
    };
    use crate::client::Identity;
    use crate::codec::{ClientMessage, Codec};
    use crate::id::{MemberId, MeshId};
    use crate::protocol::Greeting;

    const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

    fn frame(kind: HelloKind) -> (ClientOptions, SecretKey, Vec<u8>) {
        let identity =
            Identity::new(MeshId::from("m1"), MemberId::from("a"), SecretKey::generate());
        let options = ClientOptions::new(identity.named("ada"), kind, "test");
        let session = SecretKey::generate();
        let bytes = Codec::Json.write(&hello(&options, &session, NOW)).expect("an object");
        (options, session, bytes)
    }

    #[test]
    fn a_hello_passes_the_brokers_check() {
        for kind in [HelloKind::Member, HelloKind::MemberWithSessionKey] {
            let (options, session, bytes) = frame(kind);
            let message = Codec::Json.decode(&bytes).expect("a hello").message;
            let ClientMessage::Hello(Greeting::Member(hello)) = message else { panic!("no hello") };
            let proof = HelloProof {
                mesh_id: &hello.mesh_id,
                member_id: &hello.member_id,
                pubkey: &hello.pubkey,
                timestamp: hello.timestamp,
                signature: &hello.signature,
            };
            assert_eq!(verify_hello(proof, NOW), Ok(()));
            assert_eq!(hello.about.display_name.as_deref(), Some("ada"));
            assert_eq!(hello.about.session_id, options.about.session_id);
            let expected = (kind == HelloKind::MemberWithSessionKey)
                .then(|| Value::from(session.public_key().as_str()));
            assert_eq!(hello.session_pubkey, expected);
        }
    }

    #[test]
    fn a_hello_says_that_it_is_a_visit_only_if_it_is() {
        let (mut options, session, _) = frame(HelloKind::MemberWithSessionKey);
        assert_eq!(hello(&options, &session, NOW).get("visit"), None);
        options.visit = true;
        assert_eq!(hello(&options, &session, NOW)["visit"], true);
        options.hello = HelloKind::Session;
        assert_eq!(hello(&options, &session, NOW).get("visit"), None);
    }

    #[test]
    fn a_session_hello_passes_the_brokers_check() {
        let (_, session, bytes) = frame(HelloKind::Session);
        let message = Codec::Json.decode(&bytes).expect("a hello").message;
        let ClientMessage::Hello(Greeting::Session(hello)) = message else {
            panic!("no session_hello")
        };
        let word = hello.parent_attestation.expect("given");
        let attestation = Attestation {
            session_pubkey: &word.session_pubkey,
            parent_pubkey: &word.parent_member_pubkey,
            expires_at: word.expires_at,
            signature: &word.signature,
        };
        assert_eq!(verify_attestation(attestation, NOW), Ok(()));
        let proof = SessionHelloProof {
            mesh_id: &hello.mesh_id,
            parent_pubkey: &hello.parent_member_pubkey,
            session_pubkey: &hello.session_pubkey,
            timestamp: hello.timestamp,
            signature: &hello.signature,
        };
        assert_eq!(verify_session_hello(proof, NOW), Ok(()));
        assert_eq!(hello.session_pubkey, session.public_key().as_str());
    }
}
