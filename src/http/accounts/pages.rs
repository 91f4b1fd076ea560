//! The pages that people see: approving a sign-in, and what an invite is.
//!
//! No page does anything when it is merely opened. What approves a sign-in is a form
//! with a key that only a person types, sent from this very page: with a cookie of this
//! page and a word that goes with it. There is no script on any of them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use url::form_urlencoded;

use super::invites::{Known, know};
use super::{Answer, Call, Refused};
use crate::accounts::CodeChars;
use crate::auth::secret_hash;
use crate::clock::Timestamp;
use crate::config::any_matches;
use crate::http::HttpState;
use crate::id::AccountId;
use crate::limits;
use crate::store::{Account, DeviceCode, DeviceCodeStatus, FoundInvite, NewAccount};

/// The cookie that a form's word goes with.
const COOKIE: &str = "claudemesh_form";

/// Nothing but this origin's style, and forms to itself.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'";

/// A form is posted with its origin only under such a policy of referrers.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// `GET /cli-auth/style.css`: the dashboard's own.
pub(super) async fn style() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (kind, include_str!("../dashboard/dashboard.css")).into_response()
}

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let title = escape(title);
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n\
         <link rel=\"stylesheet\" href=\"/cli-auth/style.css\">\n</head>\n<body>\n\
         <header class=\"top\"><span class=\"brand\">claudemesh broker</span></header>\n\
         <main class=\"login\"><div class=\"card\"><h1>{title}</h1>\n{body}\n</div></main>\n\
         </body>\n</html>\n"
    );
    (status, HEADERS, html).into_response()
}

fn sentence(status: StatusCode, title: &str, text: &str) -> Response {
    page(status, title, &format!("<p>{}</p>", escape(text)))
}

/// Text as it may stand in a page: much of it comes from strangers.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// `GET /token`.
pub(super) async fn token(State(_): State<Arc<HttpState>>) -> Response {
    let text = "Whoever runs this broker prints a token for you: claudemesh-broker account token \
                <account>. Paste it where claudemesh login waits.";
    sentence(StatusCode::OK, "A token to paste", text)
}

/// `GET /cli-auth`: shows what would be approved, and asks for a key.
pub(super) async fn sign_in(call: Arc<Call>) -> Answer {
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
        note_failure(call);
        let text = "This code is not known, was used, or is older than five minutes. Start \
                    claudemesh login again.";
        sentence(StatusCode::NOT_FOUND, "Nothing waits here", text)
    }))
}

