//! The forms of a Postgres URL: those that `psql` takes, or a sentence that names
//! the part that is wrong, without quoting it.

use url::form_urlencoded::byte_serialize;
use url::{ParseError, Url};

use super::super::secret::SecretUrl;

const FORM: &str = "set postgres://user:password@host/database or sqlite://path; special \
                    characters of a password are written as %40 and so on";
const PORT: &str = "the port in it is no number from 1 to 65535; if that is part of the password, \
                    write the password's special characters as %2F, %3F, %23, %40 and so on";
const HOST: &str = "the host in it is none; write an IPv6 address in brackets, and special \
                    characters of a password as %40 and so on";
const HOSTS: &str = "it names several hosts; set the primary, or an address that leads to it";
const SSL_MODE: &str = "sslmode in it is none of disable, allow, prefer, require, verify-ca and \
                        verify-full";
const PARAMETER_PORT: &str = "port in its query is no number from 1 to 65535";
const HOST_ADDRESS: &str = "hostaddr in its query is no address";
const NOT_UTF8: &str = "user, password or database in it is not UTF-8 once its %XX are read";

const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

pub(super) fn parse(text: &str) -> Result<SecretUrl, &'static str> {
    let scheme = text.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if !matches!(scheme.as_str(), "postgres" | "postgresql") {
        return Err(FORM);
    }
    let url = match SecretUrl::parse(text) {
        Err(ParseError::EmptyHost) => without_host(text).ok_or(FORM)?,
        parsed => parsed.map_err(|error| wrong_part(text, error))?,
    };
    check(url.url())?;
    Ok(url)
}

fn wrong_part(text: &str, error: ParseError) -> &'static str {
    let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let hosts = authority.rsplit('@').next().unwrap_or_default();
    match error {
        _ if hosts.contains(',') => HOSTS,
        ParseError::InvalidPort => PORT,
        ParseError::InvalidIpv4Address
        | ParseError::InvalidIpv6Address
        | ParseError::InvalidDomainCharacter
        | ParseError::IdnaError => HOST,
        _ => FORM,
    }
}

/// `postgres://user:password@/database`, `postgres://:5433/database`: no URL by the
/// book. What stands before the path is moved into the query, where the driver
/// reads it too.
fn without_host(text: &str) -> Option<SecretUrl> {
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let (who, port) = match authority.rsplit_once('@') {
        Some((who, port)) => (Some(who), port),
        None => (None, authority),
    };
    let mut url = Url::parse(&format!("{scheme}://{path}")).ok()?;
    let mut query = url.query().unwrap_or_default().to_owned();
    let mut add = |name: &str, encoded: String| {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(&format!("{name}={encoded}"));
    };
    if let Some(who) = who {
        let (user, password) = match who.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (who, None),
        };
        if !user.is_empty() {
            add("user", form_encoded(user)?);
        }
        if let Some(password) = password {
            add("password", form_encoded(password)?);
        }
    }
    if !port.is_empty() {
        add("port", form_encoded(port.strip_prefix(':')?)?);
    }
    url.set_query(Some(&query));
    SecretUrl::parse(url.as_str()).ok()
}

/// From the coding of the authority to that of the query, where `+` is a blank.
fn form_encoded(text: &str) -> Option<String> {
    let bytes: Vec<u8> = percent_decoded(text)?;
    Some(byte_serialize(&bytes).collect())
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let digits = (*byte == b'%').then(|| after.get(..2)).flatten();
        let escaped = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[2..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    std::str::from_utf8(&bytes).is_ok().then_some(bytes)
}

/// What the driver would refuse without saying why.
fn check(url: &Url) -> Result<(), &'static str> {
    if !url.has_authority() {
        return Err(FORM);
    }
    if url.host_str().is_some_and(|host| host.contains(',')) {
        return Err(HOSTS);
    }
    let parts = [url.username(), url.password().unwrap_or_default(), url.path()];
    if parts.into_iter().any(|part| percent_decoded(part).is_none()) {
        return Err(NOT_UTF8);
    }
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "sslmode" | "ssl-mode" if !SSL_MODES.contains(&value.as_ref()) => return Err(SSL_MODE),
            "port" if !value.parse::<u16>().is_ok_and(|port| port > 0) => {
                return Err(PARAMETER_PORT);
            }
            "hostaddr" if value.parse::<std::net::IpAddr>().is_err() => return Err(HOST_ADDRESS),
            "host" if value.contains(',') => return Err(HOSTS),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_psql_takes_is_taken() {
        for (text, exposed) in [
            ("postgres://u:p@h/db", "postgres://u:p@h/db"),
            ("postgresql://u@[::1]:5433/db", "postgresql://u@[::1]:5433/db"),
            ("postgres://%2Frun%2Fpg/db", "postgres://%2Frun%2Fpg/db"),
            ("postgres:///db?host=/run/pg", "postgres:///db?host=/run/pg"),
            ("postgres://u:p@/db?host=/run", "postgres:///db?host=/run&user=u&password=p"),
            ("postgres://u%40x:a%2B+b@/db", "postgres:///db?user=u%40x&password=a%2B%2Bb"),
            ("postgres://u@/db", "postgres:///db?user=u"),
            ("postgres://u@", "postgres:///?user=u"),
            ("postgres://:5433/db", "postgres:///db?port=5433"),
            ("postgres://u:p@:5433/db", "postgres:///db?user=u&password=p&port=5433"),
        ] {
            let url = parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
            assert_eq!(url.expose(), exposed, "{text}");
        }
        let shown = parse("postgres://u:hunter2@/db?host=/run").expect("taken").to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_wrong_url_is_told_its_wrong_part() {
        for (text, problem) in [
            ("mysql://h/db", FORM),
            ("postgres:db", FORM),
            ("postgres://u:p@h:70000/db", PORT),
            ("postgres://u:pa/ss@h/db", PORT),
            ("postgres://u:p@[::1/db", HOST),
            ("postgres://u:p@a b/db", HOST),
            ("postgres://u:p@h1:5432,h2:5432/db", HOSTS),
            ("postgres://u:p@h1,h2/db", HOSTS),
            ("postgres://h/db?sslmode=on", SSL_MODE),
            ("postgres://h/db?port=x", PARAMETER_PORT),
            ("postgres://h/db?hostaddr=h", HOST_ADDRESS),
            ("postgres://u:%ff@h/db", NOT_UTF8),
        ] {
            assert_eq!(parse(text).err(), Some(problem), "{text}");
        }
    }
}
