//! What is kept for all members: sealed under a key that they hold in common, which the
//! broker never has.
//!
//! The newest key is made by a member that writes, sealed for every member. Who comes later
//! is given it by any member that is there. When somebody who has it leaves, whoever writes
//! next makes another.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::error::CommonKeyError;
use super::trust::Judged;
use super::{Client, ClientError, Secrecy};
use crate::auth::CommonKeyProof;
use crate::id::Key;
use crate::protocol::{
    CommonKey as CommonKeyShown, CommonKeyResult, GetCommonKey, MakeCommonKey, ShareCommonKey,
};
use crate::sealing::common::{self, CommonKey, KeptSealed, Place};

/// The event that tells a member which has a key of another that has not.
pub const RESEAL_NEEDED: &str = "reseal_needed";
/// How long a key that others have is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(200);
/// How often a key that somebody else made at the same time is read again.
const RACES_MAX: usize = 8;
/// Keys that are handed on at once. More are asked for again.
const HANDING_ON_MAX: usize = 4;
/// Scopes whose keys are kept. More: all are forgotten and read anew.
const SCOPES_MAX: usize = 256;
/// The name of the mesh's scope in signatures.
const MESH: &str = "mesh";

/// A text that is kept for all members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptText {
    /// It was kept in clear: the broker can read it, too.
    Clear(String),
    /// Only members read it.
    Sealed {
        /// The text.
        text: String,
        /// The member that wrote it, by its key.
        writer: Key,
    },
    /// It is sealed, and this client cannot open it, or it is not what its writer kept
    /// there.
    Unreadable,
}

impl KeptText {
    /// What it says, if that can be read.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Clear(text) | Self::Sealed { text, .. } => Some(text),
            Self::Unreadable => None,
        }
    }

    /// Whether the broker cannot read it.
    #[must_use]
    pub const fn is_sealed(&self) -> bool {
        !matches!(self, Self::Clear(_))
    }
}

/// Whether the scope that the broker names is the one that was asked for, a topic by its id:
/// else what is for a topic could be sealed under the mesh's key.
fn is_of(scope: &str, asked: Option<&str>) -> bool {
    match asked {
        None => scope == MESH,
        Some(topic) => scope != MESH && topic.strip_prefix('#') == Some(scope),
    }
}

/// Who is to read what is written.
struct Readers {
    members: HashSet<Key>,
    /// Members for whom nothing is sealed.
    left_out: HashSet<Key>,
}

/// The keys of a scope that this client has.
#[derive(Clone, Default)]
struct Keys {
    newest: i64,
    by_epoch: BTreeMap<i64, CommonKey>,
}

/// The keys of all scopes, by what they are called in signatures.
pub(super) struct CommonKeys {
    scopes: Mutex<HashMap<String, Keys>>,
    /// To hand keys on beside other things.
    turns: Arc<Semaphore>,
}

impl Default for CommonKeys {
    fn default() -> Self {
        Self { scopes: Mutex::default(), turns: Arc::new(Semaphore::new(HANDING_ON_MAX)) }
    }
}

impl CommonKeys {
    fn of(&self, scope: &str) -> Keys {
        self.scopes.lock().get(scope).cloned().unwrap_or_default()
    }

    /// Takes over a newest key, with those that it brings along.
    fn take(&self, scope: &str, epoch: i64, key: &CommonKey, earlier: Option<&str>) -> Keys {
        let mut scopes = self.scopes.lock();
        if scopes.len() >= SCOPES_MAX && !scopes.contains_key(scope) {
            scopes.clear();
        }
        let keys = scopes.entry(scope.to_owned()).or_default();
        keys.newest = keys.newest.max(epoch);
        for (epoch, key) in earlier.map(|earlier| key.earlier(earlier)).unwrap_or_default() {
            keys.by_epoch.entry(epoch).or_insert(key);
        }
        keys.by_epoch.insert(epoch, key.clone());
        keys.clone()
    }
}

