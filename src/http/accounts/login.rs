//! Signing in by a code, and out.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call, Refused, ok};
use crate::accounts::{CodeChars, SessionKind, begin_session};
use crate::auth::secret_hash;
use crate::clock::Timestamp;
use crate::id;
use crate::limits;
use crate::protocol::budget::cut;
use crate::store::{DeviceCodeStatus, Machine, NewDeviceCode};
use std::sync::Arc;

/// What a command line says of its machine, each of any kind.
#[derive(Default, Deserialize)]
pub(super) struct MachineCall {
    #[serde(default)]
    hostname: Value,
    #[serde(default)]
    platform: Value,
    #[serde(default)]
    arch: Value,
}

impl MachineCall {
    pub(super) fn machine(&self) -> Machine {
        let text = |value: &Value| {
            value.as_str().map(|text| cut(text, limits::ACCOUNT_TEXT_BYTES_MAX).to_owned())
        };
        Machine {
            hostname: text(&self.hostname),
            platform: text(&self.platform),
            arch: text(&self.arch),
        }
    }
}

/// `POST /cli/device-code`.
pub(super) async fn create(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let said: MachineCall = call.json().unwrap_or_default();
    let now = Timestamp::now();
    let letters = CodeChars::Short.random(8);
    let code = NewDeviceCode {
        id: id::generate(),
        device_code: CodeChars::Long.random(32),
        user_code: format!("{}-{}", &letters[..4], &letters[4..]),
        session_id: format!("clm_sess_{}", CodeChars::Long.random(32)),
        machine: said.machine(),
        address: call.state.addresses.client(&call.headers, call.peer).to_string(),
        expires_at: now.plus_ms(limits::DEVICE_CODE_MS),
    };
    call.state.stores.device_codes.create(now, &code).await?;
    let base = call.public_base();
    ok(json!({
        "device_code": code.device_code,
        "user_code": code.user_code,
        "session_id": code.session_id,
        "expires_at": code.expires_at,
        "verification_url": format!("{base}/cli-auth"),
        "token_url": format!("{base}/token"),
    }))
}

/// `GET /cli/device-code/{code}`. The session begins here: its token is made for whoever
/// asks first, and is kept nowhere.
pub(super) async fn poll(call: Arc<Call>) -> Answer {
    let state = &call.state;
    let now = Timestamp::now();
    let Some(code) = state.stores.device_codes.polled(call.part("code")).await? else {
        return ok(json!({ "status": "expired" }));
    };
    let status = code.status_at(now);
    let (DeviceCodeStatus::Approved, Some(account)) = (status, &code.account) else {
        return ok(json!({ "status": status.as_str() }));
    };
    let (key, machine) = (state.keys.key().await?, code.machine.clone());
    let (token, session) = begin_session(key, now, account, SessionKind::Approved, machine);
    if !state.stores.device_codes.redeem(now, &code.id, &session).await? {
        return ok(json!({ "status": "consumed" }));
    }
    tracing::info!(account = %account.id, "a command line signed in");
    ok(json!({
        "status": "approved",
        "session_token": token,
        "user": {
            "id": account.id,
            "display_name": account.name,
            "email": account.email.as_deref().unwrap_or_default(),
        },
    }))
}

#[derive(Deserialize)]
struct RevokeCall {
    #[serde(default)]
    token: String,
}

/// `POST /cli/session/revoke`: the token says whose session it is.
pub(super) async fn revoke(call: Arc<Call>) -> Answer {
    let token = call.json().map(|RevokeCall { token }| token).filter(|token| !token.is_empty());
    let Some(token) = token else {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "token required"));
    };
    let (now, hash) = (Timestamp::now(), secret_hash(&token));
    let found = call.state.stores.accounts.close_session(now, &hash).await?;
    ok(json!({ "ok": true, "found": found }))
}
