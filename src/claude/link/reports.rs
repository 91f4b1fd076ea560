//! What the link tells the broker by itself: the session's status as its host's hooks say
//! it, and what was surfaced.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{LOOK, Shared};
use crate::client::{Client, ClientError};
use crate::clock::Timestamp;
use crate::protocol::{ClientAck, JoinGroup, Reached, SetStatus, SetSummary};

/// Messages of one report.
const REPORTED_MAX: u32 = 100;

/// Says of itself what a new presence does not know. What fails is said with the next
/// look.
pub(super) async fn greet(shared: &Shared, client: &Client) {
    shared.spoken.lock().is_to_be_said_again();
    let _ = say(shared, client).await;
}

/// Looks and tells until that is over.
pub(super) async fn run(shared: Arc<Shared>, client: Client, over: CancellationToken) {
    let mut version = None;
    loop {
        tokio::select! {
            () = shared.stirred.notified() => version = None,
            () = tokio::time::sleep(LOOK) => {}
            () = over.cancelled() => return,
        }
        // Other programs write to the spool; what they change is told by its version.
        let now = shared.party.spool.version().await.ok();
        if now.is_some() && now == version {
            continue;
        }
        shared.arrived.notify_one();
        if tell(&shared, &client).await.is_ok() {
            version = now;
        }
    }
}

async fn tell(shared: &Shared, client: &Client) -> anyhow::Result<()> {
    say(shared, client).await?;
    loop {
        let ids = shared.party.spool.unsurfaced(REPORTED_MAX).await?;
        if ids.is_empty() {
            return Ok(());
        }
        let ack = ClientAck {
            message_ids: Some(ids.iter().map(ToString::to_string).collect()),
            stage: Some(Reached::Surfaced),
            ..ClientAck::default()
        };
        // Asked for an answer, so that nothing counts as told that the broker has not read.
        client.request("client_ack", &ack).await?;
        shared.party.spool.told(&ids, Timestamp::now()).await?;
    }
}

async fn say(shared: &Shared, client: &Client) -> anyhow::Result<()> {
    let again = shared.spoken.lock().again();
    if let Some((summary, groups)) = again {
        let said = async {
            if let Some(summary) = summary {
                client.ask(&SetSummary { summary }).await?;
            }
            for group in groups {
                client.ask(&JoinGroup(group)).await?;
            }
            Ok::<_, ClientError>(())
        };
        if let Err(error) = said.await {
            shared.spoken.lock().is_to_be_said_again();
            return Err(error.into());
        }
    }
    let turn = shared.party.spool.turn().await?.status;
    let status = shared.spoken.lock().status_to_tell(turn);
    if let Some(status) = status {
        client.ask(&SetStatus { status }).await?;
        shared.spoken.lock().told(status);
    }
    Ok(())
}
