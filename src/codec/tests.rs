use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::protocol::{Ack, JoinGroup, ListPeers, Priority, SetStatus, SetSummary};

fn msgpack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("a map")
}

fn kind_of(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::Malformed => "malformed",
        DecodeError::Invalid { .. } => "invalid",
    }
}

#[test]
fn a_send_is_borrowed_from_its_frame() {
    let frame = br#"{"type":"send","id":"7","targetSpec":"*","priority":"low","nonce":"bg==","ciphertext":"Y3Q="}"#;
    let request = Codec::Json.decode(frame).expect("a send");
    let ClientMessage::Send(send) = request.message else { panic!("{request:?}") };
    assert_eq!(send.id.as_deref(), Some("7"));
    let inside = |text: &str| frame.as_ptr_range().contains(&text.as_ptr());
    assert!(inside(send.ciphertext.as_text()), "the ciphertext is not copied");
    assert!(inside(&send.target_spec));
    assert_eq!(send.priority, Priority::Low);
    assert_eq!(send.ciphertext.as_text(), "Y3Q=");
}

#[test]
fn both_codings_say_the_same_and_msgpack_carries_bytes() {
    let mut frame = Vec::new();
    let mut out = rmp_serde::Serializer::new(&mut frame).with_struct_map();
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Bytes<'a> {
        r#type: &'a str,
        target_spec: &'a str,
        priority: &'a str,
        #[serde(with = "serde_bytes")]
        nonce: &'a [u8],
        #[serde(with = "serde_bytes")]
        ciphertext: &'a [u8],
    }
    let send = Bytes {
        r#type: "send",
        target_spec: "@a",
        priority: "now",
        nonce: b"n",
        ciphertext: b"ct",
    };
    send.serialize(&mut out).expect("a map");
    let request = Codec::MsgPack.decode(&frame).expect("a send");
    let ClientMessage::Send(send) = request.message else { panic!("{request:?}") };
    assert_eq!((send.nonce.as_text(), send.ciphertext.as_text()), ("bg==", "Y3Q="));
}

#[test]
fn what_is_no_object_is_malformed() {
    for frame in ["", "[]", "1", "\"hello\"", "null", "{", "{\"type\":\"send\"", "\u{feff}{}"] {
        let error = Codec::Json.decode(frame.as_bytes()).expect_err(frame);
        assert_eq!(error, DecodeError::Malformed, "{frame}");
    }
    for frame in [&[][..], &[0x90], &[0xc0], &[0x81], &[0x81, 0xa4, b't']] {
        assert_eq!(Codec::MsgPack.decode(frame).expect_err("no map"), DecodeError::Malformed);
    }
}

