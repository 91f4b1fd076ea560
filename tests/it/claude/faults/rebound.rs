//! A host gives its process another session while the server runs: the server follows, and
//! what is for a session's key comes to whoever is that session now, once.

use claudemesh_broker::id;
use claudemesh_broker::protocol::{PeerInfo, Priority};

use super::session::{Session, State};
use super::{Scene, eventually};
use crate::claude::hooks::host::{User, ids_of};

impl Scene {
    /// The sessions of ada that bob sees.
    async fn seen(&self) -> Vec<PeerInfo> {
        let mut peers = self.bob.client.list_peers().await.expect("a list");
        peers.retain(|peer| peer.display_name == "ada");
        peers
    }

    /// Waits until ada has one session, of another key than those; its key.
    async fn key_beside(&self, others: &[&str]) -> String {
        let mut found = String::new();
        eventually("one session is there", async || {
            let seen = self.seen().await;
            found = seen.first().map(|peer| peer.pubkey.clone()).unwrap_or_default();
            seen.len() == 1 && !others.contains(&&*found)
        })
        .await;
        found
    }

    /// Sends to a key; the message's id.
    async fn sends(&mut self, to: &str) -> String {
        to.clone_into(&mut self.bob.to);
        self.bob.sends(&[Priority::Next], 1).await.remove(0)
    }

    /// Waits until the message is in the spool, and the user types: it is shown, and that once.
    async fn comes_once(&self, session: &mut Session<'_>, id: String) {
        let ids = [id];
        self.bob.until_all(&ids, "confirmed", &["kept", "pushed"]).await;
        assert_eq!(session.goes_on(), ids);
        self.bob.until_all(&ids, "surfaced", &["confirmed"]).await;
        assert!(session.goes_on().is_empty(), "once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleared_session_keeps_its_key_and_its_connection() {
    let mut scene = Scene::new().await;
    let user = std::mem::replace(&mut scene.user, User::new(&[]));
    let mut session = Session::start(&user, State::Typing).await;
    let key = scene.key_beside(&[]).await;
    let joined = scene.node.audit_count("peer_joined").await;
    for _ in 0..2 {
        session.hooks.ends("clear");
        let early = [scene.sends(&key).await];
        scene.bob.until_all(&early, "confirmed", &["kept", "pushed"]).await;
        session.hooks.session = id::generate();
        assert_eq!(ids_of(&session.hooks.starts("clear")), early);
        scene.bob.until_all(&early, "surfaced", &["confirmed"]).await;
        let late = scene.sends(&key).await;
        scene.comes_once(&mut session, late).await;
    }
    assert_eq!(scene.key_beside(&[]).await, key);
    assert_eq!(scene.node.audit_count("peer_joined").await, joined, "nobody else has come");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_follows_its_host_to_an_earlier_session_and_back() {
    let mut scene = Scene::new().await;
    let user = std::mem::replace(&mut scene.user, User::new(&[]));
    let mut earlier = Session::start(&user, State::Typing).await;
    let first = scene.key_beside(&[]).await;
    let first_id = earlier.hooks.session.clone();
    earlier.hooks.ends("prompt_input_exit");
    earlier.server.crashes().await;
    drop(earlier);

    let mut session = Session::start(&user, State::Typing).await;
    let second = scene.key_beside(&[&first]).await;
    let second_id = session.hooks.session.clone();
    let of_second = scene.sends(&second).await;
    scene.comes_once(&mut session, of_second).await;

    // The user goes back to the earlier conversation, in the same process.
    let waited = scene.sends(&first).await;
    session.hooks.ends("resume");
    session.hooks.session = first_id;
    session.hooks.starts("resume");
    assert_eq!(scene.key_beside(&[&second]).await, first);
    scene.comes_once(&mut session, waited).await;
    let after = scene.sends(&first).await;
    scene.comes_once(&mut session, after).await;
    let of_second = scene.sends(&second).await;
    assert!(session.goes_on().is_empty(), "that is for the other session");

    session.hooks.ends("resume");
    session.hooks.session = second_id;
    session.hooks.starts("resume");
    assert_eq!(scene.key_beside(&[&first]).await, second);
    scene.comes_once(&mut session, of_second).await;
    assert_eq!(user.log(), "");
}
