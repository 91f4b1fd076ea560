//! How much of a frame a value takes: its length as JSON. Pure.
//!
//! Bounds on what peers choose are in these bytes, not in those of the text: a
//! control character is one byte in memory and six in a frame. (MessagePack has
//! no escapes and is never longer.)

use std::io;

use serde::Serialize;

use super::Group;

/// How many bytes a text takes between its quotes.
#[must_use]
pub fn text_bytes(text: &str) -> usize {
    text.bytes().map(escaped_bytes).sum()
}

const fn escaped_bytes(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// The beginning of a text that takes at most `bytes_max`, cut at a character's
/// edge.
#[must_use]
pub fn cut(text: &str, bytes_max: usize) -> &str {
    // Most are short, and need no look at each byte.
    if text.len() * 6 <= bytes_max {
        return text;
    }
    let mut taken = 0;
    for (at, byte) in text.bytes().enumerate() {
        taken += escaped_bytes(byte);
        if taken > bytes_max {
            return &text[..text.floor_char_boundary(at)];
        }
    }
    text
}

/// [`cut`] in place.
pub fn cut_string(text: &mut String, bytes_max: usize) {
    text.truncate(cut(text, bytes_max).len());
}

/// How many bytes a value takes; `usize::MAX` for one that has no form.
#[must_use]
pub fn value_bytes<T: Serialize + ?Sized>(value: &T) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, value).map_or(usize::MAX, |()| counter.0)
}

/// How many bytes a group takes in a list.
#[must_use]
pub fn group_bytes(group: &Group) -> usize {
    // {"name":"","role":""},
    let role = group.role.as_ref().map_or(0, |role| 10 + text_bytes(role));
    12 + text_bytes(&group.name) + role
}

/// The groups, in their order, that take at most `bytes_max`; how many there are
/// beside those.
#[must_use]
pub fn groups_within(groups: &[Group], bytes_max: usize) -> (&[Group], usize) {
    let mut taken = 0;
    let fits = groups.iter().take_while(|group| {
        taken += group_bytes(group);
        taken <= bytes_max
    });
    let fitting = fits.count();
    (&groups[..fitting], groups.len() - fitting)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_counted_as_it_is_written(text: String) {
            let written = serde_json::to_string(&text).expect("a text");
            prop_assert_eq!(text_bytes(&text) + 2, written.len());
            prop_assert_eq!(value_bytes(&text), written.len());
        }

        #[test]
        fn a_cut_is_the_longest_beginning_that_fits(text in "[a\u{1}\"\\\\\né€🦀]{0,40}", max in 0_usize..60) {
            let kept = cut(&text, max);
            prop_assert!(text.starts_with(kept));
            prop_assert!(text_bytes(kept) <= max);
            if let Some(next) = text[kept.len()..].chars().next() {
                prop_assert!(text_bytes(kept) + text_bytes(&next.to_string()) > max);
            }
        }

        #[test]
        fn groups_are_counted_as_they_are_written(names in prop::collection::vec(("[a\u{1}\"é]{0,20}", prop::option::of("[b\u{2}]{0,9}")), 0..8)) {
            let groups: Vec<Group> =
                names.into_iter().map(|(name, role)| Group { name, role }).collect();
            let counted: usize = groups.iter().map(group_bytes).sum();
            let written = serde_json::to_string(&groups).expect("a list").len();
            // The brackets, and no comma after the last.
            prop_assert_eq!(counted + 2, written + usize::from(!groups.is_empty()));
        }
    }
}
