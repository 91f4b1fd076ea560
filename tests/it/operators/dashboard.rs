//! The dashboard: what it may load, and what an operator sees in a browser.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::browser::Browser;
use crate::harness::http;
use crate::harness::{BrokerProcess, Node, Raw};
use crate::operators::admin::{self, TOKEN};

#[tokio::test]
async fn the_page_is_there_with_a_token_only_and_loads_nothing_from_elsewhere() {
    let without = Node::start().await;
    for path in ["/dashboard", "/dashboard/", "/dashboard/app.js"] {
        let reply = http::get(&without, path).await;
        assert_eq!((reply.status, reply.body.as_str()), (404, "not found"), "{path}");
    }
    let node = admin::start().await;
    let slash = http::get(&node, "/dashboard/").await;
    assert_eq!((slash.status, slash.header("location")), (308, Some("../dashboard")));
    let page = http::get(&node, "/dashboard").await;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert!(!page.body.contains("<style") && !page.body.contains("style=\""), "nothing inline");
    let mut files: BTreeSet<String> = BTreeSet::new();
    let mut left = vec!["dashboard".to_owned()];
    while let Some(file) = left.pop() {
        let reply = http::get(&node, &format!("/{file}")).await;
        assert_eq!(reply.status, 200, "{file}");
        assert!(!reply.body.contains("https://"), "{file} names another place");
        let named = reply.body.split(['"', '\'']).filter(|text| {
            [".js", ".css", ".svg"].iter().any(|end| text.ends_with(end)) && text.contains('/')
        });
        for name in named {
            let path = format!("dashboard/{}", name.rsplit('/').next().unwrap_or_default());
            if files.insert(path.clone()) {
                left.push(path);
            }
        }
    }
    assert!(
        files.contains("dashboard/app.js") && files.contains("dashboard/dashboard.css"),
        "{files:?}"
    );
}

async fn log_in(browser: &Browser, address: &str) {
    browser.open(&format!("{address}/dashboard")).await;
    browser.type_into("#token", TOKEN).await;
    browser.click("#login-button").await;
    browser.reads("#connection", |text| text == "live").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_a_peer_come_and_evicts_it() {
    let node = admin::start().await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/dashboard", node.address)).await;
    browser.type_into("#token", "a-wrong-token-of-ours").await;
    browser.click("#login-button").await;
    browser.reads("#login-error", |text| text.contains("not the admin token")).await;
    log_in(&browser, &format!("http://{}", node.address)).await;
    assert_eq!(
        browser.run("return document.cookie + location.href.split('/').pop()").await,
        "dashboard"
    );
    browser.reads("#nodes td.name", |text| text == node.config.node.id.as_str()).await;
    browser.reads("#nodes .state", |text| text == "ready").await;

    browser.click("#meshes td.name a").await;
    browser.reads("#mesh-name", |text| text == "test").await;
    browser.reads("#peers .empty", |text| text.contains("Nobody is here")).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    b.ask(json!({ "type": "set_status", "status": "dnd" })).await;
    browser.reads("#peers tr:nth-child(2) td.name span", |text| text == "bob").await;
    browser.reads("#peers tr:nth-child(2) .state", |text| text == "dnd").await;
    browser.reads("#leases-count", |text| text == "2").await;
    a.sent(node.owner.pubkey().as_str(), "next", "eA==").await;
    browser.reads("#held td.name span", |text| text == "owner").await;

    browser.click("button[aria-label='Evict bob']").await;
    browser.reads("#confirm-title", |text| text == "Evict bob?").await;
    let focused = "return document.activeElement.id";
    assert_eq!(browser.run(focused).await, "confirm-no", "Enter alone evicts nobody");
    browser.click("#confirm-yes").await;
    assert_eq!(b.closed().await, (4001, "kicked".to_owned()));
    browser.reads("#peers-count", |text| text == "1").await;
    browser.reads("#peers", |text| text.contains("alice") && !text.contains("bob")).await;
    browser.reads("#audit td.name span", |text| text == "peer_left").await;
    browser.click("#verify").await;
    browser.reads("#verdict", |text| text.starts_with("The chain holds")).await;

    let loaded = "return performance.getEntriesByType('resource').map((one) => one.name)";
    let loaded = browser.run(loaded).await;
    let own = format!("http://{}/", node.address);
    for name in loaded.as_array().expect("a list") {
        assert!(name.as_str().is_some_and(|name| name.starts_with(&own)), "{name}");
        assert!(!name.to_string().contains(TOKEN), "a token in an address: {name}");
    }
    browser.click("#logout").await;
    browser.seen("#login-form").await;
    assert_eq!(browser.run("return sessionStorage.length").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_what_a_mesh_shares() {
    let node = admin::start().await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    let browser = Browser::start().await;
    log_in(&browser, &format!("http://{}", node.address)).await;
    browser.click("#meshes td.name a").await;
    browser.reads("#shared-tasks .empty", |text| text.contains("Nothing is to be done")).await;
    admin::shared::share(&node, &mut owner).await;
    browser.reads("#shared-tasks td.name span", |text| text == "fix the login").await;
    browser.reads("#shared-tasks .state", |text| text == "done").await;
    browser.reads("#shared-state td.name", |text| text == "build").await;
    browser.reads("#shared-schedules-count", |text| text == "2").await;
    browser.reads("#shared-topics td.name span", |text| text == "#deploys").await;
    browser.reads("#shared-webhooks td.name span", |text| text == "out").await;
    // Each table is a region with the name that its heading has.
    let labels = "return [...document.querySelectorAll('#shared section')].map((one) => \
                  document.getElementById(one.getAttribute('aria-labelledby')).firstChild.data.trim())";
    let named = ["Tasks", "Scheduled messages", "State", "Topics", "Webhooks"];
    assert_eq!(browser.run(labels).await, json!(named));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_said_and_found_again() {
    let mut broker = BrokerProcess::start(&[("ADMIN_TOKEN", TOKEN)]).await;
    let browser = Browser::start().await;
    log_in(&browser, &format!("http://127.0.0.1:{}", broker.port)).await;
    browser.seen("#home").await;
    broker.kill9().await;
    browser.reads("#lost", |text| text.starts_with("Connection lost, retrying in")).await;
    broker.start_again().await;
    browser.reads("#connection", |text| text == "live").await;
    browser.reads("#lost", str::is_empty).await;
}
