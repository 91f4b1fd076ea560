//! Answers that may be long: they end at a number of encoded bytes and say how to
//! ask on. One answer must fit into a socket's queue whatever a mesh holds.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Refusal;
use crate::limits;
use crate::protocol::budget::{text_bytes, value_bytes};

/// What the rows of one answer may take.
const ROWS_BYTES_MAX: usize = limits::ANSWER_BYTES_MAX - limits::ANSWER_FRAME_BYTES_MAX;

/// The rows of one answer.
pub(super) struct Page<T> {
    pub(super) rows: Vec<T>,
    /// Where the next page begins, if there is one.
    pub(super) cursor: Option<String>,
}

/// How much of an answer is taken.
#[derive(Default)]
pub(super) struct Budget(usize);

impl Budget {
    /// Whether there is room for this row; then it is counted. The first always has
    /// room: rows have bounds of their own.
    pub(super) fn takes(&mut self, bytes: usize) -> bool {
        let with_it = self.0 + bytes + 1;
        let fits = self.0 == 0 || with_it <= ROWS_BYTES_MAX;
        if fits {
            self.0 = with_it;
        }
        fits
    }

    /// A third of an answer, for one that has three lists of names.
    pub(super) fn of_three() -> Self {
        Self(ROWS_BYTES_MAX - ROWS_BYTES_MAX / 3)
    }

    /// As many of these texts as there is room for, each counted `times`.
    pub(super) fn texts(&mut self, texts: &[String], times: usize) -> Vec<String> {
        let fits = texts.iter().take_while(|text| self.takes(times * (text_bytes(text) + 3)));
        fits.cloned().collect()
    }
}

/// As many rows as an answer holds. Each item comes with its position in the list,
/// which becomes the cursor of the page that ends with it.
pub(super) fn page<K: Serialize, I, T: Serialize>(
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
pub(super) struct Listing<K, T, F> {
    position: F,
    after: Option<K>,
    rows: Vec<T>,
    budget: Budget,
    limit: i64,
    state: Progress,
}

/// How far a listing is.
#[derive(PartialEq, Eq)]
enum Progress {
    /// There may be more, and room for it.
    Goes,
    /// The store has no more.
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
    pub(super) fn after(after: Option<K>, position: F) -> Self {
        let (rows, budget) = (Vec::new(), Budget::default());
        Self { position, after, rows, budget, limit: FIRST_ROWS, state: Progress::Goes }
    }

    /// After which position to read how many rows, as long as more fit.
    pub(super) fn next(&self) -> Option<(Option<K>, i64)> {
        (self.state == Progress::Goes).then(|| (self.after.clone(), self.limit))
    }

    /// Takes what was read.
    pub(super) fn take(&mut self, found: impl IntoIterator<Item = T>) {
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
        if count < self.limit {
            self.state = Progress::Ended;
            return;
        }
        let each = self.budget.0 / self.rows.len().max(1) + 1;
        let fit = ROWS_BYTES_MAX.saturating_sub(self.budget.0) / each + 1;
        self.limit = i64::try_from(fit).unwrap_or(ROWS_MAX).min(ROWS_MAX);
    }

    /// The answer's rows.
    pub(super) fn page(self) -> Page<T> {
        let is_cut = self.state == Progress::Full;
        let cursor = self.after.filter(|_| is_cut).map(|after| to_cursor(&after));
        Page { rows: self.rows, cursor }
    }
}

/// A position as clients carry it; they do not look inside.
pub(super) fn to_cursor<K: Serialize>(position: &K) -> String {
    let text = serde_json::to_vec(position).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(text)
}

/// The position after which the asker goes on. Refused: the cursor is of no such list.
pub(super) fn from_cursor<K: DeserializeOwned>(cursor: Option<&str>) -> Result<Option<K>, Refusal> {
    let Some(cursor) = cursor else { return Ok(None) };
    let read = |cursor: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    let known = (cursor.len() <= limits::CURSOR_BYTES_MAX).then(|| read(cursor)).flatten();
    let text = "that cursor is of no such list: leave it out to begin at its start";
    known.map(Some).ok_or_else(|| Refusal::invalid(text).only_for_asked())
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
    fn names_of_control_characters_are_counted_as_they_are_written() {
        let names = vec!["\u{1}".repeat(256); 1000];
        let mut budget = Budget::default();
        let fits = budget.texts(&names, 2);
        assert!(2 * value_bytes(&fits) <= limits::ANSWER_BYTES_MAX);
        assert!(fits.len() > 100);
    }
}
