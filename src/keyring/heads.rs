//! What this user's peers were shown of a mesh's audit chain: the key that signs its heads
//! and the newest head, kept at first sight. A broker that shows another chain later, or one
//! that went back, is found; what was kept changes only to a newer head by the same key, or
//! when the user says so.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::auth::{AuditHead, verify_audit_head};
use crate::client::Client;
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::keyring::Kept;
use crate::private;
use crate::protocol::{AuditRowQuery, AuditRowResult, SignedHead};

/// A node may show for so long what another has newer.
const LAG_MS: i64 = 60_000;

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pin {
    #[serde(flatten)]
    pub(crate) head: SignedHead,
    /// When this user's peers saw it first.
    pub(crate) seen_at: Timestamp,
}

/// Why what is shown is not believed, or not the chain that was shown before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// The signature is not by the key that the head names.
    Signature,
    /// By another key than before.
    OtherKey(String),
    /// The same row has another hash than before.
    OtherHash(i64),
    /// An older head than before: the row, and the one before.
    WentBack(i64, i64),
    /// The chain does not have the row any more that was shown before.
    Gone(i64),
    /// What is kept cannot be read.
    Unreadable(PathBuf),
}

impl Doubt {
    /// Scripts compare the word, which is stable.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Signature => "audit_signature",
            Self::OtherKey(_) => "audit_key",
            Self::OtherHash(_) => "audit_hash",
            Self::WentBack(..) => "audit_went_back",
            Self::Gone(_) => "audit_row_gone",
            Self::Unreadable(_) => "audit_unreadable",
        }
    }

    pub(crate) fn sentence(&self, kept: &Kept) -> String {
        let slug = &kept.file.mesh_slug;
        match self {
            Self::Signature => {
                format!("the broker shows a head of the audit chain of {slug} that is not signed")
            }
            Self::OtherKey(key) => format!(
                "another key signs the audit chain of {slug} than before, {key}: ask its operator, \
                 and if that is right, `claudemesh-broker peer audit --accept` takes it"
            ),
            Self::OtherHash(row) => format!(
                "the broker shows another row {row} of the audit chain of {slug} than before: the \
                 chain was written anew"
            ),
            Self::WentBack(row, before) => format!(
                "the broker shows row {row} as the end of the audit chain of {slug}, and has shown \
                 row {before} before: the chain was cut off, or an older database is back"
            ),
            Self::Gone(row) => format!(
                "the audit chain of {slug} does not have row {row} any more as the broker has shown \
                 it before: it was cut off or written anew"
            ),
            Self::Unreadable(path) => format!(
                "what was kept of the audit chain of {slug} in {} cannot be read",
                path.display()
            ),
        }
    }
}

/// Compares what the broker showed at this connection's hello with what is kept, and asks it
/// whether that is in the chain still. A newer head by the same key is kept then, and the
/// first one of all.
pub(crate) async fn check(data_dir: &Path, kept: &Kept, client: &Client) -> Option<Doubt> {
    let shown = *client.hello_ack().audit_head?;
    let now = Timestamp::now();
    let pin = match compare(data_dir, kept, &shown, now) {
        Ok(Some(pin)) => pin,
        Ok(None) => return None,
        Err(doubt) => return Some(doubt),
    };
    match client.ask(&AuditRowQuery { row_id: pin.head.row_id }).await {
        Ok(row) if !pin.is_in(&row) => return Some(Doubt::Gone(pin.head.row_id)),
        Ok(_) if shown.row_id > pin.head.row_id => note(data_dir, kept, shown, now),
        Ok(_) => {}
        // What is kept stays, and is asked for the next time.
        Err(error) => tracing::debug!(%error, "the audit chain could not be asked for a row"),
    }
    None
}

/// What was kept before, if anything was: the chain is asked for it.
fn compare(
    data_dir: &Path,
    kept: &Kept,
    shown: &SignedHead,
    now: Timestamp,
) -> Result<Option<Pin>, Doubt> {
    if !is_signed(&kept.file.mesh_id, shown) {
        return Err(Doubt::Signature);
    }
    let path = file(data_dir, kept);
    let pin = pinned(data_dir, kept).map_err(|_| Doubt::Unreadable(path))?;
    let Some(pin) = pin else {
        note(data_dir, kept, shown.clone(), now);
        return Ok(None);
    };
    let before = &pin.head;
    if shown.public_key != before.public_key {
        return Err(Doubt::OtherKey(shown.public_key.to_string()));
    }
    if shown.row_id == before.row_id {
        let is_same = shown.hash == before.hash && shown.name_hash == before.name_hash;
        return if is_same { Ok(Some(pin)) } else { Err(Doubt::OtherHash(shown.row_id)) };
    }
    if shown.row_id < before.row_id && now.ms_since(pin.seen_at) > LAG_MS {
        return Err(Doubt::WentBack(shown.row_id, before.row_id));
    }
    Ok(Some(pin))
}

impl Pin {
    fn is_in(&self, row: &AuditRowResult) -> bool {
        row.hash.as_ref() == Some(&self.head.hash) && row.name_hash == self.head.name_hash
    }
}

