//! A query as SQLite's full-text search is to read it. Pure.
//!
//! Whatever a peer writes is words and never syntax: each word stands in quotes, and
//! words that Postgres's English dictionary passes over are passed over here too.

use std::collections::BTreeSet;

use crate::id::MeshId;

/// What to search for: rows of that mesh that have all words of the query. `None`: the
/// query has no words that count.
pub(super) fn search_of(mesh: &MeshId, query: &str) -> Option<String> {
    let lower = query.to_lowercase();
    let words: BTreeSet<&str> = lower
        .split(|c: char| !is_of_word(c))
        .filter(|word| word.contains(char::is_alphanumeric) && !is_passed_over(word))
        .collect();
    if words.is_empty() {
        return None;
    }
    let quoted: Vec<String> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
    let mesh: String = mesh.as_str().chars().filter(|c| is_of_word(*c)).collect();
    Some(format!("mesh : \"{mesh}\" AND {{content tags}} : ({})", quoted.join(" ")))
}

/// Letters, digits, and the accents that follow a letter.
fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || ('\u{300}'..='\u{36f}').contains(&c)
}

fn is_passed_over(word: &str) -> bool {
    PASSED_OVER.contains(&word)
}

/// Words that say nothing of a text, as Postgres's English dictionary has them.
const PASSED_OVER: [&str; 127] = [
    "i",
    "me",
    "my",
    "myself",
    "we",
    "our",
    "ours",
    "ourselves",
    "you",
    "your",
    "yours",
    "yourself",
    "yourselves",
    "he",
    "him",
    "his",
    "himself",
    "she",
    "her",
    "hers",
    "herself",
    "it",
    "its",
    "itself",
    "they",
    "them",
    "their",
    "theirs",
    "themselves",
    "what",
    "which",
    "who",
    "whom",
    "this",
    "that",
    "these",
    "those",
    "am",
    "is",
    "are",
    "was",
    "were",
    "be",
    "been",
    "being",
    "have",
    "has",
    "had",
    "having",
    "do",
    "does",
    "did",
    "doing",
    "a",
    "an",
    "the",
    "and",
    "but",
    "if",
    "or",
    "because",
    "as",
    "until",
    "while",
    "of",
    "at",
    "by",
    "for",
    "with",
    "about",
    "against",
    "between",
    "into",
    "through",
    "during",
    "before",
    "after",
    "above",
    "below",
    "to",
    "from",
    "up",
    "down",
    "in",
    "out",
    "on",
    "off",
    "over",
    "under",
    "again",
    "further",
    "then",
    "once",
    "here",
    "there",
    "when",
    "where",
    "why",
    "how",
    "all",
    "any",
    "both",
    "each",
    "few",
    "more",
    "most",
    "other",
    "some",
    "such",
    "no",
    "nor",
    "not",
    "only",
    "own",
    "same",
    "so",
    "than",
    "too",
    "very",
    "s",
    "t",
    "can",
    "will",
    "just",
    "don",
    "should",
    "now",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn search(query: &str) -> Option<String> {
        search_of(&MeshId::from("m1"), query)
    }

    #[test]
    fn whatever_is_asked_is_words_and_no_syntax() {
        let words = |text: &str| Some(format!("mesh : \"m1\" AND {{content tags}} : ({text})"));
        assert_eq!(search("The builds"), words("\"builds\""));
        assert_eq!(search("a\" OR tags:* NEAR(x)"), words("\"near\" \"tags\" \"x\""));
        assert_eq!(search("foo-bar foo_bar"), words("\"bar\" \"foo\""));
        assert_eq!(search("Größe cafe\u{301}"), words("\"cafe\u{301}\" \"größe\""));
    }

    #[test]
    fn a_query_without_words_that_count_searches_for_nothing() {
        for query in ["", " \"'*^(){}:-+,. ", "to be or not to be", "the", "\0", "\u{301}"] {
            assert_eq!(search(query), None, "{query:?}");
        }
    }
}
