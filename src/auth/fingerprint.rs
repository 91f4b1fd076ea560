//! Numbers by which two people compare their keys by another way than the broker's.

use sha2::{Digest as _, Sha512};

use crate::id::Key;

/// Rounds of the digest: whoever looks for a key with the same number pays for each.
const ROUNDS: u32 = 5200;
/// Groups of five digits for each key.
const GROUPS: usize = 6;
/// What is hashed before a key.
const PREFIX: &[u8] = b"claudemesh-fingerprint-v1|";

/// The number of two keys, the same whoever of the two asks: sixty digits in groups of five.
/// Each key has a half of its own, so that a wrong key has to match one, not any.
#[must_use]
pub fn fingerprint(one: &Key, other: &Key) -> String {
    let mut halves = [half(one), half(other)];
    halves.sort_unstable();
    halves.join(" ")
}

fn half(key: &Key) -> String {
    let key = key.as_str().as_bytes();
    let mut digest = Sha512::new().chain_update(PREFIX).chain_update(key).finalize();
    for _ in 1..ROUNDS {
        digest = Sha512::new().chain_update(digest).chain_update(key).finalize();
    }
    let number =
        |five: &[u8]| five.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let groups = digest.chunks_exact(5).take(GROUPS);
    groups.map(|five| format!("{:05}", number(five) % 100_000)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_see_the_same_number_and_others_another() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sealing-vectors.json");
        let text = std::fs::read(path).expect("the file is in the repository");
        let all: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        for vector in all["fingerprint"].as_array().expect("a list") {
            let [one, other, number] = ["one", "other", "number"]
                .map(|name| vector[name].as_str().expect("text").to_owned());
            let (one, other) = (Key::from(one), Key::from(other));
            assert_eq!(fingerprint(&one, &other), number);
            assert_eq!(fingerprint(&other, &one), number);
            let third = Key::from("0".repeat(64));
            assert_ne!(fingerprint(&one, &third), number);
        }
    }
}
