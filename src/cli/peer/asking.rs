//! Questions of a peer at a terminal, each by a visit of its own.

use std::io;
use std::path::Path;

use super::WhoArgs;
use crate::cli::Failure;
use crate::client::ClientError;
use crate::protocol::Ask;

impl WhoArgs {
    /// Asks one thing.
    pub(super) async fn ask<R: Ask>(&self, data_dir: &Path, ask: &R) -> anyhow::Result<R::Answer> {
        let kept = self.choose(data_dir)?;
        let (client, _inbox) = self.visit(&kept).await?;
        let answer = client.ask(ask).await;
        client.close().await;
        answer.map_err(explain)
    }

    /// Asks for a list to its end: `page` takes an answer apart, `go_on` puts its cursor
    /// into the question.
    pub(super) async fn ask_all<R: Ask, T>(
        &self,
        data_dir: &Path,
        mut ask: R,
        page: impl Fn(R::Answer) -> (Vec<T>, Option<String>),
        go_on: impl Fn(&mut R, String),
    ) -> anyhow::Result<Vec<T>> {
        let kept = self.choose(data_dir)?;
        let (client, _inbox) = self.visit(&kept).await?;
        let mut rows = Vec::new();
        let ended = loop {
            match client.ask(&ask).await.map(&page) {
                Err(error) => break Err(explain(error)),
                Ok((more, cursor)) => {
                    // A broker that does not end is not followed for ever.
                    let is_last = more.is_empty() || cursor.is_none();
                    rows.extend(more);
                    match cursor {
                        Some(cursor) if !is_last => go_on(&mut ask, cursor),
                        _ => break Ok(rows),
                    }
                }
            }
        };
        client.close().await;
        ended
    }
}

/// The broker's code for scripts, where they may go by it.
pub(super) fn explain(error: ClientError) -> anyhow::Error {
    let code = match error.code() {
        Some("conflict") => "conflict",
        Some("forbidden") => "forbidden",
        Some("invalid_argument") => "invalid_argument",
        Some("topic_not_found") => "topic_not_found",
        Some("quota") => "quota",
        _ => return error.into(),
    };
    Failure::new(code, error.to_string()).into()
}

/// `text`, or standard input for `-`.
pub(super) fn text_or_input(text: &str) -> io::Result<String> {
    if text == "-" { io::read_to_string(io::stdin()) } else { Ok(text.to_owned()) }
}
