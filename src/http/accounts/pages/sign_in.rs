//! `/cli-auth`: a terminal that wants to sign in, and the form that lets it.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;

use super::{
    Form, account_of, blocked, escape, is_from_own_page, is_word, new_word, page, said_trouble,
    sentence, with_cookie,
};
use crate::clock::Timestamp;
use crate::http::accounts::{Answer, Call, Refused};
use crate::store::{DeviceCode, DeviceCodeStatus};

/// Where the form is, and its cookie.
const PATH: &str = "/cli-auth";

/// `GET /cli-auth`: shows what would be approved, and asks for a key.
pub(in crate::http::accounts) async fn show(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let named = call.query.get("session").or_else(|| call.query.get("code"));
    let Some(named) = named.filter(|named| !named.is_empty()) else {
        return Ok(ask_for_code());
    };
    match waiting(&call, named).await? {
        Ok(code) => ask_for_key(&call, &code, None).await,
        Err(response) => Ok(response),
    }
}

fn ask_for_code() -> Response {
    let form = "<p>Type the code that your terminal shows.</p>\
                <form method=\"get\" action=\"/cli-auth\" autocomplete=\"off\">\
                <label for=\"code\">Code</label>\
                <input id=\"code\" name=\"code\" required maxlength=\"9\" placeholder=\"XXXX-XXXX\">\
                <button class=\"primary\" type=\"submit\">Next</button></form>";
    page(StatusCode::OK, "Sign a terminal in", form)
}

/// The code that waits for somebody, or the page that says that it does not.
async fn waiting(call: &Call, named: &str) -> Result<Result<DeviceCode, Response>, Refused> {
    if let Some(refused) = blocked(call) {
        return Ok(Err(refused));
    }
    let found = call.state.stores.device_codes.find(named.trim()).await?;
    let is_waiting =
        |code: &DeviceCode| code.status_at(Timestamp::now()) == DeviceCodeStatus::Pending;
    Ok(found.filter(is_waiting).ok_or_else(|| {
        // Codes are short: who tries many of them is kept out.
        call.note_guess();
        let text = "This code is not known, was used, or is older than five minutes. Start \
                    claudemesh login again.";
        sentence(StatusCode::NOT_FOUND, "Nothing waits here", text)
    }))
}

async fn ask_for_key(call: &Call, code: &DeviceCode, trouble: Option<&str>) -> Answer {
    let (word, cookie) = new_word(call, PATH, &code.session_id).await?;
    let said = |text: &Option<String>| escape(text.as_deref().unwrap_or("not said"));
    let (status, trouble) = said_trouble(trouble);
    let body = format!(
        "<p>A terminal wants to sign in. Approve it only if you have just started \
         <code>claudemesh login</code> there, and it shows this very code:</p>\
         <p><code class=\"user-code\">{user_code}</code></p>\
         <p class=\"muted\">Machine: {hostname} ({platform}, {arch})<br>Address: {address}</p>\
         {trouble}\
         <form method=\"post\" action=\"/cli-auth\" autocomplete=\"off\">\
         <input type=\"hidden\" name=\"session\" value=\"{session}\">\
         <input type=\"hidden\" name=\"word\" value=\"{word}\">\
         <label for=\"key\">Your sign-in key</label>\
         <input id=\"key\" name=\"key\" type=\"password\" required spellcheck=\"false\">\
         <label for=\"account\">Account, only with the admin token</label>\
         <input id=\"account\" name=\"account\" maxlength=\"256\">\
         <button class=\"primary\" type=\"submit\">Approve</button></form>\
         <p class=\"muted small\">Whoever runs this broker makes keys: \
         <code>claudemesh-broker account create</code>.</p>",
        user_code = escape(&code.user_code),
        hostname = said(&code.machine.hostname),
        platform = said(&code.machine.platform),
        arch = said(&code.machine.arch),
        address = said(&code.address),
        session = escape(&code.session_id),
        word = escape(&word),
    );
    Ok(with_cookie(page(status, "Sign a terminal in", &body), cookie))
}

/// `POST /cli-auth`: the form of the page above, sent by whoever has a key.
pub(in crate::http::accounts) async fn approve(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let form = Form::read(&call.body);
    if !is_from_own_page(&call) {
        let text = "This form is taken from the broker's own page only.";
        return Ok(sentence(StatusCode::FORBIDDEN, "Not from here", text));
    }
    let code = match waiting(&call, &form.session).await? {
        Ok(code) => code,
        Err(response) => return Ok(response),
    };
    if !is_word(&call, &code.session_id, &form.word).await? {
        return ask_for_key(&call, &code, Some("The page was too old: approve it again.")).await;
    }
    let account = match account_of(&call, &form).await? {
        Ok(account) => account,
        Err(trouble) => {
            call.note_guess();
            call.state.stores.device_codes.fail(&code.id).await?;
            return ask_for_key(&call, &code, Some(trouble)).await;
        }
    };
    match call.approve_code(&code, &account).await {
        Ok(_) => {}
        Err(Refused(StatusCode::NOT_FOUND, _)) => {
            let text = "The code has died meanwhile. Start claudemesh login again.";
            return Ok(sentence(StatusCode::GONE, "Too late", text));
        }
        Err(refused) => return Err(refused),
    }
    let text = format!("The terminal is signed in as {}. You can close this page.", account.name);
    Ok(sentence(StatusCode::OK, "Done", &text))
}
