//! Who calls: the key that a request shows, and what that key may do.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::refused::Refused;
use crate::auth::ApiKeySecret;
use crate::clock::Timestamp;
use crate::http::{HttpState, to_its_end};
use crate::id::{MemberId, MeshId, PresenceId};
use crate::limits;
use crate::protocol::ApiCapability;
use crate::rates::cost;
use crate::socket::address::SocketPeer;
use crate::store::{Author, GoodApiKey, Issuer};

/// The key behind a call.
#[derive(Clone)]
pub(super) struct Caller(Arc<GoodApiKey>);

impl Caller {
    /// The mesh that the key is bound to.
    pub(super) fn mesh(&self) -> &MeshId {
        &self.0.mesh
    }

    /// Refuses a key that may not.
    pub(super) fn may(&self, capability: ApiCapability) -> Result<(), Refused> {
        let given = &self.0.capabilities;
        let may = given.contains(&capability) || given.contains(&ApiCapability::Admin);
        may.then_some(()).ok_or_else(Refused::missing_capability)
    }

    /// Refuses a key that is good for some topics only: the call is about all of them.
    pub(super) fn is_for_all_topics(&self) -> Result<(), Refused> {
        self.0.topic_scopes.is_none().then_some(()).ok_or_else(Refused::out_of_scope)
    }

    /// Refuses a key that is not good for that topic.
    pub(super) fn is_for_topic(&self, name: &str) -> Result<(), Refused> {
        let is_good = self.sees_topic(name);
        is_good.then_some(()).ok_or_else(Refused::out_of_scope)
    }

    /// Whether the key is good for that topic.
    pub(super) fn sees_topic(&self, name: &str) -> bool {
        let scopes = self.0.topic_scopes.as_ref();
        scopes.is_none_or(|scopes| scopes.iter().any(|scope| scope == name))
    }

    /// The key's id.
    pub(super) fn key(&self) -> &str {
        &self.0.id
    }

    /// The member that made the key, if one did.
    pub(super) fn issuer(&self) -> Option<&MemberId> {
        self.0.issuer.as_ref().map(|issuer| &issuer.id)
    }

    /// As [`Self::issuer`], for calls that need one.
    pub(super) fn needs_issuer(&self) -> Result<&Issuer, Refused> {
        self.0.issuer.as_ref().ok_or_else(Refused::no_issuer)
    }

    /// The member that made the key, as the author of a change.
    pub(super) fn author(&self) -> Result<Author, Refused> {
        let issuer = self.needs_issuer()?;
        Ok(Author {
            mesh: self.mesh().clone(),
            member: issuer.id.clone(),
            session_name: issuer.name.clone(),
            member_name: issuer.name.clone(),
            presence: PresenceId::from(self.key()),
        })
    }

    /// Whose budget a call is paid from: the member's, however many keys it makes.
    pub(super) fn payer(&self) -> MemberId {
        let of_key = || MemberId::from(format!("key/{}", self.0.id));
        self.issuer().cloned().unwrap_or_else(of_key)
    }
}

