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

/// All migrations, oldest first.
const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "core",
        scripts: &[
            ("1_tables", include_str!("../../../migrations/postgres/0001_core/1_tables.sql")),
            ("2_broker", include_str!("../../../migrations/postgres/0001_core/2_broker.sql")),
            ("3_chain", include_str!("../../../migrations/postgres/0001_core/3_chain.sql")),
            ("4_changes", include_str!("../../../migrations/postgres/0001_core/4_changes.sql")),
        ],
        superseded: &["d8bcc05907621cb0ea9d13f9607f8ed50b20854d52a8145e790271d5df38ce9a"],
    },
    Migration {
        version: 2,
        name: "coordination",
        scripts: &[
            (
                "1_shared",
                include_str!("../../../migrations/postgres/0002_coordination/1_shared.sql"),
            ),
            (
                "2_topics",
                include_str!("../../../migrations/postgres/0002_coordination/2_topics.sql"),
            ),
        ],
        superseded: &[],
    },
    Migration {
        version: 4,
        name: "audit_names",
        scripts: &[
            ("1_names", include_str!("../../../migrations/postgres/0004_audit_names/1_names.sql")),
            ("2_chain", include_str!("../../../migrations/postgres/0004_audit_names/2_chain.sql")),
        ],
        superseded: &[],
    },
    Migration {
        version: 5,
        name: "cluster_key",
        scripts: &[(
            "1_key",
            include_str!("../../../migrations/postgres/0005_cluster_key/1_key.sql"),
        )],
        superseded: &[],
    },
    Migration {
        version: 6,
        name: "quotas",
        scripts: &[(
            "1_index",
            include_str!("../../../migrations/postgres/0006_quotas/1_index.sql"),
        )],
        superseded: &[],
    },
    Migration {
        version: 7,
        name: "invite_columns",
        scripts: &[(
            "1_columns",
            include_str!("../../../migrations/postgres/0007_invite_columns/1_columns.sql"),
        )],
        superseded: &[],
    },
    Migration {
        version: 8,
        name: "presence_session_id",
        scripts: &[(
            "1_index",
            include_str!("../../../migrations/postgres/0008_presence_session_id/1_index.sql"),
        )],
        superseded: &[],
    },
    Migration {
        version: 9,
        name: "state",
        scripts: &[
            ("1_usage", include_str!("../../../migrations/postgres/0009_state/1_usage.sql")),
            ("2_state", include_str!("../../../migrations/postgres/0009_state/2_state.sql")),
        ],
        superseded: &[],
    },
    Migration {
        version: 17,
        name: "topics",
        scripts: &[
            ("1_tables", include_str!("../../../migrations/postgres/0017_topics/1_tables.sql")),
            ("2_accept", include_str!("../../../migrations/postgres/0017_topics/2_accept.sql")),
            ("3_adopt", include_str!("../../../migrations/postgres/0017_topics/3_adopt.sql")),
        ],
        superseded: &[],
    },
    Migration {
        version: 18,
        name: "api_keys",
        scripts: &[(
            "1_api_keys",
            include_str!("../../../migrations/postgres/0018_api_keys/1_api_keys.sql"),
        )],
        superseded: &[],
    },
    Migration {
        version: 21,
        name: "vault",
        scripts: &[(
            "1_vault",
            include_str!("../../../migrations/postgres/0021_vault/1_vault.sql"),
        )],
        superseded: &[],
    },
];

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
