//! The key that the nodes share, read once.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::auth::{TokenKey, secret_hash};
use crate::clock::Timestamp;
use crate::store::{Account, Accounts, Result};

/// The key that the nodes share, read once, and who proves what by it.
pub(crate) struct Keys {
    accounts: Arc<dyn Accounts>,
    key: OnceCell<TokenKey>,
}

impl Keys {
    pub(crate) fn new(accounts: Arc<dyn Accounts>) -> Self {
        Self { accounts, key: OnceCell::new() }
    }

    /// The key itself.
    pub(crate) async fn key(&self) -> Result<&TokenKey> {
        let read = async || Ok(TokenKey::new(self.accounts.signing_key(Timestamp::now()).await?));
        self.key.get_or_try_init(read).await
    }

    /// The account that a token proves. The row of its session is read each time: one
    /// that was revoked proves nothing any more.
    pub(crate) async fn account_of(&self, token: &str) -> Result<Option<Account>> {
        let now = Timestamp::now();
        if self.key().await?.read(token, now).is_err() {
            return Ok(None);
        }
        self.accounts.of_token(now, &secret_hash(token)).await
    }

    /// What stands for a client's address in what nodes tell each other.
    pub(crate) async fn mark(&self, client: IpAddr) -> Result<String> {
        Ok(self.key().await?.mark(client))
    }
}
