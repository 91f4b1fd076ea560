//! Accounts of people, and who may act for them.

use super::reader::Reader;
use super::secret::Secret;

/// Accounts of people, and who may act for them.
#[derive(Clone, Debug)]
pub struct AccountsConfig {
    /// `ACCOUNTS`: whether people sign in here, with the routes of the command line.
    /// Default `auto`. `auto`, `on`, `off`.
    pub mode: AccountsMode,
    /// `SERVICE_TOKEN`: bearer tokens of a web application that signs people in.
    /// Default none: its routes are off. Comma-separated, each of at least 16
    /// characters.
    pub service_tokens: Vec<Secret>,
    /// `BROKER_LEGACY_AUTH`: whether a caller on this machine is believed who it says
    /// that it is. Default no.
    pub legacy_auth: bool,
}

/// Whether people sign in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountsMode {
    /// Where only this machine can reach the broker: a single node that listens on
    /// loopback.
    Auto,
    /// Accounts are always there.
    On,
    /// Accounts are never there.
    Off,
}

impl AccountsConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        use AccountsMode::{Auto, Off, On};
        let words = [("auto", Auto), ("on", On), ("off", Off)];
        Self {
            mode: reader.word("ACCOUNTS", &words).unwrap_or(Auto),
            service_tokens: reader.tokens("SERVICE_TOKEN"),
            legacy_auth: reader.flag("BROKER_LEGACY_AUTH"),
        }
    }
}
