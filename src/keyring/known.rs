//! The keys that a mesh's members had when they were met, and whether the mesh's owner let
//! them in: what this user knows, whatever the broker says of it today.
//!
//! One file for each mesh on each broker, beside the contacts, for this user alone. A key
//! that is another than the one that is known is told and not taken, until this user takes
//! it. Nothing here asks the broker.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::contacts;
use super::recipient::short;
use crate::auth::{Certificate, Grant};
use crate::client::{Judged, KnownKeys, Trust};
use crate::id::{Key, MemberId};
use crate::keyring::Kept;
use crate::output;
use crate::private;
use crate::protocol::MemberListed;

/// Members that are kept of one mesh. More: those beyond stay unverified.
const MEMBERS_MAX: usize = 10_000;

/// A member as it was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Met {
    key: Key,
    name: String,
    /// What the owner let it in as, by which invite; of others, nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certified: Option<Certified>,
    /// This user has taken the key on purpose.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    accepted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Certified {
    invite: String,
    role: String,
}

/// Members of one mesh, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Book {
    members: BTreeMap<MemberId, Met>,
}

/// What one of this user's peers knows of its mesh.
#[derive(Debug)]
pub(crate) struct Known {
    path: PathBuf,
    mesh: String,
    owner: Option<Key>,
    /// The file is read and written by one at a time.
    turn: Mutex<()>,
}

impl Known {
    pub(crate) fn of(data_dir: &Path, kept: &Kept) -> Arc<Self> {
        Arc::new(Self {
            path: contacts::file(data_dir, kept, "known_keys"),
            mesh: kept.file.mesh_id.to_string(),
            owner: kept.file.owner_pubkey.clone(),
            turn: Mutex::default(),
        })
    }

    /// Takes the key that a member has now, whatever it had.
    pub(crate) fn accept(&self, member: &MemberListed) -> anyhow::Result<()> {
        self.change(|book| {
            let (certified, _) = self.certified(book, member);
            let (key, name) = (member.pubkey.clone(), member.name.clone());
            let met = Met { key, name, certified, accepted: true };
            book.members.insert(member.member_id.clone(), met);
        })
    }

    /// Forgets who was met under a name.
    pub(crate) fn forget(&self, name: &str) -> anyhow::Result<()> {
        let name = name.to_lowercase();
        self.change(|book| book.members.retain(|_, met| met.name.to_lowercase() != name))
    }

