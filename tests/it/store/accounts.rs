//! Accounts, sign-in codes, what accounts own, profiles, invites by a code.

use std::collections::BTreeMap;
use std::slice;

use claudemesh_broker::audit::AuditEvent;
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{self, AccountId, Key, MemberId};
use claudemesh_broker::protocol::Group;
use claudemesh_broker::store::{
    AccountEnrolment, Actor, Admission, Claim, DeviceCodeStatus, Enrolled, Founder, InviteCode,
    JoinRefusal, Joined, Machine, Moderation, NewAccount, NewCliSession, NewDeviceCode, NewInvite,
    Permissions, ProfileEdit, Role, StoreError, Stores,
};
use serde_json::json;

use super::fixture::{Fixture, Peer, T0, at, fresh_key, new_mesh};

async fn account(store: &Stores, key_hash: Option<String>) -> AccountId {
    let id = AccountId::generate();
    let (name, email) = ("Ada".to_owned(), Some("ada@example.org".to_owned()));
    let account = NewAccount { id: id.clone(), name, email, key_hash };
    store.accounts.create(T0, &account).await.expect("a new account");
    id
}

fn session(account: &AccountId) -> NewCliSession {
    let machine = Machine { hostname: Some("laptop".to_owned()), ..Machine::default() };
    NewCliSession {
        id: id::generate(),
        account: account.clone(),
        token_hash: id::generate(),
        machine,
    }
}

fn code() -> NewDeviceCode {
    NewDeviceCode {
        id: id::generate(),
        device_code: id::generate(),
        user_code: id::generate(),
        session_id: id::generate(),
        machine: Machine { hostname: Some("laptop".to_owned()), ..Machine::default() },
        address: "192.0.2.1".to_owned(),
        expires_at: at(300),
    }
}

pub(crate) async fn an_account_is_found_by_its_key_until_it_is_revoked(store: Stores) {
    let hash = id::generate();
    let id = account(&store, Some(hash.clone())).await;
    let found = store.accounts.of_key(&hash).await.expect("readable").expect("it is there");
    assert_eq!((&found.id, found.name.as_str(), found.created_at), (&id, "Ada", T0));
    assert!(store.accounts.of_key("no key").await.expect("readable").is_none());
    let again = NewAccount { id: id.clone(), name: "Eve".to_owned(), email: None, key_hash: None };
    let refusal = store.accounts.create(T0, &again).await.expect_err("the id is taken");
    assert!(matches!(refusal, StoreError::Conflict(_)), "{refusal}");
    assert!(store.accounts.revoke(at(1), &id).await.expect("writable"));
    assert!(!store.accounts.revoke(at(2), &id).await.expect("writable"), "only once");
    assert!(store.accounts.of_key(&hash).await.expect("readable").is_none());
    let all = store.accounts.all().await.expect("readable");
    let listed = all.iter().find(|account| account.id == id).expect("still listed");
    assert_eq!(listed.revoked_at, Some(at(1)));
}

pub(crate) async fn another_programs_account_is_made_once_and_stays_revoked(store: Stores) {
    let id = AccountId::generate();
    let named = |name: &str| {
        let (id, name) = (id.clone(), name.to_owned());
        NewAccount { id, name, email: None, key_hash: None }
    };
    let made = store.accounts.ensure(T0, &named("Ada")).await.expect("writable");
    assert_eq!((made.name.as_str(), made.created_at), ("Ada", T0));
    let again = store.accounts.ensure(at(1), &named("Ada L.")).await.expect("writable");
    assert_eq!((again.name.as_str(), again.created_at), ("Ada L.", T0));
    store.accounts.revoke(at(2), &id).await.expect("writable");
    let revoked = store.accounts.ensure(at(3), &named("Ada")).await.expect("writable");
    assert_eq!(revoked.revoked_at, Some(at(2)));
}

