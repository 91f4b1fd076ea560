//! Whether there is a peer to be, a broker that answers, and a place to keep mail.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::claude::variables::PEER;
use crate::client::http::{http_url, send};
use crate::config::process_env;
use crate::keyring::{self, Kept};
use crate::output::check::Check;
use crate::private;

/// A broker that takes longer is not well.
const PATIENCE: Duration = Duration::from_secs(5);

/// Peer, brokers, folder.
pub(super) async fn check(data_dir: &Path) -> Vec<Check> {
    let mut checks = vec![folder(data_dir)];
    let kept = match keyring::all(data_dir) {
        Ok(kept) => kept,
        Err(error) => {
            let todo = "move that file away, or restore it";
            checks.push(Check::fail("peer", format!("{error:#}"), todo));
            return checks;
        }
    };
    checks.push(peer(&kept, process_env(PEER).as_deref()));
    let mut urls: Vec<&str> = kept.iter().map(|kept| kept.file.broker_url.as_str()).collect();
    urls.sort_unstable();
    urls.dedup();
    for url in urls {
        checks.push(broker(url).await);
    }
    checks
}

/// The folder with keys and spools.
fn folder(data_dir: &Path) -> Check {
    let shown = data_dir.display();
    let probe = data_dir.join(format!(".doctor-{}", std::process::id()));
    let tried = private::make_folder(data_dir).and_then(|()| std::fs::write(&probe, ""));
    let _ = std::fs::remove_file(&probe);
    match tried {
        Ok(()) => Check::ok("spool", format!("{shown} is writable")),
        Err(error) => Check::fail(
            "spool",
            format!("{shown} is not writable: {error}"),
            "make the folder writable, or set CLAUDEMESH_DATA_DIR to another, for sessions too",
        ),
    }
}

fn peer(kept: &[Kept], chosen: Option<&str>) -> Check {
    let names: Vec<String> = kept.iter().map(|kept| kept.file.full_name()).collect();
    let joined = kept.iter().filter(|kept| kept.file.member_id.is_some()).count();
    match (kept.len(), chosen) {
        (0, _) => Check::fail(
            "peer",
            "this user has joined no mesh",
            "claudemesh-broker peer join <link> --name <name>",
        ),
        (_, Some(chosen)) if !names.iter().any(|name| name == chosen) => Check::fail(
            "peer",
            format!("{PEER} names {chosen}, and there are {}", names.join(", ")),
            "correct or unset it",
        ),
        (all, _) if joined < all => Check::warn(
            "peer",
            format!("not all of {} have joined", names.join(", ")),
            "claudemesh-broker peer join with the invite again",
        ),
        (1, _) | (_, Some(_)) => Check::ok("peer", chosen.unwrap_or(&names[0]).to_owned()),
        (_, None) => Check::warn(
            "peer",
            format!("there are several: {}", names.join(", ")),
            format!(
                "say which one a session is: claudemesh-broker claude launch <name>, or set \
                 {PEER} for it"
            ),
        ),
    }
}

async fn broker(url: &str) -> Check {
    let asking = async {
        let health = http_url(url, "/health").map_err(|error| error.to_string())?;
        let request = Request::get(health.as_str()).body(Bytes::new());
        let request = request.map_err(|error| error.to_string())?;
        let (status, _) =
            send(&health, request, PATIENCE).await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(()) } else { Err(format!("it answers {status}")) }
    };
    match asking.await {
        Ok(()) => Check::ok("broker", format!("{url} is well")),
        Err(reason) => Check::fail(
            "broker",
            format!("{url}: {reason}"),
            "start it, or correct brokerUrl in the peer's key file; sessions keep their mail and \
             try again by themselves",
        ),
    }
}