    fn read(&self) -> Book {
        let bytes = std::fs::read(&self.path).ok();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Book) -> T) -> anyhow::Result<T> {
        let _turn = self.turn.lock();
        let before = self.read();
        let mut book = before.clone();
        let changed = change(&mut book);
        if book != before {
            private::write(&self.path, &serde_json::to_vec_pretty(&book)?)?;
        }
        Ok(changed)
    }

    fn judged(&self, book: &mut Book, members: Vec<MemberListed>) -> Vec<Judged> {
        let listed: HashMap<MemberId, String> = members
            .iter()
            .map(|member| (member.member_id.clone(), member.name.to_lowercase()))
            .collect();
        let named = book.named();
        members
            .into_iter()
            .map(|member| {
                let (trust, why) = match changed(book, &named, &member, &listed) {
                    Some(why) => (Trust::Changed, Some(why)),
                    None => self.met(book, &member),
                };
                Judged { member, trust, why }
            })
            .collect()
    }

    /// Notes a member whose key is new, or is the one that is known.
    fn met(&self, book: &mut Book, member: &MemberListed) -> (Trust, Option<String>) {
        let id = &member.member_id;
        let (certified, why) = match book.members.get(id).and_then(|met| met.certified.clone()) {
            Some(certified) => (Some(certified), None),
            None => self.certified(book, member),
        };
        if !book.members.contains_key(id) {
            if book.members.len() >= MEMBERS_MAX {
                let why = "more members are known than are kept, so it is not noted".to_owned();
                return (Trust::Unverified, Some(why));
            }
            let (key, name) = (member.pubkey.clone(), member.name.clone());
            let met = Met { key, name, certified: None, accepted: false };
            book.members.insert(id.clone(), met);
        }
        let Some(met) = book.members.get_mut(id) else { return (Trust::Unverified, why) };
        met.certified = certified;
        let is_owner = self.owner.as_ref() == Some(&member.pubkey);
        let role = met.certified.as_ref().map(|certified| &*certified.role);
        let odd = if met.name == member.name {
            role.filter(|role| *role != member.role).map(|role| {
                format!("it was let in as {role}, and the broker calls it {}", member.role)
            })
        } else {
            Some(format!("it was met as {}", output::printable(&met.name)))
        };
        if is_owner || met.certified.is_some() {
            (Trust::Verified, odd)
        } else if met.accepted {
            (Trust::Verified, odd.or_else(|| Some("you have taken its key".to_owned())))
        } else {
            (
                Trust::Unverified,
                odd.into_iter().chain(why).reduce(|odd, why| format!("{odd}; {why}")),
            )
        }
    }

    /// What the owner let the member in as, or why that is not known.
    fn certified(&self, book: &Book, member: &MemberListed) -> (Option<Certified>, Option<String>) {
        let Some(owner) = &self.owner else {
            let why = "this peer does not know the mesh's owner, since an earlier release joined \
                       for it";
            return (None, Some(why.to_owned()));
        };
        if *owner == member.pubkey {
            return (None, None);
        }
        let Some(text) = &member.certificate else {
            return (None, Some("it has no certificate".to_owned()));
        };
        let read = Certificate::read(text).and_then(|certificate| {
            certificate.verify(&self.mesh, owner.as_str(), member.pubkey.as_str())?;
            Ok(certificate.grant)
        });
        match read {
            Ok(grant) if !book.has_room(&grant, &member.member_id) => {
                let why = format!(
                    "its invite was for {}, and more have come by it",
                    output::count(grant.max_uses, "member")
                );
                (None, Some(why))
            }
            Ok(Grant { invite, role, .. }) => (Some(Certified { invite, role }), None),
            Err(error) => (None, Some(error.to_string())),
        }
    }
}

impl Book {
    /// Who is known by which name.
    fn named(&self) -> HashMap<String, Vec<MemberId>> {
        let mut named: HashMap<String, Vec<MemberId>> = HashMap::new();
        for (id, met) in &self.members {
            named.entry(met.name.to_lowercase()).or_default().push(id.clone());
        }
        named
    }

    /// Whether the invite lets that member in beside those who are known to have come by it.
    fn has_room(&self, grant: &Grant, member: &MemberId) -> bool {
        let came = |(id, met): &(&MemberId, &Met)| {
            *id != member
                && met.certified.as_ref().is_some_and(|certified| certified.invite == grant.invite)
        };
        let came = self.members.iter().filter(came).count();
        i32::try_from(came).is_ok_and(|came| came < grant.max_uses)
    }
}

/// Why a member's key is not the one that is known; `None` if it is, or none is known.
fn changed(
    book: &Book,
    named: &HashMap<String, Vec<MemberId>>,
    member: &MemberListed,
    listed: &HashMap<MemberId, String>,
) -> Option<String> {
    let (now, name) = (member.pubkey.as_str(), member.name.to_lowercase());
    let own = book.members.get(&member.member_id);
    let what = match own {
        Some(met) if met.key != member.pubkey => {
            let then = short(met.key.as_str());
            format!("it has another key than when it was met ({} now, {then} then)", short(now))
        }
        Some(met) if met.accepted || met.name.to_lowercase() == name => return None,
        _ => {
            // Two of a name are two members; one that takes the name of another is told.
            let known = named.get(&name)?.iter();
            let taken = known
                .filter(|id| listed.get(*id) != Some(&name))
                .filter_map(|id| book.members.get(id))
                .find(|met| met.key != member.pubkey);
            let then = short(taken?.key.as_str());
            format!(
                "its name was another member's, with another key ({} now, {then} then)",
                short(now)
            )
        }
    };
    let word = output::shell_word(&member.name);
    Some(format!(
        "{what}; compare the number of `claudemesh-broker peer verify {word}` with them by another \
         way, and if it is the same for both, take the key: claudemesh-broker peer verify {word} \
         --accept"
    ))
}

