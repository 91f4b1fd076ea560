//! Bounds on what peers name and keep, with the sentences that say so. Pure.

use super::Refusal;
use crate::limits;

/// A name, a key or a tag: some text, and not too much.
pub(super) fn named(field: &str, text: &str) -> Result<(), Refusal> {
    if text.is_empty() {
        return Err(Refusal::invalid(format!("`{field}` is needed")));
    }
    no_larger_than(field, text.len(), limits::SHARED_NAME_BYTES_MAX)
}

/// Whether a text may be the beginning of an id, as clients show ids in lists.
pub(super) fn may_begin_an_id(text: &str) -> bool {
    (limits::ID_BEGINNING_DIGITS_MIN..limits::ID_DIGITS).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The one id among these that begins so; none if there are several.
pub(super) fn the_one_of(ids: impl IntoIterator<Item = String>, beginning: &str) -> Option<String> {
    let mut meant = ids.into_iter().filter(|id| id.starts_with(beginning));
    meant.next().filter(|_| meant.next().is_none())
}

/// Something of at most so many bytes.
pub(super) fn no_larger_than(field: &str, bytes: usize, bytes_max: usize) -> Result<(), Refusal> {
    let text = || format!("`{field}` has {bytes} bytes; it may have no more than {bytes_max}");
    (bytes <= bytes_max).then_some(()).ok_or_else(|| Refusal::invalid(text()))
}

/// A text that is given: an empty one is not.
pub(super) fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Words to find something by.
pub(super) fn tags_within(tags: &[String]) -> Result<(), Refusal> {
    if tags.len() > limits::SHARED_TAGS_MAX {
        let text = format!("there are {} tags; {} may be", tags.len(), limits::SHARED_TAGS_MAX);
        return Err(Refusal::invalid(text));
    }
    tags.iter().try_for_each(|tag| named("tags", tag))
}

/// Tags as they are kept: those that are left out are none.
pub(super) fn tags(tags: Option<Vec<String>>) -> Result<Vec<String>, Refusal> {
    let tags = tags.unwrap_or_default();
    tags_within(&tags)?;
    Ok(tags)
}