/// The request in a frame.
fn asked(codec: Codec, frame: &[u8]) -> Asked<'_> {
    match codec.decode(frame).expect("a request").message {
        ClientMessage::Asked(asked) => asked,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_type_that_is_not_known_here_is_left_to_who_knows_it() {
    let frame = json!({ "type": "later", "_reqId": "r" }).to_string();
    let request = Codec::Json.decode(frame.as_bytes()).expect("a request");
    assert_eq!(request.req_id, Some(RequestId::Text("r".to_owned())));
    assert_eq!(asked(Codec::Json, frame.as_bytes()).kind(), "later");
    for odd in [json!({}), json!({ "type": 7 }), json!({ "type": ["send"] })] {
        assert_eq!(asked(Codec::Json, odd.to_string().as_bytes()).kind(), "");
    }
}

#[test]
fn request_ids_are_echoed_as_they_came_and_empty_ones_are_none() {
    let req_id = |value: Value| {
        let frame = json!({ "type": "list_peers", "_reqId": value }).to_string();
        Codec::Json.decode(frame.as_bytes()).expect("list_peers").req_id
    };
    assert_eq!(req_id(json!("a b")), Some(RequestId::Text("a b".to_owned())));
    assert_eq!(req_id(json!(12)), Some(RequestId::Number(12)));
    for none in [json!(""), json!(0), json!(null), json!({ "a": 1 }), json!([1]), json!(true)] {
        assert_eq!(req_id(none), None);
    }
}

#[test]
fn a_wrong_field_is_named_and_its_value_is_not() {
    let secret = "c2VjcmV0IGNpcGhlcnRleHQ";
    for (frame, id) in [
        (
            json!({ "type": "send", "id": "s", "targetSpec": "*", "priority": secret, "nonce": "", "ciphertext": "" }),
            Some("s"),
        ),
        (
            json!({ "type": "send", "id": "s", "targetSpec": "*", "priority": "now", "nonce": "", "ciphertext": { secret: 1 } }),
            Some("s"),
        ),
        (json!({ "type": "send", "targetSpec": "*", "priority": "now", "nonce": "" }), None),
    ] {
        let error = Codec::Json.decode(frame.to_string().as_bytes()).expect_err("wrong");
        let DecodeError::Invalid { reason, id: given, .. } = &error else { panic!("{error:?}") };
        assert_eq!(given.as_deref(), id);
        assert!(!reason.contains(secret), "{reason}");
    }
    let status = json!({ "type": "set_status", "status": secret }).to_string();
    let group = json!({ "type": "join_group", "name": [secret] }).to_string();
    for reason in [
        asked(Codec::Json, status.as_bytes()).read::<SetStatus>().map(drop),
        asked(Codec::Json, group.as_bytes()).read::<JoinGroup>().map(drop),
    ] {
        let reason = reason.expect_err("wrong");
        assert!(reason.starts_with("a field is wrong: expected "), "{reason}");
        assert!(!reason.contains(secret), "{reason}");
    }
}

#[test]
fn deep_nesting_costs_nothing() {
    let deep = format!("{{\"type\":\"list_peers\",\"x\":{}", "[".repeat(60_000));
    assert_eq!(Codec::Json.decode(deep.as_bytes()).expect_err("deep"), DecodeError::Malformed);
    let mut deep = msgpack(&json!({ "type": "list_peers" }));
    deep[0] = 0x82;
    deep.extend([0xa1, b'x']);
    deep.extend(vec![0x91; 60_000]);
    assert_eq!(Codec::MsgPack.decode(&deep).expect_err("deep"), DecodeError::Malformed);
}

#[test]
fn an_answer_carries_the_request_id_in_both_codings() {
    let ack =
        Ack { id: "i".to_owned(), message_id: "m".to_owned(), queued: true, ..Ack::default() };
    let req_id = RequestId::Text("r".to_owned());
    let expected =
        json!({ "type": "ack", "id": "i", "messageId": "m", "queued": true, "_reqId": "r" });
    let frame = ServerMessage::Ack(ack.clone());
    for codec in [Codec::Json, Codec::MsgPack] {
        let as_answer = codec.encode_answer(&ack, Some(&req_id));
        assert_eq!(codec.read::<Value>(&as_answer).expect("an object"), expected);
        assert_eq!(as_answer, codec.encode(&frame, Some(&req_id)), "to the byte");
        assert_eq!(codec.encode_answer(&ack, None), codec.encode(&frame, None), "to the byte");
    }
}

proptest! {
    #[test]
    fn no_bytes_break_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for codec in [Codec::Json, Codec::MsgPack] {
            let _ = codec.decode(&bytes);
        }
    }

    /// Frames that are nearly right: a real one with bytes changed.
    #[test]
    fn no_mutation_breaks_the_decoder(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let frame = json!({
            "type": "hello", "meshId": "m", "memberId": "i", "pubkey": "p", "pid": 1,
            "groups": [{ "name": "g" }], "timestamp": 1, "signature": "s", "_reqId": "r",
        });
        for (codec, mut bytes) in [
            (Codec::Json, frame.to_string().into_bytes()),
            (Codec::MsgPack, msgpack(&frame)),
        ] {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
            let _ = codec.decode(&bytes);
        }
    }

    #[test]
    fn a_send_comes_through_both_codings_unchanged(
        id in ".{0,20}", target in ".{0,40}", nonce in ".{0,40}", ciphertext in ".{0,80}",
        client_message_id in prop::option::of(".{0,20}"),
    ) {
        let send = json!({
            "type": "send", "id": id, "targetSpec": target, "priority": "next",
            "nonce": nonce, "ciphertext": ciphertext, "client_message_id": client_message_id,
        });
        for (codec, bytes) in
            [(Codec::Json, send.to_string().into_bytes()), (Codec::MsgPack, msgpack(&send))]
        {
            let request = codec.decode(&bytes).expect("a send");
            let ClientMessage::Send(back) = request.message else { panic!("no send") };
            prop_assert_eq!(back.id.as_deref(), Some(id.as_str()));
            prop_assert_eq!(&back.target_spec, &target);
            prop_assert_eq!(back.nonce.as_text(), nonce.as_str());
            prop_assert_eq!(back.ciphertext.as_text(), ciphertext.as_str());
            prop_assert_eq!(back.client_message_id.as_deref(), client_message_id.as_deref());
        }
    }
}

/// What JSON.stringify makes of a string that was cut within a character.
const HALF: &str = r"\ud83d";