/// What is kept, if anything is.
pub(crate) fn pinned(data_dir: &Path, kept: &Kept) -> anyhow::Result<Option<Pin>> {
    let path = file(data_dir, kept);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Keeps what is shown, whatever was kept before; whether it is signed.
pub(crate) fn accept(data_dir: &Path, kept: &Kept, shown: SignedHead) -> anyhow::Result<bool> {
    if !is_signed(&kept.file.mesh_id, &shown) {
        return Ok(false);
    }
    write(data_dir, kept, shown, Timestamp::now())?;
    Ok(true)
}

fn is_signed(mesh: &MeshId, head: &SignedHead) -> bool {
    let SignedHead { row_id, hash, name_hash, taken_at, public_key, signature } = head;
    let head = AuditHead {
        mesh_id: mesh.as_str(),
        row_id: *row_id,
        hash,
        name_hash: name_hash.as_deref(),
        taken_at: *taken_at,
    };
    verify_audit_head(public_key.as_str(), head, signature).is_ok()
}

/// A failure to write is only logged: the next one finds as much as this one.
fn note(data_dir: &Path, kept: &Kept, head: SignedHead, now: Timestamp) {
    if let Err(error) = write(data_dir, kept, head, now) {
        tracing::debug!(error = format!("{error:#}"), "the audit head is not kept");
    }
}

fn write(data_dir: &Path, kept: &Kept, head: SignedHead, now: Timestamp) -> anyhow::Result<()> {
    let pin = Pin { head, seen_at: now };
    private::write(&file(data_dir, kept), &serde_json::to_vec_pretty(&pin)?)
}

/// Of one mesh on one broker, beside the contacts: all peers of this user share it.
fn file(data_dir: &Path, kept: &Kept) -> PathBuf {
    let broker = hex::encode(Sha256::digest(kept.file.broker_url.as_bytes()));
    let mesh = private::file_name(kept.file.mesh_id.as_str());
    data_dir.join("peers").join(format!("{mesh}.{}.audit.json", &broker[..12]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{SecretKey, sign_audit_head};
    use crate::keyring::KeyFile;

    const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

    fn kept(folder: &Path) -> Kept {
        let secret = SecretKey::generate();
        let broker = "ws://a/ws".to_owned();
        let file = KeyFile::new(MeshId::from("m"), "team".to_owned(), "me", broker, &secret);
        Kept { path: folder.join("x"), file }
    }

    fn head(key: &SecretKey, row_id: i64, hash: &str) -> SignedHead {
        let head = AuditHead { mesh_id: "m", row_id, hash, name_hash: None, taken_at: NOW };
        SignedHead {
            row_id,
            hash: hash.to_owned(),
            name_hash: None,
            taken_at: NOW,
            public_key: key.public_key(),
            signature: sign_audit_head(key, head),
        }
    }

    #[test]
    fn what_was_shown_first_is_kept_and_nothing_takes_its_place_silently() {
        let folder = tempfile::tempdir().expect("a folder");
        let (at, key, stranger) = (folder.path(), SecretKey::generate(), SecretKey::generate());
        let kept = kept(at);
        let shown = |head: SignedHead, later_ms| compare(at, &kept, &head, NOW.plus_ms(later_ms));
        let first = head(&key, 7, "ab");
        let forged = SignedHead { row_id: 8, ..first.clone() };
        assert_eq!(shown(forged.clone(), 0), Err(Doubt::Signature));
        assert_eq!(pinned(at, &kept).expect("readable"), None, "that is not kept");
        assert_eq!(shown(first.clone(), 0), Ok(None));
        let pin = pinned(at, &kept).expect("readable").expect("kept");
        assert_eq!((&pin.head, pin.seen_at), (&first, NOW));
        assert_eq!(shown(first.clone(), 1), Ok(Some(pin.clone())), "the same again");
        let other_key = Doubt::OtherKey(stranger.public_key().to_string());
        assert_eq!(shown(head(&stranger, 9, "cd"), 1), Err(other_key));
        assert_eq!(shown(head(&key, 7, "cd"), 1), Err(Doubt::OtherHash(7)));
        assert_eq!(shown(head(&key, 6, "cd"), LAG_MS + 1), Err(Doubt::WentBack(6, 7)));
        // A node that lags is asked, as is one that is further.
        assert_eq!(shown(head(&key, 6, "cd"), 1), Ok(Some(pin.clone())));
        assert_eq!(shown(head(&key, 9, "cd"), 1), Ok(Some(pin.clone())));
        assert_eq!(shown(forged, 1), Err(Doubt::Signature));
        assert_eq!(pinned(at, &kept).expect("readable"), Some(pin), "whatever was shown");
        assert!(accept(at, &kept, head(&stranger, 9, "cd")).expect("written"));
        assert!(shown(head(&stranger, 9, "cd"), 1).is_ok());
        std::fs::write(file(at, &kept), "{").expect("written");
        assert!(matches!(shown(first, 1), Err(Doubt::Unreadable(_))));
    }

    #[test]
    fn a_row_that_is_kept_is_in_the_chain_by_both_its_hashes() {
        let key = SecretKey::generate();
        let pin = Pin { head: head(&key, 7, "ab"), seen_at: NOW };
        let row = |hash: Option<&str>, name_hash: Option<&str>| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            AuditRowResult { row_id: 7, hash: owned(hash), name_hash: owned(name_hash) }
        };
        assert!(pin.is_in(&row(Some("ab"), None)));
        for other in [row(None, None), row(Some("cd"), None), row(Some("ab"), Some("ef"))] {
            assert!(!pin.is_in(&other), "{other:?}");
        }
    }
}
