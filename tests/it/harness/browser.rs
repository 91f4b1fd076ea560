//! A real browser without a window.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::child::ChildProcess;
use super::until;

/// A browser with one empty tab; it ends when this is dropped.
pub struct Browser {
    client: Client,
    _driver: ChildProcess,
    /// What it remembers; also how its processes are known.
    profile: TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = ChildProcess::start(&mut command);
        let mut lines = BufReader::new(driver.0.stdout.take().expect("piped")).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| port_in(&line));
        // Read on, or it would wait for a reader one day.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let folder = format!("--user-data-dir={}", profile.path().display());
        let options = json!({ "goog:chromeOptions": { "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-dev-shm-usage", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--window-size=1200,900", folder,
        ]}});
        let Value::Object(options) = options else { unreachable!("an object") };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(options)
            .connect(&format!("http://127.0.0.1:{}", port.expect("a port")))
            .await
            .expect("chromium; tests/run installs it");
        Self { client, _driver: driver, profile }
    }

    pub async fn open(&self, url: &str) {
        self.client.goto(url).await.expect("a page");
    }

    /// The element, once it is there and can be seen.
    pub async fn seen(&self, css: &str) -> Element {
        until(&format!("{css} is seen"), async || {
            let found = self.client.find(Locator::Css(css)).await;
            match found {
                Ok(element) => element.is_displayed().await.unwrap_or(false),
                Err(_) => false,
            }
        })
        .await;
        self.client.find(Locator::Css(css)).await.expect(css)
    }

    /// Waits until the element's text is as wanted.
    pub async fn reads(&self, css: &str, fits: impl Fn(&str) -> bool) {
        until(&format!("{css} reads so"), async || fits(&self.text(css).await)).await;
    }

    /// What the element shows; nothing if it is not there.
    pub async fn text(&self, css: &str) -> String {
        match self.client.find(Locator::Css(css)).await {
            Ok(element) => element.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    pub async fn click(&self, css: &str) {
        self.seen(css).await.click().await.expect(css);
    }

    pub async fn type_into(&self, css: &str, text: &str) {
        self.seen(css).await.send_keys(text).await.expect(css);
    }

    /// What a script returns.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.expect(script)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver does not take the browser with it.
        let profile = self.profile.path().display().to_string();
        for pid in processes_with(&profile) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn port_in(line: &str) -> Option<u16> {
    let (_, port) = line.split_once("started successfully on port ")?;
    port.trim_end_matches('.').parse().ok()
}

fn processes_with(argument: &str) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(argument)
    })
    .filter_map(Pid::from_raw)
    .collect()
}
