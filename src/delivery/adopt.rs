//! Adoption: posts that other programs wrote into the database become posts like others.

use std::sync::Arc;

use super::{Parts, drain};
use crate::clock::Timestamp;
use crate::cluster::BusMessage;
use crate::id::MeshId;
use crate::limits;
use crate::registry::Room;

/// Posts that other programs wrote get their place, and whoever they are for reads them.
pub(crate) async fn posts(parts: &Arc<Parts>, room: &Arc<Room>) {
    let mesh: &MeshId = room.mesh();
    loop {
        let now = Timestamp::now();
        match parts.topics.adopt(now, mesh, limits::ADOPTED_POSTS_MAX).await {
            Ok(None) => return,
            Ok(Some(last)) => {
                room.skip_to(last, || drain::request_all(parts, room));
                let message = BusMessage::MailFor { keys: Vec::new(), many: true };
                parts.cluster.publish(mesh, &message);
            }
            Err(error) => {
                return tracing::warn!(%error, %mesh, "posts of other programs wait");
            }
        }
    }
}
