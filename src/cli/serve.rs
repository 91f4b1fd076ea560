//! `claudemesh-broker serve`: opens the port, says where, serves, and stops in
//! order.

use std::process::ExitCode;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{listen, output, probe};
use crate::app;
use crate::client::http::http_url;
use crate::config::{Config, Deployment, StoreConfig};

/// What a shell sees of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Serves until a signal says to stop.
///
/// The first SIGTERM, SIGINT or SIGHUP drains; a SIGINT after that ends the broker at
/// once.
pub(crate) async fn run(json: bool, mut config: Config) -> anyhow::Result<ExitCode> {
    // Signals are caught before the port opens: each from here on is a request, not a death.
    let mut signals = Signals::listen()?;
    let open_files = listen::raise_open_files();
    let bound = match listen::bind(&config.listen) {
        Ok(bound) => bound,
        Err(error) => {
            let occupant = probe::health(&config.listen).await.map(|health| health.version);
            return Err(listen::explain(&config.listen, &error, occupant.as_deref()).into());
        }
    };
    let address = bound.listener.local_addr()?;
    // With port 0 only the system knows which; invites must name it.
    config.listen.port = address.port();
    let banner = Banner::of(&config, address.to_string(), bound.ipv4_only, open_files);
    // The parts are opened before anything is printed: what the banner says must be so.
    let backends = tokio::select! {
        opened = app::open(&config) => opened?,
        name = signals.next() => {
            tracing::info!(signal = name, "stopped before it served");
            return Ok(ExitCode::SUCCESS);
        }
    };
    output::answer(json, &banner.to_json(), &banner.to_text())?;

    let drain_seconds = config.drain.drain_ms / 1000;
    let shutdown = CancellationToken::new();
    let mut broker = tokio::spawn(app::run_on(backends, config, bound.listener, shutdown.clone()));
    tokio::select! {
        // The broker ends by itself only when something is wrong, or after a drain.
        ended = &mut broker => return finished(ended),
        name = signals.next() => tracing::info!(
            signal = name,
            "stopping: peers are sent away for up to {drain_seconds} s; Ctrl-C stops at once"
        ),
    }
    shutdown.cancel();
    tokio::select! {
        ended = &mut broker => finished(ended),
        () = signals.interrupted() => {
            tracing::warn!("stopped at once; peers find out by themselves");
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

fn finished(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Result<ExitCode> {
    ended??;
    Ok(ExitCode::SUCCESS)
}

/// The signals that stop a broker, or a whole cluster of this machine.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// A closed terminal; `None` where that is to be ignored, under `nohup`.
    hang_up: Option<Signal>,
    /// SIGUSR1 and SIGUSR2 mean nothing here, and end a process that does not catch them.
    _ignored: [Signal; 2],
}

impl Signals {
    /// Catches the signals from now on.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let hang_up = match ignores_hang_up() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up,
            _ignored: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    /// Waits for a signal to stop, and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hang_up => "SIGHUP",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for a SIGINT.
    pub(crate) async fn interrupted(&mut self) {
        self.interrupt.recv().await;
    }
}

/// Whether `nohup` has started this: then a closed terminal is no reason.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

/// What is printed when the port is open.
struct Banner {
    address: String,
    port: u16,
    url: String,
    mode: String,
    node: String,
    data: String,
    is_new: bool,
    /// Where operators look, if there is a token for them.
    dashboard: Option<String>,
    ipv4_only: bool,
    open_files: Option<u64>,
}

impl Banner {
    fn of(config: &Config, address: String, ipv4_only: bool, open_files: Option<u64>) -> Self {
        let (data, is_new) = match &config.deployment {
            Deployment::Single { store: StoreConfig::Sqlite { file, .. } } => {
                (file.display().to_string(), !file.exists())
            }
            Deployment::Single { store: StoreConfig::Postgres(postgres) }
            | Deployment::Clustered { postgres, .. } => (postgres.url.to_string(), false),
        };
        let url = config.http.public_url_on(config.listen.port);
        let has_dashboard = !config.http.admin_tokens.is_empty();
        let dashboard = has_dashboard.then(|| http_url(&url, "/dashboard").ok()).flatten();
        Self {
            address,
            port: config.listen.port,
            dashboard: dashboard.map(String::from),
            url,
            mode: config.deployment.to_string(),
            node: config.node.id.to_string(),
            data,
            is_new,
            ipv4_only,
            open_files,
        }
    }

    fn next_command(&self) -> &'static str {
        if self.is_new {
            "claudemesh-broker mesh create team"
        } else {
            "claudemesh-broker mesh list"
        }
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "status": "listening",
            "version": env!("CARGO_PKG_VERSION"),
            "address": self.address,
            "port": self.port,
            "url": self.url,
            "mode": self.mode,
            "node": self.node,
            "data": self.data,
            "dashboard": self.dashboard,
            "ipv4Only": self.ipv4_only,
            "openFilesMax": self.open_files,
            "next": self.next_command(),
        })
    }

    fn to_text(&self) -> String {
        let note = if self.ipv4_only { "  (this machine has no IPv6: IPv4 only)" } else { "" };
        let dashboard = self.dashboard.as_ref();
        let dashboard =
            dashboard.map(|url| format!("\n  operators look at {url}")).unwrap_or_default();
        format!(
            "claudemesh-broker {} listens on {}{note}\n  \
             peers connect to  {}{dashboard}\n  \
             data lies in      {}\n  \
             next, type        {}",
            env!("CARGO_PKG_VERSION"),
            self.address,
            self.url,
            self.data,
            self.next_command(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Secret;

    fn banner(folder: &Path, ipv4_only: bool) -> Banner {
        let mut config = Config::for_tests(folder);
        config.listen.port = 7901;
        Banner::of(&config, "[::]:7901".to_owned(), ipv4_only, Some(1024))
    }

    #[test]
    fn it_says_where_and_what_to_type_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = banner(folder.path(), false).to_text();
        for part in ["[::]:7901", "ws://localhost:7901/ws", "broker.db", "mesh create team"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.lines().count() <= 5 && !text.contains("IPv6"), "{text}");
        assert!(banner(folder.path(), true).to_text().contains("no IPv6"));
        std::fs::write(folder.path().join("broker.db"), "").expect("a file");
        assert!(banner(folder.path(), false).to_text().contains("mesh list"));
    }

    #[test]
    fn the_object_has_the_port_and_the_url() {
        let folder = tempfile::tempdir().expect("a folder");
        let object = banner(folder.path(), false).to_json();
        assert_eq!(object["port"], 7901);
        assert_eq!(object["url"], "ws://localhost:7901/ws");
        assert_eq!(object["status"], "listening");
    }

    #[test]
    fn operators_are_told_where_to_look_if_they_may() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!banner(folder.path(), false).to_text().contains("dashboard"));
        let mut config = Config::for_tests(folder.path());
        config.http.public_url = Some("wss://mesh.example.org/ws".to_owned());
        config.http.admin_tokens = vec![Secret::new("a-token-for-operators")];
        let banner = Banner::of(&config, String::new(), false, None);
        let (text, object) = (banner.to_text(), banner.to_json());
        assert!(text.contains("https://mesh.example.org/dashboard"), "{text}");
        assert_eq!(object["dashboard"], "https://mesh.example.org/dashboard");
        assert!(!text.contains("a-token-for"), "{text}");
    }

    #[test]
    fn a_database_url_is_shown_without_its_password() {
        let env = |name: &str| {
            (name == "DATABASE_URL").then(|| "postgres://u:hunter2@db/mesh".to_owned())
        };
        let config = Config::load(&env).expect("valid");
        let text = Banner::of(&config, String::new(), false, None).to_text();
        assert!(text.contains("@db/mesh") && !text.contains("hunter2"), "{text}");
    }
}
