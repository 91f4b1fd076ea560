//! Where a session's host is in its work, as its hooks say it: for the session's process,
//! which tells the mesh, and for the bound on how often a turn's end is put off.

use sqlx::Row as _;

use super::Spool;
use crate::clock::Timestamp;
use crate::limits;
use crate::protocol::Status;

/// Where the host is in its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// `working` between a prompt and the end of its turn, else `idle`.
    pub(crate) status: Status,
    /// Since when.
    pub(crate) since: Timestamp,
    /// The prompt that is worked on, or was last; older hosts do not name it.
    pub(crate) prompt: Option<String>,
}

impl Spool {
    /// Where the host is.
    pub(crate) async fn turn(&self) -> anyhow::Result<Turn> {
        let select = "select status, status_at, prompt from turn";
        let row = sqlx::query(select).fetch_one(&self.pool).await?;
        let working = row.try_get::<&str, _>("status")? == Status::Working.as_str();
        Ok(Turn {
            status: if working { Status::Working } else { Status::Idle },
            since: Timestamp::from_ms(row.try_get("status_at")?),
            prompt: row.try_get("prompt")?,
        })
    }

    /// The host works, on that prompt if it says so. Another prompt than the one before
    /// begins a turn.
    pub(crate) async fn works(&self, prompt: Option<&str>, now: Timestamp) -> anyhow::Result<()> {
        let update = "update turn set \
            status_at = case status when 'working' then status_at else ?2 end, \
            status = 'working', \
            continuations = case when ?1 is not null and prompt is not ?1 then 0 \
                else continuations end, \
            prompt = coalesce(?1, prompt)";
        sqlx::query(update).bind(prompt).bind(now.as_ms()).execute(&self.pool).await?;
        Ok(())
    }

    /// The user has typed: whatever was counted begins anew.
    pub(crate) async fn turn_begins(
        &self,
        prompt: Option<&str>,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        let update = "update turn set status = 'working', status_at = ?2, prompt = ?1, \
            continuations = 0";
        sqlx::query(update).bind(prompt).bind(now.as_ms()).execute(&self.pool).await?;
        Ok(())
    }

    /// The host waits for its user.
    pub(crate) async fn idles(&self, now: Timestamp) -> anyhow::Result<()> {
        let update = "update turn set \
            status_at = case status when 'idle' then status_at else ?1 end, status = 'idle'";
        sqlx::query(update).bind(now.as_ms()).execute(&self.pool).await?;
        Ok(())
    }

    /// Asks to put the end of this turn off once more; counts it, if it may be.
    /// `again` says that the turn has been put off before, whoever did that: a host that
    /// names no prompt tells by it where a turn begins.
    pub(crate) async fn may_continue(
        &self,
        prompt: Option<&str>,
        again: bool,
    ) -> anyhow::Result<bool> {
        // A turn without a prompt of its own, as one that a doorbell began, counts anew.
        let update = "update turn set \
            continuations = case when (?1 is not null and ?1 is not prompt) \
                or (?1 is null and not ?2) then 1 else continuations + 1 end, \
            prompt = coalesce(?1, prompt) \
            where (?1 is not null and ?1 is not prompt) or (?1 is null and not ?2) \
            or continuations < ?3";
        let done = sqlx::query(update)
            .bind(prompt)
            .bind(again)
            .bind(limits::CONTINUATIONS_MAX)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Asks to ring the doorbell of an idle session. Once it was rung it may be rung again
    /// only when something has been seen since, or after so many milliseconds.
    pub(crate) async fn may_ring(&self, quiet_ms: i64, now: Timestamp) -> anyhow::Result<bool> {
        let update = "update turn set rung_at = ?1 where rung_at <= ?1 - ?2 \
            or rung_at < progress_at";
        let done = sqlx::query(update).bind(now.as_ms()).bind(quiet_ms).execute(&self.pool).await?;
        Ok(done.rows_affected() == 1)
    }

    /// Names the one process that waits to wake the session: whoever waited before is
    /// superseded.
    pub(crate) async fn begin_to_wait(&self, waiter: &str) -> anyhow::Result<()> {
        sqlx::query("update turn set waiter = ?1").bind(waiter).execute(&self.pool).await?;
        Ok(())
    }

    /// Whether that process is still the one.
    pub(crate) async fn still_waits(&self, waiter: &str) -> anyhow::Result<bool> {
        let select = "select waiter is ?1 from turn";
        Ok(sqlx::query_scalar(select).bind(waiter).fetch_one(&self.pool).await?)
    }
}
