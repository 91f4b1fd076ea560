//! Numbers and JSON as JavaScript prints them.
//!
//! What other programs signed or hashed went through `String(n)` and
//! `JSON.stringify`; the same value must give the same bytes here.

use std::collections::HashSet;
use std::fmt::{self, Write as _};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// A number as JavaScript's `String(n)` prints it: the shortest digits that
/// read back as `value`, an exponent from 1e21 up and below 1e-6, and no sign
/// on zero.
#[must_use]
pub fn js_number(value: f64) -> String {
    /// Below 2^53 every whole number is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        return (value as i64).to_string();
    }
    if !value.is_finite() {
        let name = if value.is_nan() { "NaN" } else { "Infinity" };
        return if value < 0.0 { format!("-{name}") } else { name.to_owned() };
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let scientific = shortest(value.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    // The value is 0.DIGITS times ten to the `point`.
    let point = exponent.parse::<i32>().unwrap_or_default() + 1;
    let (head, tail) = digits.split_at(digits.len().min(usize::try_from(point).unwrap_or(0)));
    match point {
        1..=21 if tail.is_empty() => format!("{sign}{head:0<width$}", width = point as usize),
        1..=21 => format!("{sign}{head}.{tail}"),
        -5..=0 => format!("{sign}0.{:0>width$}", digits, width = digits.len() + -point as usize),
        _ => {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            format!("{sign}{first}{dot}{rest}e{:+}", point - 1)
        }
    }
}

/// The shortest scientific form that reads back as `value`. Where two are
/// equally short and near, JavaScript takes the even one, Rust the larger.
fn shortest(value: f64) -> String {
    let larger = format!("{value:e}");
    let digits = larger.bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit).count();
    let even = format!("{value:.*e}", digits.saturating_sub(1));
    // Beside a power of two the nearer one may belong to the next double.
    if even.parse() == Ok(value) { even } else { larger }
}

/// JSON with nothing left to choice: keys sorted by UTF-16 code units, no
/// white space, strings and numbers as `JSON.stringify` prints them.
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    push_value(&mut out, value);
    out
}

fn push_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => match number.as_f64() {
            Some(number) if number.is_finite() => out.push_str(&js_number(number)),
            // JSON.stringify knows no other way to print what no double holds.
            _ => out.push_str("null"),
        },
        Value::String(text) => push_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                push_value(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (at, (key, item)) in fields.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                push_string(out, key);
                out.push(':');
                push_value(out, item);
            }
            out.push('}');
        }
    }
}

/// Whether some object in this JSON names a key twice: readers differ in which of
/// the two they take.
#[must_use]
pub fn has_duplicate_keys(json: &str) -> bool {
    serde_json::from_str::<Unambiguous>(json).is_err_and(|error| error.is_data())
}

/// Any JSON whose objects name each key once.
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = Self;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = fields.next_key::<String>()? {
            if !keys.insert(key) {
                return Err(A::Error::custom("a key stands twice"));
            }
            fields.next_value::<Self>()?;
        }
        Ok(self)
    }
}

/// Appends `text` quoted and escaped as `JSON.stringify` does it.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut clean_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        // Only ASCII is escaped, so `at` is a character boundary.
        out.push_str(&text[clean_from..at]);
        clean_from = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            0x0c => out.push_str("\\f"),
            b'\r' => out.push_str("\\r"),
            // Writing to a string cannot fail.
            _ => drop(write!(out, "\\u{byte:04x}")),
        }
    }
    out.push_str(&text[clean_from..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What node 20 prints.
    #[test]
    fn numbers_print_as_in_javascript() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (1.5, "1.5"),
            (-0.1, "-0.1"),
            (0.1, "0.1"),
            (100.0, "100"),
            (123456789.0, "123456789"),
            (1000000000000000.0, "1000000000000000"),
            (9007199254740991.0, "9007199254740991"),
            (9007199254740992.0, "9007199254740992"),
            (100000000000000000000.0, "100000000000000000000"),
            (123456789012345680000.0, "123456789012345680000"),
            (1e21, "1e+21"),
            (1.5e21, "1.5e+21"),
            (-1e21, "-1e+21"),
            (1.2345e25, "1.2345e+25"),
            (1e300, "1e+300"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (2.2250738585072014e-308, "2.2250738585072014e-308"),
            (0.000001, "0.000001"),
            (0.000001234, "0.000001234"),
            (1e-7, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (-1.5e-10, "-1.5e-10"),
            (0.30000000000000004, "0.30000000000000004"),
            (0.3333333333333333, "0.3333333333333333"),
            (1e23, "1e+23"),
            (4.35, "4.35"),
            (123456.789, "123456.789"),
            (18446744073709552000.0, "18446744073709552000"),
            (1700000000000.5, "1700000000000.5"),
            // Two equally near: the even one.
            (-72_684_101_899_706.0 / 64.0, "-1135689092182.9062"),
            (7_024_934_739_746_389.0 / 4.0, "1756233684936597.2"),
            // 2^-44: the nearest with 16 digits belongs to another double.
            (5.684341886080802e-14, "5.684341886080802e-14"),
            (5e-7, "5e-7"),
            (999999999999999900000.0, "999999999999999900000"),
            (1e22, "1e+22"),
            (4503599627370498.0, "4503599627370498"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(js_number(number), expected, "{number:e}");
        }
    }

    /// What node 20 prints for the same values with sorted keys.
    #[test]
    fn canonical_json_is_that_of_javascript() {
        let value = json!({
            "9": 2, "10": 1, "": [], "A": 1, "\u{e9}": 0,
            "\u{ffee}": "bmp", "\u{1f600}": "astral",
            "b": [1.0, 2.5, -0.0, 1e21, 5e-324, null, true, false, "x", u64::MAX],
            "a": {"z": "\0\u{8}\t\n\u{c}\r\u{1f}\"\\/\u{7f}\u{2028}\u{e9}\u{1f600}", "y": {}},
        });
        let expected = concat!(
            r#"{"":[],"10":1,"9":2,"A":1,"a":{"y":{},"z":"\u0000\b\t\n\f\r\u001f\"\\/"#,
            "\u{7f}\u{2028}\u{e9}\u{1f600}",
            r#""},"b":[1,2.5,0,1e+21,5e-324,null,true,false,"x",18446744073709552000],"#,
            "\"\u{e9}\":0,\"\u{1f600}\":\"astral\",\"\u{ffee}\":\"bmp\"}",
        );
        assert_eq!(canonical_json(&value), expected);
    }
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            // Exact in binary and short in decimal: what is tested is the
            // layout, not the JSON parser's rounding.
            any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_number_reads_back_as_itself(bits: u64) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            let text = js_number(number);
            prop_assert_eq!(text.parse::<f64>().unwrap(), number, "{}", text);
        }

        #[test]
        fn canonical_json_is_json_with_the_same_content(value in value()) {
            let text = canonical_json(&value);
            let back: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(canonical_json(&back), text);
        }

        #[test]
        fn strings_are_escaped_as_the_json_library_does(text: String) {
            let mut out = String::new();
            push_string(&mut out, &text);
            prop_assert_eq!(out, Value::from(text).to_string());
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_seen_at_any_depth() {
        for twice in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#] {
            assert!(has_duplicate_keys(twice), "{twice}");
        }
        for once in [r#"{"a":{"a":1},"b":[1.5,-2,null,true,"a"]}"#, "{}", "3", "not JSON"] {
            assert!(!has_duplicate_keys(once), "{once}");
        }
    }
}
