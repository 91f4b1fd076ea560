//! A database that went back: a failover to a standby that lagged, a restore.
//!
//! Sequence numbers in a mesh only go up, and everything that is believed of them
//! (the room's order, what a session has seen, what its row says) only moves forward.
//! When the store's newest number is below what was believed a moment ago, the
//! numbers in between are given away once more, and what has them must not be taken
//! for what was seen under them before. So what was believed is forgotten, here and
//! in the rows, back to the last instant at which the store was known to go on: what
//! was accepted since arrives, and what came in that last minute may come again.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::delivery::Parts;
use crate::limits;
use crate::registry::Room;
use crate::store::Result;

/// The mesh's newest sequence number. `None`: that is below `believed`, and what was
/// believed has been forgotten; the caller begins again. Everything up to `believed`
/// was committed before the call.
pub(super) async fn newest(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    believed: i64,
) -> Result<Option<i64>> {
    let asked_at = Timestamp::now();
    let newest = parts.mail.newest_seq(room.mesh()).await?;
    if newest >= believed {
        room.seqs_go_on(asked_at);
        return Ok(Some(newest));
    }
    // Where somebody deleted the newest rows of the chain, the messages are still
    // there: nothing went back.
    let beyond = parts.mail.multicasts_after(room.mesh(), newest, 1).await?;
    let newest = parts.mail.newest_seq(room.mesh()).await?;
    if newest >= believed || beyond.first().is_some_and(|envelope| envelope.seq > newest) {
        return Ok(Some(newest));
    }
    go_back(parts, room, newest, believed).await?;
    Ok(None)
}

async fn go_back(parts: &Arc<Parts>, room: &Arc<Room>, newest: i64, believed: i64) -> Result<()> {
    let mesh = room.mesh();
    let since = room.seqs_known_at().plus_ms(-limits::CLOCKS_APART_MS);
    let seq = parts.mail.seq_before(mesh, since).await?.min(newest);
    parts.mail.rewind(mesh, newest, seq).await?;
    if room.rewind(newest, seq) {
        tracing::warn!(
            %mesh, newest, believed, seq,
            "the database went back (a failover, a restore): messages to many are read again from \
             before that, and some may come twice"
        );
    }
    super::request_all(parts, room);
    Ok(())
}

/// Looks after something came under a number that was passed already: late, or given
/// away once more. One look at a time.
pub(crate) fn look(parts: &Arc<Parts>, room: &Arc<Room>) {
    if !room.begin_look() {
        return;
    }
    let (parts, room) = (Arc::clone(parts), Arc::clone(room));
    let tasks = parts.life.tasks.clone();
    tasks.spawn(async move {
        check(&parts, &room).await;
        room.end_look();
    });
}

/// Looks whether the store goes on from where it was.
pub(crate) async fn check(parts: &Arc<Parts>, room: &Arc<Room>) {
    if let Err(error) = newest(parts, room, room.last_multicast()).await {
        tracing::debug!(%error, mesh = %room.mesh(), "sequence numbers could not be looked at");
    }
}
