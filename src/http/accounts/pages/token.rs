//! `/token`: a token to paste, for terminals from which no browser can be reached, and for
//! those of which the address of another service is written into the command line.

use std::sync::Arc;

use axum::http::StatusCode;

use super::{
    Form, account_of, blocked, escape, is_from_own_page, is_word, new_word, page, said_trouble,
    sentence, with_cookie,
};
use crate::http::accounts::login::MachineCall;
use crate::http::accounts::{Answer, Call, Refused, tokens};
use crate::store::Account;

/// Where the form is, and its cookie.
const PATH: &str = "/token";

/// What the word of the form is for.
const SUBJECT: &str = "a token to paste";

const TITLE: &str = "A token to paste";

/// What a token is for: what the form calls it, how it is pasted, how long it is good.
const KINDS: [(&str, &str, &str); 2] = [
    ("login", "claudemesh login", "It signs one terminal in, for 30 days."),
    (
        "sync",
        "claudemesh sync",
        "It fetches your meshes onto one machine: once, within 15 minutes.",
    ),
];

/// `GET /token`.
pub(in crate::http::accounts) async fn show(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    ask(&call, None).await
}

async fn ask(call: &Call, trouble: Option<&str>) -> Answer {
    let (word, cookie) = new_word(call, PATH, SUBJECT).await?;
    let (status, trouble) = said_trouble(trouble);
    let options: String = KINDS
        .iter()
        .map(|(kind, command, _)| format!("<option value=\"{kind}\">{command}</option>"))
        .collect();
    let body = format!(
        "<p>Paste it where the command waits for one.</p>{trouble}\
         <form method=\"post\" action=\"{PATH}\" autocomplete=\"off\">\
         <input type=\"hidden\" name=\"word\" value=\"{word}\">\
         <label for=\"kind\">For</label><select id=\"kind\" name=\"kind\">{options}</select>\
         <label for=\"key\">Your sign-in key</label>\
         <input id=\"key\" name=\"key\" type=\"password\" required spellcheck=\"false\">\
         <label for=\"account\">Account, only with the admin token</label>\
         <input id=\"account\" name=\"account\" maxlength=\"256\">\
         <button class=\"primary\" type=\"submit\">Make one</button></form>\
         <p class=\"muted small\">Whoever runs this broker makes keys, and prints tokens, too: \
         <code>claudemesh-broker account token</code>.</p>",
        word = escape(&word),
    );
    Ok(with_cookie(page(status, TITLE, &body), cookie))
}

/// `POST /token`: the form of the page above.
pub(in crate::http::accounts) async fn make(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    if !is_from_own_page(&call) {
        let text = "This form is taken from the broker's own page only.";
        return Ok(sentence(StatusCode::FORBIDDEN, "Not from here", text));
    }
    if let Some(refused) = blocked(&call) {
        return Ok(refused);
    }
    let form = Form::read(&call.body);
    if !is_word(&call, SUBJECT, &form.word).await? {
        return ask(&call, Some("The page was too old: type the key again.")).await;
    }
    let account = match account_of(&call, &form).await? {
        Ok(account) => account,
        Err(trouble) => {
            call.note_guess();
            return ask(&call, Some(trouble)).await;
        }
    };
    match token_of(&call, &account, &form.kind).await {
        Ok((token, command, use_by)) => Ok(shown(&token, command, use_by)),
        Err(Refused(status, body)) => {
            let text = body["error"].as_str().unwrap_or_default();
            Ok(sentence(status, "No token", text))
        }
    }
}

/// A token of that kind, and what is said of it.
async fn token_of(
    call: &Call,
    account: &Account,
    kind: &str,
) -> Result<(String, &'static str, &'static str), Refused> {
    let [login, sync] = KINDS;
    if kind != sync.0 {
        let machine = tokens::pasted(&MachineCall::default());
        return Ok((call.new_session(account, machine).await?, login.1, login.2));
    }
    let meshes = call.state.stores.ownership.meshes_of(&account.id).await?;
    if meshes.is_empty() {
        let text = "You have no mesh yet: claudemesh create makes one.";
        return Err(Refused::new(StatusCode::CONFLICT, text));
    }
    Ok((call.new_sync_token(account, &meshes).await?, sync.1, sync.2))
}

fn shown(token: &str, command: &str, use_by: &str) -> axum::response::Response {
    let body = format!(
        "<p>For <code>{command}</code>. {use_by} It is not shown again.</p>\
         <pre class=\"code\">{}</pre>",
        escape(token)
    );
    page(StatusCode::OK, TITLE, &body)
}
