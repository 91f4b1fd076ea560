//! Accounts of people, and the sessions of their command lines.

use async_trait::async_trait;

use super::{Seen, oldest_session};
use crate::clock::Timestamp;
use crate::id::AccountId;
use crate::store::columns::Columns as _;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::connection::{Tx, execute};
use crate::store::sqlite::error::refused;
use crate::store::{Account, Accounts, CliSession, NewAccount, NewCliSession, Result, StoreError};

#[async_trait]
impl Accounts for SqliteStore {
    async fn create(&self, now: Timestamp, account: &NewAccount) -> Result<()> {
        let query = sqlx::query(
            "insert into account (id, name, email, key_hash, created_at)
             values (?1, ?2, ?3, ?4, ?5) on conflict do nothing",
        )
        .bind(account.id.as_str())
        .bind(&account.name)
        .bind(&account.email)
        .bind(&account.key_hash)
        .bind(now.as_ms());
        match self.write(query).await? {
            0 => Err(StoreError::Conflict("this account is there already".to_owned())),
            _ => Ok(()),
        }
    }

    async fn ensure(&self, now: Timestamp, account: &NewAccount) -> Result<Account> {
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "insert into account (id, name, email, created_at) values (?1, ?2, ?3, ?4)
             on conflict (id) do update
             set name = case when excluded.name = excluded.id then account.name else excluded.name end,
                email = coalesce(excluded.email, account.email)
             returning id, name, email, created_at, revoked_at",
        )
        .bind(account.id.as_str())
        .bind(&account.name)
        .bind(&account.email)
        .bind(now.as_ms())
        .fetch_one(&mut *tx)
        .await
        .map_err(refused)?;
        tx.commit().await.map_err(refused)?;
        Account::read(&row)
    }

    async fn get(&self, account: &AccountId) -> Result<Option<Account>> {
        let query = sqlx::query("select * from account where id = ?1").bind(account.as_str());
        self.record(query, Account::read).await
    }

    async fn all(&self) -> Result<Vec<Account>> {
        let query = sqlx::query("select * from account order by created_at, id");
        self.records(query, Account::read).await
    }

    async fn of_key(&self, key_hash: &str) -> Result<Option<Account>> {
        let query = sqlx::query("select * from account where key_hash = ?1 and revoked_at is null")
            .bind(key_hash);
        self.record(query, Account::read).await
    }

    async fn revoke(&self, now: Timestamp, account: &AccountId) -> Result<bool> {
        let mut tx = self.begin().await?;
        let query =
            sqlx::query("update account set revoked_at = ?2 where id = ?1 and revoked_at is null")
                .bind(account.as_str())
                .bind(now.as_ms());
        let revoked = execute(&mut tx, query).await?;
        let query = sqlx::query(
            "update cli_session set revoked_at = ?2 where user_id = ?1 and revoked_at is null",
        )
        .bind(account.as_str())
        .bind(now.as_ms());
        execute(&mut tx, query).await?;
        tx.commit().await.map_err(refused)?;
        Ok(revoked > 0)
    }

    async fn signing_key(&self, now: Timestamp) -> Result<Vec<u8>> {
        let query = sqlx::query("select secret from signing_key where single = 1");
        if let Some(secret) = self.record(query, |row| row.bytes("secret")).await? {
            return Ok(secret);
        }
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "insert into signing_key (single, secret, created_at) values (1, ?1, ?2)
             on conflict (single) do update set single = 1 returning secret",
        )
        .bind(rand::random::<[u8; 32]>().to_vec())
        .bind(now.as_ms())
        .fetch_one(&mut *tx)
        .await
        .map_err(refused)?;
        tx.commit().await.map_err(refused)?;
        row.bytes("secret")
    }

    async fn open_session(&self, now: Timestamp, session: &NewCliSession) -> Result<()> {
        let mut tx = self.begin().await?;
        open_session(&mut tx, now, session).await?;
        tx.commit().await.map_err(refused)
    }

    async fn of_token(&self, now: Timestamp, token_hash: &str) -> Result<Option<Account>> {
        let query = sqlx::query(
            "select account.*, s.id as session_id, s.last_seen_at
             from cli_session s join account on account.id = s.user_id
             where s.token_hash = ?1 and s.revoked_at is null and account.revoked_at is null",
        )
        .bind(token_hash);
        let Some(seen) = self.record(query, |row| Seen::read(row, now)).await? else {
            return Ok(None);
        };
        if seen.is_stale {
            let query = sqlx::query("update cli_session set last_seen_at = ?2 where id = ?1")
                .bind(seen.session)
                .bind(now.as_ms());
            self.write(query).await?;
        }
        Ok(Some(seen.account))
    }

    async fn close_session(&self, now: Timestamp, token_hash: &str) -> Result<bool> {
        let query = sqlx::query(
            "update cli_session set revoked_at = ?2 where token_hash = ?1 and revoked_at is null",
        )
        .bind(token_hash)
        .bind(now.as_ms());
        Ok(self.write(query).await? > 0)
    }

    async fn sessions(
        &self,
        now: Timestamp,
        account: &AccountId,
        limit: i64,
    ) -> Result<Vec<CliSession>> {
        let query = sqlx::query(
            "select * from cli_session
             where user_id = ?1 and revoked_at is null and created_at >= ?2
             order by created_at desc, id desc limit 0 + ?3",
        )
        .bind(account.as_str())
        .bind(oldest_session(now).as_ms())
        .bind(limit);
        self.records(query, CliSession::read).await
    }
}

/// Begins a session inside of a transaction.
pub(in crate::store) async fn open_session(
    tx: &mut Tx,
    now: Timestamp,
    session: &NewCliSession,
) -> Result<()> {
    let query = sqlx::query("delete from cli_session where user_id = ?1 and created_at < ?2")
        .bind(session.account.as_str())
        .bind(oldest_session(now).as_ms());
    execute(tx, query).await?;
    let query = sqlx::query(
        "insert into cli_session (id, user_id, hostname, platform, arch, token_hash,
            last_seen_at, created_at)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
    )
    .bind(&session.id)
    .bind(session.account.as_str())
    .bind(&session.machine.hostname)
    .bind(&session.machine.platform)
    .bind(&session.machine.arch)
    .bind(&session.token_hash)
    .bind(now.as_ms());
    execute(tx, query).await?;
    Ok(())
}
