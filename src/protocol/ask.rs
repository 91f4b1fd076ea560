//! What a request is, to both sides: its name, and the answer that belongs to it.
//!
//! A broker ties a handler to each, a client asks with the same struct. A request is
//! read and written with the fields of its struct, beside `type` and `_reqId`.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A request.
pub trait Ask: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The request's `type`.
    const TYPE: &'static str;
    /// What one without a `_reqId` is told.
    const UNASKED: Unasked = Unasked::Answered;
    /// What comes back.
    type Answer: Answer;
}

/// What a request is answered with. Requests may share one.
pub trait Answer: Serialize + DeserializeOwned + Send + 'static {
    /// The answer's `type`.
    const TYPE: &'static str;

    /// Why what was asked for is not done, where the answer itself says so.
    fn refusal(&self) -> Option<&str> {
        None
    }
}

/// What a request without a `_reqId` is told: what older brokers told it. A stray
/// error resolves an unrelated request in old clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unasked {
    /// Nothing.
    Silent,
    /// The answer, and no error.
    Answered,
    /// The answer, and why there is none.
    Refused,
}
