//! Texts to remember, and words to find them by: made of numbers, so that every run has
//! the same. A few of the words are in many texts, and most are in few.

/// Different words.
const WORDS: u64 = 5_000;

/// A number that looks like chance.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A word of four syllables: no stem of another, and nothing that a search passes over.
fn word(number: u64) -> String {
    const CONSONANTS: &[u8] = b"bdfgklmnprtvz";
    const VOWELS: &[u8] = b"aou";
    let (mut rest, mut word) = (number, String::new());
    for _ in 0..4 {
        for letters in [CONSONANTS, VOWELS] {
            let count = letters.len() as u64;
            word.push(char::from(letters[usize::try_from(rest % count).unwrap_or_default()]));
            rest /= count;
        }
    }
    word
}

/// The word at that place of a text: low numbers are more frequent, by the square.
fn word_of(text: u64, place: u64) -> String {
    let drawn = mixed(text << 8 | place) % (WORDS * WORDS);
    word(WORDS - 1 - drawn.isqrt())
}

/// The text of that number, of about so many bytes.
pub(super) fn text(number: u64, bytes: usize) -> String {
    let places = (bytes / 9).max(2) as u64;
    (0..places).map(|place| word_of(number, place)).collect::<Vec<_>>().join(" ")
}

/// Two words that the text of that number has.
pub(super) fn query(number: u64, bytes: usize, turn: u64) -> String {
    let places = (bytes / 9).max(2) as u64;
    let first = mixed(turn) % places;
    let second = (first + 1 + mixed(turn + 1) % (places - 1)) % places;
    format!("{} {}", word_of(number, first), word_of(number, second))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_differ_and_a_query_has_two_of_its_text() {
        let words: HashSet<String> = (0..WORDS).map(word).collect();
        assert_eq!(words.len() as u64, WORDS);
        for turn in 0..1_000 {
            let (text, query) = (text(turn % 7, 200), query(turn % 7, 200, turn));
            assert!(query.split(' ').all(|word| text.contains(word)), "{query} of {text}");
        }
    }

    #[test]
    fn some_words_are_in_many_texts_and_most_in_few() {
        let texts: Vec<String> = (0..10_000).map(|number| text(number, 200)).collect();
        let with = |number| texts.iter().filter(|text| text.contains(&word(number))).count();
        let (first, middle) = (with(0), with(WORDS / 2));
        assert!(first > middle && middle > 5, "{first} and {middle}");
    }
}
