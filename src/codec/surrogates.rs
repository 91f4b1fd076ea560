//! Halves of surrogate pairs in JSON text. `JSON.stringify` writes them for a
//! string that was cut within a character; they are no Unicode text.

/// The frame with each half replaced by U+FFFD; `None` if there is none.
pub(super) fn mended(frame: &[u8]) -> Option<Vec<u8>> {
    let mut mended: Option<Vec<u8>> = None;
    let mut done = 0;
    let mut at = 0;
    while let Some(found) = frame[at..].iter().position(|byte| *byte == b'\\') {
        at += found;
        let Some(first) = escaped_at(frame, at) else {
            // Another escape: its character may itself be a backslash.
            at = (at + 2).min(frame.len());
            continue;
        };
        let is_pair = (0xd800..0xdc00).contains(&first)
            && escaped_at(frame, at + ESCAPE).is_some_and(|next| (0xdc00..0xe000).contains(&next));
        if is_pair {
            at += 2 * ESCAPE;
            continue;
        }
        if (0xd800..0xe000).contains(&first) {
            let out = mended.get_or_insert_with(|| Vec::with_capacity(frame.len()));
            out.extend_from_slice(&frame[done..at]);
            out.extend_from_slice(b"\\ufffd");
            done = at + ESCAPE;
        }
        at += ESCAPE;
    }
    let mut out = mended?;
    out.extend_from_slice(&frame[done..]);
    Some(out)
}

/// `\u` and four digits.
const ESCAPE: usize = 6;

/// The code unit that is escaped there.
fn escaped_at(frame: &[u8], at: usize) -> Option<u16> {
    let digits = frame.get(at..at + ESCAPE)?.strip_prefix(b"\\u")?;
    let digits = std::str::from_utf8(digits).ok()?;
    let are_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    are_hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn halves_are_replaced_and_nothing_else() {
        for whole in [r#"{"a":"\ud83d\ude00"}"#, r#"["\\ud83d"]"#, r#"["\n\u0041"]"#, "\\", "\\u12"]
        {
            assert_eq!(mended(whole.as_bytes()), None, "{whole}");
        }
        for (cut, expected) in [
            (r#"["\ud83d"]"#, r#"["\ufffd"]"#),
            (r#"["\ude00\ud83d"]"#, r#"["\ufffd\ufffd"]"#),
            (r#"["\ud83d\ud83d\ude00x"]"#, r#"["\ufffd\ud83d\ude00x"]"#),
            (r#"["\\\uD800\n"]"#, r#"["\\\ufffd\n"]"#),
            (r#"["\ud83d\u0041"]"#, r#"["\ufffd\u0041"]"#),
        ] {
            let found = mended(cut.as_bytes()).expect("a half");
            assert_eq!(String::from_utf8(found).expect("as before"), expected, "{cut}");
        }
    }

    proptest! {
        #[test]
        fn what_is_mended_can_be_read(
            parts in prop::collection::vec(
                prop::sample::select(vec!["\\ud83d", "\\ude00", "\\\\", "\\n", "u", "d800", "é"]), 0..12)
        ) {
            let text = format!("[\"{}\"]", parts.concat());
            let mended = mended(text.as_bytes()).unwrap_or_else(|| text.clone().into_bytes());
            prop_assert!(serde_json::from_slice::<Value>(&mended).is_ok(), "{}", text);
        }
    }
}
