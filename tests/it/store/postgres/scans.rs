//! Large tables: what the broker asks all the time reads none of them through.

use std::sync::Arc;
use std::time::Duration;

use claudemesh_broker::id::{MessageId, PresenceId};
use claudemesh_broker::protocol::{Status, StatusSource};
use claudemesh_broker::store::postgres::{PostgresSettings, PostgresStore};
use claudemesh_broker::store::{Confirm, EndPresence, Holder, PresenceChange, Retention, Stores};
use sqlx::{PgConnection, Row as _};

use super::{fixture, seen_by};
use crate::harness::postgres::connection;
use crate::store::fixture::{Fixture, Peer, T0, at, changed, taking_over};

/// Delivered and waiting envelopes, presences that ended and some that are
/// open, audit rows; of one mesh, as an old installation has them.
const FILL: &str = "
    set session_replication_role = replica;
    insert into mesh.message_queue (id, mesh_id, sender_member_id, target_spec, nonce,
        ciphertext, created_at, delivered_at, client_message_id, seq, multicast)
    select md5(i::text), m.mesh_id, m.id, md5((i % 500)::text), 'n', 'c',
        timestamp '2026-01-01' + i * interval '1 second',
        case when i % 20 > 0 then timestamp '2026-01-01' + i * interval '1 second' end,
        md5('c' || i), i, i % 50 = 1
    from generate_series(1, 60000) i, (select * from mesh.member limit 1) m;
    insert into mesh.presence (id, member_id, session_id, session_pubkey, pid, cwd,
        disconnected_at)
    select md5('p' || i), m.id, 's', md5('k' || i), i, '/' || i,
        case when i % 100 > 0 then now() end
    from generate_series(1, 60000) i, (select * from mesh.member limit 1) m;
    insert into mesh.audit_log (mesh_id, event_type, prev_hash, hash)
    select case when i % 100 = 0 then m.mesh_id else md5((i % 1000)::text) end, 'old', 'p',
        md5(i::text)
    from generate_series(1, 60000) i, (select * from mesh.member limit 1) m;
    insert into mesh.send_key
    select mesh_id, sender_member_id, md5('k' || client_message_id), id, created_at
    from mesh.message_queue;
    select setval(pg_get_serial_sequence('mesh.audit_log', 'id'), 100000);
    set session_replication_role = origin;
    analyze";

/// The planner is to find the indexes by itself, also inside of the function
/// that accepts. The one that confirms hides from it what rows it is about, so
/// there it needs to be told.
const UNPIN: &str = "alter function mesh.broker_accept_v1 reset all";

async fn scans(other: &mut PgConnection) -> Vec<(String, i64)> {
    let rows = sqlx::query(
        "select relname, seq_scan from pg_stat_user_tables
         where schemaname = 'mesh'
            and relname in ('message_queue', 'presence', 'audit_log', 'send_key')
         order by relname",
    )
    .fetch_all(other)
    .await
    .expect("readable");
    rows.iter().map(|row| (row.get("relname"), row.get("seq_scan"))).collect()
}