impl KnownKeys for Known {
    fn judge(&self, members: Vec<MemberListed>) -> Vec<Judged> {
        let given = members.clone();
        self.change(|book| self.judged(book, members)).unwrap_or_else(|error| {
            // What cannot be noted can be judged by what was known before.
            tracing::warn!(error = format!("{error:#}"), "the keys that were met are not noted");
            self.judged(&mut self.read(), given)
        })
    }

    fn holds(&self, key: &Key) -> bool {
        let _turn = self.turn.lock();
        self.read().members.values().any(|met| met.key == *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{InviteLink, InvitePayload, SecretKey, link_to};

    const MESH: &str = "m";

    /// An owner, and a member's view of its mesh.
    struct View {
        folder: tempfile::TempDir,
        owner: SecretKey,
    }

    impl View {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            Self { folder, owner: SecretKey::generate() }
        }

        /// Read anew, as another command does.
        fn known(&self) -> Arc<Known> {
            let mut kept = contacts::tests::kept(self.folder.path(), MESH, "ws://a/ws");
            kept.file.owner_pubkey = Some(self.owner.public_key());
            Known::of(self.folder.path(), &kept)
        }

        fn link(&self, mesh: &str, max_uses: i32) -> InviteLink {
            let mut payload = InvitePayload {
                v: 1,
                mesh_id: mesh.to_owned(),
                mesh_slug: "team".to_owned(),
                broker_url: "ws://a/ws".to_owned(),
                expires_at: 0,
                mesh_root_key: "cm9vdA".to_owned(),
                role: "member".to_owned(),
                owner_pubkey: String::new(),
                certifying: None,
                signature: String::new(),
            };
            let secret = payload.certify(&crate::id::generate(), max_uses);
            let token = payload.sign(&self.owner).to_token();
            InviteLink::read(&link_to(&token, Some(&secret))).expect("a link")
        }

        fn judge(&self, members: &[MemberListed]) -> Vec<(Trust, String)> {
            let judged = self.known().judge(members.to_vec());
            judged.into_iter().map(|it| (it.trust, it.why.unwrap_or_default())).collect()
        }

        fn words(&self, members: &[MemberListed]) -> Vec<&'static str> {
            self.judge(members).iter().map(|(trust, _)| trust.as_str()).collect()
        }
    }

    fn listed(id: &str, name: &str, key: &Key) -> MemberListed {
        MemberListed {
            member_id: id.into(),
            pubkey: key.clone(),
            name: name.to_owned(),
            role: "member".into(),
            sealed: true,
            online: true,
            certificate: None,
        }
    }

    /// A member that has joined by the link.
    fn joined(link: &InviteLink, id: &str, name: &str) -> MemberListed {
        let key = SecretKey::generate().public_key();
        let word = link.vouch(&key).expect("it certifies");
        let certificate = link.payload.certificate(&word).map(|it| it.to_text());
        MemberListed { certificate, ..listed(id, name, &key) }
    }

    fn fresh() -> Key {
        SecretKey::generate().public_key()
    }

    #[test]
    fn a_member_is_what_its_certificate_says_and_the_owner_needs_none() {
        let view = View::new();
        let link = view.link(MESH, 2);
        let owner = listed("o", "owner", &view.owner.public_key());
        let ada = joined(&link, "a", "ada");
        let bare = listed("b", "bare", &fresh());
        let elsewhere = joined(&view.link("other", 1), "c", "carol");
        let stranger = View::new();
        let forged = joined(&stranger.link(MESH, 1), "d", "dan");
        let borrowed = MemberListed { pubkey: fresh(), member_id: "e".into(), ..ada.clone() };
        let borrowed = MemberListed { name: "eve".to_owned(), ..borrowed };
        let judged = view.judge(&[owner, ada, bare, elsewhere, forged, borrowed]);
        for ((trust, why), (expected, reason)) in judged.iter().zip([
            (Trust::Verified, ""),
            (Trust::Verified, ""),
            (Trust::Unverified, "no certificate"),
            (Trust::Unverified, "of another mesh"),
            (Trust::Unverified, "by another owner"),
            (Trust::Unverified, "for another key"),
        ]) {
            assert_eq!(*trust, expected, "{why}");
            assert!(why.contains(reason), "{why}");
        }
    }