impl Client {
    /// Seals a text to keep for all members, where the mesh's setting and those who are here
    /// allow it; `None`: it is to be kept in clear, and why. `topic`: `#` and the id of one
    /// that is not public, for whose members alone it is. `named`: under which name of which kind it is kept; it
    /// opens there alone.
    ///
    /// # Errors
    /// As [`Self::ask`]; [`ClientError::CommonKey`] where there is no key to seal under.
    pub async fn seal_kept(
        &self,
        topic: Option<&str>,
        named: &str,
        text: &str,
    ) -> Result<(Option<String>, Secrecy), ClientError> {
        let recipients = self.recipients().await?;
        let Some(keys) = recipients.keys else { return Ok((None, recipients.secrecy)) };
        let left_out = recipients.left_out.into_iter().map(|judged| judged.member.pubkey);
        let readers = Readers {
            members: keys.into_iter().chain([self.member_pubkey()]).collect(),
            left_out: left_out.collect(),
        };
        let (name, keys) = self.key_to_write(topic.map(str::to_owned), &readers).await?;
        let key = keys.by_epoch.get(&keys.newest).ok_or(CommonKeyError::NotHandedOn)?;
        let mesh = self.shared.options.identity.mesh.as_str();
        let place = Place { mesh, named };
        let under = (key, keys.newest, &*name);
        let sealed = common::seal(under, place, self.shared.seals.member(), text.as_bytes());
        Ok((Some(sealed.ok_or(CommonKeyError::Forged)?), Secrecy::Sealed))
    }

    /// Opens a text that is kept for all members; one in clear is as it is.
    ///
    /// # Errors
    /// As [`Self::ask`]. What cannot be opened is no error.
    pub async fn open_kept(&self, named: &str, text: &str) -> Result<KeptText, ClientError> {
        if !common::is_marked(text) {
            return Ok(KeptText::Clear(text.to_owned()));
        }
        let Some(kept) = KeptSealed::read(text) else { return Ok(KeptText::Unreadable) };
        let mut keys = self.shared.common_keys.of(&kept.scope);
        if !keys.by_epoch.contains_key(&kept.epoch) {
            let scope = (kept.scope != MESH).then(|| format!("#{}", kept.scope));
            keys = match self.newest(scope).await {
                Ok((_, keys)) => keys,
                Err(ClientError::CommonKey(_) | ClientError::Refused(_)) => Keys::default(),
                Err(error) => return Err(error),
            };
        }
        let mesh = self.shared.options.identity.mesh.as_str();
        let key = keys.by_epoch.get(&kept.epoch);
        let opened = key.and_then(|key| kept.open(key, Place { mesh, named }));
        let text = opened.and_then(|text| String::from_utf8(text).ok());
        Ok(match text {
            Some(text) => KeptText::Sealed { text, writer: kept.writer },
            None => KeptText::Unreadable,
        })
    }

