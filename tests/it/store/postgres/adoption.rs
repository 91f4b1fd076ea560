//! A database that an installation has used for long: completed, not changed.

use claudemesh_broker::id::{Key, MemberId, MeshId, PresenceId};
use claudemesh_broker::store::{
    Accepted, Admission, Confirm, Joined, Retention, StoreError, Stores, SuspendPresence,
};
use sqlx::{PgConnection, Row as _};

use super::another_node;
use crate::harness::postgres::{PrivatePostgres, connection};
use crate::store::fixture::{Fixture, Peer, T0, at, changed, fresh_key, new_mesh};

const INSTALLATION: &str = include_str!("installation.sql");

/// Where its users sign in.
const USERS: &str = r#"
    create table public."user" (id text primary key, name text not null, email text);
    insert into public."user" values ('user1', 'Ann', 'ann@example.com')"#;

const REFER_TO_USERS: &str = r#"
    alter table mesh.mesh add constraint mesh_owner_user_id_user_id_fk
      foreign key (owner_user_id) references public."user" (id) on delete cascade;
    alter table mesh.member add constraint member_user_id_user_id_fk
      foreign key (user_id) references public."user" (id) on delete set null;
    alter table mesh.invite add constraint invite_created_by_user_id_fk
      foreign key (created_by) references public."user" (id) on delete cascade"#;

/// What its tables hold and where they lie on disk, before anything is added.
const CONTENTS: &str = "
    select format('%s %s %s', 'mesh', pg_relation_filenode('mesh.mesh'), to_jsonb(t)) as line
      from mesh.mesh t union all
    select format('%s %s %s', 'member', pg_relation_filenode('mesh.member'), to_jsonb(t))
      from mesh.member t union all
    select format('%s %s %s', 'presence', pg_relation_filenode('mesh.presence'), to_jsonb(t))
      from mesh.presence t union all
    select format('%s %s %s', 'queue', pg_relation_filenode('mesh.message_queue'), to_jsonb(t))
      from mesh.message_queue t union all
    select format('%s %s %s', 'state', pg_relation_filenode('mesh.peer_state'), to_jsonb(t))
      from mesh.peer_state t union all
    select format('%s %s %s', 'audit', pg_relation_filenode('mesh.audit_log'), to_jsonb(t))
      from mesh.audit_log t union all
    select format('%s %s %s', 'invite', pg_relation_filenode('mesh.invite'), to_jsonb(t))
      from mesh.invite t";

/// As a web application writes it: it spells the column of the second version so.
const WEB_INVITE: &str = "
    insert into mesh.invite (id, mesh_id, token, code, expires_at, created_by, version,
        capability_v_2)
    select 'web-invite', id, 'web-token', 'web-code', '2100-01-01', coalesce(owner_user_id, 'x'),
        2, '{}'
    from mesh.mesh where archived_at is null limit 1";

async fn run(other: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(other).await.expect("plain statements");
}

async fn contents(other: &mut PgConnection) -> Vec<String> {
    let rows = sqlx::raw_sql(CONTENTS).fetch_all(other).await.expect("readable");
    rows.iter().map(|row| row.get("line")).collect()
}

/// Adds no row, changes no value, moves no table: only columns are added, at
/// the end of each row.
fn assert_completed(before: &[String], after: &[String]) {
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(after) {
        let (before, _) = before.split_at(before.find('{').expect("an object"));
        assert!(after.starts_with(before), "{before} became {after}");
    }
    let fields = |line: &String| -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(&line[line.find('{').expect("an object")..]).expect("an object")
    };
    for (before, after) in before.iter().zip(after) {
        let after = fields(after);
        for (name, value) in fields(before) {
            assert_eq!(after.get(&name), Some(&value), "{name} of {before}");
        }
    }
}

async fn adopted(with_users: bool) -> (Fixture, String, PgConnection) {
    let url = PrivatePostgres::shared().empty_database().await;
    let mut other = connection(&url).await;
    if with_users {
        run(&mut other, USERS).await;
    }
    run(&mut other, INSTALLATION).await;
    if with_users {
        run(&mut other, REFER_TO_USERS).await;
    }
    let before = contents(&mut other).await;
    let store = another_node(&url);
    store.database.migrate().await.expect("nothing is in the way");
    assert_completed(&before, &contents(&mut other).await);
    // Once more, as if the record of it were lost.
    run(&mut other, "delete from mesh.broker_migration").await;
    store.database.migrate().await.expect("all is there");
    assert_completed(&before, &contents(&mut other).await);
    assert!(store.database.pending_migrations().await.expect("readable").is_empty());
    let id = MemberId::from("Owner0000000000000000000000000AB");
    let owner = Peer { id, key: Key::from("bb"), name: "Ann".to_owned() };
    (Fixture { store, mesh: MeshId::from("mesh1"), owner }, url, other)
}

