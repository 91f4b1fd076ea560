//! What the store in Postgres does beyond what every store must.

mod adoption;
mod chain;
mod changes;
mod claim;
mod faults;
mod memories;
mod migrate;
mod scans;
mod topics;

use claudemesh_broker::store::Stores;

use crate::harness::postgres::{PrivatePostgres, store};
use crate::store::fixture::Fixture;

/// A mesh in a database of its own, and where that is.
async fn fixture() -> (Fixture, String) {
    let url = PrivatePostgres::shared().migrated_database().await;
    (Fixture::new(another_node(&url)).await, url)
}

/// The store of another node on that database.
fn another_node(url: &str) -> Stores {
    store(url)
}

/// The same mesh, as another node sees it.
fn seen_by(node: &Stores, here: &Fixture) -> Fixture {
    Fixture { store: node.clone(), ..here.clone() }
}
