//! Whom a word means. Who is removed is never guessed: names are the peers' own
//! choice, so a word that may mean two members means neither. Pure.

use crate::id::{Key, MemberId};
use crate::limits;
use crate::record::PresenceRecord;
use crate::store::Member;

/// A member that the word may mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate<'a> {
    pub(super) member: &'a MemberId,
    pub(super) key: &'a Key,
    /// The name that it was enrolled under, as far as it is known.
    pub(super) enrolled: Option<&'a str>,
    /// The name of a presence.
    pub(super) session_name: Option<&'a str>,
}

impl<'a> Candidate<'a> {
    pub(super) fn of_member(member: &'a Member) -> Self {
        Self {
            member: &member.id,
            key: &member.key,
            enrolled: Some(&member.display_name),
            session_name: None,
        }
    }

    pub(super) fn of_presence(record: &'a PresenceRecord, member: Option<&'a Member>) -> Self {
        Self {
            member: &record.member,
            key: &record.member_key,
            enrolled: member.map(|member| member.display_name.as_str()),
            session_name: Some(&record.display_name),
        }
    }

    fn has_name(&self, word: &str) -> bool {
        self.enrolled == Some(word) || self.session_name == Some(word)
    }

    fn key_begins(&self, word: &str) -> bool {
        word.len() >= limits::KEY_PREFIX_DIGITS_MIN && self.key.as_str().starts_with(word)
    }

    /// For a sentence: the name, the key, and under which other name it is here.
    fn describe(&self) -> String {
        let name = self.enrolled.or(self.session_name).unwrap_or("a member");
        match self.session_name.filter(|session| *session != name) {
            Some(session) => format!("{name} ({}, here as {session:?})", self.key.short()),
            None => format!("{name} ({})", self.key.short()),
        }
    }
}

/// What a word means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<T> {
    /// The presences or members meant, all of one member.
    These(Vec<T>),
    Nobody,
    /// More than one member: the sentence that says so.
    Ambiguous(String),
}

/// Those whom `word` means. A whole key wins over every name; a name, enrolled or of
/// a session, over the beginning of a key.
pub(super) fn meant<'a, T>(
    word: &str,
    choices: impl IntoIterator<Item = (T, Candidate<'a>)>,
) -> Meaning<T> {
    let (mut by_key, mut by_name, mut by_prefix) = (Vec::new(), Vec::new(), Vec::new());
    for (what, candidate) in choices {
        if candidate.key.as_str() == word {
            by_key.push((what, candidate));
        } else if candidate.has_name(word) {
            by_name.push((what, candidate));
        } else if candidate.key_begins(word) {
            by_prefix.push((what, candidate));
        }
    }
    let found = [by_key, by_name, by_prefix].into_iter().find(|found| !found.is_empty());
    let Some(found) = found else { return Meaning::Nobody };
    let mut members: Vec<&Candidate<'_>> = Vec::new();
    for (_, candidate) in &found {
        if !members.iter().any(|known| known.member == candidate.member) {
            members.push(candidate);
        }
    }
    if members.len() > 1 {
        return Meaning::Ambiguous(ambiguous(word, &members));
    }
    Meaning::These(found.into_iter().map(|(what, _)| what).collect())
}

fn ambiguous(word: &str, members: &[&Candidate<'_>]) -> String {
    let shown = members.iter().take(limits::CANDIDATES_MAX).map(|candidate| candidate.describe());
    let mut list = shown.collect::<Vec<_>>().join(", ");
    if members.len() > limits::CANDIDATES_MAX {
        list.push_str(", and others");
    }
    let digits = limits::KEY_PREFIX_DIGITS_MIN;
    format!(
        "{word:?} may mean any of {list}: give the key, or {digits} or more of its first digits"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Somebody {
        id: MemberId,
        key: Key,
        enrolled: &'static str,
        session: Option<&'static str>,
    }

    fn somebody(key: &str, enrolled: &'static str, session: Option<&'static str>) -> Somebody {
        let key = Key::from(key.repeat(64 / key.len()).as_str());
        Somebody { id: MemberId::from(key.as_str()), key, enrolled, session }
    }

    fn asked(word: &str, choices: &[Somebody]) -> Meaning<&'static str> {
        let choices = choices.iter().map(|one| {
            let candidate = Candidate {
                member: &one.id,
                key: &one.key,
                enrolled: Some(one.enrolled),
                session_name: one.session,
            };
            (one.enrolled, candidate)
        });
        meant(word, choices)
    }

    #[test]
    fn a_name_that_two_members_use_means_neither() {
        let both = [somebody("ab", "alice", None), somebody("cd", "mallory", Some("alice"))];
        let Meaning::Ambiguous(text) = asked("alice", &both) else { panic!("a guess") };
        assert!(text.contains("alice (abababababab)"), "{text}");
        assert!(text.contains("mallory (cdcdcdcdcdcd, here as \"alice\")"), "{text}");
        assert_eq!(asked(&"ab".repeat(32), &both), Meaning::These(vec!["alice"]));
        assert_eq!(asked("cdcdcdcd", &both), Meaning::These(vec!["mallory"]));
        assert_eq!(asked("mallory", &both), Meaning::These(vec!["mallory"]));
    }

    #[test]
    fn a_name_is_no_beginning_of_a_key() {
        let both = [somebody("ab", "ada", None), somebody("ada0", "bob", None)];
        assert_eq!(asked("ada", &both), Meaning::These(vec!["ada"]));
        assert_eq!(asked("ada0ada", &both), Meaning::Nobody, "seven digits");
        assert_eq!(asked("ada0ada0", &both), Meaning::These(vec!["bob"]));
        assert_eq!(asked("", &both), Meaning::Nobody);
    }

    #[test]
    fn all_sessions_of_one_member_are_meant_by_its_name() {
        let own = [somebody("ab", "ada", Some("laptop")), somebody("ab", "ada", Some("desktop"))];
        assert_eq!(asked("ada", &own), Meaning::These(vec!["ada", "ada"]));
        assert_eq!(asked("laptop", &own), Meaning::These(vec!["ada"]));
    }

    #[test]
    fn nobody_makes_a_key_ambiguous_by_taking_it_for_a_name() {
        let key = "abababababababababababababababababababababababababababababababab";
        let both = [somebody("ab", "ada", None), somebody("cd", "mallory", Some(key))];
        assert_eq!(asked(key, &both), Meaning::These(vec!["ada"]));
    }
}
