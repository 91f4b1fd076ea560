//! Who may call the broker over HTTP, from where and how often.

use std::net::IpAddr;

use ipnet::IpNet;
use url::Url;

use super::reader::Reader;
use super::secret::Secret;

/// Who may call the broker over HTTP, from where and how often.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// `HOOK_RATE_LIMIT_PER_MIN`: status hooks per minute of one process and
    /// folder. Default 30. 1 to 100,000.
    pub hook_rate_per_minute: u32,
    /// `HOOK_TOKEN`: bearer tokens of status hooks, from this machine too. Default
    /// none: loopback, and from beside the session. Comma-separated, each of at least 16 characters.
    pub hook_tokens: Vec<Secret>,
    /// `ADMIN_TOKEN`: bearer tokens of the admin API and the dashboard. Default
    /// none: both are off. Comma-separated, each of at least 16 characters.
    pub admin_tokens: Vec<Secret>,
    /// `MAX_CONNECTIONS_PER_IP`: sockets of one client address on this node.
    /// Default 200. 0 to 1,000,000; 0 turns the limit off.
    pub connections_per_ip_max: u32,
    /// `HELLO_RATE_PER_MINUTE`: upgrades and joins of one client address per
    /// minute.
    /// Default 300. 0 to 1,000,000; 0 turns the limit off.
    pub hello_rate_per_minute: u32,
    /// `TRUSTED_PROXIES`: networks whose `X-Forwarded-For` is believed. Default
    /// none. Comma-separated addresses or CIDR networks.
    pub trusted_proxies: Vec<IpNet>,
    /// `ALLOWED_ORIGINS`: origins of web pages that may connect, as browsers
    /// write them. Default none: any. Comma-separated `http(s)://host[:port]`.
    pub allowed_origins: Vec<String>,
    /// `OWN_HOSTS`: names by which browsers reach the broker's own pages, besides
    /// that of `BROKER_WS_URL`. Default none. Comma-separated host names without
    /// scheme and port.
    pub own_hosts: Vec<String>,
    /// `BROKER_WS_URL`: the URL that invites carry. Default none:
    /// `ws://localhost:<port>/ws`, see [`Self::public_url_on`]. `ws://` or `wss://`.
    pub public_url: Option<String>,
}

impl HttpConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            hook_rate_per_minute: reader.number("HOOK_RATE_LIMIT_PER_MIN", 1..=100_000),
            hook_tokens: reader.tokens("HOOK_TOKEN"),
            admin_tokens: reader.tokens("ADMIN_TOKEN"),
            connections_per_ip_max: reader.number("MAX_CONNECTIONS_PER_IP", 0..=1_000_000),
            hello_rate_per_minute: reader.number("HELLO_RATE_PER_MINUTE", 0..=1_000_000),
            trusted_proxies: reader.list("TRUSTED_PROXIES", parse_network),
            allowed_origins: reader.list("ALLOWED_ORIGINS", parse_origin),
            own_hosts: reader.list("OWN_HOSTS", parse_host),
            public_url: read_public_url(reader),
        }
    }

    /// The URL that invites carry, when the broker listens on `port`.
    #[must_use]
    pub fn public_url_on(&self, port: u16) -> String {
        self.public_url.clone().unwrap_or_else(|| format!("ws://localhost:{port}/ws"))
    }

    /// Whether a header of the peer at `address` may name the client's address.
    #[must_use]
    pub fn trusts_proxy(&self, address: IpAddr) -> bool {
        // A socket bound to [::] shows an IPv4 peer as ::ffff:a.b.c.d.
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }

    /// Whether a web page of `origin`, as its browser's header has it, may connect.
    #[must_use]
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.allowed_origins.is_empty() || self.names_origin(origin)
    }

    /// Whether `ALLOWED_ORIGINS` names that origin.
    #[must_use]
    pub fn names_origin(&self, origin: &str) -> bool {
        self.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }

    /// Whether `origin` is that of the broker's own pages, for a request whose
    /// `Host` is `host`. Both are what a browser makes of an address that a page
    /// may have chosen: so a name must be known to be ours. An IP address can be
    /// nobody else's, and `localhost` not on the machine itself, which is where
    /// the socket comes from if `is_local`.
    #[must_use]
    pub fn is_own_origin(&self, origin: &str, host: Option<&str>, is_local: bool) -> bool {
        let public = self.public_url.as_deref().and_then(|url| Url::parse(url).ok());
        if public.as_ref().and_then(page_origin).is_some_and(|own| own.eq_ignore_ascii_case(origin))
        {
            return true;
        }
        let Some((_, authority)) = origin.split_once("://") else { return false };
        if !host.is_some_and(|host| host.eq_ignore_ascii_case(authority)) {
            return false;
        }
        let name = host_of(authority).to_ascii_lowercase();
        let public = public.as_ref().and_then(Url::host_str);
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        is_address
            || public.is_some_and(|own| own.eq_ignore_ascii_case(&name))
            || self.own_hosts.contains(&name)
            || (is_local && (name == "localhost" || name.ends_with(".localhost")))
    }
}

