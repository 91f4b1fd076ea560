//! Statements over many rows.
//!
//! A statement is written for one row: its first group of parameters,
//! `(?, ?, ...)`, stands in a `values`. For more rows that group is repeated.
//! Rows go in few sizes, so that each statement is prepared once per
//! connection and then kept.

use sqlx::AssertSqlSafe;

use super::connection::Tx;
use super::error::refused;
use crate::store::Result;

/// Rows of one statement; in all of them together stay below SQLite's limit of
/// 32,766 parameters.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// A statement over rows and its parameters.
pub(in crate::store) type Statement = super::connection::Statement<'static>;

/// The rows in groups, each with the statement that is to take it.
pub(in crate::store) fn statements<'a, T>(
    one_row: &'static str,
    rows: &'a [T],
) -> impl Iterator<Item = (Statement, &'a [T])> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rest.len())?;
        let (group, others) = rest.split_at(size);
        rest = others;
        Some((sqlx::query(AssertSqlSafe(repeated(one_row, size))), group))
    })
}

/// Executes the statement over all the rows; `bind` binds a group of them.
pub(in crate::store) async fn execute<T>(
    tx: &mut Tx,
    one_row: &'static str,
    rows: &[T],
    bind: impl Fn(Statement, &[T]) -> Statement,
) -> Result<()> {
    let mut groups = statements(one_row, rows).map(|(query, group)| bind(query, group));
    let mut next = groups.next();
    while let Some(query) = next {
        // The next one is bound while the connection's thread works on this.
        let (done, following) = tokio::join!(query.execute(&mut **tx), async { groups.next() });
        done.map_err(refused)?;
        next = following;
    }
    Ok(())
}

/// The statement for that many rows. Made of its own text alone.
fn repeated(one_row: &'static str, rows: usize) -> String {
    let begin = one_row.find("(?").expect("a statement over rows has a group of parameters");
    let length = one_row[begin..].find(')').expect("the group ends") + 1;
    let (before, after) = (&one_row[..begin], &one_row[begin + length..]);
    let group = &one_row[begin..begin + length];
    let mut text = String::with_capacity(one_row.len() + (rows - 1) * (length + 2));
    text.push_str(before);
    for row in 0..rows {
        if row > 0 {
            text.push_str(", ");
        }
        text.push_str(group);
    }
    text.push_str(after);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_parameters_is_repeated() {
        let one = "with done (a, b) as (values (?, ?)) select a from done";
        assert_eq!(repeated(one, 1), one);
        let three = "with done (a, b) as (values (?, ?), (?, ?), (?, ?)) select a from done";
        assert_eq!(repeated(one, 3), three);
    }

    #[test]
    fn every_row_is_in_one_group_in_its_order() {
        let rows: Vec<u32> = (0..349).collect();
        let groups: Vec<&[u32]> = statements("values (?)", &rows).map(|(_, group)| group).collect();
        let sizes: Vec<usize> = groups.iter().map(|group| group.len()).collect();
        assert_eq!(sizes, [256, 64, 16, 4, 4, 4, 1]);
        assert_eq!(groups.concat(), rows);
    }
}
