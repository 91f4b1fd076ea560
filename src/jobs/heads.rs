//! Where audit chains end, signed by the clock and appended to the chains themselves.
//!
//! Every node that has the key looks, and whichever is first signs: the store looks
//! again, under the chain's lock, whether a head is due. A chain that has not grown since
//! its newest head gets none. The key is read anew each time, so that one that replaces
//! it needs no restart. The clock of [`jobs`](super) calls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::audit::Anchor;
use crate::auth::SecretKey;
use crate::clock::Timestamp;
use crate::config::AuditConfig;
use crate::limits;
use crate::metrics::AuditHeadLabels;
use crate::presence;
use crate::store::{AuditHeads, HeadPace};

/// Between two looks for chains whose next head is due, at most.
const LOOK_INTERVAL_MS: i64 = 10_000;
/// Clocks of nodes differ by less.
const CLOCKS_APART_MS: i64 = 60_000;
/// Meshes that one question names.
const MESHES_AT_ONCE: i64 = 100;

/// Signs heads by the key of the configuration.
pub(crate) struct HeadSigner {
    config: AuditConfig,
    /// Whether the key could not be read the last time: said once.
    is_keyless: AtomicBool,
    /// When the newest head that peers here are shown was signed.
    shown: Mutex<Timestamp>,
}

impl HeadSigner {
    pub(crate) const fn new(config: AuditConfig) -> Self {
        let shown = Mutex::new(Timestamp::from_ms(0));
        Self { config, is_keyless: AtomicBool::new(false), shown }
    }

    /// Between two looks; none without a key.
    pub(super) fn look_interval(&self) -> Option<Duration> {
        let look_ms = self.config.head_ms.min(LOOK_INTERVAL_MS);
        self.config.key.as_ref().map(|_| Duration::from_millis(look_ms.unsigned_abs()))
    }

    /// Signs every head that is due.
    pub(super) async fn sign_due(&self, heads: &dyn AuditHeads, parts: &presence::Parts) {
        let Some(key) = self.key() else { return };
        loop {
            let now = Timestamp::now();
            let signed_before = now.plus_ms(-self.config.head_ms);
            let pace = HeadPace { rows: self.config.head_rows, signed_before };
            let due = match heads.due(pace, MESHES_AT_ONCE).await {
                Ok(due) => due,
                Err(error) => return tracing::debug!(%error, "audit heads wait for the store"),
            };
            for mesh in &due {
                if parts.life.stopped.is_cancelled() {
                    return;
                }
                match heads.sign(now, mesh, pace, &key).await {
                    Ok(Some(head)) => told(&head, parts),
                    // Another node was faster.
                    Ok(None) => {}
                    Err(error) => return tracing::debug!(%error, "an audit head waits"),
                }
            }
            if (due.len() as u64) < MESHES_AT_ONCE.unsigned_abs() {
                return;
            }
        }
    }

    /// Reads the heads that this node and others have signed since, for peers that come.
    pub(super) async fn show(&self, heads: &dyn AuditHeads, parts: &presence::Parts) {
        let shown = *self.shown.lock();
        let limit = i64::try_from(limits::AUDIT_HEADS_SHOWN_MAX).unwrap_or(i64::MAX);
        let newest = match heads.newest(shown.plus_ms(-CLOCKS_APART_MS), limit).await {
            Ok(newest) => newest,
            Err(error) => return tracing::debug!(%error, "audit heads were not read"),
        };
        for head in newest {
            let mut shown = self.shown.lock();
            *shown = head.taken_at.min(Timestamp::now()).max(*shown);
            if let Some(signed) = head.shown() {
                parts.registry.heads.note(head.mesh_id, signed);
            }
        }
    }

    fn key(&self) -> Option<SecretKey> {
        let source = self.config.key.as_ref()?;
        let key = match source.read() {
            Ok(seed) => SecretKey::from_seed_hex(seed.expose()).ok_or("it is not 64 hex digits"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err("no such file"),
            Err(_) => Err("the file cannot be read"),
        };
        let was_keyless = self.is_keyless.swap(key.is_err(), Ordering::Relaxed);
        match key {
            Ok(key) => Some(key),
            Err(error) => {
                if !was_keyless {
                    tracing::error!(%error, "audit heads are not signed: AUDIT_KEY names no key");
                }
                None
            }
        }
    }
}

/// Whoever keeps the log or the metrics elsewhere has an anchor in them.
fn told(head: &Anchor, parts: &presence::Parts) {
    let key = head.public_key.as_ref().map(ToString::to_string).unwrap_or_default();
    let (row, hash) = (head.row_id, head.hash.clone());
    let anchor = serde_json::to_string(head).unwrap_or_default();
    tracing::info!(mesh = %head.mesh_id, row, %anchor, "an audit head was signed");
    parts.metrics.head_signed(AuditHeadLabels { row, hash, key });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AuditKeySource, Config, Secret};
    use crate::id::MeshId;
    use crate::jobs::fixture::Mocks;
    use crate::store::MockAuditHeads;
    use crate::store::testing::unavailable;