/// The origin of pages beside a `ws://` or `wss://` URL.
fn page_origin(url: &Url) -> Option<String> {
    let scheme = if url.scheme() == "wss" { "https" } else { "http" };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{scheme}://{}{port}", url.host_str()?))
}

/// `host[:port]` without the port.
fn host_of(authority: &str) -> &str {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match authority.rsplit_once(':') {
        Some((host, port)) if is_port(port) => host,
        _ => authority,
    }
}

fn parse_host(text: &str) -> Result<String, String> {
    let url = Url::parse(&format!("http://{text}/")).ok();
    let host = url.as_ref().filter(|url| url.path() == "/" && url.port().is_none());
    let is_it = |host: &&str| host.eq_ignore_ascii_case(text) && !host.contains('*');
    let host = host.and_then(Url::host_str).filter(is_it);
    host.map(str::to_ascii_lowercase).ok_or_else(|| {
        format!(
            "{text:?} is no host name; set names such as mesh.internal, without scheme and port"
        )
    })
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map(|network| network.trunc()).map_err(|_| {
        format!(
            "{text:?} is no network; set addresses or networks such as 10.0.0.0/8,fd00::/8,\
             192.0.2.7"
        )
    })
}

fn parse_origin(text: &str) -> Result<String, String> {
    let refused = || {
        format!(
            "{text:?} is no origin; set origins such as https://app.example.org, without a path, \
             or nothing to let every page connect"
        )
    };
    let url = Url::parse(text).map_err(|_| refused())?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let origin = url.origin();
    if !bare || !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() {
        return Err(refused());
    }
    // The form that browsers send: lower case, no default port, no slash.
    Ok(origin.ascii_serialization())
}

fn read_public_url(reader: &mut Reader<'_>) -> Option<String> {
    let text = reader.text("BROKER_WS_URL")?;
    let fits = |url: &Url| {
        matches!(url.scheme(), "ws" | "wss")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    };
    if Url::parse(&text).is_ok_and(|url| fits(&url)) {
        return Some(text);
    }
    reader.refuse(
        "BROKER_WS_URL",
        "set a URL such as wss://mesh.example.org/ws, without user or password",
    );
    None
}

#[cfg(test)]
mod tests {
    use super::super::error::ConfigError;
    use super::*;