pub(crate) async fn a_token_is_good_until_it_or_its_account_is_revoked(store: Stores) {
    let owner = account(&store, None).await;
    let (first, second) = (session(&owner), session(&owner));
    for session in [&first, &second] {
        store.accounts.open_session(T0, session).await.expect("writable");
    }
    let of = async |now: Timestamp, session: &NewCliSession| {
        let found = store.accounts.of_token(now, &session.token_hash).await.expect("readable");
        found.map(|account| account.id)
    };
    assert_eq!(of(at(1), &first).await, Some(owner.clone()));
    let seen = async || store.accounts.sessions(at(61), &owner, 10).await.expect("readable");
    assert!(seen().await.iter().all(|session| session.last_seen_at == Some(T0)));
    assert_eq!(of(at(61), &first).await, Some(owner.clone()));
    let after = seen().await;
    let used = after.iter().find(|session| session.id == first.id).expect("listed");
    assert_eq!((used.last_seen_at, &used.machine), (Some(at(61)), &first.machine));
    assert!(store.accounts.close_session(at(62), &first.token_hash).await.expect("writable"));
    assert!(!store.accounts.close_session(at(62), &first.token_hash).await.expect("writable"));
    assert_eq!(of(at(63), &first).await, None);
    assert_eq!(of(at(63), &second).await, Some(owner.clone()));
    store.accounts.revoke(at(64), &owner).await.expect("writable");
    assert_eq!(of(at(65), &second).await, None);
    assert!(seen().await.is_empty());
}

