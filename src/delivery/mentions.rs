//! Whom a post mentions, by name. Pure.

use crate::limits;
use crate::protocol::names_mentioned;
use crate::sealing;

/// The names that a post mentions, in lower case and each once: those that its sender
/// gave, else those after an `@` in a text that can be read.
pub(super) fn of(given: Option<&[String]>, body_version: i32, ciphertext: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        let name = name.to_lowercase();
        let fits = !name.is_empty() && name.len() <= limits::MENTION_BYTES_MAX;
        if fits && names.len() < limits::MENTIONS_MAX && !names.contains(&name) {
            names.push(name);
        }
    };
    match given {
        Some(given) if !given.is_empty() => {
            for name in given {
                add(name.strip_prefix('@').unwrap_or(name));
            }
        }
        _ if body_version == 1 => {
            if let Some(text) = sealing::open_plain(ciphertext) {
                names_mentioned(&text).for_each(add);
            }
        }
        _ => {}
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(text: &str) -> Vec<String> {
        of(None, 1, &sealing::plain(text).ciphertext_b64)
    }

    #[test]
    fn names_follow_an_at_sign_that_is_in_no_word() {
        assert_eq!(named("@Ada, see @bob-2 and a@b, (@c_d) @@e @ f"), ["ada", "bob-2", "c_d", "e"]);
        assert_eq!(named("@ada @ADA"), ["ada"], "each once");
        assert_eq!(named("@a"), ["a"]);
        assert!(named(&format!("@{}", "x".repeat(65))).is_empty(), "no name is so long");
    }

    #[test]
    fn what_the_sender_gives_counts_and_nothing_is_read_in_a_sealed_text() {
        let given = ["@Ada".to_owned(), "bob".to_owned(), "@".to_owned()];
        let text = sealing::plain("@eve").ciphertext_b64;
        assert_eq!(of(Some(&given), 2, &text), ["ada", "bob"]);
        assert!(of(None, 2, &text).is_empty());
        assert_eq!(of(Some(&[]), 1, &text), ["eve"]);
        assert!(of(None, 1, "no base64!").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_mentions_more_than_may_be(text in "[@a-dé -]{0,200}") {
            let names = named(&text);
            prop_assert!(names.len() <= limits::MENTIONS_MAX);
            prop_assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))));
        }
    }
}
