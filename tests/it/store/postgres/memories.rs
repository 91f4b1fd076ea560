//! Many memories: a search reads those that it finds.

use claudemesh_broker::id::MeshId;
use claudemesh_broker::store::NewMemory;
use sqlx::{PgConnection, Row as _};

use super::fixture;
use crate::harness::postgres::connection;
use crate::store::fixture::T0;

/// Memories of this mesh and of ten others, and some that another program forgot.
const FILL: &str = "
    insert into mesh.mesh (id, name, slug, owner_user_id)
    select 'mesh' || i, 'm', 'mesh' || i, m.owner_user_id
    from generate_series(1, 10) i, (select owner_user_id from mesh.mesh limit 1) m;
    insert into mesh.memory (id, mesh_id, content, tags, forgotten_at)
    select md5(i::text), 'mesh' || (1 + i % 10), 'common word ' || md5(i::text), array['t' || i],
        case when i % 2 = 0 then timestamp '2026-01-01' end
    from generate_series(1, 40000) i;
    analyze";

async fn reads(other: &mut PgConnection) -> (i64, i64) {
    let row = sqlx::query(
        "select seq_scan, idx_scan from pg_stat_user_tables
         where schemaname = 'mesh' and relname = 'memory'",
    );
    let row = row.fetch_one(other).await.expect("readable");
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn however_many_memories_there_are_a_search_goes_by_its_index() {
    let (here, url) = fixture().await;
    let mut other = connection(&url).await;
    sqlx::raw_sql(FILL).execute(&mut other).await.expect("a superuser may");
    let author = here.author(&here.owner);
    let content = "the common word here".to_owned();
    let memory = NewMemory { author, id: "here".to_owned(), content, tags: Vec::new() };
    here.store.memories.remember(T0, &memory).await.expect("there is room");
    let before = reads(&mut other).await;
    let large = MeshId::from("mesh2");
    for (mesh, query, count) in [
        (&here.mesh, "common", 1),
        (&here.mesh, "commons words", 1),
        (&here.mesh, "the", 0),
        (&large, "common", 100),
        (&large, "t1", 1),
    ] {
        let found = here.store.memories.recall(mesh, query, 0, 100).await.expect("readable");
        assert_eq!(found.len(), count, "{query}");
    }
    here.store.database.close().await;
    crate::harness::until("the searches are counted", async || {
        sqlx::raw_sql("select pg_stat_clear_snapshot()").execute(&mut other).await.expect("ok");
        reads(&mut other).await.1 >= before.1 + 4
    })
    .await;
    assert_eq!(reads(&mut other).await.0, before.0, "nothing was read through");
    let counted = sqlx::query(
        "select rows from mesh.broker_usage where mesh_id = 'mesh2' and kind = 'memory'",
    );
    let counted = counted.fetch_one(&mut other).await.expect("counted");
    assert_eq!(counted.get::<i64, _>(0), 4000, "none that was forgotten is in mesh2");
}
