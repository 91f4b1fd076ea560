//! Each way in which a hello is refused, in the order in which the checks stand: what a
//! check does not need, it does not ask for. With fakes behind it.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::json;

use super::super::*;
use crate::admission::teardown::teardown;
use crate::auth::{SecretKey, sign_attestation, sign_hello, sign_session_hello};
use crate::cluster::{Acquired, BusMessage, ClusterError, Drawn, LeaseRef, Release};
use crate::config::Config;
use crate::presence::fakes::{Fakes, Told};
use crate::protocol::handshake::Attestation;
use crate::record::PresenceRecord;
use crate::store::testing::{admission, member, mesh, unavailable};
use crate::store::{Member, MockInvites};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn parts(fakes: Fakes) -> Arc<Parts> {
    // Nobody has claimed an invite without a key.
    let mut invites = MockInvites::new();
    invites.expect_is_claimed().returning(|_, _, _| Ok(false));
    let presence = fakes.parts();
    Arc::new(Parts {
        node: Config::for_tests(Path::new("/nowhere")).node,
        claim_ms: 60_000,
        members: Arc::clone(&presence.members),
        invites: Arc::new(invites),
        mail: Arc::clone(&presence.delivery.mail),
        topics: Arc::clone(&presence.delivery.topics),
        presences: Arc::clone(&presence.presences),
        confirmations: Arc::default(),
        rates: Arc::clone(&presence.delivery.rates),
        marks: None,
        presence,
    })
}

struct Peer {
    key: SecretKey,
    member: Member,
}

impl Peer {
    fn new() -> Self {
        let key = SecretKey::generate();
        let member = Member { key: key.public_key(), ..member("ada") };
        Self { key, member }
    }

    fn hello(&self) -> Hello {
        let now = Timestamp::now();
        Hello {
            mesh_id: mesh().to_string(),
            member_id: self.member.id.to_string(),
            pubkey: self.member.key.to_string(),
            about: About { session_id: "s".to_owned(), ..About::default() },
            timestamp: now.as_ms() as f64,
            signature: sign_hello(&self.key, &mesh(), &self.member.id, now),
            ..Hello::default()
        }
    }

    fn session_hello(&self) -> SessionHello {
        let (session, now) = (SecretKey::generate(), Timestamp::now());
        let (session_pubkey, expires_at) = (session.public_key(), now.plus_ms(60_000));
        let attestation = Attestation {
            session_pubkey: session_pubkey.to_string(),
            parent_member_pubkey: self.member.key.to_string(),
            expires_at: expires_at.as_ms() as f64,
            signature: sign_attestation(&self.key, &session_pubkey, expires_at),
        };
        SessionHello {
            mesh_id: mesh().to_string(),
            parent_member_id: self.member.id.to_string(),
            parent_member_pubkey: self.member.key.to_string(),
            session_pubkey: session_pubkey.to_string(),
            parent_attestation: Some(attestation),
            about: About::default(),
            timestamp: now.as_ms() as f64,
            signature: sign_session_hello(&session, &mesh(), &self.member.key, now),
        }
    }

    fn admitted(&self) -> Admission {
        admission(self.member.clone())
    }

    /// It is admitted by a hello that nobody used before.
    fn is_admitted(&self, fakes: &mut Fakes) {
        let admitted = self.admitted();
        fakes.stores.members.expect_admit().times(1).return_once(move |_, _, _| Ok(admitted));
        fakes.cluster.expect_use_once().times(1).return_once(|_, _| Ok(true));
    }

    /// And there is a place in its mesh for it.
    fn has_a_place(&self, fakes: &mut Fakes) {
        self.is_admitted(fakes);
        fakes.has(vec![self.member.clone()], Vec::new());
        fakes
            .cluster
            .expect_take_tokens()
            .returning(|_, draws| Ok(Drawn::all_for_tests(draws, true)));
        fakes.cluster.expect_take_pending_status().returning(|_, _| Ok(None));
        fakes.cluster.expect_acquire().times(1).return_once(|record, _| {
            let (mesh, presence) = (record.mesh.clone(), record.id.clone());
            Ok(Acquired::New { lease: LeaseRef { mesh, presence, epoch: 1 }, yielded: Vec::new() })
        });
    }
}

