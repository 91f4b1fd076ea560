//! The entries of the sets of nodes: who is there, signed for that set.

use super::bus::Origin;
use super::seals::Seals;

/// What kind of thing an entry is to a signature.
const KIND: &str = "member";

/// A node as it stands in the set at `key`.
pub(super) fn write(seals: &Seals, key: &str, origin: &Origin) -> String {
    let origin = origin.to_text();
    format!("{}:{origin}", seals.sign_text(KIND, &[key, &origin]))
}

/// The nodes in the set at `key`, and how many of its entries no node of this
/// cluster has signed.
pub(super) fn read(seals: &Seals, key: &str, entries: &[String]) -> (Vec<Origin>, u32) {
    let (mut origins, mut strangers) = (Vec::with_capacity(entries.len()), 0);
    for entry in entries {
        let signed = entry
            .split_once(':')
            .filter(|(signature, origin)| seals.is_signed_text(KIND, &[key, origin], signature));
        match signed.and_then(|(_, origin)| Origin::from_text(origin)) {
            Some(origin) => origins.push(origin),
            None => strangers += 1,
        }
    }
    if strangers > 0 {
        seals.refuse(KIND);
    }
    (origins, strangers)
}
