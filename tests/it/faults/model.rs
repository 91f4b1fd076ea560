//! Seeded plans, driven against a broker and a model of it at once: sessions
//! that come, break off, send, confirm or do not, are busy, join groups and let
//! time pass.
//!
//! A plan that fails prints its steps and its seed; `SEED=<seed>` replays it.

mod book;
mod world;

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use parking_lot::Mutex;

/// The steps of a plan so far.
pub type Log = Arc<Mutex<Vec<String>>>;

/// Plans that always run; one more is new every time.
const SEEDS: std::ops::Range<u64> = 0..5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_get_what_the_model_says() {
    let seeds: Vec<u64> = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => SEEDS.chain([rand::random()]).collect(),
    };
    join_all(seeds.into_iter().map(run)).await;
}

async fn run(seed: u64) {
    let log = Log::default();
    let plan = AssertUnwindSafe(world::run(seed, Arc::clone(&log)));
    if let Err(panic) = plan.catch_unwind().await {
        let steps = log.lock().join("\n");
        eprintln!("{steps}\nthe broker and the model differ; SEED={seed} replays it");
        resume_unwind(panic);
    }
}
