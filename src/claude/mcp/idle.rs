//! Wakes an idle session for its messages: by the channel, else by the doorbell.
//!
//! Busy sessions are left to the hooks, which come between two tools and at the end of a
//! turn. Nothing is pushed before the host is ready for it, and nothing that is written
//! here counts as seen.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rmcp::RoleServer;
use rmcp::model::{CustomNotification, ServerNotification};
use rmcp::service::Peer;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::seat::Seat;
use super::ways::Ways;
use crate::claude::doorbell::Doorbell;
use crate::claude::framing::{self, Room};
use crate::claude::link::Link;
use crate::claude::spool::{Letter, Wanted, Way};
use crate::clock::Timestamp;
use crate::protocol::Status;

/// The method of the channel.
const METHOD: &str = "notifications/claude/channel";
/// Hosts listen to the channel a while after they say that they are initialized.
const SETTLING: Duration = Duration::from_secs(3);
/// How often the hooks' word is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Messages of one round.
const ROUND_MAX: u32 = 20;
/// Characters of one message on the channel.
const ROOM: Room = Room { text: 64_000, body: 60_000 };
/// Names of senders that are asked for. The bell says how many there are beyond its own
/// bound.
const NAMES_MAX: u32 = 8;
/// Between two rings for this session, whoever rings.
const QUIET_MS: i64 = 2_000;

/// The host, once it has said that it is initialized.
pub(super) type Host = Option<(Peer<RoleServer>, Instant)>;

/// Wakes until it is dropped.
pub(super) async fn run(seat: Seat, mut host: watch::Receiver<Host>, ways: Arc<Mutex<Ways>>) {
    let Ok(ready) = host.wait_for(Option::is_some).await else { return };
    let Some((peer, since)) = ready.clone() else { return };
    drop(ready);
    tokio::time::sleep_until(since + SETTLING).await;
    let mut bell = Doorbell::default();
    let mut rows_of = None;
    loop {
        let link = seat.link().await;
        if rows_of.replace(link.number()) != Some(link.number()) {
            ways.lock().moved();
        }
        if let Err(error) = round(&seat, &link, &peer, &ways, &mut bell).await {
            tracing::debug!(error = format!("{error:#}"), "an idle session was not woken");
        }
        tokio::select! {
            () = link.arrived() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn round(
    seat: &Seat,
    link: &Link,
    peer: &Peer<RoleServer>,
    ways: &Mutex<Ways>,
    bell: &mut Doorbell,
) -> anyhow::Result<()> {
    let (spool, now) = (&link.party().spool, Timestamp::now());
    if spool.turn().await?.status != Status::Idle {
        return Ok(());
    }
    let free = spool.waiting(Wanted::default(), ROUND_MAX, now).await?;
    if free.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = free.iter().map(|letter| letter.id).collect();
    let inbox = seat.inbox();
    let (moves, lease_ms) = {
        let mut ways = ways.lock();
        (ways.idle(inbox.is_some(), &ids), ways.lease_ms())
    };
    for letter in free.iter().filter(|letter| moves.push.contains(&letter.id)) {
        let until = now.plus_ms(lease_ms);
        if spool.offer(&[letter.id], Way::Channel, until, now).await?.is_empty() {
            continue;
        }
        ways.lock().pushed(&[letter.id]);
        peer.send_notification(notification(letter, now)).await?;
    }
    let Some(inbox) = inbox.filter(|_| !moves.ring.is_empty()) else { return Ok(()) };
    if bell.rests() || !spool.may_ring(QUIET_MS, now).await? {
        return Ok(());
    }
    ways.lock().rung(&moves.ring);
    let senders = spool.senders(NAMES_MAX, now).await?;
    let count = i64::try_from(moves.ring.len())?;
    bell.ring(&inbox, &framing::doorbell(count, &senders)).await?;
    Ok(())
}

/// One message for the channel. Every value of `meta` is text: hosts drop the whole
/// notification for one that is not. No text of a peer stands there beyond its name.
fn notification(letter: &Letter, now: Timestamp) -> ServerNotification {
    let message = &letter.message;
    let frame = framing::frame(std::slice::from_ref(letter), ROOM, now);
    let name = framing::shown;
    let mut meta = Map::new();
    let mut say = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            meta.insert(key.to_owned(), Value::String(value));
        }
    };
    say("message_id", Some(message.message_id.to_string()));
    say("from_name", Some(name(&message.sender_name)));
    say("from_pubkey", Some(message.sender_key.to_string()));
    say("from_session_pubkey", message.sender_session_key.as_ref().map(ToString::to_string));
    say("mesh_slug", Some(name(&message.mesh)));
    say("priority", Some(message.priority.as_str().to_owned()));
    say("topic", message.target.as_deref().map(name));
    say("expects_reply", message.expects_reply.map(|expects| expects.to_string()));
    let params = json!({ "content": frame.text, "meta": meta });
    ServerNotification::CustomNotification(CustomNotification::new(METHOD, Some(params)))
}