pub(crate) async fn a_session_ends_with_its_token_and_lists_are_cut(store: Stores) {
    let owner = account(&store, None).await;
    let (old, first, second) = (session(&owner), session(&owner), session(&owner));
    store.accounts.open_session(T0, &old).await.expect("writable");
    let day = |days: i64| at(days * 24 * 3600);
    store.accounts.open_session(day(29), &first).await.expect("writable");
    let listed = async |now, limit| {
        let sessions = store.accounts.sessions(now, &owner, limit).await.expect("readable");
        sessions.into_iter().map(|session| session.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(day(29), 10).await, [first.id.clone(), old.id.clone()], "newest first");
    assert_eq!(listed(day(29), 1).await, slice::from_ref(&first.id));
    assert_eq!(listed(day(31), 10).await, slice::from_ref(&first.id), "its token has run out");
    store.accounts.open_session(day(31), &second).await.expect("writable");
    let gone = store.accounts.of_token(day(1), &old.token_hash).await.expect("readable");
    assert!(gone.is_none(), "what has run out is forgotten with the next");
    assert_eq!(store.accounts.get(&owner).await.expect("readable").expect("there").id, owner);
    assert!(store.accounts.get(&AccountId::generate()).await.expect("readable").is_none());
}

pub(crate) async fn the_signing_key_is_made_once(store: Stores) {
    let (one, other) =
        tokio::join!(store.accounts.signing_key(T0), store.accounts.signing_key(at(1)));
    let key = one.expect("writable");
    assert_eq!((key.len(), other.expect("writable")), (32, key));
}

pub(crate) async fn a_code_becomes_a_session_once(store: Stores) {
    let (owner, code) = (account(&store, None).await, code());
    store.device_codes.create(T0, &code).await.expect("writable");
    let found = store.device_codes.find(&code.user_code).await.expect("readable").expect("there");
    assert_eq!((&found.id, found.status), (&code.id, DeviceCodeStatus::Pending));
    assert_eq!((&found.machine, found.address), (&code.machine, Some(code.address.clone())));
    let by_session = store.device_codes.find(&code.session_id).await.expect("readable");
    assert_eq!(by_session.expect("there").id, code.id);
    let session = session(&owner);
    let redeem = async || store.device_codes.redeem(at(2), &code.id, &session).await;
    assert!(!redeem().await.expect("writable"), "nobody approved it");
    assert!(store.device_codes.approve(at(1), &code.id, &owner).await.expect("writable"));
    assert!(!store.device_codes.approve(at(1), &code.id, &owner).await.expect("writable"));
    let polled = store.device_codes.polled(&code.device_code).await.expect("readable");
    let polled = polled.expect("there");
    assert_eq!(polled.status, DeviceCodeStatus::Approved);
    assert_eq!(polled.account.expect("approved for it").id, owner);
    assert!(redeem().await.expect("writable"));
    assert!(!redeem().await.expect("writable"), "only once");
    let account = store.accounts.of_token(at(3), &session.token_hash).await.expect("readable");
    assert_eq!(account.expect("signed in").id, owner);
}

pub(crate) async fn a_code_dies_of_time_and_of_wrong_tries(store: Stores) {
    let (owner, late, guessed) = (account(&store, None).await, code(), code());
    for code in [&late, &guessed] {
        store.device_codes.create(T0, code).await.expect("writable");
    }
    assert!(!store.device_codes.approve(at(301), &late.id, &owner).await.expect("writable"));
    let polled = store.device_codes.polled(&late.device_code).await.expect("readable");
    assert_eq!(polled.expect("there").status_at(at(301)), DeviceCodeStatus::Expired);
    for tries in 1..=10 {
        let found = store.device_codes.find(&guessed.user_code).await.expect("readable");
        assert_eq!(found.expect("there").status, DeviceCodeStatus::Pending, "after {tries} - 1");
        store.device_codes.fail(&guessed.id).await.expect("writable");
    }
    assert!(!store.device_codes.approve(at(1), &guessed.id, &owner).await.expect("writable"));
}

/// A mesh that an account made.
async fn founded(store: &Stores, account: &AccountId) -> (Fixture, Key) {
    let owner = Peer { id: MemberId::generate(), key: fresh_key(), name: "owner".to_owned() };
    let member_key = fresh_key();
    let mut mesh = new_mesh(&id::generate(), &owner);
    mesh.founder = Some(Founder {
        account: account.clone(),
        member_key: member_key.clone(),
        owner_secret_key: "ab".repeat(64),
    });
    store.meshes.create(T0, &mesh).await.expect("a new slug");
    (Fixture { store: store.clone(), mesh: mesh.id, owner }, member_key)
}

fn enrolment(here: &Fixture, account: &AccountId, key: &Key) -> AccountEnrolment {
    AccountEnrolment {
        mesh: here.mesh.clone(),
        member: MemberId::generate(),
        account: account.clone(),
        key: key.clone(),
        display_name: "ada".to_owned(),
        role: Role::Member,
    }
}

pub(crate) async fn an_accounts_meshes_are_what_it_owns_and_is_in(store: Stores) {
    let (ada, bob) = (account(&store, None).await, account(&store, None).await);
    let (here, member_key) = founded(&store, &ada).await;
    let there = Fixture::new(store.clone()).await;
    store.profiles.enrol(at(5), &enrolment(&there, &ada, &fresh_key())).await.expect("enrolled");
    let mut meshes = store.ownership.meshes_of(&ada).await.expect("readable");
    meshes.sort_by_key(|found| !found.is_owner);
    let [own, other] = meshes.as_slice() else { panic!("{meshes:?}") };
    assert_eq!((&own.mesh.id, own.is_owner, own.role), (&here.mesh, true, Role::Admin));
    assert_eq!((own.members, own.presences, own.joined_at), (1, 0, Some(T0)));
    assert_eq!((&other.mesh.id, other.is_owner, other.role), (&there.mesh, false, Role::Member));
    assert_eq!((other.members, other.joined_at), (2, Some(at(5))));
    let first = store.members.active(&here.mesh).await.expect("readable");
    assert_eq!((&first[0].key, first[0].is_owner), (&member_key, true));
    let kept = store.meshes.get(&here.mesh).await.expect("readable").expect("there");
    assert_eq!(kept.owner_key, Some(here.owner.key.clone()));
    assert!(kept.owner_secret_key.is_some());
    let owner = &here.owner.id;
    let topics = store.topics.list(&here.mesh, owner, None, 10).await.expect("readable");
    let [general] = topics.as_slice() else { panic!("{topics:?}") };
    assert_eq!((general.name.as_str(), general.members), ("general", 1));
    assert!(store.ownership.meshes_of(&bob).await.expect("readable").is_empty());
    store.meshes.archive(at(6), &here.mesh, None).await.expect("writable");
    assert_eq!(store.ownership.meshes_of(&ada).await.expect("readable").len(), 1);
}

pub(crate) async fn an_accounts_invites_and_memberships_are_its_own_newest_first(store: Stores) {
    let (ada, bob) = (account(&store, None).await, account(&store, None).await);
    let ((here, _), (other, _)) = (founded(&store, &ada).await, founded(&store, &bob).await);
    let mut ids = Vec::new();
    for (fixture, seconds) in [(&here, 1), (&other, 2), (&here, 3)] {
        let created_by = ada.to_string();
        let invite = NewInvite { created_by, ..fixture.invite(1) };
        store.invites.create(at(seconds), &invite).await.expect("a new token");
        ids.push(invite.id);
    }
    let of = async |account: &AccountId, limit, skip| {
        let found = store.invites.of_account(account, limit, skip).await.expect("readable");
        let found = found.into_iter();
        found.map(|found| (found.invite.id, found.mesh, found.is_own)).collect::<Vec<_>>()
    };
    let own = |n: usize| (ids[n].clone(), here.mesh.clone(), true);
    assert_eq!(of(&ada, 10, 0).await, [own(2), own(0)]);
    assert_eq!((of(&ada, 1, 0).await, of(&ada, 1, 1).await), (vec![own(2)], vec![own(0)]));
    assert_eq!(of(&bob, 10, 0).await, [(ids[1].clone(), other.mesh.clone(), false)]);

    store.profiles.enrol(at(5), &enrolment(&other, &ada, &fresh_key())).await.expect("enrolled");
    let memberships = async |limit| {
        let found = store.profiles.memberships(&ada, limit).await.expect("readable");
        found.into_iter().map(|found| (found.mesh, found.revoked_at)).collect::<Vec<_>>()
    };
    let (old, new) = ((here.mesh.clone(), None), (other.mesh.clone(), None));
    assert_eq!(memberships(10).await, [new.clone(), old]);
    assert_eq!(memberships(1).await, [new]);
    let left = store.profiles.of_account(&other.mesh, &ada).await.expect("readable");
    let left = left.expect("a member");
    let leaving = Moderation {
        mesh: other.mesh.clone(),
        member: left.id.clone(),
        actor: Some(left.id.clone()),
        actor_name: Some(left.display_name),
        audit: AuditEvent::MemberLeft { pubkey: left.key },
    };
    assert!(store.bans.ban(at(6), &leaving).await.expect("writable"));
    assert_eq!(memberships(1).await, [(other.mesh.clone(), Some(at(6)))], "ended ones too");
    let rows = other.audit_of("member_left").await;
    assert_eq!((rows.len(), rows[0].actor_name.as_deref()), (1, Some("ada")));
    store.meshes.archive(at(7), &here.mesh, None).await.expect("writable");
    assert!(of(&ada, 10, 0).await.is_empty(), "not of an archived one");
}

pub(crate) async fn a_mesh_is_renamed_unless_the_slug_is_taken(store: Stores) {
    let (here, there) = (Fixture::new(store.clone()).await, Fixture::new(store.clone()).await);
    let slug = id::generate();
    let rename = async |fixture: &Fixture| {
        let by = Actor { id: fixture.owner.id.clone(), name: "owner".to_owned() };
        let event = AuditEvent::MeshRenamed { slug: slug.clone() };
        let audit = Actor::entry(Some(by), &fixture.mesh, event);
        store.ownership.rename(at(1), &audit, &slug).await
    };
    rename(&here).await.expect("free");
    let mesh = store.meshes.get(&here.mesh).await.expect("readable").expect("there");
    assert_eq!((mesh.slug.as_str(), mesh.name.as_str()), (slug.as_str(), slug.as_str()));
    let refusal = rename(&there).await.expect_err("taken");
    assert!(matches!(refusal, StoreError::Conflict(_)), "{refusal}");
    assert!(there.audit_of("mesh_renamed").await.is_empty(), "nothing was done");
    rename(&here).await.expect("its own");
    store.meshes.archive(T0, &here.mesh, None).await.expect("writable");
    rename(&there).await.expect("an archived mesh's is free");
    let rows = here.audit_of("mesh_renamed").await;
    assert_eq!((rows.len(), &rows[0].payload["slug"]), (2, &json!(slug)));
    assert_eq!(rows[0].actor_name.as_deref(), Some("owner"));
    let rows = here.audit_of("mesh_archived").await;
    assert_eq!((rows.len(), &rows[0].payload), (1, &json!({})));
}

pub(crate) async fn an_accounts_key_is_enrolled_once_and_nobody_elses_is_taken(store: Stores) {
    let (ada, bob) = (account(&store, None).await, account(&store, None).await);
    let here = Fixture::new(store.clone()).await;
    let stranger = here.member("carol").await;
    let enrol = async |account: &AccountId, key: &Key| {
        store.profiles.enrol(at(1), &enrolment(&here, account, key)).await.expect("writable")
    };
    let key = fresh_key();
    let Enrolled::New(member) = enrol(&ada, &key).await else { panic!("it is new") };
    assert_eq!(enrol(&ada, &key).await, Enrolled::Already(member.clone(), Role::Member));
    assert_eq!(enrol(&bob, &key).await, Enrolled::Refused, "it is another account's");
    // A key is not proven here: naming it makes nobody the member.
    let known = enrol(&bob, &stranger.key).await;
    assert_eq!(known, Enrolled::Already(stranger.id.clone(), Role::Member));
    assert!(!store.profiles.is_of_account(&stranger.id, &bob).await.expect("readable"));
    assert!(store.profiles.is_of_account(&member, &ada).await.expect("readable"));
    let own = store.profiles.of_account(&here.mesh, &ada).await.expect("readable");
    assert_eq!(own.expect("a member").id, member);
    assert!(store.profiles.of_account(&here.mesh, &bob).await.expect("readable").is_none());
    assert_eq!(here.audit_of("member_joined").await.len(), 2, "carol and ada");
}

pub(crate) async fn a_profile_changes_only_what_is_named_and_says_so_without_values(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let ada = here.member("ada").await;
    let nothing = ProfileEdit {
        mesh: here.mesh.clone(),
        member: ada.id.clone(),
        key: ada.key.clone(),
        actor: here.owner.id.clone(),
        actor_name: "owner".to_owned(),
        display_name: None,
        role_tag: None,
        groups: None,
        message_mode: None,
        role: None,
    };
    let read = async || {
        let members = store.members.active(&here.mesh).await.expect("readable");
        members.into_iter().find(|member| member.id == ada.id).expect("a member")
    };
    let edit = ProfileEdit {
        display_name: Some("Ada L.".to_owned()),
        role_tag: Some(Some("lead".to_owned())),
        groups: Some(vec![Group { name: "team".to_owned(), role: None }]),
        ..nothing.clone()
    };
    store.profiles.edit(at(1), &edit).await.expect("writable");
    let member = read().await;
    assert_eq!(
        (member.display_name.as_str(), member.role_tag.as_deref()),
        ("Ada L.", Some("lead"))
    );
    assert_eq!((member.default_groups.len(), member.message_mode.as_str()), (1, "push"));
    let edit = ProfileEdit {
        role_tag: Some(None),
        message_mode: Some("inbox".to_owned()),
        role: Some(Role::Admin),
        ..nothing.clone()
    };
    store.profiles.edit(at(2), &edit).await.expect("writable");
    let member = read().await;
    assert_eq!((member.display_name.as_str(), member.role_tag), ("Ada L.", None));
    assert_eq!((member.message_mode.as_str(), member.role), ("inbox", Role::Admin));
    let rows = here.audit_of("member_profile_changed").await;
    let fields: Vec<_> = rows.iter().map(|row| row.payload["fields"].clone()).collect();
    let first = json!(["displayName", "roleTag", "groups"]);
    assert_eq!(fields, [first, json!(["roleTag", "messageMode"])]);
    assert!(!format!("{rows:?}").contains("lead"), "no values");
    assert_eq!(rows[0].actor_name.as_deref(), Some("owner"));
    assert_eq!(here.audit_of("member_role_changed").await.len(), 1);
    let gone = ProfileEdit { member: MemberId::generate(), role: Some(Role::Admin), ..nothing };
    let refusal = store.profiles.edit(at(3), &gone).await.expect_err("nobody");
    assert!(matches!(refusal, StoreError::NotFound(_)), "{refusal}");
    assert_eq!(here.audit_of("member_role_changed").await.len(), 1);
}

pub(crate) async fn grants_are_merged(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob, carol) = (here.member("ada").await, fresh_key(), fresh_key());
    let dm = || Some(vec!["dm".to_owned()]);
    let entries = BTreeMap::from([(bob.to_string(), dm()), (carol.to_string(), dm())]);
    let grants = store.profiles.merge_grants(&ada.id, &entries).await.expect("writable");
    assert_eq!(grants.len(), 2);
    let entries = BTreeMap::from([(bob.to_string(), None), (carol.to_string(), Some(vec![]))]);
    let grants = store.profiles.merge_grants(&ada.id, &entries).await.expect("writable");
    assert_eq!((grants.len(), grants[carol.as_str()].len()), (1, 0));
    let nobody = store.profiles.merge_grants(&MemberId::generate(), &entries).await;
    assert!(matches!(nobody, Err(StoreError::NotFound(_))));
}

