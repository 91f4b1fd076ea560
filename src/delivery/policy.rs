//! Targets, grants and holds. Pure.

use crate::id::Key;
use crate::protocol::{PeerRole, Priority, Status};
use crate::record::PresenceRecord;
use crate::registry::Candidate;
use crate::store::Member;

/// Clients match on these words.
pub(super) const NO_PEER: &str = "no connected peer for target (not online, or targetSpec is your own key \
                       without another session)";
pub(super) const NO_GRANT: &str = "blocked by recipient grants (sender lacks dm capability)";

/// Whom a `targetSpec` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// `*`, `@all`: everybody.
    Everyone,
    /// `@name`: a group and those below it.
    Group(&'a str),
    /// `#name`: a topic, by its name or its id. Who is in it, its roster says.
    Topic(&'a str),
    /// A member key or a session key.
    Key(&'a str),
}

impl<'a> Target<'a> {
    /// Reads a `targetSpec`.
    #[must_use]
    pub fn parse(spec: &'a str) -> Self {
        match spec.as_bytes().first() {
            _ if spec == "*" || spec == "@all" => Self::Everyone,
            Some(b'@') => Self::Group(&spec[1..]),
            Some(b'#') => Self::Topic(&spec[1..]),
            _ => Self::Key(spec),
        }
    }

    /// Whether a multicast to this target is for that presence.
    #[must_use]
    pub fn includes(self, record: &PresenceRecord) -> bool {
        match self {
            Self::Everyone => !record.visitor,
            Self::Group(group) => record.is_in_group(group),
            Self::Topic(_) | Self::Key(_) => false,
        }
    }
}

/// What a recipient may give a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Direct messages.
    Dm,
    /// Messages to groups and to everyone.
    Broadcast,
    /// Files of the recipient's machine, as far as it shows them.
    FileRead,
}

impl Capability {
    /// The word in the tables and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dm => "dm",
            Self::Broadcast => "broadcast",
            Self::FileRead => "file-read",
        }
    }

    /// Whether a sender has it of whom a recipient says nothing.
    const fn is_default(self) -> bool {
        match self {
            Self::Dm | Self::Broadcast => true,
            Self::FileRead => false,
        }
    }
}

/// Whether a recipient lets a sender do something: by the entry under the
/// sender's member key, else under its session key, else by default, which
/// allows all messages and nothing else.
#[must_use]
pub fn grants(
    recipient: &Member,
    sender_member_key: &Key,
    sender_session_key: Option<&Key>,
    capability: Capability,
) -> bool {
    if recipient.grants.is_empty() {
        return capability.is_default();
    }
    let by_key = |key: &Key| recipient.grants.get(key.as_str());
    match by_key(sender_member_key).or_else(|| sender_session_key.and_then(by_key)) {
        Some(given) => given.iter().any(|name| name == capability.as_str()),
        None => capability.is_default(),
    }
}

/// Who of several comes first, whatever it does now: one that says what it has,
/// then a session.
fn rank(record: &PresenceRecord) -> (bool, bool) {
    (record.confirms(), record.role == PeerRole::Session)
}

/// Which of the presences that a key addresses should get a direct message:
/// one whose socket is open and whose status admits it; one that confirms before
/// one that does not, a session before a control-plane connection, idle before
/// working, the newest activity first.
#[must_use]
pub fn choose(candidates: &[Candidate], priority: Priority) -> Option<&Candidate> {
    candidates
        .iter()
        .filter(|candidate| {
            let Candidate { record, session } = candidate;
            record.online
                && record.admits(priority)
                && session.as_ref().is_none_or(|session| session.outbox.is_open())
        })
        .max_by_key(|candidate| {
            let Candidate { record, session } = candidate;
            let heard = session.as_ref().map_or(record.last_seen_at, |s| s.last_heard());
            (rank(record), record.status == Status::Idle, heard)
        })
}