/// Lets a call through that shows a good key.
pub(super) async fn authorize(
    State(state): State<Arc<HttpState>>,
    Extension(peer): Extension<SocketPeer>,
    mut request: Request,
    next: Next,
) -> Response {
    let address = state.addresses.client(request.headers(), peer);
    // As with the other limits, there everybody has the same address.
    if !address.is_loopback()
        && let Err(seconds) = state.rates.may_call_api(address)
    {
        return Refused::too_many(seconds).into_response();
    }
    let secret = match secret_of(request.headers()) {
        Ok(secret) => secret,
        Err(refused) => return refused.into_response(),
    };
    let found = to_its_end(&state, |state| async move { find(&state, &secret).await });
    let caller = match found.await {
        Ok(Ok(caller)) => caller,
        Ok(Err(refused)) => return refused.into_response(),
        Err(_) => return Refused::internal().into_response(),
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// The scheme is taken as older brokers spelled it.
fn secret_of(headers: &HeaderMap) -> Result<ApiKeySecret, Refused> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = header.and_then(|header| header.strip_prefix("Bearer ")).map(str::trim);
    let shown = shown.filter(|shown| !shown.is_empty()).ok_or_else(Refused::key_missing)?;
    ApiKeySecret::read(shown).ok_or_else(Refused::key_invalid)
}

/// The good key of that secret, noted as used and charged for.
async fn find(state: &HttpState, secret: &ApiKeySecret) -> Result<Caller, Refused> {
    let now = Timestamp::now();
    let candidates = state.stores.api_keys.good(now, secret.prefix()).await?;
    let key = candidates.into_iter().find(|key| secret.is_of(&key.secret_hash));
    let key = key.ok_or_else(Refused::key_invalid)?;
    let since = now.plus_ms(-limits::API_KEY_USE_MS);
    if key.last_used_at.is_none_or(|used| used < since)
        && let Err(error) = state.stores.api_keys.note_use(now, &key.id, since).await
    {
        // Whoever holds the key is served all the same.
        tracing::warn!(%error, "the use of an API key could not be noted");
    }
    let caller = Caller(Arc::new(key));
    let payer = caller.payer();
    match state.rates.may_ask(&*state.cluster, &payer, cost::OF_API_CALL).await {
        Ok(()) => Ok(caller),
        Err(wait) => Err(Refused::too_many(wait.as_secs().max(1))),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn caller(capabilities: &[ApiCapability], topic_scopes: Option<Vec<String>>) -> Caller {
        Caller(Arc::new(GoodApiKey {
            id: "k".to_owned(),
            mesh: MeshId::from("mesh"),
            secret_hash: String::new(),
            capabilities: capabilities.to_vec(),
            topic_scopes,
            issuer: None,
            last_used_at: None,
        }))
    }

    #[test]
    fn a_key_may_what_it_names_and_an_admins_everything() {
        use ApiCapability::{Admin, Read, Send, StateWrite};
        assert_eq!(caller(&[Send, StateWrite], None).may(Read), Err(Refused::missing_capability()));
        assert_eq!(caller(&[Read], None).may(Read), Ok(()));
        assert_eq!(caller(&[Admin], None).may(Send), Ok(()));
        assert_eq!(caller(&[], None).may(Read), Err(Refused::missing_capability()));
    }

    #[test]
    fn a_key_of_some_topics_sees_not_what_is_about_all() {
        assert_eq!(caller(&[], None).is_for_all_topics(), Ok(()));
        let scoped = caller(&[], Some(Vec::new())).is_for_all_topics();
        assert_eq!(scoped, Err(Refused::out_of_scope()));
    }

    #[test]
    fn members_pay_for_their_keys_and_keys_without_one_for_themselves() {
        let nobodys = caller(&[], None);
        assert_eq!(nobodys.needs_issuer().err(), Some(Refused::no_issuer()));
        assert_eq!(nobodys.payer(), MemberId::from("key/k"));
        let id = MemberId::from("ada");
        let issuer = Issuer { id: id.clone(), key: "key".into(), name: "Ada".to_owned() };
        let key = GoodApiKey { issuer: Some(issuer), ..(*nobodys.0).clone() };
        assert_eq!(Caller(Arc::new(key)).payer(), id);
    }

    #[test]
    fn a_header_without_a_key_and_one_with_no_key_are_told_apart() {
        let with = |text: &str| {
            let value = HeaderValue::from_str(text).expect("a header");
            secret_of(&HeaderMap::from_iter([(header::AUTHORIZATION, value)])).map(|_| ()).err()
        };
        assert_eq!(secret_of(&HeaderMap::new()).err(), Some(Refused::key_missing()));
        for missing in ["", "Bearer", "Bearer  ", "bearer cm_0123456789", "Basic cm_0123456789"] {
            assert_eq!(with(missing), Some(Refused::key_missing()), "{missing}");
        }
        assert_eq!(with("Bearer sk_0123456789"), Some(Refused::key_invalid()));
        assert_eq!(with("Bearer cm_0123456789"), None);
    }
}
