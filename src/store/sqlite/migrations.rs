//! The schema's history, built into the program.

use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use super::SqliteStore;
use super::error::refused;
use crate::store::{Result, StoreError};

/// One script: version, name, text. Never edit one.
type Script = (i64, &'static str, &'static str);

/// The list of scripts: number, name, file.
macro_rules! scripts {
    ($($version:literal $name:literal in $file:literal;)*) => {
        &[$((
            $version,
            $name,
            include_str!(concat!("../../../migrations/sqlite/", $file, ".sql")),
        )),*]
    };
}

/// All scripts, oldest first. A number that Postgres has, too, means the same there.
const SCRIPTS: &[Script] = scripts! {
    1 "core" in "0001_core";
    3 "claims" in "0003_claims";
    4 "audit_names" in "0004_audit_names";
    5 "cluster_key" in "0005_cluster_key";
    8 "presence_session_id" in "0008_presence_session_id";
    9 "state" in "0009_state";
    10 "streams" in "0010_streams";
    11 "mcp_servers" in "0011_mcp_servers";
    12 "accounts" in "0012_accounts";
    13 "memory" in "0013_memory";
    14 "contexts" in "0014_contexts";
    15 "tasks" in "0015_tasks";
    16 "schedules" in "0016_schedules";
    17 "topics" in "0017_topics";
    18 "api_keys" in "0018_api_keys";
    19 "skills" in "0019_skills";
    20 "webhooks" in "0020_webhooks";
    21 "vault" in "0021_vault";
    22 "overview" in "0022_overview";
    24 "stages" in "0024_stages";
    25 "sealing" in "0025_sealing";
    26 "common_keys" in "0026_common_keys";
    27 "audit_heads" in "0027_audit_heads";
    28 "certificates" in "0028_certificates";
};

/// The migrations that have not run, as `0001_core`.
///
/// # Errors
///
/// `Broken` if one that has run was edited since.
pub(in crate::store) async fn pending(db: &SqliteStore) -> Result<Vec<String>> {
    let begun: i64 =
        sqlx::query_scalar("select count(*) from sqlite_schema where name = '_sqlx_migrations'")
            .fetch_one(db.reader())
            .await
            .map_err(refused)?;
    let applied: Vec<(i64, Vec<u8>)> = if begun == 0 {
        Vec::new()
    } else {
        sqlx::query_as("select version, checksum from _sqlx_migrations where success")
            .fetch_all(db.reader())
            .await
            .map_err(refused)?
    };
    let mut names = Vec::new();
    for migration in migrator().iter() {
        let (version, name) = (migration.version, &migration.description);
        match applied.iter().find(|(applied, _)| *applied == version) {
            None => names.push(format!("{version:04}_{name}")),
            Some((_, checksum)) if *checksum == *migration.checksum => {}
            Some(_) => return Err(edited(version)),
        }
    }
    Ok(names)
}

/// Runs what has not run. One transaction: of two programs that start at once
/// on a new file, the second waits and finds nothing to do.
pub(in crate::store) async fn run(db: &SqliteStore) -> Result<()> {
    if pending(db).await?.is_empty() {
        return Ok(());
    }
    let mut tx = db.begin().await?;
    migrator().run_direct(None, &mut *tx, false).await.map_err(failed)?;
    tx.commit().await.map_err(refused)
}

fn migrator() -> Migrator {
    migrator_of(SCRIPTS)
}

fn migrator_of(scripts: &[Script]) -> Migrator {
    let migrations = scripts.iter().map(|&(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    // A newer release may have run on this file before: its migrations only
    // add, so this one can go on.
    migrator.set_ignore_missing(true);
    migrator
}

fn failed(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => refused(error),
        MigrateError::VersionMismatch(version) => edited(version),
        other => StoreError::Broken(format!("the migrations could not run: {other}")),
    }
}

fn edited(version: i64) -> StoreError {
    StoreError::Broken(format!(
        "migration {version:04} is not the one that made this database; \
         run the release that made it, or restore the file"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database as _;

    #[tokio::test]
    async fn a_file_of_the_first_script_alone_is_brought_up_to_date() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = SqliteStore::open(&folder.path().join("broker.db")).await.expect("a new file");
        let mut tx = store.begin().await.expect("free");
        migrator_of(&SCRIPTS[..1]).run_direct(None, &mut *tx, false).await.expect("as it was");
        tx.commit().await.expect("written");
        let indexes = async || -> i64 {
            let of_claims = "select count(*) from sqlite_schema where name like '%claim_idx'";
            sqlx::query_scalar(of_claims).fetch_one(store.reader()).await.expect("readable")
        };
        assert_eq!(indexes().await, 1);
        assert_eq!(pending(&store).await.expect("readable")[0], "0003_claims");
        store.migrate().await.expect("the rest");
        assert!(pending(&store).await.expect("readable").is_empty());
        assert_eq!(indexes().await, 0);
    }

    #[test]
    fn every_script_of_the_folder_is_built_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder is in the repository")
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        files.sort();
        let built_in: Vec<String> =
            SCRIPTS.iter().map(|(version, name, _)| format!("{version:04}_{name}.sql")).collect();
        assert_eq!(files, built_in);
    }
}
