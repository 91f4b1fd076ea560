//! Bringing a schema up to date.

use claudemesh_broker::store::StoreError;
use sqlx::Row as _;

use super::fixture;
use crate::harness::postgres::{PrivatePostgres, connection, store};
use crate::store::fixture::T0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes_migrate_at_once() {
    let url = PrivatePostgres::shared().empty_database().await;
    let mut nodes = Vec::new();
    for _ in 0..6 {
        let url = url.clone();
        nodes.push(tokio::spawn(async move {
            let node = store(&url);
            node.database.migrate().await.expect("one of them does it, the others wait");
            node.database.pending_migrations().await.expect("readable")
        }));
    }
    for node in nodes {
        assert!(node.await.expect("no panic").is_empty());
    }
}

#[tokio::test]
async fn asking_what_is_pending_makes_nothing() {
    let url = PrivatePostgres::shared().empty_database().await;
    let pending = store(&url).database.pending_migrations().await.expect("an empty database");
    let all = [
        "0001_core",
        "0002_coordination",
        "0004_audit_names",
        "0005_cluster_key",
        "0006_quotas",
        "0007_invite_columns",
        "0008_presence_session_id",
        "0009_state",
        "0010_streams",
        "0011_mcp_servers",
        "0012_accounts",
        "0013_memory",
        "0014_contexts",
        "0015_tasks",
        "0016_schedules",
        "0017_topics",
        "0018_api_keys",
        "0019_skills",
        "0020_webhooks",
        "0021_vault",
        "0022_overview",
        "0023_history",
        "0024_stages",
        "0025_sealing",
        "0026_common_keys",
        "0027_audit_heads",
        "0028_certificates",
    ];
    assert_eq!(pending, all);
    let made = sqlx::query("select to_regnamespace('mesh') is not null as made")
        .fetch_one(&mut connection(&url).await)
        .await
        .expect("readable");
    assert!(!made.get::<bool, _>("made"));
}

#[tokio::test]
async fn a_failed_migration_leaves_nothing_and_no_lock() {
    let url = PrivatePostgres::shared().empty_database().await;
    let mut other = connection(&url).await;
    sqlx::raw_sql("create schema mesh; create view mesh.send_key as select 1 as message_id")
        .execute(&mut other)
        .await
        .expect("an empty database");
    let (first, second) = (store(&url), store(&url));
    let refusal = first.database.migrate().await.expect_err("a view is in the way");
    assert!(!refusal.is_retryable(), "{refusal}");
    let made = sqlx::query("select to_regclass('mesh.mesh') is not null as made")
        .fetch_one(&mut other)
        .await
        .expect("readable");
    assert!(!made.get::<bool, _>("made"));
    sqlx::raw_sql("drop view mesh.send_key").execute(&mut other).await.expect("there");
    second.database.migrate().await.expect("nothing is in the way");
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    let (here, url) = fixture().await;
    sqlx::raw_sql("update mesh.broker_migration set checksum = 'other' where version = 1")
        .execute(&mut connection(&url).await)
        .await
        .expect("there");
    let refusal = here.store.database.migrate().await.expect_err("not the one that ran");
    assert!(matches!(&refusal, StoreError::Broken(text) if text.contains("0001_core")));
}

/// As builds before the first release made it.
const BEFORE_THE_FIRST_RELEASE: &str = "
    alter table mesh.message_queue
      add constraint message_queue_mesh_id_fkey foreign key (mesh_id)
        references mesh.mesh (id) on delete cascade on update cascade,
      add constraint message_queue_sender_member_id_fkey foreign key (sender_member_id)
        references mesh.member (id) on delete cascade on update cascade;
    alter table mesh.audit_log
      add constraint audit_log_mesh_id_fkey foreign key (mesh_id)
        references mesh.mesh (id) on delete cascade on update cascade;
    drop function mesh.broker_follow_v1 cascade;
    drop function mesh.broker_accept_v1;
    update mesh.broker_migration
    set checksum = 'd8bcc05907621cb0ea9d13f9607f8ed50b20854d52a8145e790271d5df38ce9a'
    where version = 1;
";

#[tokio::test]
async fn a_schema_from_before_the_first_release_is_brought_up_to_date() {
    let (here, url) = fixture().await;
    let before = here.multicast(&here.owner);
    here.send(T0, &before).await;
    sqlx::raw_sql(BEFORE_THE_FIRST_RELEASE)
        .execute(&mut connection(&url).await)
        .await
        .expect("a schema of then");
    assert_eq!(here.store.database.pending_migrations().await.expect("readable"), ["0001_core"]);
    here.store.database.migrate().await.expect("its scripts run again");
    assert!(here.store.database.pending_migrations().await.expect("readable").is_empty());
    here.send(T0, &here.multicast(&here.owner)).await;
    let kept = here.store.mail.multicasts_after(&here.mesh, 0, 10).await.expect("readable");
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[0].id, before.id);
}

#[tokio::test]
async fn a_migration_of_a_later_release_is_no_obstacle() {
    let (here, url) = fixture().await;
    sqlx::raw_sql("insert into mesh.broker_migration values (900, 'later', 'x')")
        .execute(&mut connection(&url).await)
        .await
        .expect("there");
    here.store.database.migrate().await.expect("nothing to do");
    here.send(T0, &here.multicast(&here.owner)).await;
}

/// Names, types and constraints of a fresh schema are those that an
/// installation's own programs know.
#[tokio::test]
async fn a_fresh_schema_is_the_recorded_one() {
    let (_here, url) = fixture().await;
    let rows = sqlx::query(
        "select c.relname || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
            || case when a.attnotnull then ' not null' else '' end as line
         from pg_attribute a join pg_class c on c.oid = a.attrelid
         where c.relnamespace = 'mesh'::regnamespace and a.attnum > 0 and not a.attisdropped
            and c.relname in ('mesh', 'member', 'presence', 'message_queue', 'audit_log')
         order by c.relname, a.attnum",
    )
    .fetch_all(&mut connection(&url).await)
    .await
    .expect("readable");
    let lines: Vec<String> = rows.iter().map(|row| row.get("line")).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn a_database_that_cannot_hold_all_text_is_refused() {
    let server = PrivatePostgres::shared();
    let options = "encoding 'LATIN1' locale 'C' template template0";
    let url = server.create_database(options).await;
    for refused in [
        store(&url).database.migrate().await.expect_err("at the start"),
        store(&url)
            .database
            .pending_migrations()
            .await
            .map(|_| ())
            .expect_err("when a doctor asks"),
    ] {
        let text = refused.to_string();
        assert!(text.contains("LATIN1") && text.contains("encoding 'UTF8'"), "{text}");
        assert!(!refused.is_retryable(), "{text}");
    }
    // Bytes are kept as they come.
    let options = "encoding 'SQL_ASCII' locale 'C' template template0";
    let url = server.create_database(options).await;
    let node = store(&url);
    node.database.migrate().await.expect("it can hold all");
    let here = crate::store::fixture::Fixture::new(node).await;
    let ada = here.member("Ada \u{1f600}").await;
    let members = here.store.members.active(&here.mesh).await.expect("readable");
    let found = members.iter().find(|member| member.id == ada.id).expect("she is there");
    assert_eq!(found.display_name, ada.name);
    here.send(T0, &here.multicast(&ada)).await;
    assert_eq!(here.audit_of("message_sent").await.len(), 1);
}