fn bob() -> Peer {
    let id = MemberId::from("Member000000000000000000000000AB");
    Peer { id, key: Key::from("cc"), name: "Bob".to_owned() }
}

async fn its_members_enter(here: &Fixture) {
    let store = &here.store;
    let admitted = store.members.admit(&here.mesh, "cc", "").await.expect("readable");
    let Admission::Member(bob) = admitted else { panic!("{admitted:?}") };
    assert!(bob.member.revoked_at.is_none() && !bob.member.is_owner);
    assert_eq!((bob.member.message_mode.as_str(), bob.member.grants.len()), ("push", 0));
    let other = "Member000000000000000000000000AD";
    let again = store.members.admit(&here.mesh, "cc", other).await.expect("readable");
    let Admission::Member(again) = again else { panic!("{again:?}") };
    assert_eq!(again.member.id.as_str(), other, "he enrolled twice, and says as whom he comes");
    let revoked = "Member000000000000000000000000AC";
    let active = store.members.admit(&here.mesh, "cc", revoked).await.expect("readable");
    assert!(matches!(active, Admission::Member(member) if member.member.id == bob.member.id));
    let saved = bob.saved.expect("a state");
    assert_eq!(saved.last_summary.as_deref(), Some("new"), "the newest of two");
    assert_eq!(bob.self_editable["groups"], true);
    let admitted = store.members.admit(&here.mesh, "bb", "").await.expect("readable");
    let Admission::Member(ann) = admitted else { panic!("{admitted:?}") };
    assert!(ann.member.is_owner, "her user owns the mesh");
    assert_eq!(store.members.active(&here.mesh).await.expect("readable").len(), 4);
    let mesh = store.meshes.find("team").await.expect("readable").expect("not archived");
    assert_eq!(mesh.id, here.mesh);
    let open = store.presence_search.unheard(at(1_000_000_000)).await.expect("readable");
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].cwd.as_str(), open[0].visible), ("/work", true));
}

async fn its_queue_goes_on(here: &Fixture, other: &mut PgConnection) {
    let bob = bob();
    let presence = here.present(&bob).await;
    let mut ask = here.asks(&presence, &bob);
    ask.session_key = Some(Key::from("dd"));
    let given = here.store.mail.claim(T0, &ask).await.expect("readable");
    let ids: Vec<&str> = given.iter().map(|envelope| envelope.id.as_str()).collect();
    assert_eq!(ids, ["Direct00000000000000000000000001", "Direct00000000000000000000000002"]);
    assert_eq!((given[0].seq, given[0].sender_name.as_str()), (0, "Ann"));
    assert_eq!((given[0].sender_key.as_str(), given[0].ciphertext.as_str()), ("bb", "c1"));
    let done = Confirm::Message {
        mesh: here.mesh.clone(),
        id: given[0].id.clone(),
        member_key: bob.key.clone(),
        session_key: None,
        is_written_only: false,
    };
    here.store.mail.confirm(at(1), &[done]).await.expect("claimed");
    // The dashboard writes on, and knows no column of ours.
    run(
        other,
        "insert into mesh.message_queue (id, mesh_id, sender_member_id, target_spec, nonce,
            ciphertext, client_message_id)
         values ('Direct00000000000000000000000009', 'mesh1',
            'Web00000000000000000000000000000', 'cc', 'n', 'c', 'id-1');
         insert into mesh.member (id, mesh_id, peer_pubkey, display_name)
         values ('Web00000000000000000000000000009', 'mesh1', 'x', 'Web 2');
         update mesh.mesh set name = 'Renamed' where id = 'mesh1'",
    )
    .await;
    run(other, WEB_INVITE).await;
    let sent = here.mail(&bob.key, 1).await;
    ask.in_flight = given.iter().map(|envelope| envelope.id.clone()).collect();
    let given = here.claims(at(2), &ask).await;
    assert_eq!(given.len(), 2);
    assert_eq!(given[0].as_str(), "Direct00000000000000000000000009");
    assert_eq!(given[1], sent[0]);
    state_is_saved(here, &presence).await;
}

