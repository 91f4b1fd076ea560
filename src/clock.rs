//! Instants as the wire and the tables know them: whole milliseconds, UTC.

pub(crate) mod cron;

use std::fmt;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Milliseconds since the Unix epoch.
///
/// On the wire it is `YYYY-MM-DDTHH:mm:ss.sssZ`; in Postgres a naive UTC
/// timestamp; in SQLite the number itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// This machine's clock, cut to the millisecond.
    #[must_use]
    pub fn now() -> Self {
        Self(Utc::now().timestamp_millis())
    }

    /// From milliseconds since the epoch.
    #[must_use]
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// This instant moved by `ms` (negative: back).
    #[must_use]
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this instant; negative if it came first.
    #[must_use]
    pub const fn ms_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// As a Postgres `timestamp without time zone` in UTC.
    #[must_use]
    pub fn to_naive(self) -> NaiveDateTime {
        self.to_datetime().naive_utc()
    }

    /// From a Postgres `timestamp without time zone` that holds UTC.
    #[must_use]
    pub fn from_naive(naive: NaiveDateTime) -> Self {
        Self(naive.and_utc().timestamp_millis())
    }

    /// An instant as people and programs write it: ISO 8601, whole or only the day, the
    /// minute or the second of it, and what mail and HTTP have. Without a zone: in UTC.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let zoned = DateTime::parse_from_rfc3339(text)
            .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
            .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M%#z"))
            .or_else(|_| DateTime::parse_from_rfc2822(text));
        if let Ok(zoned) = zoned {
            return Some(Self(zoned.timestamp_millis()));
        }
        let separated = text.replacen(' ', "T", 1);
        let separated = separated.trim_end_matches('Z');
        let local = NaiveDateTime::parse_from_str(separated, "%Y-%m-%dT%H:%M:%S%.f")
            .or_else(|_| NaiveDateTime::parse_from_str(separated, "%Y-%m-%dT%H:%M"));
        if let Ok(local) = local {
            return Some(Self::from_naive(local));
        }
        let day = match text.len() {
            4 => format!("{text}-01-01"),
            7 => format!("{text}-01"),
            _ => text.to_owned(),
        };
        let day = NaiveDate::parse_from_str(&day, "%Y-%m-%d").ok()?;
        Some(Self::from_naive(day.and_time(NaiveTime::MIN)))
    }

    fn to_datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or_default()
    }
}

/// The pause before something is tried again that failed so many times before: twice as
/// long each time, up to `max_ms`. Half of it is left to chance, so that not all that
/// failed at once is tried at once.
pub(crate) fn retry_pause_ms(failures: u32, first_ms: i64, max_ms: i64) -> i64 {
    let most = (first_ms << failures.min(20)).min(max_ms);
    most / 2 + rand::random_range(0..=most / 2)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.to_datetime().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let instant = DateTime::parse_from_rfc3339(&text).map_err(D::Error::custom)?;
        Ok(Self(instant.timestamp_millis()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_has_three_decimals_and_z() {
        assert_eq!(Timestamp::from_ms(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_ms(1_700_000_000_120).to_string(), "2023-11-14T22:13:20.120Z");
    }

    #[test]
    fn instants_are_read_as_people_write_them() {
        let at = "2026-11-27T09:00:00.000Z";
        for text in [
            at,
            "2026-11-27T09:00:00Z",
            "2026-11-27T10:00:00+01:00",
            "2026-11-27T10:00:00.000+0100",
            "2026-11-27T10:00+01:00",
            "2026-11-27T09:00Z",
            "2026-11-27T09:00",
            "2026-11-27 09:00:00",
            " 2026-11-27T09:00:00.000Z ",
            "Fri, 27 Nov 2026 09:00:00 GMT",
        ] {
            assert_eq!(
                Timestamp::read(text).map(|at| at.to_string()).as_deref(),
                Some(at),
                "{text}"
            );
        }
        for (text, at) in [
            ("2026-11-27", "2026-11-27T00:00:00.000Z"),
            ("2026-11", "2026-11-01T00:00:00.000Z"),
            ("2026", "2026-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(
                Timestamp::read(text).map(|at| at.to_string()).as_deref(),
                Some(at),
                "{text}"
            );
        }
        for text in ["", "tomorrow", "2026-13-01", "2026-11-27T25:00", "12", "1790000000000"] {
            assert_eq!(Timestamp::read(text), None, "{text}");
        }
    }

    #[test]
    fn naive_and_wire_forms_come_back_the_same() {
        let at = Timestamp::from_ms(1_790_000_000_007);
        assert_eq!(Timestamp::from_naive(at.to_naive()), at);
        let wire = serde_json::to_string(&at).expect("plain text");
        assert_eq!(serde_json::from_str::<Timestamp>(&wire).expect("own text"), at);
    }
}