    fn signer(key: Option<AuditKeySource>) -> HeadSigner {
        let config = Config::for_tests(std::path::Path::new(".")).audit;
        HeadSigner::new(AuditConfig { key, ..config })
    }

    fn keyed() -> HeadSigner {
        signer(Some(AuditKeySource::Seed(Secret::new("ab".repeat(32)))))
    }

    fn head(mesh: &MeshId, key: &SecretKey) -> Anchor {
        let anchor = Anchor {
            mesh_id: mesh.clone(),
            row_id: 7,
            hash: "ab".repeat(32),
            name_hash: None,
            taken_at: Timestamp::now(),
            public_key: None,
            signature: None,
        };
        anchor.signed(key)
    }

    #[tokio::test]
    async fn each_head_that_is_due_is_signed_and_told_of() {
        let mut heads = MockAuditHeads::new();
        heads.expect_due().once().returning(|pace, _| {
            assert_eq!(pace.rows, 1000);
            assert!(Timestamp::now().ms_since(pace.signed_before) >= 600_000);
            Ok(["mine", "another node's"].map(MeshId::from).into())
        });
        heads
            .expect_sign()
            .times(2)
            .returning(|_, mesh, _, key| Ok((mesh.as_str() == "mine").then(|| head(mesh, key))));
        let scene = Mocks::default().scene();
        keyed().sign_due(&heads, &scene.presence).await;
        assert_eq!(scene.presence.metrics.audit_heads.get(), 1);
        let text = scene.presence.metrics.render();
        assert!(text.contains("broker_audit_head_info{row=\"7\""), "{text}");
    }

    #[tokio::test]
    async fn peers_are_shown_the_heads_of_all_nodes() {
        let mut heads = MockAuditHeads::new();
        let mesh = MeshId::from("m");
        let key = SecretKey::generate();
        let newest = head(&mesh, &key);
        let taken_at = newest.taken_at;
        let unsigned = Anchor { signature: None, mesh_id: MeshId::from("n"), ..newest.clone() };
        let read = vec![newest.clone(), unsigned];
        heads.expect_newest().once().return_once(|_, _| Ok(read));
        heads.expect_newest().once().returning(|_, _| Err(unavailable()));
        heads.expect_newest().once().returning(move |since, _| {
            assert_eq!(since, taken_at.plus_ms(-CLOCKS_APART_MS), "not all again");
            Ok(Vec::new())
        });
        let (scene, signer) = (Mocks::default().scene(), keyed());
        for _ in 0..3 {
            signer.show(&heads, &scene.presence).await;
            let shown = scene.registry().heads.newest(&mesh).expect("it stays");
            assert_eq!(Some(*shown), newest.shown());
        }
        assert_eq!(scene.registry().heads.newest(&MeshId::from("n")), None);
    }

    #[tokio::test]
    async fn more_meshes_than_one_question_names_are_asked_for_again() {
        let mut heads = MockAuditHeads::new();
        let mut pages = vec![1, MESHES_AT_ONCE, MESHES_AT_ONCE];
        heads.expect_due().times(3).returning(move |_, _| {
            let page = pages.pop().expect("no page after one that is not full");
            Ok((0..page).map(|at| MeshId::from(at.to_string())).collect())
        });
        heads.expect_sign().returning(|_, _, _, _| Ok(None));
        keyed().sign_due(&heads, &Mocks::default().scene().presence).await;
    }

    #[tokio::test]
    async fn a_store_that_is_away_and_a_node_that_stops_sign_nothing() {
        let mut heads = MockAuditHeads::new();
        heads.expect_due().once().returning(|_, _| Err(unavailable()));
        let scene = Mocks::default().scene();
        keyed().sign_due(&heads, &scene.presence).await;
        let full = (0..MESHES_AT_ONCE).map(|at| MeshId::from(at.to_string()));
        let full: Vec<MeshId> = full.collect();
        let again = full.clone();
        heads.expect_due().once().returning(move |_, _| Ok(again.clone()));
        heads.expect_sign().once().returning(|_, _, _, _| Err(unavailable()));
        keyed().sign_due(&heads, &scene.presence).await;
        scene.presence.life.stopped.cancel();
        heads.expect_due().once().returning(move |_, _| Ok(full.clone()));
        keyed().sign_due(&heads, &scene.presence).await;
        assert_eq!(scene.presence.metrics.audit_heads.get(), 0);
    }

    #[tokio::test]
    async fn without_a_key_that_can_be_read_the_store_is_not_asked() {
        let scene = Mocks::default().scene();
        assert_eq!(signer(None).look_interval(), None);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key");
        let signer = signer(Some(AuditKeySource::File(file.clone())));
        assert_eq!(signer.look_interval(), Some(Duration::from_secs(10)));
        let mut heads = MockAuditHeads::new();
        signer.sign_due(&heads, &scene.presence).await;
        std::fs::write(&file, "no key").expect("written");
        signer.sign_due(&heads, &scene.presence).await;
        // One that is put there later is found.
        std::fs::write(&file, "ab".repeat(32)).expect("written");
        heads.expect_due().once().returning(|_, _| Ok(Vec::new()));
        signer.sign_due(&heads, &scene.presence).await;
    }
}
