//! Codes by which the command line of somebody signs in: made there, approved in a
//! browser, turned into a session once.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::AccountId;
use crate::store::columns::Columns;
use crate::store::{Account, Machine, NewCliSession, Result};

/// Codes by which the command line of somebody signs in.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait DeviceCodes: Send + Sync + 'static {
    /// Writes a code, and deletes those that ended long ago.
    async fn create(&self, now: Timestamp, code: &NewDeviceCode) -> Result<()>;

    /// The code of that session id, else the newest with that user code.
    async fn find(&self, session_or_user_code: &str) -> Result<Option<DeviceCode>>;

    /// The code that its command line asks about.
    async fn polled(&self, device_code: &str) -> Result<Option<DeviceCode>>;

    /// Approves a code for an account. `false` if it does not wait any more.
    async fn approve(&self, now: Timestamp, id: &str, account: &AccountId) -> Result<bool>;

    /// Counts a wrong try; after the last one the code is dead.
    async fn fail(&self, id: &str) -> Result<()>;

    /// Turns an approved code into a session, once. `false` if somebody did already,
    /// or the account was revoked.
    async fn redeem(&self, now: Timestamp, id: &str, session: &NewCliSession) -> Result<bool>;
}

/// How long after its end a code is kept, for those who look.
pub(in crate::store) const KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// How a code stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceCodeStatus {
    /// Nobody has approved it yet.
    Pending,
    /// Its command line has not been told yet.
    Approved,
    /// It has become a session.
    Consumed,
    /// It is of no use any more.
    Expired,
}

impl DeviceCodeStatus {
    /// As in the tables and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Consumed => "consumed",
            Self::Expired => "expired",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Approved, Self::Consumed, Self::Expired]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// A code to write.
#[derive(Clone, Debug)]
pub struct NewDeviceCode {
    /// The row's id.
    pub id: String,
    /// What the command line asks by.
    pub device_code: String,
    /// What people compare and type.
    pub user_code: String,
    /// What the browser is sent with.
    pub session_id: String,
    /// Where the command line runs, as it says.
    pub machine: Machine,
    /// Where it called from.
    pub address: String,
    /// Until when it can be approved.
    pub expires_at: Timestamp,
}

/// A code as it stands.
#[derive(Clone, Debug)]
pub struct DeviceCode {
    /// The row's id.
    pub id: String,
    /// What people compare and type.
    pub user_code: String,
    /// What the browser is sent with.
    pub session_id: String,
    /// How it stands, whatever the time.
    pub status: DeviceCodeStatus,
    /// Where the command line runs, as it says.
    pub machine: Machine,
    /// Where it called from.
    pub address: Option<String>,
    /// Until when it can be approved.
    pub expires_at: Timestamp,
    /// For whom it was approved.
    pub account: Option<Account>,
}

impl DeviceCode {
    /// How it stands at `now`: one that nobody approved in time has expired.
    #[must_use]
    pub fn status_at(&self, now: Timestamp) -> DeviceCodeStatus {
        match self.status {
            DeviceCodeStatus::Pending if self.expires_at < now => DeviceCodeStatus::Expired,
            status => status,
        }
    }

    /// A row of `device_code` with the columns of its account.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let account = match row.optional_id("account_id")? {
            Some(id) => Some(Account {
                id,
                name: row.text("account_name")?,
                email: row.optional_text("account_email")?,
                created_at: row.time("account_created_at")?,
                revoked_at: row.optional_time("account_revoked_at")?,
            }),
            None => None,
        };
        Ok(Self {
            id: row.text("id")?,
            user_code: row.text("user_code")?,
            session_id: row.text("session_id")?,
            status: row.word("status", DeviceCodeStatus::parse)?,
            machine: Machine::read(row)?,
            address: row.optional_text("ip_address")?,
            expires_at: row.time("expires_at")?,
            account,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_nobody_approved_in_time_has_expired() {
        let now = Timestamp::from_ms(1_000);
        let code = |status| DeviceCode {
            id: String::new(),
            user_code: String::new(),
            session_id: String::new(),
            status,
            machine: Machine::default(),
            address: None,
            expires_at: now,
            account: None,
        };
        let pending = code(DeviceCodeStatus::Pending);
        assert_eq!(pending.status_at(now), DeviceCodeStatus::Pending);
        assert_eq!(pending.status_at(now.plus_ms(1)), DeviceCodeStatus::Expired);
        let approved = code(DeviceCodeStatus::Approved);
        assert_eq!(approved.status_at(now.plus_ms(1)), DeviceCodeStatus::Approved);
    }
}