    /// Hands the newest key that this member has on to those that have none, and keeps it for
    /// what comes in: after an event `reseal_needed`, whose data that is, else that of the
    /// mesh. Who merely visits need not.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn hand_on_keys(&self, event: Option<&Value>) -> Result<(), ClientError> {
        let scope = event.and_then(|data| data.get("scope")).and_then(Value::as_str);
        let scope = scope.filter(|scope| *scope != MESH).map(|scope| format!("#{scope}"));
        let found = self.ask(&GetCommonKey { scope: scope.clone(), renew: false }).await?;
        if !is_of(&found.scope, scope.as_deref()) {
            return Err(CommonKeyError::Forged.into());
        }
        let Some((shown, key)) = self.key_of(&found)? else { return Ok(()) };
        let earlier = shown.earlier.as_deref();
        self.shared.common_keys.take(&found.scope, found.epoch, &key, earlier);
        // Of a key that somebody has who left, there is to be another.
        if found.wanting.is_empty() || found.stale {
            return Ok(());
        }
        let members = self.judged_members().await?.into_iter().filter(Judged::is_sealed_for);
        let members: HashSet<Key> = members.map(|judged| judged.member.pubkey).collect();
        let copies = self.copies(&key, found.wanting.iter(), &members);
        if !copies.is_empty() {
            self.ask(&ShareCommonKey { scope, epoch: found.epoch, copies }).await?;
        }
        Ok(())
    }

    /// As [`Self::hand_on_keys`], beside what the caller does: it reads the inbox, and answers
    /// come behind what is in there. What is not handed on now, somebody asks for again.
    pub fn hand_on_keys_beside(&self, event: Option<Value>) {
        let Ok(turn) = Arc::clone(&self.shared.common_keys.turns).try_acquire_owned() else {
            return;
        };
        let client = self.clone();
        tokio::spawn(async move {
            if let Err(error) = client.hand_on_keys(event.as_ref()).await {
                tracing::debug!(%error, "a key was not handed on");
            }
            drop(turn);
        });
    }

    /// The newest key, which is waited for where others have it and this member has not yet;
    /// and what its scope is called. No keys: there is none.
    async fn newest(&self, scope: Option<String>) -> Result<(CommonKeyResult, Keys), ClientError> {
        let deadline = Instant::now() + PATIENCE;
        let mut ask = GetCommonKey { scope, renew: false };
        loop {
            let found = self.ask(&ask).await?;
            if !is_of(&found.scope, ask.scope.as_deref()) {
                return Err(CommonKeyError::Forged.into());
            }
            if found.epoch < self.shared.common_keys.of(&found.scope).newest {
                return Err(CommonKeyError::Earlier.into());
            }
            if found.epoch == 0 {
                return Ok((found, Keys::default()));
            }
            if found.copy.is_some() {
                if let Some((shown, key)) = self.key_of(&found)? {
                    let earlier = shown.earlier.as_deref();
                    let common = &self.shared.common_keys;
                    let keys = common.take(&found.scope, found.epoch, &key, earlier);
                    return Ok((found, keys));
                }
                // Somebody gave this member a copy that is none: others are asked.
                if ask.renew || Instant::now() > deadline {
                    return Err(CommonKeyError::NotHandedOn.into());
                }
                ask.renew = true;
            } else {
                ask.renew = false;
                if found.holding.is_empty() || Instant::now() > deadline {
                    return Err(CommonKeyError::NotHandedOn.into());
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// The key that this member has a copy of; `None` where the copy is not of the key that
    /// the maker has signed for.
    fn key_of<'a>(
        &self,
        found: &'a CommonKeyResult,
    ) -> Result<Option<(&'a CommonKeyShown, CommonKey)>, CommonKeyError> {
        let (Some(shown), Some(copy)) = (&found.key, &found.copy) else { return Ok(None) };
        let mesh = self.shared.options.identity.mesh.as_str();
        let CommonKeyResult { scope, epoch, .. } = found;
        let proof = CommonKeyProof { mesh, scope, epoch: *epoch, key_hash: &shown.key_hash };
        proof.verify(shown.maker.as_str(), &shown.signature).map_err(|_| CommonKeyError::Forged)?;
        let shared = self.shared.seals.between_members(&copy.sealed_by);
        let key = shared.and_then(|shared| CommonKey::of_copy(&shared, &copy.sealed));
        let key = key.filter(|key| key.hash_hex() == shown.key_hash);
        Ok(key.map(|key| (shown, key)))
    }

    /// A key under which nobody reads but these members: the newest, if so, else another.
    /// Those of them that have no copy get one.
    async fn key_to_write(
        &self,
        scope: Option<String>,
        readers: &Readers,
    ) -> Result<(String, Keys), ClientError> {
        for _ in 0..RACES_MAX {
            let (found, keys) = match self.newest(scope.clone()).await {
                // Nobody has it any more, and nobody can be asked for it.
                Err(ClientError::CommonKey(CommonKeyError::NotHandedOn)) => {
                    let ask = GetCommonKey { scope: scope.clone(), renew: false };
                    let found = self.ask(&ask).await?;
                    if !found.holding.is_empty() {
                        return Err(CommonKeyError::NotHandedOn.into());
                    }
                    let keys = self.shared.common_keys.of(&found.scope);
                    (found, keys)
                }
                read => read?,
            };
            let maker = found.key.as_ref().map(|key| &key.maker);
            let is_good = maker.is_some_and(|maker| readers.members.contains(maker))
                && !found.holding.iter().any(|holder| readers.left_out.contains(holder))
                && !found.stale;
            if is_good && found.copy.is_some() {
                self.share(&scope, &found, &keys, &readers.members).await;
                return Ok((found.scope, keys));
            }
            match self.make(&scope, &found, &keys, readers).await {
                Ok(keys) => return Ok((found.scope, keys)),
                // Somebody else was faster.
                Err(error) if matches!(error.code(), Some("conflict" | "incomplete")) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CommonKeyError::Overtaken.into())
    }

    /// What is not handed on now is handed on later: whoever reads asks for it.
    async fn share(
        &self,
        scope: &Option<String>,
        found: &CommonKeyResult,
        keys: &Keys,
        members: &HashSet<Key>,
    ) {
        let Some(key) = keys.by_epoch.get(&found.epoch) else { return };
        let copies = self.copies(key, found.wanting.iter(), members);
        if !copies.is_empty() {
            let ask = ShareCommonKey { scope: scope.clone(), epoch: found.epoch, copies };
            if let Err(error) = self.ask(&ask).await {
                tracing::debug!(%error, "a key was not handed on");
            }
        }
    }

    async fn make(
        &self,
        scope: &Option<String>,
        found: &CommonKeyResult,
        keys: &Keys,
        readers: &Readers,
    ) -> Result<Keys, ClientError> {
        let (key, epoch) = (CommonKey::generate(), found.epoch + 1);
        let (mesh, key_hash) = (self.shared.options.identity.mesh.as_str(), key.hash_hex());
        let proof = CommonKeyProof { mesh, scope: &found.scope, epoch, key_hash: &key_hash };
        let signature = proof.sign(self.shared.seals.member()).ok_or(CommonKeyError::Forged)?;
        let earlier =
            if keys.by_epoch.is_empty() { None } else { key.with_earlier(&keys.by_epoch) };
        let own = self.member_pubkey();
        let listed = found.wanting.iter().chain(&found.holding).chain([&own]);
        let copies = self.copies(&key, listed, &readers.members);
        let shown = CommonKeyShown { key_hash, maker: own.clone(), signature, earlier };
        let earlier = shown.earlier.clone();
        let leaves_out = readers.left_out.iter().cloned().collect();
        let ask = MakeCommonKey { scope: scope.clone(), epoch, key: shown, copies, leaves_out };
        self.ask(&ask).await?;
        Ok(self.shared.common_keys.take(&found.scope, epoch, &key, earlier.as_deref()))
    }

    /// A copy for each of these that is a member, as far as this client knows.
    fn copies<'a>(
        &self,
        key: &CommonKey,
        readers: impl Iterator<Item = &'a Key>,
        members: &HashSet<Key>,
    ) -> BTreeMap<Key, String> {
        let readers = readers.filter(|reader| members.contains(*reader));
        let copy = |reader: &Key| {
            let shared: Arc<_> = self.shared.seals.between_members(reader)?;
            Some((reader.clone(), key.copy_for(&shared)?))
        };
        readers.filter_map(copy).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_another_scope_is_not_taken_for_the_one_that_was_asked_for() {
        assert!(is_of("mesh", None) && is_of("00ff", Some("#00ff")));
        let wrong = [("00ff", None), ("mesh", Some("#00ff")), ("00fe", Some("#00ff"))];
        for (scope, asked) in wrong.into_iter().chain([("mesh", Some("#mesh")), ("x", Some("x"))]) {
            assert!(!is_of(scope, asked), "{scope} for {asked:?}");
        }
    }
}
