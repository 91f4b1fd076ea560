//! Webhooks: where others find the broker, and whom it may call.

use url::Url;

use super::HttpConfig;
use super::reader::Reader;

/// Where others find the broker, and whom it may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// `BROKER_PUBLIC_URL`: what the addresses of webhooks begin with, without a slash at
    /// the end. Default none: see [`Self::base_url`]. `http://` or `https://`; a
    /// `ws://` URL stands for the HTTP one beside it.
    pub public_url: Option<String>,
    /// `WEBHOOK_ALLOW_PRIVATE`: whether members may have the broker call addresses of
    /// private networks. Default false.
    pub allows_private: bool,
}

impl WebhookConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            public_url: read_public_url(reader),
            allows_private: reader.flag("WEBHOOK_ALLOW_PRIVATE"),
        }
    }

    /// What the broker's own HTTP addresses begin with, when it listens on `port`.
    #[must_use]
    pub fn base_url(&self, http: &HttpConfig, port: u16) -> String {
        let of_sockets = || http_base(&http.public_url_on(port));
        self.public_url.clone().or_else(of_sockets).unwrap_or_default()
    }
}

fn read_public_url(reader: &mut Reader<'_>) -> Option<String> {
    let text = reader.text("BROKER_PUBLIC_URL")?;
    let base = http_base(&text);
    if base.is_none() {
        reader.refuse(
            "BROKER_PUBLIC_URL",
            "set a URL such as https://mesh.example.org, without user or password",
        );
    }
    base
}

/// The HTTP address beside a WebSocket's, or an HTTP one as it is.
fn http_base(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let (scheme, is_socket) = match url.scheme() {
        "http" => ("http", false),
        "https" => ("https", false),
        "ws" => ("http", true),
        "wss" => ("https", true),
        _ => return None,
    };
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let host = url.host_str().filter(|_| is_plain)?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let path = url.path().trim_end_matches('/');
    let path = if is_socket { path.strip_suffix("/ws").unwrap_or(path) } else { path };
    Some(format!("{scheme}://{host}{port}{path}"))
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn the_address_of_webhooks_follows_from_that_of_sockets_unless_it_is_set() {
        let base = |set: &'static [(&str, &str)]| {
            let env = move |asked: &str| {
                let found = set.iter().find(|(name, _)| *name == asked);
                found.map(|(_, value)| (*value).to_owned())
            };
            let config = Config::load(&env).expect("right");
            config.webhooks.base_url(&config.http, 7900)
        };
        assert_eq!(base(&[]), "http://localhost:7900");
        assert_eq!(base(&[("BROKER_WS_URL", "wss://a.example/ws")]), "https://a.example");
        for set in [
            [("BROKER_PUBLIC_URL", "https://b.example/hooks/")],
            [("BROKER_PUBLIC_URL", "wss://b.example/hooks/ws")],
        ] {
            assert_eq!(base(Box::leak(Box::new(set))), "https://b.example/hooks");
        }
        let wrong = |name: &str| (name == "BROKER_PUBLIC_URL").then(|| "b.example".to_owned());
        assert!(Config::load(&wrong).is_err());
    }
}
