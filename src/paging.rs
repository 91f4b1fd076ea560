//! Answers that may be long: they end at a number of encoded bytes and say how to
//! ask on. One answer must fit into a socket's queue whatever a mesh holds.
//!
//! Nothing is read here. Called by [`features`](crate::features) and by the routes of
//! [`http`](crate::http) that list something.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits;
use crate::protocol::budget::{text_bytes, value_bytes};

/// What the rows of one answer may take.
const ROWS_BYTES_MAX: usize = limits::ANSWER_BYTES_MAX - limits::ANSWER_FRAME_BYTES_MAX;

/// The rows of one answer.
pub(crate) struct Page<T> {
    pub(crate) rows: Vec<T>,
    /// Where the next page begins, if there is one.
    pub(crate) cursor: Option<String>,
}

/// How much of an answer is taken.
#[derive(Default)]
pub(crate) struct Budget(usize);

impl Budget {
    /// Whether there is room for this row; then it is counted. The first always has
    /// room: rows have bounds of their own.
    pub(crate) fn takes(&mut self, bytes: usize) -> bool {
        let with_it = self.0 + bytes + 1;
        let fits = self.0 == 0 || with_it <= ROWS_BYTES_MAX;
        if fits {
            self.0 = with_it;
        }
        fits
    }

    /// A third of an answer, for one that has three lists of names.
    pub(crate) fn of_three() -> Self {
        Self(ROWS_BYTES_MAX - ROWS_BYTES_MAX / 3)
    }

    /// As many of these texts as there is room for, each counted `times`.
    pub(crate) fn texts(&mut self, texts: &[String], times: usize) -> Vec<String> {
        let fits = texts.iter().take_while(|text| self.takes(times * (text_bytes(text) + 3)));
        fits.cloned().collect()
    }
}

/// As many rows as an answer holds. Each item comes with its position in the list,
/// which becomes the cursor of the page that ends with it.
pub(crate) fn page<K: Serialize, I, T: Serialize>(
    items: impl IntoIterator<Item = I>,
    position: impl Fn(&I) -> K,
    row: impl Fn(&I) -> T,
) -> Page<T> {
    let mut budget = Budget::default();
    let mut rows = Vec::new();
    let mut last = None;
    for item in items {
        let row = row(&item);
        if !budget.takes(value_bytes(&row)) {
            return Page { rows, cursor: last.map(|last| to_cursor(&position(&last))) };
        }
        rows.push(row);
        last = Some(item);
    }
    Page { rows, cursor: None }
}

/// A list that is read from the store some rows at a time, as far as one answer holds:
/// the number of rows follows from how long those before were.
pub(crate) struct Listing<K, T, F> {
    position: F,
    after: Option<K>,
    rows: Vec<T>,
    budget: Budget,
    limit: i64,
    /// Rows that are still wanted.
    left: i64,
    state: Progress,
}

/// How far a listing is.
#[derive(PartialEq, Eq)]
enum Progress {
    /// There may be more, and room for it.
    Goes,
    /// The store has no more, or no more were asked for.
    Ended,
    /// There is no more room.
    Full,
}

/// Rows that are read first.
const FIRST_ROWS: i64 = 64;
/// Rows that are read at once however short they are.
const ROWS_MAX: i64 = 1024;

impl<K: Clone + Serialize, T: Serialize, F: Fn(&T) -> K> Listing<K, T, F> {
    /// A list that goes on after that position.
    pub(crate) fn after(after: Option<K>, position: F) -> Self {
        let (rows, budget) = (Vec::new(), Budget::default());
        let (limit, left, state) = (FIRST_ROWS, i64::MAX, Progress::Goes);
        Self { position, after, rows, budget, limit, left, state }
    }

    /// Ends after so many rows.
    pub(crate) fn at_most(self, rows: i64) -> Self {
        let state = if rows > 0 { self.state } else { Progress::Ended };
        Self { left: rows, limit: self.limit.min(rows), state, ..self }
    }

    /// After which position to read how many rows, as long as more fit.
    pub(crate) fn next(&self) -> Option<(Option<K>, i64)> {
        (self.state == Progress::Goes).then(|| (self.after.clone(), self.limit))
    }

    /// Takes what was read.
    pub(crate) fn take(&mut self, found: impl IntoIterator<Item = T>) {
        let mut count = 0;
        for row in found {
            count += 1;
            if !self.budget.takes(value_bytes(&row)) {
                self.state = Progress::Full;
                return;
            }
            self.after = Some((self.position)(&row));
            self.rows.push(row);
        }
        self.left -= count;
        if count < self.limit || self.left <= 0 {
            self.state = Progress::Ended;
            return;
        }
        let each = self.budget.0 / self.rows.len().max(1) + 1;
        let fit = ROWS_BYTES_MAX.saturating_sub(self.budget.0) / each + 1;
        self.limit = i64::try_from(fit).unwrap_or(ROWS_MAX).min(ROWS_MAX).min(self.left);
    }

