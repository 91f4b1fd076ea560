//! Small things that hold across all nodes, and on this node alone while Redis
//! is away.

use std::sync::Arc;

use super::fallback::Fallback;
use super::leases::Leases;
use super::scripts;
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
    pub(super) async fn take_tokens(
        &self,
        bucket: &str,
        want: u32,
        per_minute: u32,
        burst: u32,
        nodes: u32,
    ) -> u32 {
        let key = self.leases.keys.tokens(bucket);
        let mut call = scripts::call(&self.leases.scripts.tokens, &[key]);
        call.arg(want).arg(per_minute).arg(burst);
        match self.leases.link.query::<u32>(&call).await {
            Ok(got) => got,
            Err(error) => {
                tracing::debug!(%error, "tokens are this node's part");
                let part = |all: u32| if all == 0 { 0 } else { (all / nodes.max(1)).max(1) };
                let (per_minute, burst, now_ms) = (part(per_minute), part(burst), self.now_ms());
                self.fallback.with_extras(|_, buckets, _| {
                    buckets.take(now_ms, bucket, want, per_minute, burst)
                })
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