/// Also where the table holds a member twice.
async fn state_is_saved(here: &Fixture, presence: &PresenceId) {
    let closed = SuspendPresence {
        id: presence.clone(),
        mesh: here.mesh.clone(),
        member: bob().id,
        member_key: bob().key,
        multicast_position: 0,
        state: claudemesh_broker::store::PeerState {
            last_summary: Some("newer".to_owned()),
            ..Default::default()
        },
    };
    here.store.presences.suspend(at(3), &closed).await.expect("open");
    let admitted = here.store.members.admit(&here.mesh, "cc", "").await.expect("readable");
    let Admission::Member(bob) = admitted else { panic!("{admitted:?}") };
    assert_eq!(bob.saved.expect("a state").last_summary.as_deref(), Some("newer"));
}

/// A key that an earlier broker took is not taken twice.
async fn its_keys_count(here: &Fixture) {
    let again = changed(here.direct(&here.owner, &bob().key), |envelope| {
        envelope.client_message_id = Some("id-1".to_owned())
    });
    let answers = here.store.envelopes.accept(at(4), &[again]).await.expect("a mesh");
    assert!(matches!(&answers[0], Accepted::Duplicate { id }
        if id.as_str() == "Direct00000000000000000000000001"));
}

async fn its_rows_expire(here: &Fixture) {
    let (before, limit) = (at(-3600), 100);
    let limits = Retention {
        delivered_before: before,
        undelivered_before: before,
        keys_before: before,
        limit,
    };
    let gone = here.store.messages.expire(at(5), &limits).await.expect("writable");
    // A direct and the multicast were delivered; two directs and the topic's
    // were not, and the latter waited for nobody. The one just sent is young.
    assert_eq!((gone.delivered, gone.undelivered), (2, 3));
    assert_eq!(here.audit_of("expired").await.len(), 2);
}

async fn serve(here: &Fixture, other: &mut PgConnection) {
    its_members_enter(here).await;
    assert_eq!(here.audit().await.len(), 2, "its chain is valid");
    its_queue_goes_on(here, other).await;
    its_keys_count(here).await;
    its_rows_expire(here).await;
    // The join, an envelope, two expiries; and the chain goes on from its end.
    assert_eq!(here.audit().await.len(), 2 + 1 + 1 + 2);
    let join = claudemesh_broker::store::Join {
        owner_key: "aa".to_owned(),
        ..here.join("token1", &fresh_key(), "Eve")
    };
    let joined = here.store.invites.join(T0, &join).await.expect("a good invite");
    assert_eq!(joined, Joined::New(join.member));
}

#[tokio::test]
async fn an_installation_goes_on() {
    let (here, _url, mut other) = adopted(false).await;
    serve(&here, &mut other).await;
    here.another().await;
}

#[tokio::test]
async fn an_installation_with_users_goes_on() {
    let (here, _url, mut other) = adopted(true).await;
    serve(&here, &mut other).await;
    // Meshes belong to its users there.
    let owner = Peer { id: MemberId::generate(), key: fresh_key(), name: "x".to_owned() };
    let refused = here.store.meshes.create(T0, &new_mesh("new", &owner)).await;
    let refusal = refused.expect_err("nobody's mesh");
    assert!(matches!(&refusal, StoreError::Conflict(text) if text.contains("dashboard")));
    // An invite made at the command line is its owner's.
    let invite = here.invite(1);
    here.store.invites.create(T0, &invite).await.expect("a mesh");
    let row = sqlx::query("select created_by from mesh.invite where id = $1")
        .bind(&invite.id)
        .fetch_one(&mut other)
        .await
        .expect("there");
    assert_eq!(row.get::<&str, _>("created_by"), "user1");
}

/// Users are there, meshes are not yet: then meshes refer to users.
#[tokio::test]
async fn a_schema_beside_users_refers_to_them() {
    let url = PrivatePostgres::shared().empty_database().await;
    let mut other = connection(&url).await;
    run(&mut other, USERS).await;
    let store: Stores = another_node(&url);
    store.database.migrate().await.expect("an empty schema");
    let keys = sqlx::query(
        "select conrelid::regclass::text as name from pg_constraint
         where contype = 'f' and confrelid = 'public.\"user\"'::regclass order by 1",
    )
    .fetch_all(&mut other)
    .await
    .expect("readable");
    let keys: Vec<&str> = keys.iter().map(|row| row.get("name")).collect();
    let expected =
        ["mesh.cli_session", "mesh.device_code", "mesh.invite", "mesh.member", "mesh.mesh"];
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn a_web_application_makes_its_invites_on_a_fresh_database_too() {
    let (here, url) = super::fixture().await;
    let mut other = connection(&url).await;
    run(&mut other, WEB_INVITE).await;
    let invites = here.store.invites.of_mesh(&here.mesh).await.expect("readable");
    assert_eq!(invites.iter().map(|invite| invite.id.as_str()).collect::<Vec<_>>(), ["web-invite"]);
}