fn gives_its_place_back(fakes: &mut Fakes) {
    let now = |_: &LeaseRef, how: &Release| matches!(how, Release::Now);
    fakes.cluster.expect_release().withf(now).times(1).return_once(|_, _| Ok(true));
}

fn has_no_mail(fakes: &mut Fakes) {
    fakes.stores.mail.expect_claim().returning(|_, _| Ok(Vec::new()));
    fakes.stores.mail.expect_multicasts_after().returning(|_, _, _| Ok(Vec::new()));
    fakes.stores.mail.expect_confirm().returning(|_, _| Ok(()));
}

fn away<T>() -> crate::store::Result<T> {
    Err(unavailable())
}

fn apart<T>() -> crate::cluster::Result<T> {
    Err(ClusterError::Unavailable("apart".to_owned()))
}

async fn refused(fakes: Fakes, said: Hello) -> Refusal {
    let answer = hello(&parts(fakes), Codec::Json, &Outbox::new(), CLIENT, said).await;
    *answer.err().expect("it is refused")
}

async fn refused_session(fakes: Fakes, said: SessionHello) -> Refusal {
    let answer = session_hello(&parts(fakes), Codec::Json, &Outbox::new(), CLIENT, said).await;
    *answer.err().expect("it is refused")
}

fn is_unavailable(refusal: &Refusal) {
    assert_eq!(refusal.error.code, "unavailable");
    assert_eq!(refusal.error.retry_after_ms, Some(2_000));
    assert_eq!(refusal.close, CloseReason::TRY_AGAIN_LATER);
}

