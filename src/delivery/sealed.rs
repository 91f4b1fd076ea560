//! Messages to groups and to everyone that the broker cannot read: the ciphertext's key is
//! sealed for each member, and each gets its own alone.

use std::collections::BTreeMap;
use std::result::Result as Outcome;

use super::policy::Target;
use super::refusal::Refusal;
use super::{Parts, allowance};
use crate::auth::{is_hex, is_public_key};
use crate::id::{Key, MeshId};
use crate::limits;
use crate::protocol::{SealingPolicy, Send};
use crate::registry::Room;
use crate::sealing;
use crate::session::Session;
use crate::store::{Result, Seal};

fn invalid(text: &str) -> Refusal {
    Refusal::new("invalid", format!("invalid send: {text}"))
}

/// Whether what seals a send is whole. Whether it opens anything its recipients see.
pub(super) fn check(send: &Send<'_>) -> Outcome<(), Refusal> {
    let (keys, signature) = match (&send.sealed_keys, &send.signature) {
        (None, None) => return Ok(()),
        (Some(keys), Some(signature)) => (keys, signature),
        _ => return Err(invalid("sealedKeys and signature come together")),
    };
    if !matches!(Target::parse(&send.target_spec), Target::Everyone | Target::Group(_)) {
        return Err(invalid("sealedKeys are for a group or for everyone"));
    }
    if !allowance::has_id(send) {
        return Err(invalid("what is sealed for many needs a client_message_id"));
    }
    if !is_hex(signature, limits::SIGNATURE_HEX_CHARS) {
        return Err(invalid("signature is 128 hex digits"));
    }
    check_keys(keys)?;
    let bytes = send.ciphertext.as_text().len()
        + keys.iter().map(|(key, sealed)| key.as_str().len() + sealed.len()).sum::<usize>();
    if bytes > limits::MULTICAST_BYTES_MAX {
        let max = limits::MULTICAST_BYTES_MAX;
        let text = format!("payload too large: {bytes} bytes with all keys, {max} may be");
        return Err(Refusal::new("too_large", text));
    }
    Ok(())
}

fn check_keys(keys: &BTreeMap<Key, String>) -> Outcome<(), Refusal> {
    for (key, sealed) in keys {
        if !is_public_key(key.as_str()) {
            return Err(invalid("sealedKeys are named by keys of members"));
        }
        if sealed.is_empty()
            || sealed.len() > limits::SEALED_KEY_CHARS_MAX
            || !sealing::is_base64(sealed)
        {
            return Err(invalid("a sealed key is base64 of 48 bytes"));
        }
    }
    Ok(())
}

/// Why a mesh that asks for sealing does not take a message in clear. Daemons give up
/// at "forbidden".
const MUST_BE_SEALED: &str = "must_be_sealed: messages to groups, to everyone and to topics \
                              are forbidden in clear in this mesh; use a client that seals them";

/// Whether the mesh takes a message to that target that is sealed or not. `room`: the
/// mesh's, where this node serves it.
pub(crate) async fn is_allowed(
    parts: &Parts,
    room: Option<&Room>,
    mesh: &MeshId,
    (target, is_sealed): (Target<'_>, bool),
) -> Result<Outcome<(), Refusal>> {
    if is_sealed || matches!(target, Target::Key(_)) {
        return Ok(Ok(()));
    }
    let policy = match room {
        Some(room) => room.sealing(),
        None => parts.members.sealing(mesh).await?,
    };
    match policy {
        SealingPolicy::Required => Ok(Err(Refusal::new("must_be_sealed", MUST_BE_SEALED))),
        SealingPolicy::Preferred | SealingPolicy::Off => Ok(Ok(())),
    }
}

/// What seals a send that was checked.
pub(super) fn seal_of(send: &Send<'_>) -> Option<Seal> {
    let keys = send.sealed_keys.as_deref()?.clone();
    Some(Seal { signature: send.signature.as_deref()?.to_owned(), keys })
}

/// The keys of members that are here and meant, and get nothing: none of their connections
/// can open what is sealed, or nothing is sealed for them.
pub(super) fn unsealed_for(room: &Room, session: &Session, send: &Send<'_>) -> Vec<Key> {
    let Some(keys) = &send.sealed_keys else { return Vec::new() };
    let target = Target::parse(&send.target_spec);
    let mut opens: BTreeMap<Key, bool> = BTreeMap::new();
    for record in room.records() {
        let is_meant = !record.visitor && record.visible && target.includes(&record);
        if is_meant && record.member != session.member {
            let has_key = record.opens_sealed && keys.contains_key(&record.member_key);
            *opens.entry(record.member_key.clone()).or_default() |= has_key;
        }
    }
    opens.into_iter().filter(|(_, opens)| !opens).map(|(key, _)| key).collect()
}
