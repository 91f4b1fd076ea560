//! A request of which only the head is read yet.

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;

use super::{Codec, surrogates};

/// A request: its type, and the frame that its fields are to be read from.
pub struct Asked<'a> {
    kind: Cow<'a, str>,
    codec: Codec,
    frame: Cow<'a, [u8]>,
}

impl<'a> Asked<'a> {
    pub(super) fn new(
        codec: Codec,
        kind: impl Into<Cow<'a, str>>,
        frame: impl Into<Cow<'a, [u8]>>,
    ) -> Self {
        Self { kind: kind.into(), codec, frame: frame.into() }
    }

    /// The `type`, known or not; empty if the frame has none.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Reads the fields. In text, halves of surrogate pairs become U+FFFD.
    ///
    /// # Errors
    ///
    /// What is wrong, without the offending value.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        let read = self.codec.parse(&self.frame);
        if read.is_err()
            && self.codec == Codec::Json
            && let Some(mended) = surrogates::mended(&self.frame)
        {
            return self.codec.parse(&mended);
        }
        read
    }
}

/// What a request says does not reach a log.
impl fmt::Debug for Asked<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} of {} bytes", self.kind, self.frame.len())
    }
}
