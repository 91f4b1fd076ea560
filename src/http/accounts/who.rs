//! Who calls: an account by its token, a web application, a member by its socket.

use std::net::IpAddr;

use axum::http::{StatusCode, header};

use super::{Call, Refused};
use crate::clock::Timestamp;
use crate::config::any_matches;
use crate::http::bearer;
use crate::id::{AccountId, MemberId, MeshId};
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::socket::address::{is_told_from_others, shows_proxy};
use crate::store::{Account, NewAccount};

impl Call {
    /// The account whose session's token the call carries; `named` is what a body or a
    /// query says, which counts only where the operator wants it to.
    pub(super) async fn account(&self, named: Option<&str>) -> Result<Account, Refused> {
        let refused = |code| Err(Refused::new(StatusCode::UNAUTHORIZED, code));
        match bearer(&self.headers) {
            None => match self.legacy(named).await? {
                Some(account) => Ok(account),
                None => refused("missing_bearer_token"),
            },
            Some("") => refused("empty_bearer_token"),
            Some(token) => match self.state.keys.account_of(token).await {
                Ok(Some(account)) => Ok(account),
                Ok(None) => refused("invalid_or_revoked_token"),
                Err(error) => {
                    tracing::warn!(%error, "a token could not be checked");
                    let code = "auth_check_failed";
                    Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, code))
                }
            },
        }
    }

    /// A caller on this machine that says who it is, where the operator has turned that
    /// on.
    async fn legacy(&self, named: Option<&str>) -> Result<Option<Account>, Refused> {
        let Some(named) = named.filter(|named| !named.is_empty()) else { return Ok(None) };
        let is_local = self.address().is_some_and(|address| address.is_loopback());
        if !self.state.accounts.legacy_auth || !is_local || self.is_of_page() {
            return Ok(None);
        }
        self.state.metrics.legacy_auth_hits.inc();
        let (id, name) = (AccountId::from(named), named.to_owned());
        let account = NewAccount { id, name, email: None, key_hash: None };
        let account = self.state.stores.accounts.ensure(Timestamp::now(), &account).await?;
        Ok(account.revoked_at.is_none().then_some(account))
    }

    /// Whether a web application calls, with the token that it shares with the broker.
    /// Without such a token the route is not there.
    pub(super) fn service(&self) -> Result<(), Refused> {
        let tokens = &self.state.accounts.service_tokens;
        if tokens.is_empty() {
            let text = "this route is for a web application: SERVICE_TOKEN turns it on";
            return Err(Refused::new(StatusCode::NOT_FOUND, text));
        }
        if bearer(&self.headers).is_some_and(|given| any_matches(tokens, given)) {
            return Ok(());
        }
        let text = "this call needs the header Authorization: Bearer <SERVICE_TOKEN>";
        Err(Refused::new(StatusCode::UNAUTHORIZED, text))
    }

    /// A page in a browser, unless it is one that the operator has named.
    pub(super) fn is_of_page(&self) -> bool {
        match self.headers.get(header::ORIGIN) {
            Some(origin) => {
                !origin.to_str().is_ok_and(|origin| self.state.http.names_origin(origin))
            }
            None => self.headers.contains_key("sec-fetch-site"),
        }
    }

    /// The client's address, where it is the client's own: behind a proxy that is not
    /// trusted to name it, everybody has the same one.
    fn address(&self) -> Option<IpAddr> {
        let socket = self.peer.0.ip().to_canonical();
        let address = self.state.addresses.client(&self.headers, self.peer);
        let http = &self.state.http;
        let is_named =
            !shows_proxy(&self.headers) || http.trusts_proxy(socket) || self.state.node.on_fly;
        let is_own = is_named && is_told_from_others(address) && !http.trusts_proxy(address);
        is_own.then_some(address)
    }

    /// Whether a socket of that member, or of anybody in the mesh, is open from where
    /// this call comes from, on any node.
    pub(super) async fn is_beside(&self, mesh: &MeshId, member: Option<&MemberId>) -> bool {
        let Some(address) = self.address().filter(|_| !self.is_of_page()) else { return false };
        let is_meant = |other: &MemberId| member.is_none_or(|member| member == other);
        let room = self.state.registry.room(mesh);
        if let Some(room) = &room {
            let here = room.sessions();
            let mut here = here.iter().map(|(session, _)| session);
            if here.any(|session| is_meant(&session.member) && session.is_open_from(address)) {
                return true;
            }
        }
        let Ok(mark) = self.state.keys.mark(address).await else { return false };
        let is_it = |record: &PresenceRecord| {
            record.online
                && is_meant(&record.member)
                && record.client_mark.as_deref() == Some(mark.as_str())
        };
        if room
            .as_deref()
            .is_some_and(|room: &Room| room.records().iter().any(|record| is_it(record)))
        {
            return true;
        }
        match self.state.cluster.directory(mesh).await {
            Ok(records) => records.iter().any(is_it),
            Err(error) => {
                tracing::debug!(%error, "a caller could not be looked for on other nodes");
                false
            }
        }
    }
}
