//! The command line from outside: the program itself, run as a child.

use claudemesh_broker::app;
use claudemesh_broker::auth::{InvitePayload, SecretKey};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::config::Config;
use claudemesh_broker::id::{MemberId, MeshId};
use claudemesh_broker::store::{Join, Joined, Stores};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::harness::program::{Answer, Place, Printing, Serving, text};

mod account;
mod administration;
mod anchors;
mod bench;
mod budget;
mod client;
mod cluster;
mod heads;
mod messages;
mod offline;
mod operation;
mod planned;
mod shared;
mod shown;
mod streams;
mod top;
mod topics;
mod trust;
mod walkthrough;

impl Place {
    async fn store(&self) -> Stores {
        let store = app::open_store(&Config::for_tests(self.path())).await.expect("a store");
        store.database.migrate().await.expect("migrated");
        store
    }

    /// A mesh `team` with its owner and the member `ada`, who joined by invite.
    async fn team(&self) -> Team {
        let mesh = self.json(&["mesh", "create", "team"]);
        let invite = self.json(&["invite", "create", "team"]);
        let store = self.store().await;
        let key = SecretKey::generate().public_key();
        let join = Join {
            token: text(&invite["token"]),
            mesh: MeshId::from(text(&mesh["meshId"])),
            owner_key: text(&mesh["ownerPubkey"]),
            member: MemberId::generate(),
            key: key.clone(),
            display_name: "ada".to_owned(),
            certificate: None,
        };
        let joined = store.invites.join(Timestamp::now(), &join).await.expect("the store works");
        store.database.close().await;
        let Joined::New(ada) = joined else { panic!("{joined:?}") };
        Team { mesh: join.mesh, ada, ada_key: key.to_string() }
    }
}

struct Team {
    mesh: MeshId,
    ada: MemberId,
    ada_key: String,
}

fn payload_of(invite: &Value) -> InvitePayload {
    serde_json::from_value(invite["payload"].clone()).expect("a payload")
}
