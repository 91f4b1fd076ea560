//! Cron expressions: five fields, and the instants that they name. Pure.
//!
//! `minute hour day-of-month month day-of-week`, each a `,` list of `*`, `n` and `a-b`,
//! with `/step` behind `*` and `a-b`; all five must match, and values out of range match
//! nothing. Read in the zone that the caller names.
//!
//! Where clocks go forward, what falls into the missing hour comes at its end; where
//! they go back, what falls into the hour that comes twice comes the first time. What
//! names every hour comes in each hour that there is: not for one that is missing, and
//! twice in one that comes twice.

use chrono::{DateTime, Datelike as _, Days, NaiveDate, NaiveDateTime, TimeDelta, TimeZone as _};
use chrono_tz::Tz;

use super::Timestamp;

const MINUTE_MS: i64 = 60_000;
/// How far ahead an instant may be.
const DAYS_AHEAD: u64 = 366;
const DAYS_AHEAD_MS: i64 = 366 * 24 * 60 * MINUTE_MS;
/// Clocks are put by no more than so much.
const SHIFT: TimeDelta = TimeDelta::hours(3);

/// An expression in its zone. A set of numbers is a number's bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    zone: Tz,
}

/// The zone of that IANA name; UTC without one.
pub(crate) fn zone(name: Option<&str>) -> Option<Tz> {
    name.map_or(Some(Tz::UTC), |name| name.parse().ok())
}

impl Cron {
    /// Reads an expression; `None`: it is none.
    pub(crate) fn parse(text: &str, zone: Tz) -> Option<Self> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else { return None };
        Some(Self {
            minutes: field(minutes, 0, 59)?,
            hours: field(hours, 0, 23)?,
            days: field(days, 1, 31)?,
            months: field(months, 1, 12)?,
            weekdays: field(weekdays, 0, 6)?,
            zone,
        })
    }

    /// The first instant that it names after the minute of that one, within a year;
    /// `None`: there is none.
    pub(crate) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let from = Timestamp::from_ms((after.as_ms().div_euclid(MINUTE_MS) + 1) * MINUTE_MS);
        let begin = self.local(from)?;
        let mut date = begin.date().checked_sub_days(Days::new(1))?;
        let end = date.checked_add_days(Days::new(DAYS_AHEAD + 2))?;
        let mut found: Option<Timestamp> = None;
        while date <= end {
            let on_it = self.names_day(date).then(|| self.first_on(date, from, begin)).flatten();
            // A day's last hour may come twice, the second time within the next day's.
            if let Some(earlier) = found {
                found = Some(on_it.map_or(earlier, |later| earlier.min(later)));
                break;
            }
            found = on_it;
            date = date.checked_add_days(Days::new(1))?;
        }
        let last = after.plus_ms(DAYS_AHEAD_MS);
        found.filter(|found| *found <= last)
    }

    fn local(&self, at: Timestamp) -> Option<NaiveDateTime> {
        let utc = DateTime::from_timestamp_millis(at.as_ms())?.naive_utc();
        Some(self.zone.from_utc_datetime(&utc).naive_local())
    }

    fn names_day(&self, date: NaiveDate) -> bool {
        has(self.months, date.month())
            && has(self.days, date.day())
            && has(self.weekdays, date.weekday().num_days_from_sunday())
    }

    fn first_on(
        &self,
        date: NaiveDate,
        from: Timestamp,
        begin: NaiveDateTime,
    ) -> Option<Timestamp> {
        let mut first: Option<(Timestamp, NaiveDateTime)> = None;
        for hour in (0..24).filter(|hour| has(self.hours, *hour)) {
            for minute in (0..60).filter(|minute| has(self.minutes, *minute)) {
                let local = date.and_hms_opt(hour, minute, 0)?;
                if local + SHIFT < begin {
                    continue;
                }
                if first.is_some_and(|(_, earlier)| local > earlier + SHIFT) {
                    return first.map(|(at, _)| at);
                }
                let named = self.instants(local).into_iter().flatten().filter(|at| *at >= from);
                let named = named.map(|at| (at, local));
                first = first.into_iter().chain(named).min_by_key(|(at, _)| *at);
            }
        }
        first.map(|(at, _)| at)
    }

    /// The instants at which clocks show that.
    fn instants(&self, local: NaiveDateTime) -> [Option<Timestamp>; 2] {
        let is_hourly = self.hours.count_ones() == 24;
        let of = |at: DateTime<Tz>| Some(Timestamp::from_ms(at.timestamp_millis()));
        let shown = self.zone.from_local_datetime(&local);
        match (shown.earliest(), shown.latest()) {
            (Some(first), Some(second)) if is_hourly && first != second => [of(first), of(second)],
            (Some(first), _) => [of(first), None],
            (None, _) if is_hourly => [None, None],
            (None, _) => {
                let mut later = (1..=24 * 60).map(|minutes| local + TimeDelta::minutes(minutes));
                let end = later.find_map(|local| self.zone.from_local_datetime(&local).earliest());
                [end.and_then(of), None]
            }
        }
    }
}

