//! What a web application may ask that signs people in by itself.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::login::MachineCall;
use super::tokens::pasted;
use super::{Answer, Call, Refused, ok};
use crate::accounts::{SessionKind, begin_session};
use crate::clock::Timestamp;
use crate::id::AccountId;
use crate::limits;
use crate::protocol::budget::cut;
use crate::store::{Account, CliSession, NewAccount};

/// Whom the application has signed in.
#[derive(Deserialize)]
struct UserCall {
    #[serde(default)]
    user_id: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(flatten)]
    machine: MachineCall,
}

impl Call {
    /// The account of whom the application has signed in, made if it is new.
    async fn signed_in(&self) -> Result<(Account, UserCall), Refused> {
        self.service()?;
        let required = || Refused::new(StatusCode::BAD_REQUEST, "user_id and email required");
        let user: UserCall = self.json().ok_or_else(required)?;
        if user.user_id.is_empty() || user.email.is_empty() {
            return Err(required());
        }
        let text = |text: &str| cut(text, limits::ACCOUNT_TEXT_BYTES_MAX).to_owned();
        let account = NewAccount {
            id: AccountId::from(text(&user.user_id)),
            name: text(user.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&user.email)),
            email: Some(text(&user.email)),
            key_hash: None,
        };
        let account = self.state.stores.accounts.ensure(Timestamp::now(), &account).await?;
        match account.revoked_at {
            Some(_) => Err(Refused::new(StatusCode::FORBIDDEN, "this account was revoked")),
            None => Ok((account, user)),
        }
    }
}

/// `POST /cli/device-code/{code}/approve`.
pub(super) async fn approve(call: Arc<Call>) -> Answer {
    call.service()?;
    let code = call.waiting_code(call.part("code")).await?;
    let (account, _) = call.signed_in().await?;
    call.approve_code(&code, &account).await
}

/// `POST /cli/token`.
pub(super) async fn token(call: Arc<Call>) -> Answer {
    let (account, user) = call.signed_in().await?;
    let (state, now) = (&call.state, Timestamp::now());
    let key = state.keys.key().await?;
    let machine = pasted(&user.machine);
    let (token, session) = begin_session(key, now, &account, SessionKind::Pasted, machine);
    state.stores.accounts.open_session(now, &session).await?;
    ok(json!({ "token": token }))
}

/// `GET /cli/sessions?user_id=`: by the application of anybody, by an account of itself.
pub(super) async fn sessions(call: Arc<Call>) -> Answer {
    let named = call.query.get("user_id").filter(|named| !named.is_empty());
    let account = match call.service() {
        Ok(()) => {
            let required = || Refused::new(StatusCode::BAD_REQUEST, "user_id required");
            AccountId::from(named.ok_or_else(required)?.as_str())
        }
        Err(refused) if crate::http::bearer(&call.headers).is_none() => return Err(refused),
        Err(_) => call.account(None).await?.id,
    };
    let (accounts, now) = (&call.state.stores.accounts, Timestamp::now());
    let sessions = accounts.sessions(now, &account, limits::ACCOUNT_SESSIONS_MAX).await?;
    ok(json!({ "sessions": sessions.iter().map(describe).collect::<Vec<Value>>() }))
}

/// A session, without anything that proves it.
pub(super) fn describe(session: &CliSession) -> Value {
    json!({
        "id": session.id,
        "hostname": session.machine.hostname,
        "platform": session.machine.platform,
        "arch": session.machine.arch,
        "last_seen_at": session.last_seen_at,
        "created_at": session.created_at,
    })
}
