//! The head of a frame: what says how the rest is read.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::DecodeError;
use crate::limits;
use crate::protocol::RequestId;

/// The fields that decide how the rest is read.
#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Scalar<'a>,
    #[serde(borrow, default, rename = "_reqId")]
    pub(super) req_id: Scalar<'a>,
    #[serde(borrow, default)]
    id: Scalar<'a>,
}

impl Head<'_> {
    /// The `type`; empty if there is none.
    pub(super) fn kind(&self) -> &str {
        match &self.kind {
            Scalar::Text(text) => text,
            Scalar::Number(_) | Scalar::Other => "",
        }
    }

    pub(super) fn into_request_id(self) -> Option<RequestId> {
        self.req_id.into_request_id()
    }

    /// The error of a frame with this head.
    pub(super) fn invalid(self, kind: &'static str, reason: String) -> DecodeError {
        let id = self.id.into_text().map(Cow::into_owned);
        DecodeError::Invalid { kind, req_id: self.req_id.into_request_id(), id, reason }
    }
}

/// Text or a whole number; whatever else stands there is passed over.
#[derive(Default)]
pub(super) enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(i64),
    #[default]
    Other,
}

impl<'a> Scalar<'a> {
    pub(super) fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Other => None,
        }
    }

    pub(super) fn into_request_id(self) -> Option<RequestId> {
        let id = match self {
            Self::Text(text) if text.len() <= limits::REQ_ID_BYTES_MAX => {
                RequestId::Text(text.into_owned())
            }
            Self::Number(number) => RequestId::Number(number),
            Self::Text(_) | Self::Other => return None,
        };
        id.is_given().then_some(id)
    }
}

/// Written by hand: a derived untagged enum would copy the value first, and
/// this is read for every frame.
impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("anything")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Scalar::Other, Scalar::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    /// A MessagePack extension.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
        IgnoredAny::deserialize(inner).map(|_| Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}
