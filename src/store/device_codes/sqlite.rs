//! Codes by which the command line of somebody signs in.

use async_trait::async_trait;

use super::KEPT_MS;
use crate::clock::Timestamp;
use crate::id::AccountId;
use crate::limits;
use crate::store::accounts::sqlite::open_session;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::connection::execute;
use crate::store::sqlite::error::refused;
use crate::store::{DeviceCode, DeviceCodes, NewCliSession, NewDeviceCode, Result};

/// A `select` of codes with their accounts, with the conditions given.
macro_rules! select_codes {
    ($conditions:literal) => {
        concat!(
            "select c.*, a.id as account_id, a.name as account_name, a.email as account_email,
                a.created_at as account_created_at, a.revoked_at as account_revoked_at
             from device_code c left join account a on a.id = c.user_id ",
            $conditions
        )
    };
}

#[async_trait]
impl DeviceCodes for SqliteStore {
    async fn create(&self, now: Timestamp, code: &NewDeviceCode) -> Result<()> {
        let mut tx = self.begin().await?;
        let query = sqlx::query("delete from device_code where expires_at < ?1")
            .bind(now.plus_ms(-KEPT_MS).as_ms());
        execute(&mut tx, query).await?;
        let query = sqlx::query(
            "insert into device_code (id, device_code, user_code, session_id, hostname, platform,
                arch, ip_address, created_at, expires_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )
        .bind(&code.id)
        .bind(&code.device_code)
        .bind(&code.user_code)
        .bind(&code.session_id)
        .bind(&code.machine.hostname)
        .bind(&code.machine.platform)
        .bind(&code.machine.arch)
        .bind(&code.address)
        .bind(now.as_ms())
        .bind(code.expires_at.as_ms());
        execute(&mut tx, query).await?;
        tx.commit().await.map_err(refused)
    }

    async fn find(&self, session_or_user_code: &str) -> Result<Option<DeviceCode>> {
        let query = sqlx::query(select_codes!(
            "where c.session_id = ?1 or c.user_code = ?1
             order by c.session_id = ?1 desc, c.created_at desc, c.id desc limit 1"
        ))
        .bind(session_or_user_code);
        self.record(query, DeviceCode::read).await
    }

    async fn polled(&self, device_code: &str) -> Result<Option<DeviceCode>> {
        let query = sqlx::query(select_codes!("where c.device_code = ?1")).bind(device_code);
        self.record(query, DeviceCode::read).await
    }

    async fn approve(&self, now: Timestamp, id: &str, account: &AccountId) -> Result<bool> {
        let query = sqlx::query(
            "update device_code set status = 'approved', user_id = ?3, approved_at = ?2
             where id = ?1 and status = 'pending' and expires_at >= ?2",
        )
        .bind(id)
        .bind(now.as_ms())
        .bind(account.as_str());
        Ok(self.write(query).await? > 0)
    }

    async fn fail(&self, id: &str) -> Result<()> {
        let query = sqlx::query(
            "update device_code set failures = failures + 1,
                status = case when failures + 1 >= ?2 then 'expired' else status end
             where id = ?1 and status = 'pending'",
        )
        .bind(id)
        .bind(limits::DEVICE_CODE_TRIES_MAX);
        self.write(query).await?;
        Ok(())
    }

    async fn redeem(&self, now: Timestamp, id: &str, session: &NewCliSession) -> Result<bool> {
        let mut tx = self.begin().await?;
        let query = sqlx::query(
            "update device_code set status = 'consumed'
             where id = ?1 and status = 'approved' and user_id = ?2 and exists (
                select 1 from account where id = ?2 and revoked_at is null)",
        )
        .bind(id)
        .bind(session.account.as_str());
        if execute(&mut tx, query).await? == 0 {
            return Ok(false);
        }
        open_session(&mut tx, now, session).await?;
        tx.commit().await.map_err(refused)?;
        Ok(true)
    }
}
