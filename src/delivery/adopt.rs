//! Adoption: posts that other programs wrote into the database become posts like others.

use std::sync::Arc;

use super::{Parts, drain};
use crate::clock::Timestamp;
use crate::cluster::BusMessage;
use crate::id::MeshId;
use crate::limits;
use crate::registry::Room;

/// Posts that other programs wrote get their place, and whoever they are for reads them;
/// whether that succeeded. What failed is for [`again`].
pub(crate) async fn posts(parts: &Arc<Parts>, room: &Arc<Room>) -> bool {
    let mesh: &MeshId = room.mesh();
    while !parts.life.stopped.is_cancelled() {
        let now = Timestamp::now();
        match parts.topics.adopt(now, mesh, limits::ADOPTED_POSTS_MAX).await {
            Ok(None) => break,
            Ok(Some(last)) => {
                room.skip_to(last, || drain::request_all(parts, room));
                let message = BusMessage::MailFor { keys: Vec::new(), many: true };
                parts.cluster.publish(mesh, &message);
            }
            Err(error) => {
                tracing::warn!(%error, %mesh, "posts of other programs wait");
                room.end_adoption(Some(now));
                return false;
            }
        }
    }
    room.end_adoption(None);
    true
}

/// Tries again in those rooms whose time has come, one after the other. Where one fails
/// the store is away, and the others are left for the next look.
pub(crate) async fn again(
    parts: &Arc<Parts>,
    rooms: impl IntoIterator<Item = Arc<Room>>,
    now: Timestamp,
) {
    for room in rooms {
        if room.takes_up_adoption(now) && !posts(parts, &room).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::testing::Fakes;
    use crate::store::testing::unavailable;

    #[tokio::test]
    async fn posts_that_could_not_be_looked_for_are_looked_for_again_by_themselves() {
        let mut fakes = Fakes::default();
        fakes.topics.expect_adopt().times(2).returning(|_, _, _| Err(unavailable()));
        fakes.topics.expect_adopt().once().returning(|_, _, _| Ok(Some(7)));
        fakes.topics.expect_adopt().once().returning(|_, _, _| Ok(None));
        let world = fakes.world();
        assert!(!posts(&world.parts, &world.room).await);
        let rooms = || [Arc::clone(&world.room)];
        again(&world.parts, rooms(), Timestamp::from_ms(0)).await;
        let later = Timestamp::now().plus_ms(2 * limits::ADOPTION_RETRY_MAX_MS);
        for _ in 0..3 {
            again(&world.parts, rooms(), later).await;
        }
        assert_eq!(world.room.last_multicast(), 7);
        let published = world.published();
        assert!(matches!(published[..], [BusMessage::MailFor { many: true, .. }]), "once");
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_asked_for_one_room_at_a_look() {
        let mut fakes = Fakes::default();
        fakes.topics.expect_adopt().times(3).returning(|_, _, _| Err(unavailable()));
        let world = fakes.world();
        let other = Arc::new(Room::new("other".into(), Arc::default()));
        for room in [&world.room, &other] {
            assert!(!posts(&world.parts, room).await);
        }
        let later = Timestamp::now().plus_ms(limits::ADOPTION_RETRY_MAX_MS);
        again(&world.parts, [Arc::clone(&world.room), Arc::clone(&other)], later).await;
        assert!(other.takes_up_adoption(later), "it waits for the next look");
    }
}