    fn read(name: &'static str, value: &'static str) -> (HttpConfig, Vec<ConfigError>) {
        let env = move |asked: &str| (asked == name).then(|| value.to_owned());
        let mut reader = Reader::new(&env);
        let http = HttpConfig::read(&mut reader);
        (http, reader.into_problems())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn a_proxy_is_trusted_only_by_its_address() {
        let (http, problems) = read("TRUSTED_PROXIES", "10.1.2.3/8, fd00::/8,192.0.2.7");
        assert!(problems.is_empty());
        for trusted in ["10.200.0.1", "::ffff:10.0.0.1", "fd12::1", "192.0.2.7"] {
            assert!(http.trusts_proxy(ip(trusted)), "{trusted}");
        }
        for other in ["11.0.0.1", "fe80::1", "192.0.2.8"] {
            assert!(!http.trusts_proxy(ip(other)), "{other}");
        }
        let (http, _) = read("TRUSTED_PROXIES", "");
        assert!(!http.trusts_proxy(ip("127.0.0.1")), "nobody by default");
    }

    #[test]
    fn each_wrong_network_is_its_own_problem() {
        let (_, problems) = read("TRUSTED_PROXIES", "10.0.0.0/33,nonsense,10.0.0.0/8");
        assert_eq!(problems.len(), 2);
        assert!(problems[1].problem.contains("nonsense"), "{}", problems[1]);
    }

    #[test]
    fn origins_are_compared_as_browsers_write_them() {
        let (http, problems) =
            read("ALLOWED_ORIGINS", "https://App.example.org:443/,http://localhost:3000");
        assert!(problems.is_empty());
        assert!(http.allows_origin("https://app.example.org"));
        assert!(http.allows_origin("http://localhost:3000"));
        assert!(!http.allows_origin("http://app.example.org"));
        assert!(!http.allows_origin("https://app.example.org.evil.test"));
        assert!(!http.allows_origin("null"));
        assert!(read("ALLOWED_ORIGINS", "").0.allows_origin("https://any.example"));
        for wrong in ["*", "app.example.org", "https://a.example/path", "ws://a.example"] {
            assert_eq!(read("ALLOWED_ORIGINS", wrong).1.len(), 1, "{wrong}");
        }
    }

    #[test]
    fn an_own_origin_is_one_whose_name_is_known_to_be_ours() {
        let (http, _) = read("BROKER_WS_URL", "wss://mesh.example.org/ws");
        let own =
            |origin: &str, host: &str, is_local| http.is_own_origin(origin, Some(host), is_local);
        assert!(own("https://mesh.example.org", "10.0.0.7:7900", false), "a proxy's host");
        assert!(own("https://mesh.example.org:8443", "mesh.example.org:8443", false));
        assert!(own("http://192.0.2.7:7900", "192.0.2.7:7900", false));
        assert!(own("http://[::1]:7900", "[::1]:7900", true));
        assert!(own("http://localhost:7900", "localhost:7900", true));
        assert!(!own("http://localhost:7900", "localhost:7900", false), "another machine's");
        assert!(!own("http://localhost:3000", "localhost:7900", true), "another program's");
        for evil in ["evil.test", "evil.test:7900", "mesh.example.org.evil.test", "1.2.3.4.test"] {
            assert!(!own(&format!("http://{evil}"), evil, true), "{evil}");
        }
        assert!(!own("null", "null", true));
        assert!(!http.is_own_origin("http://192.0.2.7:7900", None, true));
        let (http, problems) = read("OWN_HOSTS", "Mesh.Internal, broker");
        assert!(problems.is_empty());
        assert!(http.is_own_origin("http://mesh.internal:7900", Some("mesh.internal:7900"), false));
        for wrong in ["http://a", "a:80", "a/b", "a b", "*"] {
            let (http, problems) = read("OWN_HOSTS", wrong);
            assert_eq!(problems.len(), 1, "{wrong}: {http:?}");
        }
    }

    #[test]
    fn the_public_url_defaults_to_the_port_that_was_bound() {
        assert_eq!(read("BROKER_WS_URL", "").0.public_url_on(41_000), "ws://localhost:41000/ws");
        let (http, _) = read("BROKER_WS_URL", "wss://mesh.example.org/ws");
        assert_eq!(http.public_url_on(41_000), "wss://mesh.example.org/ws");
        for wrong in ["https://a.example/ws", "mesh.example.org", "wss://u:p@a.example/ws"] {
            let (_, problems) = read("BROKER_WS_URL", wrong);
            assert_eq!(problems.len(), 1, "{wrong}");
        }
    }
}