/// The page for an address that has guessed too often.
fn blocked(call: &Call) -> Option<Response> {
    let address = call.state.addresses.client(&call.headers, call.peer);
    // There, everybody has the same address.
    let seconds = call.state.rates.admin_blocked(address).filter(|_| !address.is_loopback())?;
    let text = "Too many wrong tries from this address. Wait a minute, then try again.";
    let mut response = sentence(StatusCode::TOO_MANY_REQUESTS, "Wait a moment", text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    Some(response)
}

fn note_failure(call: &Call) {
    let address = call.state.addresses.client(&call.headers, call.peer);
    call.state.rates.note_admin_failure(address);
}

async fn ask_for_key(call: &Call, code: &DeviceCode, trouble: Option<&str>) -> Answer {
    let nonce = CodeChars::Long.random(32);
    let word = call.state.keys.key().await?.word(&subject(&nonce, code));
    let said = |text: &Option<String>| escape(text.as_deref().unwrap_or("not said"));
    let trouble = trouble.map_or_else(String::new, |text| {
        format!("<p class=\"error\" role=\"alert\">{}</p>", escape(text))
    });
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
    let status = if trouble.is_empty() { StatusCode::OK } else { StatusCode::FORBIDDEN };
    let mut response = page(status, "Sign a terminal in", &body);
    let secure = if call.public_base().starts_with("https://") { "; Secure" } else { "" };
    let cookie = format!(
        "{COOKIE}={nonce}; Path=/cli-auth; HttpOnly; SameSite=Strict; Max-Age={}{secure}",
        limits::DEVICE_CODE_MS / 1000,
    );
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// What the word of a form is for.
fn subject(nonce: &str, code: &DeviceCode) -> String {
    format!("{nonce} {}", code.session_id)
}

/// `POST /cli-auth`: the form of the page above, sent by whoever has a key.
pub(super) async fn approve(call: Arc<Call>) -> Answer {
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
    let nonce = cookie(&call.headers).unwrap_or_default();
    if !call.state.keys.key().await?.is_word(&subject(nonce, &code), &form.word) {
        return ask_for_key(&call, &code, Some("The page was too old: approve it again.")).await;
    }
    let account = match account_of(&call, &form).await? {
        Ok(account) => account,
        Err(trouble) => {
            note_failure(&call);
            call.state.stores.device_codes.fail(&code.id).await?;
            return ask_for_key(&call, &code, Some(trouble)).await;
        }
    };
    let codes = &call.state.stores.device_codes;
    if !codes.approve(Timestamp::now(), &code.id, &account.id).await? {
        let text = "The code has died meanwhile. Start claudemesh login again.";
        return Ok(sentence(StatusCode::GONE, "Too late", text));
    }
    tracing::info!(account = %account.id, "a sign-in was approved");
    let text = format!("The terminal is signed in as {}. You can close this page.", account.name);
    Ok(sentence(StatusCode::OK, "Done", &text))
}

/// What the form says.
#[derive(Default)]
struct Form {
    session: String,
    word: String,
    key: String,
    account: String,
}

impl Form {
    fn read(body: &[u8]) -> Self {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(body) {
            match &*name {
                "session" => form.session = value.into_owned(),
                "word" => form.word = value.into_owned(),
                "key" => form.key = value.trim().to_owned(),
                "account" => form.account = value.trim().to_owned(),
                _ => {}
            }
        }
        form
    }
}

/// As browsers say it: by the site of the page, and by its origin.
fn is_from_own_page(call: &Call) -> bool {
    let text = |name: HeaderName| call.headers.get(name).and_then(|value| value.to_str().ok());
    if text(HeaderName::from_static("sec-fetch-site")).is_some_and(|site| site != "same-origin") {
        return false;
    }
    let host = text(header::HOST);
    let is_local = call.peer.0.ip().to_canonical().is_loopback();
    match text(header::ORIGIN) {
        Some(origin) => call.state.http.is_own_origin(origin, host, is_local),
        None => !call.headers.contains_key(header::ORIGIN),
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// The account whose key it is; the admin token speaks for any, and makes one that is
/// not there yet.
async fn account_of(call: &Call, form: &Form) -> Result<Result<Account, &'static str>, Refused> {
    let accounts = &call.state.stores.accounts;
    if !any_matches(&call.state.http.admin_tokens, &form.key) {
        let found = accounts.of_key(&secret_hash(&form.key)).await?;
        return Ok(found.ok_or("This is no sign-in key of this broker."));
    }
    let mut known = accounts.all().await?;
    known.retain(|account| {
        let is_named = account.id.as_str() == form.account
            || account.name == form.account
            || account.email.as_deref() == Some(form.account.as_str());
        is_named || form.account.is_empty()
    });
    match known.len() {
        1 => {
            let account = known.swap_remove(0);
            Ok(match account.revoked_at {
                Some(_) => Err("This account was revoked."),
                None => Ok(account),
            })
        }
        0 if !form.account.is_empty() && !form.account.contains(char::is_control) => {
            let (id, name) = (AccountId::generate(), form.account.clone());
            let new = NewAccount { id, name, email: None, key_hash: None };
            Ok(Ok(accounts.ensure(Timestamp::now(), &new).await?))
        }
        _ => Ok(Err("Say whose account it is: its id, name or address.")),
    }
}

/// `GET /i/{code}`.
pub(super) async fn short_link(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    let code = call.part("code");
    let found = call.state.stores.invites.find(code).await?;
    // A token is no code: this page is for what people type.
    match found.filter(|found| found.token != code && found.trouble(Timestamp::now()).is_none()) {
        Some(found) => Ok(invitation(&call, &found)),
        None => Ok(no_invitation("It is not known, was used, was revoked, or has expired.")),
    }
}

/// `GET /join/{token}`.
pub(super) async fn invite(call: Arc<Call>) -> Answer {
    if let Err(limited) = call.limit() {
        return Ok(*limited);
    }
    Ok(match know(&call, call.part("token")).await? {
        Known::Good(found) => invitation(&call, &found),
        Known::Bad { reason, .. } => no_invitation(match reason {
            "revoked" => "It was revoked.",
            "mesh_archived" => "Its mesh is archived.",
            "expired" => "It has expired.",
            "exhausted" => "It was used already.",
            _ => "It is not known here, or was not copied whole.",
        }),
    })
}

fn invitation(call: &Call, found: &FoundInvite) -> Response {
    let by = found.inviter.as_deref().map_or_else(String::new, |by| format!(", by {by}"));
    let link = format!("{}/join/{}", call.public_base(), found.token);
    let body = format!(
        "<p>You are invited to the mesh <strong>{}</strong>{}, as {}. The invite can be used \
         until {}.</p><p>Type in a terminal:</p><pre class=\"code\">claudemesh join {}</pre>",
        escape(&found.mesh.name),
        escape(&by),
        found.invite.role.as_str(),
        found.invite.expires_at,
        escape(&link),
    );
    page(StatusCode::OK, "An invite", &body)
}

fn no_invitation(why: &str) -> Response {
    let text = format!("This invite lets nobody in. {why} Ask for a new one.");
    sentence(StatusCode::NOT_FOUND, "No invite", &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_strangers_say_becomes_part_of_a_page() {
        assert_eq!(escape("<b a='1' c=\"2\">&"), "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;");
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; claudemesh_form=x; b=2"));
        assert_eq!(cookie(&headers), Some("x"));
        headers.clear();
        headers.append(header::COOKIE, HeaderValue::from_static("not_claudemesh_form=x"));
        assert_eq!(cookie(&headers), None);
    }
}