    /// The answer's rows.
    pub(crate) fn page(self) -> Page<T> {
        let is_cut = self.state == Progress::Full;
        let cursor = self.after.filter(|_| is_cut).map(|after| to_cursor(&after));
        Page { rows: self.rows, cursor }
    }
}

/// As many of these rows as an answer holds, and whether there are more of them.
pub(crate) fn fitting<T: Serialize>(rows: impl IntoIterator<Item = T>) -> (Vec<T>, bool) {
    let (mut budget, mut fit) = (Budget::default(), Vec::new());
    for row in rows {
        if !budget.takes(value_bytes(&row)) {
            return (fit, true);
        }
        fit.push(row);
    }
    (fit, false)
}

/// A cursor of another list, or of none.
#[derive(Debug)]
pub(crate) struct UnknownCursor;

/// A position as clients carry it; they do not look inside.
pub(crate) fn to_cursor<K: Serialize>(position: &K) -> String {
    let text = serde_json::to_vec(position).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(text)
}

/// The position after which the asker goes on.
pub(crate) fn from_cursor<K: DeserializeOwned>(
    cursor: Option<&str>,
) -> Result<Option<K>, UnknownCursor> {
    let Some(cursor) = cursor else { return Ok(None) };
    let read = |cursor: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    let known = (cursor.len() <= limits::CURSOR_BYTES_MAX).then(|| read(cursor)).flatten();
    known.map(Some).ok_or(UnknownCursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_every_row_once_and_are_bounded() {
        let rows: Vec<String> = (0..100).map(|n| format!("{n:0>20000}")).collect();
        let (mut after, mut seen, mut pages) = (0, Vec::new(), 0);
        loop {
            let items = rows.iter().enumerate().skip(after);
            let page = page(items, |(at, _)| *at, |(_, row)| (*row).clone());
            assert!(value_bytes(&page.rows) <= limits::ANSWER_BYTES_MAX);
            pages += 1;
            seen.extend(page.rows);
            let Some(cursor) = page.cursor else { break };
            let bytes = URL_SAFE_NO_PAD.decode(cursor).expect("base64");
            after = serde_json::from_slice::<usize>(&bytes).expect("a position") + 1;
        }
        assert_eq!(seen, rows);
        assert_eq!(pages, 4);
    }

    #[test]
    fn a_listing_reads_until_the_answer_is_full_and_goes_on_from_there() {
        let stored: Vec<String> = (0..5_000).map(|n| format!("{n:0>250}")).collect();
        let (mut after, mut seen, mut reads) = (None, Vec::new(), 0);
        loop {
            let mut listing = Listing::after(after.take(), Clone::clone);
            while let Some((after, limit)) = listing.next() {
                reads += 1;
                let rest =
                    stored.iter().filter(|row| after.as_ref().is_none_or(|last| *row > last));
                let limit = usize::try_from(limit).expect("positive");
                listing.take(rest.take(limit).cloned().collect::<Vec<_>>());
            }
            let page = listing.page();
            assert!(value_bytes(&page.rows) <= limits::ANSWER_BYTES_MAX);
            seen.extend(page.rows);
            let Some(cursor) = page.cursor else { break };
            after = from_cursor::<String>(Some(&cursor)).expect("its own");
        }
        assert_eq!(seen, stored);
        assert!(reads < 12, "{reads}");
    }

    #[test]
    fn a_listing_ends_where_no_more_was_asked_for() {
        for (asked, reads_of) in [(1, vec![1]), (64, vec![64]), (100, vec![64, 36]), (0, vec![])] {
            let mut listing = Listing::after(None, |row: &usize| *row).at_most(asked);
            let mut reads = Vec::new();
            while let Some((after, limit)) = listing.next() {
                reads.push(limit);
                let first = after.map_or(0, |last| last + 1);
                listing.take((first..).take(usize::try_from(limit).expect("positive")));
            }
            let page = listing.page();
            assert_eq!((reads, page.cursor), (reads_of, None), "{asked}");
            assert_eq!(page.rows.len(), usize::try_from(asked).expect("positive"));
        }
    }

    #[test]
    fn of_many_rows_as_many_are_taken_as_an_answer_holds() {
        let rows = || (0..10_000).map(|_| "\u{1}".repeat(4096));
        let (fit, is_cut) = fitting(rows());
        assert!(is_cut && value_bytes(&fit) <= limits::ANSWER_BYTES_MAX, "{}", fit.len());
        assert_eq!(fitting(rows().take(3)), (rows().take(3).collect(), false));
    }

    #[test]
    fn names_of_control_characters_are_counted_as_they_are_written() {
        let names = vec!["\u{1}".repeat(256); 1000];
        let mut budget = Budget::default();
        let fits = budget.texts(&names, 2);
        assert!(2 * value_bytes(&fits) <= limits::ANSWER_BYTES_MAX);
        assert!(fits.len() > 100);
    }
}