pub(crate) async fn permissions_are_kept_for_each_member(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let ada = here.member("ada").await;
    assert!(store.ownership.permissions(&here.mesh).await.expect("readable").is_empty());
    for can_invite in [true, false] {
        let said = Permissions { can_invite, ..Permissions::of(Role::Member, false) };
        let fields = vec!["canInvite".to_owned()];
        let target_pubkey = ada.key.clone();
        let event = AuditEvent::MemberPermissionsChanged { target_pubkey, fields };
        let audit = Actor::entry(None, &here.mesh, event);
        let set = store.ownership.set_permissions(at(1), &audit, &ada.id, &said).await;
        set.expect("writable");
        let kept = store.ownership.permissions(&here.mesh).await.expect("readable");
        assert_eq!(kept, [(ada.id.clone(), said)]);
    }
    let rows = here.audit_of("member_permissions_changed").await;
    assert_eq!((rows.len(), &rows[0].payload["fields"]), (2, &json!(["canInvite"])));
    let event = AuditEvent::MeshPolicyChanged { self_editable: vec!["groups".to_owned()] };
    let audit = Actor::entry(None, &here.mesh, event);
    let policy = json!({ "groups": true });
    store.ownership.set_self_editable(at(2), &audit, &policy).await.expect("writable");
    let mesh = store.meshes.get(&here.mesh).await.expect("readable").expect("there");
    assert_eq!(mesh.self_editable, policy);
    assert_eq!(here.audit_of("mesh_policy_changed").await.len(), 1);
}