/// Which of the presences that a key addresses should look for what waits
/// under it: those that nobody of a better rank, who is idle, could take it from.
pub fn takers(candidates: &[Candidate]) -> impl Iterator<Item = &Candidate> {
    let idle = candidates.iter().filter(|Candidate { record, session }| {
        record.online
            && record.status == Status::Idle
            && session.as_ref().is_none_or(|s| s.outbox.is_open() && !s.inbox.lock().is_full())
    });
    let best = idle.map(|candidate| rank(&candidate.record)).max();
    candidates
        .iter()
        .filter(move |candidate| best.is_none_or(|best| rank(&candidate.record) >= best))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Timestamp;
    use crate::id::PresenceId;
    use crate::protocol::Group;
    use crate::store::testing;

    fn record(id: &str, role: PeerRole, status: Status, online: bool, seen: i64) -> Candidate {
        Candidate {
            record: Arc::new(PresenceRecord {
                id: PresenceId::from(id),
                role,
                status,
                groups: vec![Group { name: "a/b".to_owned(), role: None }],
                last_seen_at: Timestamp::from_ms(seen),
                online,
                ..testing::record(&testing::member("member"))
            }),
            session: None,
        }
    }

    fn chosen(candidates: &[Candidate], priority: Priority) -> Option<&str> {
        choose(candidates, priority).map(|candidate| candidate.record.id.as_str())
    }

    #[test]
    fn a_session_comes_before_a_daemon_and_idle_before_working() {
        use PeerRole::{ControlPlane, Session};
        use Status::{Dnd, Idle, Working};
        let all = [
            record("daemon", ControlPlane, Idle, true, 9),
            record("old", Session, Idle, true, 1),
            record("new", Session, Idle, true, 2),
            record("busy", Session, Working, true, 8),
            record("away", Session, Idle, false, 9),
        ];
        assert_eq!(chosen(&all, Priority::Next), Some("new"));
        assert_eq!(chosen(&all[3..], Priority::Now), Some("busy"));
        assert_eq!(chosen(&all[3..], Priority::Low), None);
        assert_eq!(chosen(&all[..1], Priority::Low), Some("daemon"));
        let dnd = [record("dnd", Session, Dnd, true, 1)];
        assert_eq!(chosen(&dnd, Priority::Next), None);
        assert_eq!(chosen(&dnd, Priority::Now), Some("dnd"));
    }

    #[test]
    fn one_that_confirms_comes_before_all_that_do_not() {
        use PeerRole::{ControlPlane, Session};
        use Status::{Dnd, Idle};
        let on = |mut candidate: Candidate, channel: &str| {
            Arc::make_mut(&mut candidate.record).channel = Some(channel.to_owned());
            candidate
        };
        let daemon = on(record("daemon", ControlPlane, Idle, true, 1), "claudemesh-daemon");
        let silent = on(record("silent", Session, Idle, true, 9), "sdk");
        let mut shown = on(record("shown", ControlPlane, Idle, true, 2), "sdk");
        let all = [daemon.clone(), silent.clone(), shown.clone()];
        assert_eq!(chosen(&all, Priority::Next), Some("daemon"));
        assert_eq!(chosen(&all[1..], Priority::Next), Some("silent"));
        Arc::make_mut(&mut shown.record).has_confirmed = true;
        let all = [silent.clone(), shown];
        assert_eq!(chosen(&all, Priority::Next), Some("shown"));
        let taken = takers(&all).map(|taker| taker.record.id.to_string()).collect::<Vec<_>>();
        assert_eq!(taken, ["shown"], "what waits is left to it");
        let busy = on(record("busy", Session, Dnd, true, 1), "claudemesh-session");
        let all = [silent, busy, daemon];
        let taken = takers(&all).map(|taker| taker.record.id.to_string()).collect::<Vec<_>>();
        assert_eq!(taken, ["busy", "daemon"]);
    }

    #[test]
    fn visitors_are_named_by_nothing_but_their_own_key() {
        let mut candidate = record("v", PeerRole::ControlPlane, Status::Idle, true, 0);
        let visitor = Arc::make_mut(&mut candidate.record);
        (visitor.visitor, visitor.session_key) = (true, Some(Key::from("own")));
        for target in ["*", "@all", "@a", "@a/b"] {
            assert!(!Target::parse(target).includes(visitor), "{target}");
        }
        assert_eq!(visitor.keys().collect::<Vec<_>>(), [&Key::from("own")]);
        visitor.session_key = Some(visitor.member_key.clone());
        assert_eq!(visitor.keys().count(), 0, "the member's key is not its own");
    }

    #[test]
    fn a_daemon_leaves_what_waits_to_an_idle_session() {
        use PeerRole::{ControlPlane, Session};
        use Status::{Idle, Working};
        let taken = |all: &[Candidate]| -> Vec<String> {
            takers(all).map(|candidate| candidate.record.id.to_string()).collect()
        };
        let daemon = record("daemon", ControlPlane, Idle, true, 9);
        let idle = record("idle", Session, Idle, true, 1);
        let busy = record("busy", Session, Working, true, 1);
        let away = record("away", Session, Idle, false, 1);
        assert_eq!(taken(&[daemon.clone(), busy.clone(), idle]), ["busy", "idle"]);
        assert_eq!(taken(&[daemon.clone(), busy, away]), ["daemon", "busy", "away"]);
        assert_eq!(taken(&[daemon]), ["daemon"]);
    }

    #[test]
    fn groups_reach_down_and_not_sideways() {
        let peer = record("p", PeerRole::Session, Status::Idle, true, 0).record;
        assert!(Target::parse("@a").includes(&peer));
        assert!(Target::parse("@a/b").includes(&peer));
        assert!(Target::parse("@all").includes(&peer));
        assert!(Target::parse("*").includes(&peer));
        assert!(!Target::parse("@a/b/c").includes(&peer));
        assert!(!Target::parse("@a/").includes(&peer));
        assert!(!Target::parse("@ab").includes(&peer));
        assert!(!Target::parse("#a").includes(&peer));
    }

    #[test]
    fn an_entry_replaces_the_defaults_and_the_member_key_comes_first() {
        let mut member = testing::member("m");
        let (key, session) = (Key::from("sender"), Key::from("session"));
        let may = |member: &Member, capability| grants(member, &key, Some(&session), capability);
        assert!(may(&member, Capability::Dm) && may(&member, Capability::Broadcast));
        member.grants.insert("session".to_owned(), vec!["dm".to_owned()]);
        assert!(may(&member, Capability::Dm) && !may(&member, Capability::Broadcast));
        member.grants.insert("sender".to_owned(), Vec::new());
        assert!(!may(&member, Capability::Dm), "the member key's entry comes first");
        member.grants.clear();
        member.grants.insert("other".to_owned(), Vec::new());
        assert!(may(&member, Capability::Dm), "an entry for another sender says nothing");
        assert!(!may(&member, Capability::FileRead), "it is given by an entry alone");
        member.grants.clear();
        assert!(!may(&member, Capability::FileRead));
        member.grants.insert("session".to_owned(), vec!["file-read".to_owned()]);
        assert!(may(&member, Capability::FileRead) && !may(&member, Capability::Dm));
    }
}
