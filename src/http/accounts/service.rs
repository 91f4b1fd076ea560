//! What a web application may ask that signs people in by itself.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::login::MachineCall;
use super::{Answer, Call, Refused, ok};
use crate::accounts::{SessionKind, begin_session};
use crate::clock::Timestamp;
use crate::id::AccountId;
use crate::limits;
use crate::protocol::budget::cut;
use crate::store::{Account, DeviceCodeStatus, NewAccount};

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
    let (codes, now) = (&call.state.stores.device_codes, Timestamp::now());
    let found = codes.find(call.part("code")).await?;
    let unknown = || Refused::new(StatusCode::NOT_FOUND, "Code not found or expired");
    let code = found.filter(|code| code.status == DeviceCodeStatus::Pending).ok_or_else(unknown)?;
    if code.status_at(now) == DeviceCodeStatus::Expired {
        return Err(Refused::new(StatusCode::GONE, "Code expired"));
    }
    let (account, _) = call.signed_in().await?;
    if !codes.approve(now, &code.id, &account.id).await? {
        return Err(unknown());
    }
    ok(json!({ "ok": true }))
}

/// `POST /cli/token`.
pub(super) async fn token(call: Arc<Call>) -> Answer {
    let (account, user) = call.signed_in().await?;
    let (state, now) = (&call.state, Timestamp::now());
    let mut machine = user.machine.machine();
    machine.hostname.get_or_insert_with(|| "paste-token".to_owned());
    machine.platform.get_or_insert_with(|| "unknown".to_owned());
    machine.arch.get_or_insert_with(|| "unknown".to_owned());
    let key = state.keys.key().await?;
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
    let sessions = call.state.stores.accounts.sessions(&account).await?;
    let sessions: Vec<Value> = sessions
        .iter()
        .map(|session| {
            json!({
                "id": session.id,
                "hostname": session.machine.hostname,
                "platform": session.machine.platform,
                "arch": session.machine.arch,
                "last_seen_at": session.last_seen_at,
                "created_at": session.created_at,
            })
        })
        .collect();
    ok(json!({ "sessions": sessions }))
}
