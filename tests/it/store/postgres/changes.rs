//! Hearing of what others change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use claudemesh_broker::audit::AuditEvent;
use claudemesh_broker::store::postgres::{PostgresSettings, PostgresStore};
use claudemesh_broker::store::{Changes, Moderation, Stores};
use sqlx::PgConnection;

use super::{another_node, fixture, seen_by};
use crate::harness::postgres::connection;
use crate::store::fixture::{Fixture, Peer, T0};

/// Asks until there is an answer.
async fn heard(store: &Stores) -> Changes {
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(20) {
        let changes = store.database.changes().await.expect("open");
        if changes != Changes::None {
            return changes;
        }
    }
    panic!("nothing was told");
}

/// Asks until nothing more comes: the store listens.
async fn settle(store: &Stores) {
    // Two quiet seconds, of at most twenty.
    let mut quiet = 0;
    for _ in 0..20 {
        quiet = if store.database.changes().await.expect("open") == Changes::None {
            quiet + 1
        } else {
            0
        };
        if quiet == 2 {
            return;
        }
    }
    panic!("it does not become quiet");
}

async fn run(other: &mut PgConnection, sql: &'static str, id: &str) {
    let touched = sqlx::query(sql).bind(id).execute(other).await.expect("a statement");
    assert_eq!(touched.rows_affected(), 1);
}

fn banning(here: &Fixture, peer: &Peer) -> Moderation {
    let target = peer.name.clone();
    let audit = AuditEvent::MemberBanned { target, target_pubkey: peer.key.clone() };
    let (mesh, member) = (here.mesh.clone(), peer.id.clone());
    Moderation { mesh, member, actor: None, actor_name: None, audit }
}

#[tokio::test]
async fn what_others_change_is_told_and_its_own_is_not() {
    let (here, url) = fixture().await;
    let peer = here.member("ada").await;
    let mut other = connection(&url).await;
    settle(&here.store).await;
    let told = || Changes::Meshes(vec![here.mesh.clone()]);

    run(&mut other, "update mesh.member set role = 'admin' where id = $1", peer.id.as_str()).await;
    assert_eq!(heard(&here.store).await, told());
    let sql = "update mesh.mesh set archived_at = now() where id = $1";
    run(&mut other, sql, here.mesh.as_str()).await;
    assert_eq!(heard(&here.store).await, told());
    let sql = "insert into mesh.message_queue
        (id, mesh_id, sender_member_id, target_spec, nonce, ciphertext)
        select 'x', mesh_id, id, peer_pubkey, 'n', 'c' from mesh.member where id = $1";
    run(&mut other, sql, peer.id.as_str()).await;
    assert_eq!(heard(&here.store).await, told());

    let elsewhere = seen_by(&another_node(&url), &here);
    elsewhere.store.bans.ban(T0, &banning(&here, &peer)).await.expect("active");
    assert_eq!(heard(&here.store).await, told());

    // No membership, no grant, no mesh: not worth telling.
    let sql = "update mesh.member set last_seen_at = now() where id = $1";
    run(&mut other, sql, peer.id.as_str()).await;
    here.store.bans.unban(T0, &banning(&here, &peer)).await.expect("banned");
    here.mail(&peer.key, 1).await;
    elsewhere.mail(&peer.key, 1).await;
    assert_eq!(here.store.database.changes().await.expect("open"), Changes::None);
}

#[tokio::test]
async fn a_lost_listener_is_told_of_and_comes_back() {
    let (here, url) = fixture().await;
    let peer = here.member("ada").await;
    let mut other = connection(&url).await;
    settle(&here.store).await;
    sqlx::raw_sql(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()",
    )
    .execute(&mut other)
    .await
    .expect("a superuser may");
    assert_eq!(heard(&here.store).await, Changes::Unknown);
    settle(&here.store).await;
    run(&mut other, "update mesh.member set role = 'admin' where id = $1", peer.id.as_str()).await;
    assert_eq!(heard(&here.store).await, Changes::Meshes(vec![here.mesh.clone()]));
}

/// What a pooler shares must not listen: another's call would get what it hears.
#[tokio::test]
async fn where_sessions_are_shared_nobody_listens() {
    let (_here, url) = fixture().await;
    let settings = PostgresSettings { url: url.clone(), pool_max: 2, statement_cache_max: 0 };
    let store = Stores::of(Arc::new(PostgresStore::connect(&settings).expect("a URL")));
    assert_eq!(heard(&store).await, Changes::Unknown, "it looks by itself");
    let listening = sqlx::query(
        "select from pg_stat_activity where datname = current_database() and query ilike 'listen%'",
    )
    .fetch_all(&mut connection(&url).await)
    .await
    .expect("readable");
    assert!(listening.is_empty());
}
