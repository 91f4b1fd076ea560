//! One more field at the end of a frame that is encoded already.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::Codec;

/// Maps of up to 15 fields have their number in their first byte.
const FIXMAP: u8 = 0x80;
/// Larger ones have it in the two bytes after this one.
const MAP16: u8 = 0xde;

/// The frame, which is one object, with that field. A frame that is none comes back as it
/// is: the broker's own always are.
pub(super) fn with_text(codec: Codec, frame: &Bytes, name: &str, value: &str) -> Bytes {
    let extended = match codec {
        Codec::Json => json(frame, name, value),
        Codec::MsgPack => msgpack(frame, name, value),
    };
    debug_assert!(extended.is_some(), "a frame of the broker is one object");
    extended.unwrap_or_else(|| frame.clone())
}

fn json(frame: &[u8], name: &str, value: &str) -> Option<Bytes> {
    let fields = frame.strip_suffix(b"}")?;
    let mut out = BytesMut::with_capacity(frame.len() + name.len() + value.len() + 8).writer();
    out.get_mut().put_slice(fields);
    if fields != b"{" {
        out.get_mut().put_u8(b',');
    }
    serde_json::to_writer(&mut out, name).ok()?;
    out.get_mut().put_u8(b':');
    serde_json::to_writer(&mut out, value).ok()?;
    out.get_mut().put_u8(b'}');
    Some(out.into_inner().freeze())
}

fn msgpack(frame: &[u8], name: &str, value: &str) -> Option<Bytes> {
    let (count, fields) = match frame {
        [first @ FIXMAP..0x90, fields @ ..] => (u16::from(first - FIXMAP), fields),
        [MAP16, high, low, fields @ ..] => (u16::from_be_bytes([*high, *low]), fields),
        _ => return None,
    };
    let mut out = BytesMut::with_capacity(frame.len() + name.len() + value.len() + 8);
    out.put_u8(MAP16);
    out.put_u16(count.checked_add(1)?);
    out.put_slice(fields);
    for text in [name, value] {
        out.put_slice(&rmp_serde::to_vec(text).ok()?);
    }
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_frame_with_one_more_field_reads_as_if_it_had_been_encoded_with_it() {
        for count in [0, 1, 14, 15, 16, 300] {
            let fields = (0..count).map(|number| (format!("field {number}"), json!(number)));
            let object: serde_json::Map<String, Value> = fields.collect();
            let mut expected = object.clone();
            expected.insert("sealed\"Key".to_owned(), json!("a \"value\" \u{1f511}\n"));
            for codec in [Codec::Json, Codec::MsgPack] {
                let frame = Bytes::from(codec.write(&object).expect("encoded"));
                let text = expected["sealed\"Key"].as_str().expect("text");
                let extended = with_text(codec, &frame, "sealed\"Key", text);
                let read: serde_json::Map<String, Value> = codec.read(&extended).expect("read");
                assert_eq!(read, expected, "{codec:?} {count}");
            }
        }
    }
}
