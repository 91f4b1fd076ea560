//! The pages that people see: approving a sign-in, a token to paste, what an invite is.
//!
//! No page does anything when it is merely opened. What approves a sign-in and what makes
//! a token is a form with a key that only a person types, sent from this very page: with a
//! cookie of this page and a word that goes with it. There is no script on any of them.

pub(super) mod invite;
pub(super) mod sign_in;
pub(super) mod token;

use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use url::form_urlencoded;

use super::{Call, Refused};
use crate::accounts::CodeChars;
use crate::auth::secret_hash;
use crate::clock::Timestamp;
use crate::config::any_matches;
use crate::id::AccountId;
use crate::limits;
use crate::store::{Account, NewAccount};

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

/// The page for an address that has guessed too often.
fn blocked(call: &Call) -> Option<Response> {
    let seconds = call.guesses_blocked()?;
    let text = "Too many wrong tries from this address. Wait a minute, then try again.";
    let mut response = sentence(StatusCode::TOO_MANY_REQUESTS, "Wait a moment", text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    Some(response)
}

/// A word for a form about that subject, and the cookie that goes with it.
async fn new_word(
    call: &Call,
    path: &str,
    subject: &str,
) -> Result<(String, HeaderValue), Refused> {
    let nonce = CodeChars::Long.random(32);
    let word = call.state.keys.key().await?.word(&format!("{nonce} {subject}"));
    let secure = if call.public_base().starts_with("https://") { "; Secure" } else { "" };
    let cookie = format!(
        "{COOKIE}={nonce}; Path={path}; HttpOnly; SameSite=Strict; Max-Age={}{secure}",
        limits::DEVICE_CODE_MS / 1000,
    );
    let cookie = HeaderValue::from_str(&cookie);
    Ok((word, cookie.unwrap_or_else(|_| HeaderValue::from_static(""))))
}

fn with_cookie(mut response: Response, cookie: HeaderValue) -> Response {
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

/// Whether the word is that of a form about the subject which this browser was given.
async fn is_word(call: &Call, subject: &str, word: &str) -> Result<bool, Refused> {
    let nonce = cookie(&call.headers).unwrap_or_default();
    Ok(call.state.keys.key().await?.is_word(&format!("{nonce} {subject}"), word))
}

/// The status of a form, and what stands in it of why it was not taken.
fn said_trouble(trouble: Option<&str>) -> (StatusCode, String) {
    let Some(text) = trouble else { return (StatusCode::OK, String::new()) };
    let text = format!("<p class=\"error\" role=\"alert\">{}</p>", escape(text));
    (StatusCode::FORBIDDEN, text)
}

/// What the form says.
#[derive(Default)]
struct Form {
    session: String,
    word: String,
    key: String,
    account: String,
    kind: String,
}

impl Form {
    fn read(body: &[u8]) -> Self {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(body) {
            match &*name {
                "session" => form.session = value.into_owned(),
                "word" => form.word = value.into_owned(),
                "key" => form.key = value.trim().to_owned(),
                "kind" => form.kind = value.into_owned(),
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
        0 if is_name(&form.account) => {
            let (id, name) = (AccountId::generate(), form.account.clone());
            let new = NewAccount { id, name, email: None, key_hash: None };
            Ok(Ok(accounts.ensure(Timestamp::now(), &new).await?))
        }
        _ => Ok(Err("Say whose account it is: its id, name or address.")),
    }
}

/// Whether an account can be called so.
fn is_name(text: &str) -> bool {
    (1..=limits::ACCOUNT_TEXT_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_strangers_say_becomes_part_of_a_page() {
        assert_eq!(escape("<b a='1' c=\"2\">&"), "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;");
    }

    #[test]
    fn a_form_names_no_account_that_the_command_would_not_make() {
        let longest = "x".repeat(limits::ACCOUNT_TEXT_BYTES_MAX);
        assert!(is_name("Ada") && is_name(&longest));
        assert!(!is_name("") && !is_name("a\nb") && !is_name(&format!("{longest}x")));
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
