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

/// Something of at most so many bytes.
pub(super) fn no_larger_than(field: &str, bytes: usize, bytes_max: usize) -> Result<(), Refusal> {
    let text = || format!("`{field}` has {bytes} bytes; it may have no more than {bytes_max}");
    (bytes <= bytes_max).then_some(()).ok_or_else(|| Refusal::invalid(text()))
}
