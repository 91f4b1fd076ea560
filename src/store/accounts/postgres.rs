//! Accounts of people, and the sessions of their command lines.

use async_trait::async_trait;

use super::{Seen, oldest_session};
use crate::clock::Timestamp;
use crate::id::AccountId;
use crate::store::columns::Columns as _;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::pool::Call;
use crate::store::postgres::row::{clean, clean_optional};
use crate::store::{Account, Accounts, CliSession, NewAccount, NewCliSession, Result, StoreError};

#[async_trait]
impl Accounts for PostgresStore {
    async fn create(&self, now: Timestamp, account: &NewAccount) -> Result<()> {
        let query = sqlx::query(
            "insert into mesh.account (id, name, email, key_hash, created_at)
             values ($1, $2, $3, $4, $5) on conflict do nothing",
        )
        .bind(clean(account.id.as_str()))
        .bind(clean(&account.name))
        .bind(clean_optional(account.email.as_deref()))
        .bind(account.key_hash.as_deref())
        .bind(now.to_naive());
        match self.pool.execute(query).await? {
            0 => Err(StoreError::Conflict("this account is there already".to_owned())),
            _ => Ok(()),
        }
    }

    async fn ensure(&self, now: Timestamp, account: &NewAccount) -> Result<Account> {
        let query = sqlx::query(
            "insert into mesh.account (id, name, email, created_at) values ($1, $2, $3, $4)
             on conflict (id) do update
             set name = case when excluded.name = excluded.id then account.name else excluded.name end,
                email = coalesce(excluded.email, account.email)
             returning id, name, email, created_at, revoked_at",
        )
        .bind(clean(account.id.as_str()))
        .bind(clean(&account.name))
        .bind(clean_optional(account.email.as_deref()))
        .bind(now.to_naive());
        Account::read(&self.pool.fetch_one(query).await?)
    }

    async fn get(&self, account: &AccountId) -> Result<Option<Account>> {
        let query = sqlx::query(
            "select id, name, email, created_at, revoked_at from mesh.account where id = $1",
        )
        .bind(clean(account.as_str()));
        self.pool.record(query, Account::read).await
    }

    async fn all(&self) -> Result<Vec<Account>> {
        let query = sqlx::query(
            "select id, name, email, created_at, revoked_at from mesh.account
             order by created_at, id",
        );
        self.pool.records(query, Account::read).await
    }

    async fn of_key(&self, key_hash: &str) -> Result<Option<Account>> {
        let query = sqlx::query(
            "select id, name, email, created_at, revoked_at from mesh.account
             where key_hash = $1 and revoked_at is null",
        )
        .bind(key_hash);
        self.pool.record(query, Account::read).await
    }

    async fn revoke(&self, now: Timestamp, account: &AccountId) -> Result<bool> {
        let query = sqlx::query(
            "with closed as (
                update mesh.cli_session set revoked_at = $2
                where user_id = $1 and revoked_at is null
             )
             update mesh.account set revoked_at = $2 where id = $1 and revoked_at is null",
        )
        .bind(clean(account.as_str()))
        .bind(now.to_naive());
        Ok(self.pool.execute(query).await? > 0)
    }

    async fn signing_key(&self, now: Timestamp) -> Result<Vec<u8>> {
        let query = sqlx::query("select secret from mesh.signing_key where single");
        // Reading comes first: it works where nothing can be written now.
        if let Some(secret) = self.pool.record(query, |row| row.bytes("secret")).await? {
            return Ok(secret);
        }
        let query = sqlx::query(
            "insert into mesh.signing_key (secret, created_at) values ($1, $2)
             on conflict (single) do update set single = true returning secret",
        )
        .bind(rand::random::<[u8; 32]>().to_vec())
        .bind(now.to_naive());
        self.pool.fetch_one(query).await?.bytes("secret")
    }

    async fn open_session(&self, now: Timestamp, session: &NewCliSession) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        open_session(&mut tx, now, session).await?;
        tx.commit().await
    }

    async fn of_token(&self, now: Timestamp, token_hash: &str) -> Result<Option<Account>> {
        let query = sqlx::query(
            "select a.id, a.name, a.email, a.created_at, a.revoked_at, s.id as session_id,
                s.last_seen_at
             from mesh.cli_session s join mesh.account a on a.id = s.user_id
             where s.token_hash = $1 and s.revoked_at is null and a.revoked_at is null
             limit 1",
        )
        .bind(token_hash);
        let Some(seen) = self.pool.record(query, |row| Seen::read(row, now)).await? else {
            return Ok(None);
        };
        if seen.is_stale {
            let query = sqlx::query("update mesh.cli_session set last_seen_at = $2 where id = $1")
                .bind(seen.session)
                .bind(now.to_naive());
            self.pool.execute(query).await?;
        }
        Ok(Some(seen.account))
    }

    async fn close_session(&self, now: Timestamp, token_hash: &str) -> Result<bool> {
        let query = sqlx::query(
            "update mesh.cli_session set revoked_at = $2
             where token_hash = $1 and revoked_at is null",
        )
        .bind(token_hash)
        .bind(now.to_naive());
        Ok(self.pool.execute(query).await? > 0)
    }

    async fn sessions(
        &self,
        now: Timestamp,
        account: &AccountId,
        limit: i64,
    ) -> Result<Vec<CliSession>> {
        let query = sqlx::query(
            "select id, hostname, platform, arch, last_seen_at, created_at
             from mesh.cli_session
             where user_id = $1 and revoked_at is null and created_at >= $2
             order by created_at desc, id desc limit $3",
        )
        .bind(clean(account.as_str()))
        .bind(oldest_session(now).to_naive())
        .bind(limit);
        self.pool.records(query, CliSession::read).await
    }
}

/// Begins a session inside of a transaction.
pub(in crate::store) async fn open_session(
    tx: &mut Call,
    now: Timestamp,
    session: &NewCliSession,
) -> Result<()> {
    let query = sqlx::query("delete from mesh.cli_session where user_id = $1 and created_at < $2")
        .bind(session.account.as_str())
        .bind(oldest_session(now).to_naive());
    tx.execute(query).await?;
    let query = sqlx::query(
        "insert into mesh.cli_session (id, user_id, hostname, platform, arch, token_hash,
            last_seen_at, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $7)",
    )
    .bind(&session.id)
    .bind(session.account.as_str())
    .bind(clean_optional(session.machine.hostname.as_deref()))
    .bind(clean_optional(session.machine.platform.as_deref()))
    .bind(clean_optional(session.machine.arch.as_deref()))
    .bind(&session.token_hash)
    .bind(now.to_naive());
    tx.execute(query).await?;
    Ok(())
}
