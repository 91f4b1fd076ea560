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
        let judged = self.known().judge(members.to_vec(), false);
        judged.into_iter().map(|it| (it.trust, it.why.unwrap_or_default())).collect()
    }

    fn words(&self, members: &[MemberListed]) -> Vec<&'static str> {
        self.judge(members).iter().map(|(trust, _)| trust.as_str()).collect()
    }
}

#[test]
fn a_file_that_cannot_be_read_lets_no_key_pass_for_a_new_one() {
    let view = View::new();
    let key = SecretKey::generate().public_key();
    assert_eq!(view.words(&[listed("a", "ada", &key)]), ["unverified"]);
    let path = view.known().path.clone();
    std::fs::write(&path, "{ cut off").expect("writable");
    let other = SecretKey::generate().public_key();
    let judged = view.known().judge(vec![listed("a", "ada", &other)], false);
    assert!(!judged[0].is_sealed_for(), "{judged:?}");
    let why = judged[0].why.as_deref().unwrap_or_default();
    assert!(why.contains("restore") && why.contains("known_keys"), "{why}");
    assert!(!view.known().holds(&other));
    assert!(view.known().forget("ada").is_err(), "nor is it written over");
    assert_eq!(std::fs::read(&path).expect("there"), b"{ cut off");
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
    let swapped = MemberListed { member_id: "a".into(), ..joined(&view.link(MESH, 1), "a", "ada") };
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
fn where_all_must_be_certified_no_other_is_sealed_for_whatever_the_broker_says_later() {
    let view = View::new();
    let (ada, bare) = (joined(&view.link(MESH, 1), "a", "ada"), listed("b", "bare", &fresh()));
    let members = [ada, bare.clone(), listed("o", "owner", &view.owner.public_key())];
    for required in [true, false] {
        let judged = view.known().judge(members.to_vec(), required);
        let sealed_for: Vec<bool> = judged.iter().map(Judged::is_sealed_for).collect();
        assert_eq!(sealed_for, [true, false, true]);
        let why = judged[1].why.as_deref().expect("a reason");
        assert!(why.contains("only who is certified") && why.contains("--accept"), "{why}");
    }
    assert!(!view.known().holds(&bare.pubkey));
    view.known().accept(&bare).expect("written");
    let judged = view.known().judge(vec![bare.clone()], true);
    assert!(judged[0].is_sealed_for() && view.known().holds(&bare.pubkey));
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
    assert_eq!(known.read().expect("readable").members.len(), MEMBERS_MAX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&known.path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