/// An invite with a code.
async fn coded(here: &Fixture, max_uses: i32) -> (NewInvite, String) {
    let code = id::generate();
    let signed =
        InviteCode { code: code.clone(), canonical: "v=2".to_owned(), capability: "{}".to_owned() };
    let invite = NewInvite { code: Some(signed), ..here.invite(max_uses) };
    here.store.invites.create(T0, &invite).await.expect("a new code");
    (invite, code)
}

pub(crate) async fn an_invite_is_found_by_its_code_and_its_token(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (invite, code) = coded(&here, 1).await;
    for name in [&code, &invite.token] {
        let found = store.invites.find(name).await.expect("readable").expect("there");
        assert_eq!((&found.invite.id, &found.mesh.id), (&invite.id, &here.mesh));
        assert_eq!((found.inviter.as_deref(), found.members), (Some("owner"), 1));
        assert_eq!(found.capability.as_deref(), Some("{}"));
        assert_eq!(found.trouble(at(1)), None);
        assert_eq!(found.trouble(at(3601)), Some(JoinRefusal::Expired));
    }
    assert!(store.invites.find("unknown").await.expect("readable").is_none());
    here.member_by(&invite).await;
    let used = store.invites.find(&code).await.expect("readable").expect("there");
    assert_eq!(used.trouble(at(1)), Some(JoinRefusal::Exhausted));
    store.meshes.archive(T0, &here.mesh, None).await.expect("writable");
    let archived = store.invites.find(&code).await.expect("readable").expect("there");
    assert_eq!(archived.trouble(at(1)), Some(JoinRefusal::MeshNotFound));
}

