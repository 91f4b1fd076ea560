//! How calls prove where they come from: Standard Webhooks, and GitHub's way. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::limits;

/// What secrets of Standard Webhooks begin with.
const PREFIX: &str = "whsec_";
/// How the signatures of GitHub begin.
const GITHUB_PREFIX: &str = "sha256=";

/// A secret to sign by.
pub(crate) fn new_secret() -> String {
    let bytes: [u8; 32] = rand::random();
    format!("{PREFIX}{}", STANDARD.encode(bytes))
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length will do");
    for part in parts {
        mac.update(part);
    }
    mac
}

fn standard_mac(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    let text = secret.strip_prefix(PREFIX).unwrap_or(secret);
    let key = STANDARD.decode(text).unwrap_or_else(|_| text.as_bytes().to_vec());
    mac(&key, &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body])
}

/// The header `webhook-signature`.
pub(crate) fn standard(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> String {
    let made = standard_mac(secret, id, &timestamp.to_string(), body).finalize().into_bytes();
    format!("v1,{}", STANDARD.encode(made))
}

/// Whether one of the signatures is right, and the instant near.
pub(crate) fn is_standard(
    secret: &str,
    (id, timestamp, signatures): (&str, &str, &str),
    body: &[u8],
    now_seconds: i64,
) -> bool {
    let is_near = timestamp
        .parse::<i64>()
        .is_ok_and(|at| now_seconds.abs_diff(at) <= limits::WEBHOOK_CLOCK_SECONDS);
    let is_right = |signature: &str| {
        let given = signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
        // Compared in constant time.
        given.is_some_and(|given| {
            standard_mac(secret, id, timestamp, body).verify_slice(&given).is_ok()
        })
    };
    is_near && signatures.split(' ').take(8).any(is_right)
}

/// Whether the header `X-Hub-Signature-256` is right.
pub(crate) fn is_github(secret: &str, signature: &str, body: &[u8]) -> bool {
    let given = signature.strip_prefix(GITHUB_PREFIX).and_then(|text| hex::decode(text).ok());
    given.is_some_and(|given| mac(secret.as_bytes(), &[body]).verify_slice(&given).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the specification of Standard Webhooks.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn a_signature_is_the_one_of_the_specification() {
        assert_eq!(standard(SECRET, ID, 1_614_265_330, BODY), SIGNATURE);
        let at = |timestamp: &str, signatures: &str, now: i64| {
            is_standard(SECRET, (ID, timestamp, signatures), BODY, now)
        };
        assert!(at("1614265330", SIGNATURE, 1_614_265_330 + 299));
        assert!(at("1614265330", &format!("v1,AAAA {SIGNATURE}"), 1_614_265_330));
        assert!(!at("1614265330", SIGNATURE, 1_614_265_330 + 301), "it is too old");
        assert!(!at("1614265331", SIGNATURE, 1_614_265_330), "the instant is signed");
        assert!(!at("1614265330", "v1,AAAA", 1_614_265_330));
        assert!(!at("x", SIGNATURE, 1_614_265_330));
    }

    /// From GitHub's documentation.
    #[test]
    fn github_signs_with_the_text_of_the_secret() {
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let secret = "It's a Secret to Everybody";
        assert!(is_github(secret, signature, b"Hello, World!"));
        assert!(!is_github(secret, signature, b"Hello, World?"));
        assert!(!is_github("another", signature, b"Hello, World!"));
        assert!(!is_github(secret, "sha256=", b"Hello, World!"));
    }

    #[test]
    fn secrets_differ_and_sign() {
        let secret = new_secret();
        assert_ne!(secret, new_secret());
        let signature = standard(&secret, "id", 7, b"{}");
        assert!(is_standard(&secret, ("id", "7", &signature), b"{}", 7));
    }
}
