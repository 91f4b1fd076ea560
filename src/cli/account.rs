//! `claudemesh-broker account`: who may sign in, and who may not any more.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Failure, lookup, output};
use crate::accounts::{Keys, SessionKind, begin_session, generate_sign_in_key, sync_token};
use crate::auth::secret_hash;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::id::AccountId;
use crate::limits::ACCOUNT_TEXT_BYTES_MAX;
use crate::store::{Account, Machine, NewAccount, Stores};

/// What can be done about accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Make an account, and show the key that it signs in by
    Create {
        /// What its owner is called
        name: String,
        /// Where its owner can be written to
        #[arg(long)]
        email: Option<String>,
        /// Its id, where a dashboard's user has one already
        #[arg(long)]
        id: Option<String>,
    },
    /// List all accounts
    List,
    /// Print a token to paste into `claudemesh login`
    Token {
        /// The account's id, name or address
        account: String,
        /// Print one for `claudemesh sync` instead: good once, for 15 minutes
        #[arg(long)]
        sync: bool,
    },
    /// Shut an account out: it is signed out everywhere, and cannot sign in again
    Revoke {
        /// The account's id, name or address
        account: String,
    },
}

pub(crate) async fn run(
    command: AccountCommand,
    json: bool,
    config: &Config,
) -> anyhow::Result<ExitCode> {
    lookup::with_store(config, async |store| match command {
        AccountCommand::Create { name, email, id } => create(store, name, email, id, json).await,
        AccountCommand::List => list(store, json).await,
        AccountCommand::Token { account, sync } => token(store, &account, sync, json).await,
        AccountCommand::Revoke { account } => revoke(store, &account, json).await,
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

async fn create(
    store: &Stores,
    name: String,
    email: Option<String>,
    id: Option<String>,
    json: bool,
) -> anyhow::Result<()> {
    let key = generate_sign_in_key();
    let account = NewAccount {
        id: id.as_deref().map_or_else(AccountId::generate, AccountId::from),
        name: check(name)?,
        email: email.map(check).transpose()?,
        key_hash: Some(secret_hash(&key)),
    };
    store.accounts.create(Timestamp::now(), &account).await?;
    let object = json!({
        "accountId": account.id, "name": account.name, "email": account.email, "signInKey": key,
    });
    let text = format!(
        "The account {} is made.\n  \
         account id   {}\n  \
         sign-in key  {key}\n\
         The key is asked for by the page that `claudemesh login` opens, and is not shown again.",
        output::printable(&account.name),
        output::printable(account.id.as_str()),
    );
    output::answer(json, &object, &text)
}

/// One line of a length that tables and pages can show.
fn check(text: String) -> Result<String, Failure> {
    let text = text.trim().to_owned();
    if (1..=ACCOUNT_TEXT_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control) {
        return Ok(text);
    }
    let message = format!("give one line of 1 to {ACCOUNT_TEXT_BYTES_MAX} bytes");
    Err(Failure::new("invalid_name", message))
}

async fn list(store: &Stores, json: bool) -> anyhow::Result<()> {
    let accounts = store.accounts.all().await?;
    if json {
        let accounts: Vec<Value> = accounts.iter().map(describe).collect();
        return output::json(&json!({ "accounts": accounts }));
    }
    if accounts.is_empty() {
        output::line(
            "There is no account yet. Next, type:\n  claudemesh-broker account create Ada",
        )?;
        return Ok(());
    }
    let rows = accounts.iter().map(|account| {
        [
            account.id.to_string(),
            account.name.clone(),
            output::or_dash(account.email.as_ref()),
            account.created_at.to_string(),
            if account.revoked_at.is_some() { "revoked" } else { "active" }.to_owned(),
        ]
    });
    output::table(["id", "name", "email", "created", "state"], rows)?;
    Ok(())
}

fn describe(account: &Account) -> Value {
    json!({
        "accountId": account.id,
        "name": account.name,
        "email": account.email,
        "createdAt": account.created_at,
        "revokedAt": account.revoked_at,
    })
}

async fn token(store: &Stores, word: &str, sync: bool, json: bool) -> anyhow::Result<()> {
    let account = find(store, word).await?;
    if account.revoked_at.is_some() {
        return Err(Failure::new("account_revoked", "the account is revoked").into());
    }
    let (keys, now) = (Keys::new(store.accounts.clone()), Timestamp::now());
    let (token, use_by) = if sync {
        let meshes = store.ownership.meshes_of(&account.id).await?;
        let token = sync_token(keys.key().await?, now, &account, &meshes);
        (token, "Paste it into `claudemesh sync`: it is good once, for 15 minutes.")
    } else {
        let machine = Machine { hostname: Some("paste-token".to_owned()), ..Machine::default() };
        let kind = SessionKind::Pasted;
        let (token, session) = begin_session(keys.key().await?, now, &account, kind, machine);
        store.accounts.open_session(now, &session).await?;
        (token, "Paste it into `claudemesh login`: it is good for 30 days, until it is revoked.")
    };
    let object = json!({ "accountId": account.id, "token": token, "sync": sync });
    output::answer(json, &object, &format!("{token}\n\n{use_by}"))
}

async fn revoke(store: &Stores, word: &str, json: bool) -> anyhow::Result<()> {
    let account = find(store, word).await?;
    let changed = store.accounts.revoke(Timestamp::now(), &account.id).await?;
    let object = json!({ "accountId": account.id, "revoked": true, "changed": changed });
    let name = output::printable(&account.name);
    let text = if changed {
        format!("{name} is signed out everywhere, and cannot sign in again.")
    } else {
        format!("{name} was revoked before.")
    };
    output::answer(json, &object, &text)
}

/// The one account that a word means: its id, else its name or address.
async fn find(store: &Stores, word: &str) -> anyhow::Result<Account> {
    let mut found = store.accounts.all().await?;
    match found.iter().position(|account| account.id.as_str() == word) {
        Some(at) => return Ok(found.swap_remove(at)),
        None => {
            found.retain(|account| account.name == word || account.email.as_deref() == Some(word))
        }
    }
    match found.len() {
        1 => Ok(found.swap_remove(0)),
        0 => {
            let message = format!(
                "there is no account {word:?}; `claudemesh-broker account list` shows those there \
                 are"
            );
            Err(Failure::new("account_not_found", message).into())
        }
        _ => {
            let message = format!("several accounts are called {word:?}; give the id instead");
            Err(Failure::new("account_ambiguous", message).into())
        }
    }
}