#[test]
fn half_a_surrogate_in_text_becomes_a_replacement_character() {
    let frame = format!(
        r#"{{"type":"hello","meshId":"m","displayName":"a{HALF}","cwd":"/{HALF}","model":"{HALF}"}}"#
    );
    let ClientMessage::Hello(Greeting::Member(hello)) =
        Codec::Json.decode(frame.as_bytes()).expect("read").message
    else {
        panic!("a hello")
    };
    assert_eq!(hello.about.display_name.as_deref(), Some("a\u{fffd}"));
    assert_eq!((hello.mesh_id.as_str(), hello.about.cwd.as_str()), ("m", "/\u{fffd}"));
    let frame = format!(r#"{{"type":"set_summary","_reqId":"{HALF}","summary":"x{HALF}y"}}"#);
    let request = Codec::Json.decode(frame.as_bytes()).expect("read");
    assert_eq!(request.req_id, Some(RequestId::Text("\u{fffd}".to_owned())));
    let ClientMessage::Asked(asked) = request.message else { panic!("a summary") };
    assert_eq!(asked.read::<SetSummary>().expect("a summary").summary, "x\u{fffd}y");
    let frame = format!(r#"{{"type":"set_summary","summary":"{HALF}"}}"#);
    let summary: SetSummary = self::asked(Codec::Json, frame.as_bytes()).read().expect("read");
    assert_eq!(summary.summary, "\u{fffd}", "also where the head is whole");
}

#[test]
fn half_a_surrogate_in_a_send_is_refused_and_not_changed() {
    for field in ["targetSpec", "client_message_id", "ciphertext"] {
        let mut send = json!({
            "type": "send", "id": "7", "_reqId": "r", "targetSpec": "*", "priority": "now",
            "nonce": "", "ciphertext": "", "client_message_id": "c",
        });
        send[field] = json!("HERE");
        let frame = send.to_string().replace("HERE", HALF);
        let error = Codec::Json.decode(frame.as_bytes()).expect_err("refused");
        let DecodeError::Invalid { kind: "send", req_id, id, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(id.as_deref(), Some("7"));
        assert_eq!(req_id, Some(RequestId::Text("r".to_owned())));
    }
}

#[test]
fn an_unknown_field_is_skipped_whatever_it_holds() {
    let deep = format!("{}{}", "[".repeat(130), "]".repeat(130));
    let digits = "9".repeat(400);
    let odd =
        [format!("\"{HALF}\""), "1e400".to_owned(), digits, deep, format!("{{\"{HALF}\":1}}")];
    for request in [
        json!({ "type": "hello", "pubkey": "k" }),
        json!({ "type": "session_hello", "pubkey": "k" }),
        json!({ "type": "set_summary", "summary": "s" }),
        json!({ "type": "list_peers" }),
        json!({
            "type": "send", "targetSpec": "*", "priority": "now", "nonce": "", "ciphertext": "",
        }),
    ] {
        for value in &odd {
            let text = request.to_string();
            let frame = format!("{},\"later\":{value}}}", &text[..text.len() - 1]);
            let decoded = Codec::Json.decode(frame.as_bytes());
            assert!(decoded.is_ok(), "{decoded:?}: {frame}");
            if let Ok(Request { message: ClientMessage::Asked(asked), .. }) = decoded {
                let read = asked.read::<SetSummary>().map(drop);
                assert_eq!(read, Ok(()), "{frame}");
            }
        }
    }
}

#[test]
fn an_extension_of_msgpack_is_no_malformed_frame() {
    // {"type": "list_peers", "id": fixext 1, "new": fixext 1}
    let mut frame = vec![0x83];
    for (name, value) in [("type", None), ("id", Some(())), ("new", Some(()))] {
        frame.push(0xa0 | u8::try_from(name.len()).expect("short"));
        frame.extend(name.as_bytes());
        match value {
            None => {
                frame.push(0xaa);
                frame.extend(b"list_peers");
            }
            Some(()) => frame.extend([0xd4, 0x05, 0x00]),
        }
    }
    let request = Codec::MsgPack.decode(&frame).expect("a request");
    let ClientMessage::Asked(asked) = request.message else { panic!("{request:?}") };
    assert!(asked.kind() == "list_peers" && asked.read::<ListPeers>().is_ok());
    // A hello, with one where text is wanted: refused as a hello.
    let hello = frame_with_extension("hello", "cwd");
    assert_eq!(kind_of(&Codec::MsgPack.decode(&hello).expect_err("no text")), "invalid");
    let send = frame_with_extension("send", "id");
    assert_eq!(kind_of(&Codec::MsgPack.decode(&send).expect_err("no text")), "invalid");
}

fn frame_with_extension(kind: &str, field: &str) -> Vec<u8> {
    let mut frame = vec![0x82, 0xa4];
    frame.extend(b"type");
    for text in [kind, field] {
        frame.push(0xa0 | u8::try_from(text.len()).expect("short"));
        frame.extend(text.as_bytes());
    }
    frame.extend([0xd4, 0x05, 0x00]);
    frame
}
