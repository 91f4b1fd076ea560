//! Signing in by a code, and out.

use std::sync::Arc;

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
use crate::socket::address::retry_later;
use crate::store::{Account, DeviceCode, DeviceCodeStatus, Machine, NewDeviceCode};

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
        address: call.client().to_string(),
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

impl Call {
    /// The code, by its session id or as people type it, that waits for somebody.
    pub(super) async fn waiting_code(&self, named: &str) -> Result<DeviceCode, Refused> {
        let found = self.state.stores.device_codes.find(named).await?;
        let code = found.filter(|code| code.status == DeviceCodeStatus::Pending);
        let code = code.ok_or_else(unknown_code)?;
        match code.status_at(Timestamp::now()) {
            DeviceCodeStatus::Pending => Ok(code),
            _ => Err(Refused::new(StatusCode::GONE, "Code expired")),
        }
    }

    /// Approves a code for an account that has proven itself.
    pub(super) async fn approve_code(&self, code: &DeviceCode, account: &Account) -> Answer {
        let codes = &self.state.stores.device_codes;
        if !codes.approve(Timestamp::now(), &code.id, &account.id).await? {
            return Err(unknown_code());
        }
        tracing::info!(account = %account.id, "a sign-in was approved");
        ok(json!({ "ok": true }))
    }
}

fn unknown_code() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "Code not found or expired")
}

#[derive(Deserialize)]
struct ApproveCall {
    #[serde(default)]
    session_id: Option<String>,
    #[serde(default)]
    user_code: Option<String>,
}

/// `POST /api/auth/cli/device-code/approve-by-user-code`: an account that is signed in
/// somewhere signs another terminal in. Codes are short, so wrong ones are counted as
/// wrong keys are.
pub(super) async fn approve(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let account = call.account(None).await?;
    if let Some(seconds) = call.guesses_blocked() {
        let text = "too many wrong codes from this address: wait a minute";
        return Ok(retry_later(StatusCode::TOO_MANY_REQUESTS, seconds, text));
    }
    let bad = |error: &str| Refused::new(StatusCode::BAD_REQUEST, error);
    let body: ApproveCall = call.json().ok_or_else(|| bad("Invalid body"))?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let named = given(body.session_id).or(given(body.user_code));
    let named = named.ok_or_else(|| bad("session_id or user_code required"))?;
    let found = call.waiting_code(named.trim()).await;
    if matches!(found, Err(Refused(StatusCode::NOT_FOUND, _))) {
        call.note_guess();
    }
    call.approve_code(&found?, &account).await
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
