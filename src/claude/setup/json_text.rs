//! The text of a JSON file that others wrote, with our part put in or taken out: what
//! is not ours keeps its bytes, its order and its indent. Pure.
//!
//! Only strict JSON is edited. A file with comments or a mistake may mean something else
//! to its owner than to us, so it is left as it is.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstArray, CstInputValue, CstNode, CstObject, CstRootNode};
use serde_json::Value;

/// Why a file is not edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// The text is no JSON: comments, a comma too many, a file that was cut off.
    #[error("it is not plain JSON: {0}")]
    Syntax(String),
    /// The text is no TOML.
    #[error("it is not TOML: {0}")]
    Toml(String),
    /// Something else stands where an object or a list has to be.
    #[error("{0} is not {1}")]
    Shape(String, &'static str),
    /// A key stands twice in one object, and hosts may take either.
    #[error("{0} is there twice")]
    Twice(String),
    /// An edit would have changed what is not ours, so it was not made.
    #[error("what is not ours would not stay as it is")]
    Foreign,
}

/// A file's text, taken apart.
pub(crate) struct JsonText {
    root: CstRootNode,
    object: CstObject,
}

impl JsonText {
    /// Takes a text apart; nothing, or blanks, is an empty object.
    pub(crate) fn parse(text: &str) -> Result<Self, Unfit> {
        let text = if text.trim().is_empty() { "{}\n" } else { text };
        // The stricter of two readers decides: the other keeps the bytes.
        serde_json::from_str::<Value>(text).map_err(|error| Unfit::Syntax(error.to_string()))?;
        let root = CstRootNode::parse(text, &strict())
            .map_err(|error| Unfit::Syntax(error.to_string()))?;
        let not_object = || Unfit::Shape("the whole file".to_owned(), "an object");
        let object = root.object_value().ok_or_else(not_object)?;
        Ok(Self { root, object })
    }

    /// The outermost object.
    pub(crate) fn object(&self) -> &CstObject {
        &self.object
    }

    /// The text as it is now.
    pub(crate) fn text(&self) -> String {
        self.root.to_string()
    }
}

/// The object under a key; none where there is no such key.
pub(crate) fn object_in(object: &CstObject, key: &str) -> Result<Option<CstObject>, Unfit> {
    let Some(node) = value_in(object, key)? else { return Ok(None) };
    let shape = || Unfit::Shape(format!("{key:?}"), "an object");
    node.as_object().map(Some).ok_or_else(shape)
}

/// The list under a key; none where there is no such key.
pub(crate) fn array_in(object: &CstObject, key: &str) -> Result<Option<CstArray>, Unfit> {
    let Some(node) = value_in(object, key)? else { return Ok(None) };
    let shape = || Unfit::Shape(format!("{key:?}"), "a list");
    node.as_array().map(Some).ok_or_else(shape)
}

/// What stands under a key.
pub(crate) fn value_in(object: &CstObject, key: &str) -> Result<Option<CstNode>, Unfit> {
    let named = |property: &jsonc_parser::cst::CstObjectProp| {
        property.decoded_name().is_some_and(|name| name == key)
    };
    let mut found = object.properties().into_iter().filter(named);
    let (first, second) = (found.next(), found.next());
    if second.is_some() {
        return Err(Unfit::Twice(format!("{key:?}")));
    }
    Ok(first.and_then(|property| property.value()))
}

/// The object under a key, which is made if it is not there.
pub(crate) fn object_at(object: &CstObject, key: &str) -> Result<CstObject, Unfit> {
    match object_in(object, key)? {
        Some(found) => Ok(found),
        None => Ok(object.object_value_or_set(key)),
    }
}

/// The list under a key, which is made if it is not there.
pub(crate) fn array_at(object: &CstObject, key: &str) -> Result<CstArray, Unfit> {
    match array_in(object, key)? {
        Some(found) => Ok(found),
        None => Ok(object.array_value_or_set(key)),
    }
}

/// Takes a key and what stands under it out of an object.
pub(crate) fn remove_key(object: &CstObject, key: &str) {
    if let Some(property) = object.get(key) {
        property.remove();
    }
}

/// What a node says.
pub(crate) fn value_of(node: &CstNode) -> Value {
    serde_json::from_str(&node.to_string()).unwrap_or_default()
}

/// Keys that people look for first, in their order; the others follow by name.
const FIRST: [&str; 7] = ["name", "version", "description", "type", "command", "args", "owner"];

/// A value in the form that is put into a text.
pub(crate) fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(flag) => CstInputValue::Bool(*flag),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(_) => {
            let pairs = in_order(value).into_iter().map(|(key, value)| (key, input(value)));
            CstInputValue::Object(pairs.collect())
        }
    }
}

/// The fields of an object as people read them.
pub(crate) fn in_order(value: &Value) -> Vec<(String, &Value)> {
    let fields = value.as_object().into_iter().flatten();
    let mut fields: Vec<_> = fields.map(|(key, value)| (key.clone(), value)).collect();
    let place = |key: &str| FIRST.iter().position(|first| *first == key);
    fields.sort_by_key(|(key, _)| place(key).unwrap_or(FIRST.len()));
    fields
}

/// A text without the blanks between its words: two files that differ in nothing else
/// are the same.
pub(crate) fn without_blanks(text: &str) -> String {
    let (mut out, mut in_string, mut is_escaped) =
        (String::with_capacity(text.len()), false, false);
    for c in text.chars() {
        if in_string {
            in_string = c != '"' || is_escaped;
            is_escaped = c == '\\' && !is_escaped;
        } else if c == '"' {
            in_string = true;
        } else if c.is_ascii_whitespace() {
            continue;
        }
        out.push(c);
    }
    out
}

fn strict() -> ParseOptions {
    ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_json_is_left_alone() {
        let broken = [
            "{\"a\": 1,}",
            "{} // mine",
            "{ /* mine */ }",
            "{'a': 1}",
            "{\"a\": 1",
            "{} {}",
            "\u{feff}{}",
            "{\"a\": 01}",
            "{\"a\": NaN}",
        ];
        for text in broken {
            assert!(matches!(JsonText::parse(text), Err(Unfit::Syntax(_))), "{text:?}");
        }
        for text in ["[]", "1", "null", "\"{}\""] {
            assert!(matches!(JsonText::parse(text), Err(Unfit::Shape(..))), "{text:?}");
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_not_guessed_at() {
        let text = JsonText::parse("{\"hooks\": {}, \"hooks\": {\"a\": 1}}").expect("JSON");
        assert_eq!(object_in(text.object(), "hooks").err(), Some(Unfit::Twice("\"hooks\"".into())));
    }

    #[test]
    fn a_text_that_nobody_changes_keeps_its_bytes() {
        for text in ["{}", "{ }\r\n", "\t{\n \"a\" :[1,  2e3 ,\"\\u00e9\"]}\n\n", "{\"a\":{}}"] {
            assert_eq!(JsonText::parse(text).expect("JSON").text(), text);
        }
        assert_eq!(JsonText::parse(" \n").expect("nothing").text(), "{}\n");
    }

    #[test]
    fn blanks_count_only_in_strings() {
        assert_eq!(without_blanks("{ \"a b\\\" c\" : [ 1,\n2 ] }"), "{\"a b\\\" c\":[1,2]}");
        assert_eq!(without_blanks("{\"a\\\\\" : 1}"), "{\"a\\\\\":1}");
    }
}