fn has(set: u64, number: u32) -> bool {
    set >> number & 1 == 1
}

fn field(text: &str, min: u32, max: u32) -> Option<u64> {
    let mut set = 0;
    for item in text.split(',') {
        let (what, step) = match item.split_once('/') {
            Some((what, step)) => (what, number(step).filter(|step| *step > 0)?),
            None => (item, 1),
        };
        let (from, to) = match what.split_once('-') {
            _ if what == "*" => (min, max),
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(what)?, number(what)?),
        };
        let step = usize::try_from(step).ok()?;
        for number in (from..=to).step_by(step).filter(|number| (min..=max).contains(number)) {
            set |= 1 << number;
        }
    }
    Some(set)
}

fn number(text: &str) -> Option<u32> {
    let is_one = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_one.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        let at = DateTime::parse_from_rfc3339(text).expect("an instant");
        Timestamp::from_ms(at.timestamp_millis())
    }

    fn cron_in(text: &str, zone_name: &str) -> Cron {
        Cron::parse(text, zone(Some(zone_name)).expect("a zone")).expect("an expression")
    }

    /// The next instants after that one.
    fn next(cron: &Cron, after: &str, count: usize) -> Vec<String> {
        let next = std::iter::successors(cron.next_after(at(after)), |at| cron.next_after(*at));
        next.take(count).map(|at| at.to_string().replace(":00.000Z", "Z")).collect()
    }

    fn next_utc(text: &str, after: &str, count: usize) -> Vec<String> {
        next(&cron_in(text, "UTC"), after, count)
    }

    #[test]
    fn an_instant_is_strictly_after_the_minute() {
        let after = "2026-11-27T09:00:00.000Z";
        assert_eq!(next_utc("0 9 * * *", after, 1), ["2026-11-28T09:00Z"]);
        assert_eq!(next_utc("* * * * *", "2026-11-27T09:00:59.999Z", 1), ["2026-11-27T09:01Z"]);
        assert_eq!(next_utc("0 9 * * 1", after, 2), ["2026-11-30T09:00Z", "2026-12-07T09:00Z"]);
    }

    #[test]
    fn a_day_must_fit_both_fields() {
        let fridays = next_utc("0 0 13 * 5", "2026-11-27T00:00:00Z", 2);
        assert_eq!(fridays, ["2027-08-13T00:00Z"], "and then none within a year");
        assert_eq!(next_utc("0 0 31 2 *", "2026-11-27T00:00:00Z", 1), [""; 0]);
        assert_eq!(next_utc("0 0 29 2 *", "2027-02-28T00:00:00Z", 1), ["2028-02-29T00:00Z"]);
        assert_eq!(next_utc("0 0 29 2 *", "2026-11-27T00:00:00Z", 1), [""; 0], "too far ahead");
    }

    #[test]
    fn a_field_is_a_list_of_numbers_ranges_and_steps() {
        for (text, numbers) in [
            ("*/20", vec![0, 20, 40]),
            ("5,7-9", vec![5, 7, 8, 9]),
            ("10-30/10", vec![10, 20, 30]),
            ("7/3", vec![7]),
            ("58-99", vec![58, 59]),
            ("60", vec![]),
            ("9-7", vec![]),
            ("1,70", vec![1]),
        ] {
            let set = numbers.into_iter().fold(0, |set, number: u32| set | 1 << number);
            assert_eq!(field(text, 0, 59), Some(set), "{text}");
        }
        assert_eq!(field("*/2", 1, 5), Some(0b10_1010), "from the first that there is");
        for text in ["", "x", "1,", "*/0", "1/0", "*/", "-", "1-", "*-5", "+1", "00001", "1-2-3"] {
            assert_eq!(field(text, 0, 59), None, "{text}");
        }
    }

    #[test]
    fn an_expression_has_five_fields() {
        for text in ["", "* * * *", "* * * * * *", "@daily", "0 0 * JAN *", "0 0 * * MON"] {
            assert_eq!(Cron::parse(text, Tz::UTC), None, "{text}");
        }
        assert!(Cron::parse("  0\t9 * *  1 ", Tz::UTC).is_some());
        // Sunday is 0, and 7 is out of range.
        assert_eq!(next_utc("0 0 * * 7", "2026-11-27T00:00:00Z", 1), [""; 0]);
        assert_eq!(next_utc("0 0 * * 0", "2026-11-27T00:00:00Z", 1), ["2026-11-29T00:00Z"]);
        assert!(zone(Some("Europe/Atlantis")).is_none());
    }

    #[test]
    fn a_zone_has_hours_of_its_own() {
        let cron = cron_in("0 9 * * *", "America/New_York");
        let next = next(&cron, "2026-10-30T20:00:00Z", 3);
        assert_eq!(next, ["2026-10-31T13:00Z", "2026-11-01T14:00Z", "2026-11-02T14:00Z"]);
    }

    #[test]
    fn what_falls_into_the_missing_hour_comes_at_its_end_once() {
        // At 2:00 it is 3:00 in Berlin, on 28 March 2027: 1:00 in UTC.
        let of = |text| next(&cron_in(text, "Europe/Berlin"), "2027-03-27T12:00:00Z", 2);
        assert_eq!(of("30 2 * * *"), ["2027-03-28T01:00Z", "2027-03-29T00:30Z"]);
        assert_eq!(of("*/20 2 * * 0"), ["2027-03-28T01:00Z", "2027-04-04T00:00Z"]);
        let hourly = next(&cron_in("30 * * * *", "Europe/Berlin"), "2027-03-28T00:00:00Z", 3);
        assert_eq!(hourly, ["2027-03-28T00:30Z", "2027-03-28T01:30Z", "2027-03-28T02:30Z"]);
    }

    #[test]
    fn what_falls_into_the_hour_that_comes_twice_comes_once() {
        // At 3:00 it is 2:00 in Berlin, on 31 October 2027: 1:00 in UTC.
        let of = |text| next(&cron_in(text, "Europe/Berlin"), "2027-10-30T12:00:00Z", 2);
        assert_eq!(of("30 2 * * *"), ["2027-10-31T00:30Z", "2027-11-01T01:30Z"]);
        let hourly = next(&cron_in("30 * * * *", "Europe/Berlin"), "2027-10-30T23:40:00Z", 3);
        assert_eq!(hourly, ["2027-10-31T00:30Z", "2027-10-31T01:30Z", "2027-10-31T02:30Z"]);
        // In the middle of the second one there is nothing to make up for.
        let once = next(&cron_in("10,50 2 * * *", "Europe/Berlin"), "2027-10-31T00:20:00Z", 2);
        assert_eq!(once, ["2027-10-31T00:50Z", "2027-11-01T01:10Z"]);
    }

    #[test]
    fn a_day_that_begins_twice_or_late_has_its_midnight() {
        // Clocks go back at midnight in Cuba, and forward in Lebanon.
        let havana = cron_in("0 0 * * *", "America/Havana");
        assert_eq!(
            next(&havana, "2026-10-31T12:00:00Z", 2),
            ["2026-11-01T04:00Z", "2026-11-02T05:00Z"]
        );
        let beirut = cron_in("15 0 * * *", "Asia/Beirut");
        assert_eq!(next(&beirut, "2027-03-27T12:00:00Z", 1), ["2027-03-27T22:00Z"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// By the slow way: minute by minute.
        #[test]
        fn in_utc_it_names_what_a_walk_over_all_minutes_finds(
            minute in 0_u32..60, step in 1_u32..8, hours in "[0-9]|1[0-9]-2[0-3]|\\*", days in "\\*|1-20",
            weekdays in "\\*|1-5|0,6", begin in 0_i64..366 * 24 * 60,
        ) {
            let cron = Cron::parse(&format!("{minute},*/{} {hours} {days} * {weekdays}", step * 7), Tz::UTC);
            let cron = cron.expect("an expression");
            let after = at("2026-01-01T00:00:00Z").plus_ms(begin * MINUTE_MS);
            let walked = (1..40 * 24 * 60).map(|minutes| after.plus_ms(minutes * MINUTE_MS)).find(|at| {
                let local = cron.local(*at).expect("an instant");
                let (hour, minute) = (chrono::Timelike::hour(&local), chrono::Timelike::minute(&local));
                cron.names_day(local.date()) && has(cron.hours, hour) && has(cron.minutes, minute)
            });
            prop_assert_eq!(cron.next_after(after), walked);
        }
    }
}
