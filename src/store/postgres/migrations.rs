//! The schema's history, built into the program.
//!
//! The same numbers mean the same on both databases. Scripts add to what is
//! there and never rewrite a table, so that they run on a database of an
//! existing installation, and while nodes of the release before still serve.

use sha2::{Digest, Sha256};

use super::pool::Pool;
use crate::store::columns::Columns as _;
use crate::store::{Result, StoreError};

/// One migration: version, name, its scripts in their order. Never edit one
/// that a release has.
struct Migration {
    version: i64,
    name: &'static str,
    scripts: &'static [(&'static str, &'static str)],
    /// Checksums of what it was before the first release: it runs again over
    /// what that has made.
    superseded: &'static [&'static str],
}

/// The list of migrations: number, name, folder and the scripts in it; for one that
/// was another before the first release, the checksums of what it was.
macro_rules! migrations {
    ($($version:literal $name:literal in $folder:literal: $($script:literal),* $(; once $($was:literal),*)?;)*) => {
        &[$(Migration {
            version: $version,
            name: $name,
            scripts: &[$((
                $script,
                include_str!(concat!("../../../migrations/postgres/", $folder, "/", $script, ".sql")),
            )),*],
            superseded: &[$($($was),*)?],
        }),*]
    };
}

/// All migrations, oldest first.
const MIGRATIONS: &[Migration] = migrations! {
    1 "core" in "0001_core": "1_tables", "2_broker", "3_chain", "4_changes";
        once "d8bcc05907621cb0ea9d13f9607f8ed50b20854d52a8145e790271d5df38ce9a";
    2 "coordination" in "0002_coordination": "1_shared", "2_topics";
    4 "audit_names" in "0004_audit_names": "1_names", "2_chain";
    5 "cluster_key" in "0005_cluster_key": "1_key";
    6 "quotas" in "0006_quotas": "1_index";
    7 "invite_columns" in "0007_invite_columns": "1_columns";
    8 "presence_session_id" in "0008_presence_session_id": "1_index";
    9 "state" in "0009_state": "1_usage", "2_state";
    10 "streams" in "0010_streams": "1_streams";
    11 "mcp_servers" in "0011_mcp_servers": "1_servers";
    12 "accounts" in "0012_accounts": "1_accounts";
    13 "memory" in "0013_memory": "1_counting", "2_memory";
    14 "contexts" in "0014_contexts": "1_context";
    15 "tasks" in "0015_tasks": "1_tasks";
    16 "schedules" in "0016_schedules": "1_schedules";
    17 "topics" in "0017_topics": "1_tables", "2_accept", "3_adopt";
    18 "api_keys" in "0018_api_keys": "1_api_keys";
    19 "skills" in "0019_skills": "1_skill";
    20 "webhooks" in "0020_webhooks": "1_webhooks";
    21 "vault" in "0021_vault": "1_vault";
    22 "overview" in "0022_overview": "1_indexes";
    23 "history" in "0023_history": "1_indexes";
    24 "stages" in "0024_stages": "1_columns", "2_properties";
    25 "sealing" in "0025_sealing": "1_columns", "2_properties";
    26 "common_keys" in "0026_common_keys": "1_policy", "2_keys";
    27 "audit_heads" in "0027_audit_heads": "1_heads", "2_chain", "3_genesis";
    28 "certificates" in "0028_certificates": "1_columns";
};

/// Any number that no other program's advisory lock has.
const LOCK: &str = "select pg_advisory_xact_lock(7473773832)";

/// Another node's migrations are waited for.
const PATIENT: &str = "set local statement_timeout = 0;
    set local lock_timeout = '120s';
    set local idle_in_transaction_session_timeout = '120s'";

/// A table that a dashboard reads is not: whoever comes after this one would
/// wait too.
const IMPATIENT: &str = "set local lock_timeout = '10s'";

/// `create schema if not exists` asks for a privilege even where it is there.
const TRACKING: &str = "do $$
    begin
      if to_regnamespace('mesh') is null then
        create schema mesh;
      end if;
    end
    $$;
    create table if not exists mesh.broker_migration (
      version bigint primary key,
      name text not null,
      checksum text not null,
      applied_at timestamp not null default now()
    )";

