//! How a session of a host becomes a session in the mesh.

use std::fs;

use super::{Binding, Home, Host, Known, Session, Start, entries, keep_newest, read};
use crate::clock::Timestamp;
use crate::private;

impl Home {
    /// Binds a running host's session: finds its session in the mesh, or makes one as the
    /// peer of that name, else the only one there is. `None` where nobody has joined yet.
    ///
    /// Cleared and compacted sessions go on with the session in the mesh that their process
    /// has; resumed ones have theirs again; two processes never have the same one.
    pub(crate) fn bind(
        &self,
        host: &Host<'_>,
        peer: Option<&str>,
        now: Timestamp,
    ) -> anyhow::Result<Option<Binding>> {
        if let Some(bound) = self.of_process(host.process)?
            && self.stays(&bound, host)
        {
            return Ok(Some(bound));
        }
        let Some(peer) = self.peer(peer)? else { return Ok(None) };
        let _lock = self.lock()?;
        let current = self.of_process(host.process)?;
        if let Some(bound) = &current
            && self.stays(bound, host)
        {
            return Ok(current);
        }
        if current.is_some() && host.start == Start::Guessed {
            return Ok(current);
        }
        let session = match self.session_of(host, current.as_ref(), &peer)? {
            Some(session) => session,
            None => self.make_session(&peer, now)?.id,
        };
        // Where another process has the session of that id, the id stays its.
        if !self.is_held(&self.known(host.session)?, host)? {
            let known = Known { session: session.clone() };
            private::write(&self.host_file(host.session), &serde_json::to_vec(&known)?)?;
        }
        let binding = Binding {
            session,
            host_session: host.session.to_owned(),
            process: host.process,
            inbox: host.inbox.cloned().or_else(|| current.and_then(|bound| bound.inbox)),
            guessed: host.start == Start::Guessed,
        };
        private::write(&self.process_file(host.process), &serde_json::to_vec(&binding)?)?;
        self.sweep()?;
        Ok(Some(binding))
    }

    /// Whether nothing about a binding is to be changed.
    fn stays(&self, bound: &Binding, host: &Host<'_>) -> bool {
        bound.host_session == host.session
            && (!bound.guessed || host.start == Start::Guessed)
            && (host.inbox.is_none() || host.inbox == bound.inbox.as_ref())
            && self.session(&bound.session).is_ok_and(|session| session.is_some())
    }

    /// The session in the mesh that a host's session goes on with, if there is one.
    fn session_of(
        &self,
        host: &Host<'_>,
        current: Option<&Binding>,
        peer: &str,
    ) -> anyhow::Result<Option<String>> {
        let own = current.map(|bound| bound.session.clone());
        let same = current.is_some_and(|bound| bound.host_session == host.session);
        let known = self.known(host.session)?;
        let known = if self.is_held(&known, host)? { None } else { known };
        let found = match host.start {
            _ if same => own,
            Start::GoesOn => own.or(known),
            Start::New | Start::Resumed => known,
            Start::Unknown | Start::Guessed => known.or(own),
        };
        let Some(found) = found else { return Ok(None) };
        let session: Option<Session> = self.session(&found)?;
        Ok(session.filter(|session| session.peer == peer).map(|session| session.id))
    }

    fn known(&self, host_session: &str) -> anyhow::Result<Option<String>> {
        let known: Option<Known> = read(&self.host_file(host_session))?;
        Ok(known.map(|known| known.session))
    }

    /// Whether another running host has that session in the mesh.
    fn is_held(&self, session: &Option<String>, host: &Host<'_>) -> anyhow::Result<bool> {
        let Some(session) = session else { return Ok(false) };
        let bindings = self.bindings()?;
        Ok(bindings.iter().any(|bound| {
            bound.process != host.process && !bound.guessed && bound.session == *session
        }))
    }

    /// Forgets processes that have ended, and what is too much.
    fn sweep(&self) -> anyhow::Result<()> {
        for path in entries(&self.folder.join("processes"))? {
            let binding: Option<Binding> = read(&path)?;
            if binding.is_none_or(|binding| !binding.process.runs()) {
                fs::remove_file(&path)?;
            }
        }
        keep_newest(&self.folder.join("hosts"))
    }
}