/// What makes a hello wrong, and the code with which it is refused then.
type Wrong<H> = (fn(&mut H), &'static str);

// --- proofs ------------------------------------------------------------------------------

#[tokio::test]
async fn of_all_that_is_wrong_with_a_hello_the_first_is_told_and_nobody_is_asked() {
    let wrongs: [Wrong<Hello>; 4] = [
        (|hello| hello.session_pubkey = Some(json!("x")), "bad_session_pubkey"),
        (|hello| hello.timestamp = 0.0, "timestamp_skew"),
        (|hello| hello.pubkey = "x".to_owned(), "malformed"),
        (|hello| hello.mesh_id = "other".to_owned(), "bad_signature"),
    ];
    for first in 0..wrongs.len() {
        let mut hello = Peer::new().hello();
        wrongs[first..].iter().for_each(|(wrong, _)| wrong(&mut hello));
        let refusal = refused(Fakes::new(), hello).await;
        assert_eq!(refusal.error.code, wrongs[first].1);
        assert_eq!(refusal.close, CloseReason::refused(wrongs[first].1));
    }
}

fn expires(hello: &mut SessionHello, at: f64) {
    if let Some(attestation) = &mut hello.parent_attestation {
        attestation.expires_at = at;
    }
}

#[tokio::test]
async fn of_all_that_is_wrong_with_a_session_hello_the_first_is_told_and_nobody_is_asked() {
    let wrongs: [Wrong<SessionHello>; 7] = [
        (|hello| hello.session_pubkey = "x".to_owned(), "bad_session_pubkey"),
        (|hello| hello.parent_member_pubkey = "x".to_owned(), "bad_parent_pubkey"),
        (|hello| hello.parent_attestation = None, "attestation_mismatch"),
        (|hello| expires(hello, 0.0), "expired"),
        (|hello| expires(hello, f64::from(u32::MAX) * 1e6), "ttl_too_long"),
        (|hello| hello.timestamp = 0.0, "timestamp_skew"),
        (|hello| hello.mesh_id = "other".to_owned(), "bad_signature"),
    ];
    for first in 0..wrongs.len() {
        let mut hello = Peer::new().session_hello();
        for (at, (wrong, _)) in wrongs.iter().enumerate().skip(first) {
            // An attestation does not end both too soon and too late.
            if !(at == 4 && first < 4) {
                wrong(&mut hello);
            }
        }
        let refusal = refused_session(Fakes::new(), hello).await;
        assert_eq!(refusal.error.code, wrongs[first].1);
        assert_eq!(refusal.close, CloseReason::refused(wrongs[first].1));
    }
}

// --- the member, and a hello's one use -----------------------------------------------------

#[tokio::test]
async fn a_hello_of_nobody_here_uses_its_signature_up_for_nothing() {
    let peer = Peer::new();
    let revoked = Admission::Revoked { mesh_label: "Team".to_owned() };
    let mut other = Peer::new();
    other.member.id = "other".into();
    for (admission, code) in [
        (Ok(revoked), "revoked"),
        (Ok(Admission::Unknown), "unauthorized"),
        (Ok(other.admitted()), "unauthorized"),
        (away(), "unavailable"),
    ] {
        let mut fakes = Fakes::new();
        fakes.stores.members.expect_admit().times(1).return_once(move |_, _, _| admission);
        let refusal = refused(fakes, peer.hello()).await;
        assert_eq!(refusal.error.code, code);
        match code {
            "revoked" => {
                assert!(refusal.error.message.contains("removed from \"Team\""));
                assert_eq!(refusal.close, CloseReason::BANNED);
            }
            "unavailable" => is_unavailable(&refusal),
            _ => assert_eq!(refusal.close, CloseReason::refused(code)),
        }
    }
}

#[tokio::test]
async fn a_session_hello_names_the_member_whose_key_it_has() {
    let peer = Peer::new();
    for (admission, code) in
        [(Admission::Unknown, "unauthorized"), (peer.admitted(), "parent_member_id_mismatch")]
    {
        let mut fakes = Fakes::new();
        fakes.stores.members.expect_admit().times(1).return_once(move |_, _, _| Ok(admission));
        let hello = SessionHello { parent_member_id: "other".to_owned(), ..peer.session_hello() };
        assert_eq!(refused_session(fakes, hello).await.error.code, code);
    }
}

#[tokio::test]
async fn a_hello_is_good_once_and_not_while_nobody_knows() {
    let peer = Peer::new();
    for is_first in [Ok(false), apart()] {
        let is_known = is_first.is_ok();
        let mut fakes = Fakes::new();
        let admitted = peer.admitted();
        fakes.stores.members.expect_admit().times(1).return_once(move |_, _, _| Ok(admitted));
        fakes.cluster.expect_use_once().times(1).return_once(move |_, _| is_first);
        let refusal = refused(fakes, peer.hello()).await;
        match is_known {
            true => assert_eq!(refusal.error.code, "replayed"),
            false => is_unavailable(&refusal),
        }
    }
}

// --- the mesh, and a place in it -----------------------------------------------------------

#[tokio::test]
async fn a_mesh_that_cannot_be_read_is_entered_by_nobody() {
    let (peer, mut fakes) = (Peer::new(), Fakes::new());
    peer.is_admitted(&mut fakes);
    fakes.cluster.expect_join_mesh().times(1).return_once(|_| apart());
    is_unavailable(&refused(fakes, peer.hello()).await);
}

#[tokio::test]
async fn a_full_mesh_says_how_many_it_takes_and_when_to_come_again() {
    let (peer, mut fakes) = (Peer::new(), Fakes::new());
    peer.is_admitted(&mut fakes);
    fakes.has(vec![peer.member.clone()], Vec::new());
    fakes.cluster.expect_take_tokens().returning(|_, draws| Ok(Drawn::all_for_tests(draws, true)));
    let full = Acquired::AtCapacity { current: 7, retry_after_ms: 1_500 };
    fakes.cluster.expect_acquire().times(1).return_once(move |_, _| Ok(full));
    let error = refused(fakes, peer.hello()).await.error;
    assert_eq!((error.code, error.limit), ("capacity".into(), Some(100)));
    assert_eq!((error.current, error.retry_after_ms), (Some(7), Some(1_500)));
}

#[tokio::test]
async fn a_presence_whose_row_cannot_be_written_gives_its_place_back() {
    let (peer, mut fakes) = (Peer::new(), Fakes::new());
    peer.has_a_place(&mut fakes);
    fakes.stores.presences.expect_open().returning(|_, _| away());
    gives_its_place_back(&mut fakes);
    let told = Arc::clone(&fakes.told);
    is_unavailable(&refused(fakes, peer.hello()).await);
    assert!(told.lock().is_empty(), "nobody heard of it");
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_new_presence() {
    let (peer, mut fakes) = (Peer::new(), Fakes::new());
    peer.has_a_place(&mut fakes);
    gives_its_place_back(&mut fakes);
    let parts = parts(fakes);
    parts.presence.life.disk_low.store(true, Ordering::Relaxed);
    let answer = hello(&parts, Codec::Json, &Outbox::new(), CLIENT, peer.hello()).await;
    is_unavailable(&answer.err().expect("it is refused"));
}

/// Another hello of the same session took a place of its own meanwhile, or went on with
/// this one's presence, or somebody has ended it.
#[tokio::test]
async fn a_presence_that_lost_its_lease_withdraws_unheard_unless_its_session_goes_on() {
    for (ends_now, is_over) in [(true, false), (false, true), (false, false)] {
        let (peer, mut fakes) = (Peer::new(), Fakes::new());
        peer.has_a_place(&mut fakes);
        fakes.stores.presences.expect_open().times(1).return_once(|_, _| Ok(vec![3]));
        fakes.cluster.expect_write_record().times(1).return_once(|_, _| Ok(false));
        let (stores, goes_on) = (&mut fakes.stores, !ends_now && !is_over);
        stores.presences.expect_end().times(1).return_once(move |_, rows| {
            Ok(rows.iter().map(|row| row.id.clone()).filter(|_| ends_now).collect())
        });
        stores.presences.expect_ended().times(usize::from(!ends_now)).returning(move |asked| {
            let over = asked.iter().filter(|_| is_over);
            Ok(over.map(|presence| (presence.clone(), Some(Timestamp::now()))).collect())
        });
        if ends_now {
            gives_its_place_back(&mut fakes);
        } else if goes_on {
            has_no_mail(&mut fakes);
        }
        let (told, parts) = (Arc::clone(&fakes.told), parts(fakes));
        let answer = hello(&parts, Codec::Json, &Outbox::new(), CLIENT, peer.hello()).await;
        assert_eq!(told.lock().is_empty(), !goes_on);
        match answer {
            Ok(_) => assert!(goes_on, "nobody went on with it"),
            Err(refusal) => is_unavailable(&refusal),
        }
        parts.presence.life.settled().await;
    }
}

/// No row, no audit row, no event, no grace.
#[tokio::test]
async fn a_visit_leaves_nothing_and_only_nodes_hear_of_it() {
    let (peer, mut fakes) = (Peer::new(), Fakes::new());
    peer.has_a_place(&mut fakes);
    has_no_mail(&mut fakes);
    gives_its_place_back(&mut fakes);
    let (told, parts) = (Arc::clone(&fakes.told), parts(fakes));
    let said = Hello { visit: Some(true), ..peer.hello() };
    let active = hello(&parts, Codec::Json, &Outbox::new(), CLIENT, said).await;
    let Ok(active) = active else { panic!("it is refused") };
    assert!(active.session.visitor);
    parts.presence.life.settled().await;
    teardown(&parts, active).await;
    let told = told.lock();
    let [Told::Frame(came), Told::Frame(went)] = &told[..] else { panic!("{told:?}") };
    assert!(matches!(came, BusMessage::Presence { record, event: None } if record.visitor));
    assert!(matches!(went, BusMessage::Ended { event: None, close: None, .. }));
}

/// A lease whose record is somebody else's is given back, and a place is asked for again.
#[tokio::test]
async fn a_lease_that_leads_to_anothers_record_is_not_taken_over() {
    let (peer, mut fakes) = (Peer::new(), Fakes::new());
    peer.is_admitted(&mut fakes);
    fakes.has(vec![peer.member.clone()], Vec::new());
    fakes.cluster.expect_take_tokens().returning(|_, draws| Ok(Drawn::all_for_tests(draws, true)));
    fakes.cluster.expect_acquire().times(3).returning(|record, _| {
        let (mesh, presence) = (record.mesh.clone(), record.id.clone());
        let forged = PresenceRecord { member: "eve".into(), ..record.clone() };
        let lease = LeaseRef { mesh, presence, epoch: 2 };
        Ok(Acquired::Reattached { lease, record: Box::new(forged) })
    });
    fakes.cluster.expect_release().times(3).returning(|_, _| Ok(true));
    is_unavailable(&refused(fakes, peer.hello()).await);
}