    #[test]
    fn another_key_is_told_until_it_is_taken() {
        let view = View::new();
        let ada = joined(&view.link(MESH, 1), "a", "ada");
        assert_eq!(view.words(std::slice::from_ref(&ada)), ["verified"]);
        // Also where its own certificate is good: an owner may have let a spy in.
        let swapped =
            MemberListed { member_id: "a".into(), ..joined(&view.link(MESH, 1), "a", "ada") };
        for _ in 0..2 {
            let (trust, why) = view.judge(std::slice::from_ref(&swapped)).remove(0);
            assert_eq!(trust, Trust::Changed);
            assert!(why.contains("peer verify ada --accept"), "{why}");
        }
        assert!(view.known().holds(&ada.pubkey) && !view.known().holds(&swapped.pubkey));
        view.known().accept(&swapped).expect("written");
        assert_eq!(view.words(std::slice::from_ref(&swapped)), ["verified"]);
        assert_eq!(view.words(&[ada]), ["changed"], "the old one is another now");
    }

    #[test]
    fn whoever_takes_a_name_is_told_and_two_of_a_name_are_two() {
        let view = View::new();
        let ada = listed("a", "ada", &fresh());
        let twin = listed("t", "Ada", &fresh());
        let other = listed("o", "other", &fresh());
        let unverified = ["unverified"; 3];
        assert_eq!(view.words(&[ada.clone(), twin.clone(), other.clone()]), unverified);
        let usurper = listed("u", "ADA", &fresh());
        assert_eq!(view.words(&[twin, usurper.clone()]), ["unverified", "changed"]);
        view.known().forget("ada").expect("written");
        assert_eq!(view.words(&[usurper]), ["unverified"], "nobody is known by that name");
        let view = View::new();
        view.words(&[ada.clone(), other.clone()]);
        let swapped = [listed("a", "other", &ada.pubkey), listed("o", "ada", &other.pubkey)];
        let judged = view.judge(&swapped);
        assert!(judged.iter().all(|(trust, _)| *trust == Trust::Changed), "{judged:?}");
        let renamed = listed("a", "lovelace", &ada.pubkey);
        let (trust, why) = view.judge(&[renamed]).remove(0);
        assert_eq!(trust, Trust::Unverified);
        assert!(why.contains("it was met as ada"), "{why}");
    }

    #[test]
    fn an_invite_certifies_as_many_as_its_owner_meant() {
        let view = View::new();
        let link = view.link(MESH, 2);
        let members = ["a", "b", "c"].map(|id| joined(&link, id, id));
        let judged = view.judge(&members);
        assert_eq!(view.words(&members), ["verified", "verified", "unverified"]);
        assert!(judged[2].1.contains("for 2 members"), "{judged:?}");
    }

    #[test]
    fn another_role_than_the_owner_gave_is_told() {
        let view = View::new();
        let ada = joined(&view.link(MESH, 1), "a", "ada");
        let raised = MemberListed { role: "admin".into(), ..ada };
        let (trust, why) = view.judge(&[raised]).remove(0);
        assert_eq!(trust, Trust::Verified);
        assert!(why.contains("let in as member, and the broker calls it admin"), "{why}");
    }

    #[test]
    fn a_certificate_that_is_withheld_later_was_seen_all_the_same() {
        let view = View::new();
        let ada = joined(&view.link(MESH, 1), "a", "ada");
        view.words(std::slice::from_ref(&ada));
        let bare = MemberListed { certificate: None, ..ada };
        assert_eq!(view.words(&[bare]), ["verified"]);
    }

    #[test]
    fn the_file_is_this_users_alone_and_bounded() {
        let view = View::new();
        let key = fresh();
        let many: Vec<MemberListed> =
            (0..=MEMBERS_MAX).map(|at| listed(&at.to_string(), &at.to_string(), &key)).collect();
        let (trust, why) = view.judge(&many).pop().expect("the last");
        assert_eq!(trust, Trust::Unverified);
        assert!(why.contains("not noted"), "{why}");
        let known = view.known();
        assert_eq!(known.read().members.len(), MEMBERS_MAX);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&known.path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
