//! Text that must not reach a log line, a listing or a panic message.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use url::Url;

/// What is printed in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Query parameters of a database URL that carry a secret.
const SECRET_PARAMETERS: [&str; 4] = ["password", "pass", "sslpassword", "token"];

/// A secret; prints as `[redacted]`.
///
/// It has no `==`: compare by [`Secret::matches`].
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `candidate` is this secret.
    ///
    /// Takes the same time wherever they differ, and whatever the length of
    /// the secret: the hashes of the two are compared.
    #[must_use]
    pub fn matches(&self, candidate: &str) -> bool {
        self.ct_matches(candidate).into()
    }

    fn ct_matches(&self, candidate: &str) -> Choice {
        Sha256::digest(self.0.as_bytes()).ct_eq(&Sha256::digest(candidate.as_bytes()))
    }
}

/// Whether `candidate` is any of `secrets`: how a token is rotated by listing two.
#[must_use]
pub fn any_matches(secrets: &[Secret], candidate: &str) -> bool {
    let found =
        secrets.iter().fold(Choice::from(0), |found, secret| found | secret.ct_matches(candidate));
    found.into()
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(REDACTED)
    }
}

/// A URL that may hold a password; prints with the password redacted.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(Url);

impl SecretUrl {
    /// Parses `text`. The error never quotes it.
    ///
    /// # Errors
    /// When `text` is no URL.
    pub fn parse(text: &str) -> Result<Self, url::ParseError> {
        Url::parse(text).map(Self)
    }

    /// The whole URL with its password, for the one call that connects by it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// The scheme, lower case, without `:`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.0.scheme()
    }

    pub(super) const fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.0;
        write!(out, "{}:", url.scheme())?;
        // A password with an unescaped `/`, `?` or `#` ends the authority early
        // and lies, with the `@`, in what follows; without an authority there
        // is no telling what is what.
        let in_query = url.query().is_some_and(|query| query.contains('@'));
        if !url.has_authority() || url.path().contains('@') || in_query {
            return out.write_str(REDACTED);
        }
        write!(out, "//{}", url.username())?;
        if url.password().is_some() {
            write!(out, ":{REDACTED}")?;
        }
        if url.password().is_some() || !url.username().is_empty() {
            out.write_str("@")?;
        }
        out.write_str(url.host_str().unwrap_or_default())?;
        if let Some(port) = url.port() {
            write!(out, ":{port}")?;
        }
        out.write_str(url.path())?;
        let Some(query) = url.query() else { return Ok(()) };
        for (index, parameter) in query.split('&').enumerate() {
            out.write_str(if index == 0 { "?" } else { "&" })?;
            match parameter.split_once('=') {
                Some((name, _)) if is_secret_parameter(name) => {
                    write!(out, "{name}={REDACTED}")?;
                }
                _ => out.write_str(parameter)?,
            }
        }
        Ok(())
    }
}

/// `text` as a URL with its password redacted; all of it redacted when it is
/// no URL, since the password could then be anywhere in it.
#[must_use]
pub fn redact_url(text: &str) -> String {
    SecretUrl::parse(text).map_or_else(|_| REDACTED.to_owned(), |url| url.to_string())
}

fn is_secret_parameter(name: &str) -> bool {
    SECRET_PARAMETERS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let secret = Secret::new("hunter2hunter2hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "[redacted] [redacted]");
        assert_eq!(secret.expose(), "hunter2hunter2hunter2");
    }

    #[test]
    fn either_of_two_listed_tokens_is_accepted_and_no_other() {
        let both = [Secret::new("old-old-old-old-1"), Secret::new("new-new-new-new-1")];
        assert!(any_matches(&both, "old-old-old-old-1"));
        assert!(any_matches(&both, "new-new-new-new-1"));
        assert!(!any_matches(&both, "new-new-new-new-"));
        assert!(!any_matches(&both, ""));
        assert!(!any_matches(&[], ""), "no token set means that none is right");
    }

    #[test]
    fn a_url_prints_without_its_password() {
        for (text, shown) in [
            ("postgres://u:pw@db:5432/mesh", "postgres://u:[redacted]@db:5432/mesh"),
            ("redis://:pw@cache:6379/1", "redis://:[redacted]@cache:6379/1"),
            ("redis://cache:6379", "redis://cache:6379"),
            (
                "postgres://u@db/m?sslmode=require&Password=pw",
                "postgres://u@db/m?sslmode=require&Password=[redacted]",
            ),
            ("postgres://u:12/pw@db/m", "postgres:[redacted]"),
            ("postgres://u:12?pw@db/m", "postgres:[redacted]"),
            ("postgres://u:12#pw@db/m", "postgres://u:12"),
            ("postgres:///m?host=/run/postgresql", "postgres:///m?host=/run/postgresql"),
            ("sqlite://", "sqlite://"),
            ("cache:pw", "cache:[redacted]"),
        ] {
            let url = SecretUrl::parse(text).expect(text);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
            assert!(url.expose().contains("pw") == text.contains("pw"), "{text} is kept whole");
        }
    }

    #[test]
    fn what_is_no_url_prints_as_nothing_at_all() {
        assert_eq!(redact_url("postgres//u:pw@db"), REDACTED);
    }
}