impl Fixture {
    async fn member_by(&self, invite: &NewInvite) {
        let join = self.join(&invite.token, &fresh_key(), "ada");
        let joined = self.store.invites.join(at(1), &join).await.expect("writable");
        assert!(matches!(joined, Joined::New(_)), "{joined:?}");
    }
}

pub(crate) async fn a_claimed_place_is_nobodys_until_its_first_key(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (invite, _) = coded(&here, 2).await;
    let claim = || {
        let join = here.join(&invite.token, &Key::from(""), "guest");
        Claim { join, until: at(600) }
    };
    let (first, late, third) = (claim(), claim(), claim());
    for claim in [&first, &late] {
        let claimed = store.invites.claim(at(1), claim).await.expect("writable");
        assert_eq!(claimed, Joined::New(claim.join.member.clone()));
    }
    let exhausted = store.invites.claim(at(1), &third).await.expect("writable");
    assert_eq!(exhausted, Joined::Refused(JoinRefusal::Exhausted));
    assert_eq!(store.members.active(&here.mesh).await.expect("readable").len(), 1, "unlisted");
    assert!(here.audit_of("member_joined").await.is_empty());
    let (member, key) = (&first.join.member, fresh_key());
    let bind = async |now, member: &MemberId, key: &Key| {
        store.invites.bind(now, &here.mesh, member, key).await.expect("writable")
    };
    assert!(store.invites.is_claimed(at(2), &here.mesh, member).await.expect("readable"));
    assert!(!bind(at(2), member, &here.owner.key).await, "that key is a member already");
    assert!(bind(at(2), member, &key).await);
    assert!(!bind(at(2), member, &fresh_key()).await, "once");
    let admitted = store.members.admit(&here.mesh, key.as_str(), member.as_str()).await;
    assert!(matches!(admitted.expect("readable"), Admission::Member(_)));
    assert_eq!(here.audit_of("member_joined").await.len(), 1);
    let member = &late.join.member;
    assert!(!store.invites.is_claimed(at(601), &here.mesh, member).await.expect("readable"));
    assert!(!bind(at(601), member, &fresh_key()).await, "its time is over");
}

pub(crate) async fn who_only_names_an_account_changes_nothing_about_it(store: Stores) {
    let id = account(&store, None).await;
    let unnamed = NewAccount { id: id.clone(), name: id.to_string(), email: None, key_hash: None };
    let found = store.accounts.ensure(at(1), &unnamed).await.expect("writable");
    let email = Some("ada@example.org");
    assert_eq!((found.name.as_str(), found.email.as_deref()), ("Ada", email));
    let renamed = NewAccount { name: "Ada L".to_owned(), ..unnamed };
    let found = store.accounts.ensure(at(2), &renamed).await.expect("writable");
    assert_eq!((found.name.as_str(), found.email.as_deref()), ("Ada L", email));
}