/// Everything that happens while peers come, talk and go.
async fn a_busy_minute(here: &Fixture, peer: &Peer, round: usize) {
    let store = &here.store;
    let opening = here.opening(peer);
    let presence = here.open(T0, &opening).await;
    let mut batch = vec![here.multicast(&here.owner)];
    for n in 0..20 {
        let client_message_id = Some(format!("{round}-{n}"));
        batch.push(changed(here.direct(&here.owner, &peer.key), |envelope| {
            envelope.client_message_id = client_message_id
        }));
    }
    store.envelopes.accept(T0, &batch).await.expect("a mesh");
    let mailbox = (here.mesh.clone(), peer.key.clone());
    assert_eq!(
        store.mail.waiting(T0, std::slice::from_ref(&mailbox)).await.expect("readable"),
        [mailbox]
    );
    let mailbox = (here.mesh.clone(), peer.key.clone(), presence.clone());
    store.mail.claimed(&[mailbox]).await.expect("readable");
    store.mail.newest_seq(&here.mesh).await.expect("readable");
    store.mail.seq_before(&here.mesh, at(3)).await.expect("readable");
    store.mail.rewind(&here.mesh, 1_000_000, 0).await.expect("writable");
    store.presences.ended(&[PresenceId::generate()]).await.expect("readable");
    let mut ask = here.asks(&presence, peer);
    ask.session_key = Some(here.owner.key.clone());
    let given = here.claims(T0, &ask).await;
    assert_eq!(given.len(), 20);
    store.mail.unclaim(&presence, &given[..2]).await.expect("claimed");
    store.mail.multicasts_after(&here.mesh, 100_000, 10).await.expect("readable");
    let mut done = confirms(here, peer, &given, round);
    done.push(Confirm::MulticastsUpTo { presence: presence.clone(), position: 200_000 });
    store.mail.confirm(at(1), &done).await.expect("claimed");
    store.messages.find(&here.mesh, &given[0].as_str()[..12], None).await.expect("readable");
    store
        .messages
        .find(&here.mesh, &given[0].as_str()[..12], Some(&given[0]))
        .await
        .expect("readable");
    let mut change = PresenceChange::of(presence.clone());
    change.status = Some((Status::Working, StatusSource::Hook, at(1)));
    store.presences.update(&[change]).await.expect("open");
    store.presences.touch(at(1), std::slice::from_ref(&presence)).await.expect("open");
    store.presence_search.in_folder("/100", 1, 9).await.expect("readable");
    store.presence_search.called("100", 9).await.expect("readable");
    store.presence_search.unheard(T0).await.expect("readable");
    store.members.of_session_key(&here.mesh, "x", T0).await.expect("readable");
    store.members.addressee_of_session_key(&here.mesh, "x", T0).await.expect("readable");
    store.members.admit(&here.mesh, peer.key.as_str(), "").await.expect("readable");
    store.messages.depth().await.expect("readable");
    let mesh = here.mesh.clone();
    let holders = [
        Holder::Mailbox { mesh: mesh.clone(), target: peer.key.to_string() },
        Holder::Sender { mesh: mesh.clone(), member: here.owner.id.clone() },
        Holder::Mesh { mesh },
    ];
    store.envelopes.waiting_load(&holders.map(|holder| (holder, 10_000))).await.expect("readable");
    store.envelopes.repeats(&batch).await.expect("readable");
    store.audit.page(&here.mesh, None, 0, 50).await.expect("readable");
    store.audit.after(&here.mesh, 50_000, 50).await.expect("readable");
    store.audit.before(&here.mesh, None, 50_000, 50).await.expect("readable");
    depart(here, peer, &presence).await;
}

fn confirms(here: &Fixture, peer: &Peer, given: &[MessageId], round: usize) -> Vec<Confirm> {
    let by_id = given[..15].iter().map(|id| here.done(id, &peer.key));
    let by_client_id =
        (0..20).map(|n| here.done_by_client_id(&format!("{round}-{n}"), &peer.key, None));
    by_id.chain(by_client_id).collect()
}

async fn depart(here: &Fixture, peer: &Peer, presence: &PresenceId) {
    let store = &here.store;
    store.presences.suspend(at(2), &here.closing(presence, peer)).await.expect("open");
    store.presences.reattach(at(3), presence, &taking_over("node-2")).await.expect("open");
    let (id, mesh) = (presence.clone(), here.mesh.clone());
    store
        .presences
        .end(at(4), &[EndPresence { id, mesh, member: None, node: None, audit: Vec::new() }])
        .await
        .expect("open");
    let long_ago = T0.plus_ms(-1_000_000_000_000);
    let limits = Retention {
        delivered_before: long_ago,
        undelivered_before: long_ago,
        keys_before: long_ago,
        limit: 100,
    };
    store.messages.expire(at(5), &limits).await.expect("nothing so old");
}

#[tokio::test]
async fn nothing_hot_scans_a_large_table() {
    let (here, url) = fixture().await;
    let peer = here.member("ada").await;
    let mut other = connection(&url).await;
    sqlx::raw_sql(FILL).execute(&mut other).await.expect("a superuser may");
    sqlx::raw_sql(UNPIN).execute(&mut other).await.expect("a superuser may");
    here.store.database.close().await;
    // Without a statement cache sessions are told nothing about plans.
    let settings = PostgresSettings { url, pool_max: 1, statement_cache_max: 0 };
    let store = Stores::of(Arc::new(PostgresStore::connect(&settings).expect("a URL")));
    let before = scans(&mut other).await;
    let here = seen_by(&store, &here);
    for round in 0..8 {
        a_busy_minute(&here, &peer, round).await;
    }
    // A session counts at its end.
    store.database.close().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    sqlx::raw_sql("select pg_stat_clear_snapshot()").execute(&mut other).await.expect("ok");
    assert_eq!(scans(&mut other).await, before);
}
