//! Codes by which the command line of somebody signs in.

use async_trait::async_trait;

use super::KEPT_MS;
use crate::clock::Timestamp;
use crate::id::AccountId;
use crate::limits;
use crate::store::accounts::postgres::open_session;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::{clean, clean_optional};
use crate::store::{DeviceCode, DeviceCodes, NewCliSession, NewDeviceCode, Result};

/// A `select` of codes with their accounts, with the conditions given.
macro_rules! select_codes {
    ($conditions:literal) => {
        concat!(
            "select c.id, c.user_code, c.session_id, c.status::text as status, c.hostname,
                c.platform, c.arch, c.ip_address, c.expires_at, a.id as account_id,
                a.name as account_name, a.email as account_email,
                a.created_at as account_created_at, a.revoked_at as account_revoked_at
             from mesh.device_code c left join mesh.account a on a.id = c.user_id ",
            $conditions
        )
    };
}

#[async_trait]
impl DeviceCodes for PostgresStore {
    async fn create(&self, now: Timestamp, code: &NewDeviceCode) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        // Those of another program may have sessions that refer to them.
        let query = sqlx::query(
            "delete from mesh.device_code c where c.expires_at < $1 and not exists (
                select from mesh.cli_session s where s.device_code_id = c.id)",
        )
        .bind(now.plus_ms(-KEPT_MS).to_naive());
        tx.execute(query).await?;
        let query = sqlx::query(
            "insert into mesh.device_code (id, device_code, user_code, session_id, hostname,
                platform, arch, ip_address, created_at, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(&code.id)
        .bind(&code.device_code)
        .bind(&code.user_code)
        .bind(&code.session_id)
        .bind(clean_optional(code.machine.hostname.as_deref()))
        .bind(clean_optional(code.machine.platform.as_deref()))
        .bind(clean_optional(code.machine.arch.as_deref()))
        .bind(&code.address)
        .bind(now.to_naive())
        .bind(code.expires_at.to_naive());
        tx.execute(query).await?;
        tx.commit().await
    }

    async fn find(&self, session_or_user_code: &str) -> Result<Option<DeviceCode>> {
        let query = sqlx::query(select_codes!(
            "where c.session_id = $1 or c.user_code = $1
             order by c.session_id = $1 desc, c.created_at desc, c.id desc limit 1"
        ))
        .bind(clean(session_or_user_code));
        self.pool.record(query, DeviceCode::read).await
    }

    async fn polled(&self, device_code: &str) -> Result<Option<DeviceCode>> {
        let query = sqlx::query(select_codes!("where c.device_code = $1")).bind(clean(device_code));
        self.pool.record(query, DeviceCode::read).await
    }

    async fn approve(&self, now: Timestamp, id: &str, account: &AccountId) -> Result<bool> {
        let query = sqlx::query(
            "update mesh.device_code set status = 'approved', user_id = $3, approved_at = $2
             where id = $1 and status = 'pending' and expires_at >= $2",
        )
        .bind(id)
        .bind(now.to_naive())
        .bind(account.as_str());
        Ok(self.pool.execute(query).await? > 0)
    }

    async fn fail(&self, id: &str) -> Result<()> {
        let query = sqlx::query(
            "update mesh.device_code set failures = failures + 1,
                status = case when failures + 1 >= $2 then 'expired' else status end
             where id = $1 and status = 'pending'",
        )
        .bind(id)
        .bind(limits::DEVICE_CODE_TRIES_MAX);
        self.pool.execute(query).await?;
        Ok(())
    }

    async fn redeem(&self, now: Timestamp, id: &str, session: &NewCliSession) -> Result<bool> {
        let mut tx = self.pool.begin().await?;
        let query = sqlx::query(
            "update mesh.device_code set status = 'consumed'
             where id = $1 and status = 'approved' and user_id = $2 and exists (
                select from mesh.account where id = $2 and revoked_at is null)",
        )
        .bind(id)
        .bind(session.account.as_str());
        if tx.execute(query).await? == 0 {
            tx.rollback().await?;
            return Ok(false);
        }
        open_session(&mut tx, now, session).await?;
        tx.commit().await?;
        Ok(true)
    }
}
