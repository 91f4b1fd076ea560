//! Requests and answers with texts that are kept for all members: sealed on their way out,
//! opened on their way in.
//!
//! Names, keys and tags stay in clear: by them things are found.

use serde_json::Value;

use super::requests::next_page;
use super::{Client, ClientError, Inbound, KeptText, Secrecy};
use crate::protocol::{
    Ask, CompleteTask, CreateTask, Memory, MemoryResults, Recall, Remember, SetState, StateEntry,
    StateList, StateResult, TaskList, TaskRow, TopicHistoryResponse, TopicList, TopicListed,
    TopicPosted, UpdateTask, Visibility,
};
use crate::sealing::{self, Sealed};

/// Whether the broker could not read it, in words.
#[must_use]
pub const fn how_kept(is_sealed: bool) -> &'static str {
    if is_sealed { "sealed" } else { "in clear" }
}

/// What stands for a text that cannot be opened.
pub(crate) const UNREADABLE: &str = "(sealed, and this peer cannot open it)";
/// Sealed memories that a search looks through.
const SEARCHED_MAX: usize = 2_000;
/// Of one answer.
const SEARCHED_AT_ONCE: i64 = 100;
/// The word by which sealed memories are found: each begins with it.
const SEALED_WORD: &str = "sealed";

/// A text on its way out or in.
pub enum Field<'a> {
    /// A text.
    Text(&'a mut String),
    /// Any JSON; sealed it is a text.
    Json(&'a mut Value),
    /// A text in base64.
    Base64(&'a mut String),
}

/// What has texts that are kept for all members.
pub trait Kept {
    /// Its texts, each with where it is kept and, in what comes in, where to note whether it
    /// was sealed.
    fn fields(&mut self) -> Vec<(String, Field<'_>, Option<&mut bool>)>;
}

/// The place of a shared value.
fn of_state(key: &str) -> String {
    format!("state/{key}")
}

/// The place of a memory's text.
const MEMORY: &str = "memory";
/// The place of what a task is.
const TASK: &str = "task";

/// The place of what came of a task.
fn of_result(task: &str) -> String {
    format!("task/result/{task}")
}

/// The place of posts to a topic, by its name.
pub(super) fn of_topic(name: &str) -> String {
    format!("topic/{}", name.trim_start_matches('#'))
}

/// The place of a message to many that is sent later.
pub(super) fn of_schedule(target: &str) -> String {
    match target.strip_prefix('#') {
        Some(topic) => of_topic(topic),
        None => format!("schedule/{target}"),
    }
}

impl Kept for SetState {
    fn fields(&mut self) -> Vec<(String, Field<'_>, Option<&mut bool>)> {
        vec![(of_state(&self.key), Field::Json(&mut self.value), None)]
    }
}

impl Kept for Remember {
    fn fields(&mut self) -> Vec<(String, Field<'_>, Option<&mut bool>)> {
        vec![(MEMORY.to_owned(), Field::Text(&mut self.content), None)]
    }
}

impl Kept for CreateTask {
    fn fields(&mut self) -> Vec<(String, Field<'_>, Option<&mut bool>)> {
        vec![(TASK.to_owned(), Field::Text(&mut self.title), None)]
    }
}

impl Kept for UpdateTask {
    fn fields(&mut self) -> Vec<(String, Field<'_>, Option<&mut bool>)> {
        let title = self.title.as_mut();
        title.map(|title| (TASK.to_owned(), Field::Text(title), None)).into_iter().collect()
    }
}

impl Kept for CompleteTask {
    fn fields(&mut self) -> Vec<(String, Field<'_>, Option<&mut bool>)> {
        let (place, result) = (of_result(&self.task_id), self.result.as_mut());
        result.map(|result| (place, Field::Text(result), None)).into_iter().collect()
    }
}

impl Kept for StateEntry {
    fn fields(&mut self) -> Vec<(String, Field<'_>, Option<&mut bool>)> {
        vec![(of_state(&self.key), Field::Json(&mut self.value), Some(&mut self.sealed))]
    }
}

impl Kept for Memory {
    fn fields(&mut self) -> Vec<(String, Field<'_>, Option<&mut bool>)> {
        vec![(MEMORY.to_owned(), Field::Text(&mut self.content), Some(&mut self.sealed))]
    }
}

impl Kept for TaskRow {
    fn fields(&mut self) -> Vec<(String, Field<'_>, Option<&mut bool>)> {
        let (place, result) = (of_result(&self.id), self.result.as_mut());
        let title = (TASK.to_owned(), Field::Text(&mut self.title), Some(&mut self.sealed));
        let result = result.map(|result| (place, Field::Text(result), None));
        std::iter::once(title).chain(result).collect()
    }
}

/// Answers: the field with what is kept.
macro_rules! kept {
    ($($answer:ident: $rows:ident;)*) => {
        $(impl Kept for $answer {
            fn fields(&mut self) -> Vec<(String, Field<'_>, Option<&mut bool>)> {
                self.$rows.iter_mut().flat_map(Kept::fields).collect()
            }
        })*
    };
}

kept! {
    StateList: entries;
    MemoryResults: memories;
    TaskList: tasks;
}

impl Kept for StateResult {
    fn fields(&mut self) -> Vec<(String, Field<'_>, Option<&mut bool>)> {
        self.0.fields()
    }
}

impl Kept for TopicHistoryResponse {
    fn fields(&mut self) -> Vec<(String, Field<'_>, Option<&mut bool>)> {
        let place = of_topic(&self.topic);
        let mut fields = Vec::new();
        for TopicPosted { ciphertext, sealed, .. } in &mut self.messages {
            fields.push((place.clone(), Field::Base64(ciphertext), Some(sealed)));
        }
        fields
    }
}

impl Field<'_> {
    /// The text as it is kept.
    fn kept(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some((*text).clone()),
            Self::Json(Value::String(text)) if sealing::common::is_marked(text) => {
                Some(text.clone())
            }
            Self::Json(value) => Some(value.to_string()),
            Self::Base64(text) => sealing::open_plain(text),
        }
    }

    /// Puts what was sealed in its place.
    fn seal(self, sealed: String) {
        match self {
            Self::Text(text) => *text = sealed,
            Self::Json(value) => *value = Value::String(sealed),
            Self::Base64(text) => *text = sealing::plain(&sealed).ciphertext_b64,
        }
    }

    /// Puts what was opened in its place.
    fn open(self, opened: &str) {
        match self {
            Self::Text(text) => opened.clone_into(text),
            Self::Json(value) => {
                *value = serde_json::from_str(opened)
                    .unwrap_or_else(|_| Value::String(opened.to_owned()));
            }
            Self::Base64(text) => *text = sealing::plain(opened).ciphertext_b64,
        }
    }
}

/// The words of a text, in lower case.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| !letter.is_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// Whether two words may be forms of one: they begin alike, and end in no more than a few
/// other letters.
fn is_akin(one: &str, other: &str) -> bool {
    const ENDING_MAX: usize = 3;
    let alike = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let endings = [one, other].map(|word| word.chars().count() - alike);
    let is_short = endings.iter().all(|ending| *ending <= ENDING_MAX);
    endings == [0, 0] || is_short && (alike >= 4 || alike == 3 && endings.contains(&0))
}

impl Client {
    /// Asks for something to be kept for all members; its texts are sealed where that is
    /// possible, and it says whether they were.
    ///
    /// # Errors
    /// As [`Self::ask`]; [`ClientError::CommonKey`] where there is no key to seal under.
    pub async fn keep<R: Ask + Kept + Send>(
        &self,
        mut ask: R,
    ) -> Result<(R::Answer, Secrecy), ClientError> {
        let mut secrecy = Secrecy::Sealed;
        for (named, field, _) in ask.fields() {
            let Some(text) = field.kept() else { continue };
            let (sealed, how) = self.seal_kept(None, &named, &text).await?;
            secrecy = how;
            match sealed {
                Some(sealed) => field.seal(sealed),
                None => break,
            }
        }
        Ok((self.ask(&ask).await?, secrecy))
    }

    /// Opens the texts of an answer, and notes which were sealed. Those that cannot be opened
    /// say so.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn open_all<A: Kept + Send + ?Sized>(
        &self,
        answer: &mut A,
    ) -> Result<(), ClientError> {
        for (named, field, is_sealed) in answer.fields() {
            let Some(text) = field.kept() else { continue };
            let opened = self.open_kept(&named, &text).await?;
            if let Some(noted) = is_sealed {
                *noted = opened.is_sealed();
            }
            match &opened {
                KeptText::Clear(_) => {}
                KeptText::Sealed { text, .. } => field.open(text),
                KeptText::Unreadable => field.open(UNREADABLE),
            }
        }
        Ok(())
    }

    /// As [`Self::ask`], with the answer's texts opened.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn ask_opened<R>(&self, ask: &R) -> Result<R::Answer, ClientError>
    where
        R: Ask,
        R::Answer: Kept + Send,
    {
        let mut answer = self.ask(ask).await?;
        self.open_all(&mut answer).await?;
        Ok(answer)
    }

    /// Opens a message that is sealed under a key that members hold in common: a post to a
    /// topic, or what was scheduled for many. Anything else is as it was; one whose key cannot
    /// be had now has no text.
    pub async fn opened(&self, inbound: Inbound) -> Inbound {
        let (push, text) = match inbound {
            Inbound::Message { push, plaintext: Some(text), is_sealed: false } => (push, text),
            other => return other,
        };
        let kept = std::str::from_utf8(&text).ok().filter(|text| sealing::common::is_marked(text));
        let (plaintext, is_sealed) = match kept {
            None => (Some(text), false),
            Some(kept) => {
                let named = match (&push.topic, &push.target_spec) {
                    (Some(topic), _) => of_topic(topic),
                    (None, target) => of_schedule(target.as_deref().unwrap_or_default()),
                };
                match self.open_kept(&named, kept).await {
                    Ok(KeptText::Sealed { text, .. }) => (Some(text.into_bytes()), true),
                    Ok(KeptText::Clear(_) | KeptText::Unreadable) => (None, true),
                    Err(error) => {
                        tracing::debug!(%error, "a message's key could not be had");
                        (None, true)
                    }
                }
            }
        };
        Inbound::Message { push, plaintext, is_sealed }
    }

    /// Seals a message to many that is sent later, or a post: for whoever reads it then.
    /// `None`: it is to be sent in clear, and why.
    ///
    /// # Errors
    /// As [`Self::seal_kept`].
    pub async fn seal_for_later(
        &self,
        target: &str,
        text: &str,
    ) -> Result<(Option<Sealed>, Secrecy), ClientError> {
        let (topic, place) = match target.strip_prefix('#') {
            None => (None, of_schedule(target)),
            Some(named) => match self.topic(named).await? {
                Some(topic) => {
                    let is_open = topic.visibility == Visibility::Public;
                    let scope = (!is_open).then(|| format!("#{}", topic.id));
                    (scope, of_topic(&topic.name))
                }
                // The broker says what is wrong with it.
                None => return Ok((None, Secrecy::InClear { because_of: Vec::new() })),
            },
        };
        let (sealed, secrecy) = self.seal_kept(topic.as_deref(), &place, text).await?;
        Ok((sealed.map(|sealed| sealing::plain(&sealed)), secrecy))
    }

    /// The topic of that name, or that id, that this member sees.
    async fn topic(&self, named: &str) -> Result<Option<TopicListed>, ClientError> {
        let mut ask = TopicList::default();
        loop {
            let page = self.ask(&ask).await?;
            let is_meant = |topic: &TopicListed| topic.name == named || topic.id.as_str() == named;
            if let Some(topic) = page.topics.into_iter().find(is_meant) {
                return Ok(Some(topic));
            }
            ask.cursor = next_page(page.more, page.cursor, ask.cursor.as_ref());
            if ask.cursor.is_none() {
                return Ok(None);
            }
        }
    }

    /// Finds memories: those in clear as the broker does, and behind them those that are
    /// sealed, of which only this client can say whether they have the words.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn recall(&self, ask: &Recall) -> Result<MemoryResults, ClientError> {
        let mut found = self.ask_opened(ask).await?;
        if ask.cursor.is_some() {
            return Ok(found);
        }
        let wanted = words(&ask.query);
        let has_all = |memory: &Memory| {
            let has = words(&[&*memory.content, &memory.tags.join(" ")].join(" "));
            wanted.iter().all(|wanted| has.iter().any(|word| is_akin(wanted, word)))
        };
        let query = SEALED_WORD.to_owned();
        let mut sealed = Recall { query, limit: Some(SEARCHED_AT_ONCE), cursor: None };
        let mut looked = 0;
        loop {
            let page = self.ask_opened(&sealed).await?;
            looked += page.memories.len();
            let known: Vec<String> =
                found.memories.iter().map(|memory| memory.id.clone()).collect();
            let new = page
                .memories
                .into_iter()
                .filter(|memory| memory.sealed && has_all(memory) && !known.contains(&memory.id));
            found.memories.extend(new);
            sealed.cursor = next_page(page.more, page.cursor, sealed.cursor.as_ref());
            if sealed.cursor.is_none() || looked >= SEARCHED_MAX {
                return Ok(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_their_forms_and_not_in_others() {
        for (one, other) in
            [("builds", "build"), ("tools", "tooling"), ("bun", "bun"), ("CI", "ci")]
        {
            let [one, other] = [one, other].map(|word| words(word).remove(0));
            assert!(is_akin(&one, &other), "{one} {other}");
        }
        for (one, other) in [("launch", "laugh"), ("run", "running"), ("build", "bus"), ("a", "an")]
        {
            assert!(!is_akin(one, other), "{one} {other}");
        }
        assert_eq!(
            words("The build-uses  bun, Größe 3."),
            ["the", "build", "uses", "bun", "größe", "3"]
        );
    }

    #[test]
    fn a_value_is_sealed_as_its_json_and_comes_back_as_that() {
        for value in [Value::Null, serde_json::json!({ "a": [1, "x"] }), Value::from("plain")] {
            let mut kept = value.clone();
            let text = Field::Json(&mut kept).kept().expect("a text");
            Field::Json(&mut kept).seal("sealed:1:mesh:1:AA==".to_owned());
            assert_eq!(Field::Json(&mut kept).kept().as_deref(), Some("sealed:1:mesh:1:AA=="));
            Field::Json(&mut kept).open(&text);
            assert_eq!(kept, value);
        }
    }
}
