//! Rows as another program leaves them: what no store would write itself, both
//! read alike.

use claudemesh_broker::id::MeshId;
use claudemesh_broker::limits;
use claudemesh_broker::protocol::Priority;
use claudemesh_broker::store::{Admission, Stores};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use std::path::PathBuf;

use super::fixture::{Fixture, at, fresh_key};
use crate::harness::postgres::connection;

/// Another program that writes to the same database.
pub(crate) enum Other {
    /// To that file.
    Sqlite(PathBuf),
    /// Through that URL.
    Postgres(String),
}

impl Other {
    /// Has that mesh keep as many rows of each kind that it has as it may.
    pub(crate) async fn fill(&self, mesh: &MeshId) {
        let usage = match self {
            Self::Sqlite(_) => "usage",
            Self::Postgres(_) => "mesh.broker_usage",
        };
        let rows = limits::SHARED_ROWS_MAX;
        self.run(&format!("update {usage} set rows = {rows} where mesh_id = '{mesh}'")).await;
    }

    /// Runs a statement that both databases understand; `{schema}` is where the
    /// tables are.
    pub(crate) async fn run(&self, statement: &str) {
        match self {
            Self::Sqlite(file) => {
                let url = format!("sqlite://{}", file.display());
                let mut other = SqliteConnection::connect(&url).await.expect("a database");
                let statement = AssertSqlSafe(statement.replace("{schema}", ""));
                sqlx::raw_sql(statement).execute(&mut other).await.expect("a good statement");
            }
            Self::Postgres(url) => {
                let mut other = connection(url).await;
                let statement = AssertSqlSafe(statement.replace("{schema}", "mesh."));
                sqlx::raw_sql(statement).execute(&mut other).await.expect("a good statement");
            }
        }
    }
}

pub(crate) async fn odd_grants_keep_no_mesh_from_being_served(store: Stores, other: Other) {
    let here = Fixture::new(store.clone()).await;
    let ada = here.member("ada").await;
    let (good, odd) = (fresh_key(), fresh_key());
    for (column, entries) in [
        (format!(r#"{{"{good}": ["dm"], "{odd}": "dm", "x": [1], "y": null}}"#), 4),
        ("[]".to_owned(), 0),
        ("null".to_owned(), 0),
        (r#""all""#.to_owned(), 0),
    ] {
        let id = &ada.id;
        let update = "update {schema}member set peer_grants";
        other.run(&format!("{update} = '{column}' where id = '{id}'")).await;
        let members = store.members.active(&here.mesh).await.expect("the mesh is served");
        let member = members.iter().find(|member| member.id == *id).expect("she is there");
        assert_eq!(member.grants.len(), entries, "{column}");
        if entries > 0 {
            assert_eq!(member.grants[good.as_str()], ["dm"]);
            assert!(member.grants[odd.as_str()].is_empty(), "it grants nothing");
        }
        let admitted =
            store.members.admit(&here.mesh, ada.key.as_str(), "").await.expect("readable");
        assert!(matches!(admitted, Admission::Member(_)), "{admitted:?}");
        let capabilities = ["broadcast".to_owned()];
        store.members.set_grant(id, odd.as_str(), Some(&capabilities)).await.expect("mended");
        let members = store.members.active(&here.mesh).await.expect("readable");
        let member = members.iter().find(|member| member.id == *id).expect("she is there");
        assert_eq!(member.grants[odd.as_str()], capabilities, "{column}");
    }
}

/// It knows no column of ours, and has words of its own.
pub(crate) async fn odd_descriptions_count_as_not_given(store: Stores, other: Other) {
    let here = Fixture::new(store.clone()).await;
    let ada = here.member("ada").await;
    let presence = here.present(&ada).await;
    let id = &ada.id;
    other
        .run(&format!(
            "update {{schema}}member set default_groups = '[1]', role_tag = null where id = '{id}';
             update {{schema}}presence set groups = '\"x\"' where id = '{presence}'"
        ))
        .await;
    let admitted = store.members.admit(&here.mesh, ada.key.as_str(), "").await.expect("readable");
    let Admission::Member(admitted) = admitted else { panic!("{admitted:?}") };
    assert!(admitted.member.default_groups.is_empty());
    let stored = here.stored(&presence).await.expect("open");
    assert!(stored.groups.is_empty());
    let mail = here.mail(&ada.key, 1).await;
    let queue = "{schema}message_queue";
    other
        .run(&format!("update {queue} set seq = null, sender_name = null where id = '{}'", mail[0]))
        .await;
    let given = store.mail.claim(at(1), &here.asks(&presence, &ada)).await.expect("readable");
    let [given] = given.as_slice() else { panic!("{given:?}") };
    assert_eq!((given.seq, given.sender_name.as_str()), (0, "owner"));
    assert_eq!(given.priority, Priority::Next);
}
