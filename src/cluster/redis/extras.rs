//! Small things that hold across all nodes, and on this node alone while Redis
//! is away.

use std::sync::Arc;

use super::fallback::Fallback;
use super::leases::Leases;
use super::scripts;
use crate::cluster::{Draw, Drawn};
use crate::limits::PENDING_HOOK_MS;
use crate::protocol::Status;

/// What kind of thing a hook's word is to a signature.
const KIND: &str = "pending";

/// The replay guard, rate buckets and hooks' words.
pub(super) struct Extras {
    pub(super) leases: Arc<Leases>,
    pub(super) fallback: Arc<Fallback>,
}

impl Extras {
    /// A digest that was seen here is refused without asking, and remembered for
    /// when Redis is away.
    pub(super) async fn use_once(&self, digest: &[u8; 32], ttl_ms: u64) -> bool {
        let now_ms = self.now_ms();
        let is_first_here =
            self.fallback.with_extras(|digests, _, _| digests.use_once(now_ms, digest, ttl_ms));
        if !is_first_here {
            return false;
        }
        let mut set = redis::cmd("SET");
        set.arg(self.leases.keys.once(digest)).arg(1).arg("NX").arg("PX").arg(ttl_ms.max(1));
        match self.leases.link.query::<Option<String>>(&set).await {
            Ok(answer) => answer.is_some(),
            Err(error) => {
                tracing::debug!(%error, "a digest is guarded by this node alone");
                true
            }
        }
    }

    /// Without Redis each node gives out its part.
    pub(super) async fn take_tokens(&self, owner: &str, draws: &[Draw], nodes: u32) -> Vec<Drawn> {
        let key = |draw: &Draw| self.leases.keys.tokens(owner, &draw.bucket);
        let keys: Vec<_> = draws.iter().map(key).collect();
        let mut call = scripts::call(&self.leases.scripts.tokens, &keys);
        for draw in draws {
            call.arg(draw.want).arg(draw.per_minute).arg(draw.burst);
        }
        match self.leases.link.query::<Vec<i64>>(&call).await {
            Ok(numbers) => numbers.chunks_exact(4).map(drawn).collect(),
            Err(error) => {
                tracing::debug!(%error, "tokens are this node's part");
                let part = |all: u32| if all == 0 { 0 } else { (all / nodes.max(1)).max(1) };
                let parts: Vec<_> = draws
                    .iter()
                    .map(|draw| Draw {
                        per_minute: part(draw.per_minute),
                        burst: part(draw.burst),
                        ..draw.clone()
                    })
                    .collect();
                let now_ms = self.now_ms();
                self.fallback.with_extras(|_, buckets, _| buckets.draw_all(now_ms, owner, &parts))
            }
        }
    }

    pub(super) async fn put_pending_status(&self, pid: i32, cwd: &str, status: Status) {
        let mut set = redis::cmd("SET");
        let key = self.leases.keys.pending(pid, cwd);
        let sealed = self.leases.seals.seal(KIND, &[&key], status.as_str().as_bytes());
        set.arg(key).arg(sealed);
        set.arg("PX").arg(PENDING_HOOK_MS);
        if let Err(error) = self.leases.link.query::<()>(&set).await {
            tracing::debug!(%error, "a hook's word waits on this node");
            let now_ms = self.now_ms();
            self.fallback.with_extras(|_, _, pending| pending.put(now_ms, pid, cwd, status));
        }
    }

    pub(super) async fn take_pending_status(&self, pid: i32, cwd: &str) -> Option<Status> {
        let now_ms = self.now_ms();
        let here = self.fallback.with_extras(|_, _, pending| pending.take(now_ms, pid, cwd));
        let mut take = redis::cmd("GETDEL");
        let key = self.leases.keys.pending(pid, cwd);
        take.arg(&key);
        match self.leases.link.query::<Option<Vec<u8>>>(&take).await {
            Ok(sealed) => {
                let open = |sealed: Vec<u8>| {
                    let status = self.leases.seals.open(KIND, &[&key], &sealed)?;
                    Status::parse(std::str::from_utf8(status).ok()?)
                };
                sealed.and_then(open).or(here)
            }
            Err(error) => {
                tracing::debug!(%error, "only this node's hooks are heard");
                here
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.leases.clock.now_ms()
    }
}

/// What the script says of one bucket: a time below nothing is never.
fn drawn(numbers: &[i64]) -> Drawn {
    let tokens = |at: usize| u32::try_from(numbers[at]).unwrap_or(0);
    let ms = |at: usize| u64::try_from(numbers[at]).unwrap_or(u64::MAX);
    Drawn { got: tokens(0), left: tokens(1), next_ms: ms(2), full_ms: ms(3) }
}