impl Migration {
    fn label(&self) -> String {
        format!("{:04}_{}", self.version, self.name)
    }

    fn checksum(&self) -> String {
        let mut hash = Sha256::new();
        for (name, sql) in self.scripts {
            for part in [*name, *sql] {
                hash.update(part);
                hash.update([0]);
            }
        }
        hex::encode(hash.finalize())
    }
}

/// The migrations that have not run, as `0001_core`.
///
/// # Errors
///
/// `Broken` if one that has run was edited since.
pub(in crate::store) async fn pending(pool: &Pool) -> Result<Vec<String>> {
    check_encoding(pool).await?;
    let begun = pool
        .fetch_one(sqlx::query("select to_regclass('mesh.broker_migration') is not null as begun"))
        .await?;
    let applied = if begun.flag("begun")? {
        pool.fetch_all(sqlx::query("select version, checksum from mesh.broker_migration")).await?
    } else {
        Vec::new()
    };
    Ok(missing(&applied)?.into_iter().map(Migration::label).collect())
}

/// A database of another encoding takes no name with an emoji, at any time later.
/// `SQL_ASCII` keeps bytes as they come.
async fn check_encoding(pool: &Pool) -> Result<()> {
    let row = pool
        .fetch_one(sqlx::query("select current_setting('server_encoding') as encoding"))
        .await?;
    match row.str("encoding")? {
        "UTF8" | "SQL_ASCII" => Ok(()),
        other => Err(StoreError::Broken(format!(
            "the database's encoding is {other}, which cannot hold all text: make one with \
             `create database ... encoding 'UTF8' template template0`, and set DATABASE_URL to it"
        ))),
    }
}

/// Runs what has not run, in one transaction that holds the lock: it is
/// released however the transaction ends.
pub(in crate::store) async fn run(pool: &Pool) -> Result<()> {
    if pending(pool).await?.is_empty() {
        return Ok(());
    }
    let mut tx = pool.long_call().await?;
    tx.batch("begin").await?;
    tx.batch(PATIENT).await?;
    tx.batch(LOCK).await?;
    tx.batch(IMPATIENT).await?;
    tx.batch(TRACKING).await?;
    let applied =
        tx.fetch_all(sqlx::query("select version, checksum from mesh.broker_migration")).await?;
    for migration in missing(&applied)? {
        for (_, sql) in migration.scripts {
            tx.batch(sql).await?;
        }
        tx.execute(
            sqlx::query(
                "insert into mesh.broker_migration (version, name, checksum)
                 values ($1, $2, $3)
                 on conflict (version) do update set checksum = excluded.checksum",
            )
            .bind(migration.version)
            .bind(migration.name)
            .bind(migration.checksum()),
        )
        .await?;
    }
    tx.commit().await
}

/// A newer release may have run on this database before: its migrations only
/// add, so this one can go on.
fn missing(applied: &[sqlx::postgres::PgRow]) -> Result<Vec<&'static Migration>> {
    let mut missing = Vec::new();
    for migration in MIGRATIONS {
        let mut checksum: Option<&str> = None;
        for row in applied {
            if row.int("version")? == migration.version {
                checksum = Some(row.str("checksum")?);
            }
        }
        match checksum {
            None => missing.push(migration),
            Some(checksum) if checksum == migration.checksum() => {}
            Some(checksum) if migration.superseded.contains(&checksum) => missing.push(migration),
            Some(_) => {
                return Err(StoreError::Broken(format!(
                    "migration {} is not the one that made this database: run the release that \
                     made it, or restore the database",
                    migration.label()
                )));
            }
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_of_the_folder_is_built_in() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
        let names = |folder: &str| {
            let mut names: Vec<String> = std::fs::read_dir(folder)
                .expect("the folder is in the repository")
                .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        let labels: Vec<String> = MIGRATIONS.iter().map(Migration::label).collect();
        assert_eq!(names(root), labels);
        for migration in MIGRATIONS {
            let scripts: Vec<String> =
                migration.scripts.iter().map(|(name, _)| format!("{name}.sql")).collect();
            assert_eq!(names(&format!("{root}/{}", migration.label())), scripts);
        }
    }
}
