//! A member's certificate: the mesh's owner signed an invite's key, and that key the
//! member's. Whoever knows the owner's key checks it without asking anybody.
//!
//! As text it is JSON in base64url without padding, like an invite's token. The broker
//! keeps it and hands it on; only those who hold the owner's key or an invite's secret can
//! make one.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

use super::is_public_key;
use super::key::{self, SecretKey};

/// The form of certificate that this program knows.
const VERSION: u32 = 1;
/// Characters of a certificate's text. Longer: it is none.
pub(crate) const CERTIFICATE_CHARS_MAX: usize = 4096;
/// Writes no padding, reads with and without.
pub(super) const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a mesh's owner signed of an invite: who may certify members, and as what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The mesh.
    pub mesh: String,
    /// The invite's id.
    pub invite: String,
    /// The key whose secret the invite's link carries: 64 hex digits.
    pub invite_key: String,
    /// What its members become: `admin` or `member`.
    pub role: String,
    /// How many members it lets in.
    pub max_uses: i32,
    /// Until when, in seconds since the epoch.
    pub expires_at: i64,
    /// The owner's key: 64 hex digits.
    pub owner: String,
    /// The digest of what else the invite says, which a certificate need not show.
    pub details: String,
}

/// Why text is no certificate of that key in that mesh. Each says what is wrong as a
/// sentence about "its certificate".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not base64url of a certificate that this program knows.
    #[error("its certificate cannot be read")]
    Malformed,
    /// It is for another mesh.
    #[error("its certificate is of another mesh")]
    OtherMesh,
    /// It names another owner than the one that is known.
    #[error("its certificate is by another owner than the one whose invite you joined by")]
    OtherOwner,
    /// The owner did not sign its invite.
    #[error("the invite in its certificate was not signed by the mesh's owner")]
    BadInvite,
    /// The invite's key did not sign that member's key in that role.
    #[error("its certificate is for another key, role or invite")]
    BadMember,
}

/// An owner's invite, and the word of that invite's key for a member's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    v: u32,
    /// What the owner signed.
    pub grant: Grant,
    /// By the owner over the grant: 128 hex digits.
    owner_signature: String,
    /// By the invite's key over the member's: 128 hex digits.
    signature: String,
}

impl Grant {
    /// The text that the owner signs. `None` where a field could be taken for two.
    pub(super) fn text(&self) -> Option<String> {
        let Self { mesh, invite, invite_key, role, max_uses, expires_at, owner, details } = self;
        joined(&[
            "claudemesh-invite-v3",
            mesh,
            invite,
            invite_key,
            role,
            &max_uses.to_string(),
            &expires_at.to_string(),
            owner,
            details,
        ])
    }

    /// The text that the invite's key signs of a member.
    fn member_text(&self, member: &str) -> Option<String> {
        joined(&["claudemesh-member-v1", &self.mesh, &self.invite, member, &self.role])
    }

    /// The word of the invite's key for a member's key: 128 hex digits. `None` where a
    /// field could be taken for two.
    pub(super) fn vouch(&self, secret: &SecretKey, member: &str) -> Option<String> {
        Some(secret.sign(&self.member_text(member)?))
    }
}

/// Fields side by side, none of which holds what separates them.
fn joined(fields: &[&str]) -> Option<String> {
    fields.iter().all(|field| !field.contains('|')).then(|| fields.join("|"))
}

impl Certificate {
    /// Of what the owner and the invite's key have signed.
    pub(super) const fn new(grant: Grant, owner_signature: String, signature: String) -> Self {
        Self { v: VERSION, grant, owner_signature, signature }
    }

    /// Reads a certificate's text. What it is worth [`Self::verify`] says.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn read(text: &str) -> Result<Self, CertificateError> {
        if text.len() > CERTIFICATE_CHARS_MAX {
            return Err(CertificateError::Malformed);
        }
        let json = BASE64URL.decode(text).map_err(|_| CertificateError::Malformed)?;
        let read: Self = serde_json::from_slice(&json).map_err(|_| CertificateError::Malformed)?;
        if read.v == VERSION { Ok(read) } else { Err(CertificateError::Malformed) }
    }

    /// As it is kept and sent.
    #[must_use]
    pub fn to_text(&self) -> String {
        let json = serde_json::to_vec(self).expect("text and numbers always fit JSON");
        BASE64URL.encode(json)
    }

    /// Checks that the owner of that key let the member of that key into that mesh.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self, mesh: &str, owner: &str, member: &str) -> Result<(), CertificateError> {
        let grant = &self.grant;
        if grant.mesh != mesh {
            return Err(CertificateError::OtherMesh);
        }
        if grant.owner != owner {
            return Err(CertificateError::OtherOwner);
        }
        let keys = [&grant.owner, &grant.invite_key];
        let has_shape = keys.iter().all(|key| is_public_key(key)) && is_public_key(member);
        let texts = grant.text().zip(grant.member_text(member)).filter(|_| has_shape);
        let (invited, vouched) = texts.ok_or(CertificateError::Malformed)?;
        key::verify(owner, &invited, &self.owner_signature)
            .map_err(|_| CertificateError::BadInvite)?;
        key::verify(&grant.invite_key, &vouched, &self.signature)
            .map_err(|_| CertificateError::BadMember)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Certificates that PyNaCl has made, with what each is for.
    fn vectors() -> Vec<Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sealing-vectors.json");
        let text = std::fs::read(path).expect("the file is in the repository");
        let all: Value = serde_json::from_slice(&text).expect("JSON");
        all["certificate"].as_array().expect("a list").clone()
    }

    fn field<'a>(vector: &'a Value, name: &str) -> &'a str {
        vector[name].as_str().unwrap_or_else(|| panic!("no {name}"))
    }

    fn good() -> (Certificate, String) {
        let vector = &vectors()[0];
        let read = Certificate::read(field(vector, "certificate")).expect("a certificate");
        (read, field(vector, "member").to_owned())
    }

    fn check(certificate: &Certificate, member: &str) -> Result<(), CertificateError> {
        let (good, _) = good();
        certificate.verify(&good.grant.mesh, &good.grant.owner, member)
    }

    #[test]
    fn libsodium_and_we_make_and_accept_the_same() {
        for vector in vectors() {
            let text = field(&vector, "certificate");
            let certificate = Certificate::read(text).expect("a certificate");
            let member = field(&vector, "member");
            let (mesh, owner) = (field(&vector, "mesh"), field(&vector, "owner"));
            let verdict = match certificate.verify(mesh, owner, member) {
                Ok(()) => "good".to_owned(),
                Err(error) => format!("{error:?}"),
            };
            assert_eq!(verdict, field(&vector, "verdict"));
            if verdict != "good" {
                continue;
            }
            assert_eq!(certificate.to_text(), text);
            let secret = SecretKey::from_hex128(field(&vector, "invite_secret")).expect("a key");
            let vouched = certificate.grant.vouch(&secret, member).expect("signed");
            assert_eq!(vouched, certificate.signature);
            let owner = SecretKey::from_hex128(field(&vector, "owner_secret")).expect("a key");
            let invited = certificate.grant.text().expect("a text");
            assert_eq!(owner.sign(&invited), certificate.owner_signature);
        }
    }

    #[test]
    fn a_certificate_holds_for_nothing_but_what_was_signed() {
        let (certificate, member) = good();
        assert_eq!(check(&certificate, &member), Ok(()));
        let other = SecretKey::generate().public_key().to_string();
        assert_eq!(check(&certificate, &other), Err(CertificateError::BadMember));
        type Change = fn(&mut Certificate);
        let changes: [(Change, CertificateError); 8] = [
            (|it| it.grant.mesh.push('x'), CertificateError::OtherMesh),
            (|it| it.grant.owner = "0".repeat(64), CertificateError::OtherOwner),
            (|it| it.grant.invite.push('x'), CertificateError::BadInvite),
            (|it| it.grant.role = "admin".to_owned(), CertificateError::BadInvite),
            (|it| it.grant.max_uses += 1, CertificateError::BadInvite),
            (|it| it.grant.expires_at += 1, CertificateError::BadInvite),
            (|it| it.grant.details = "0".repeat(64), CertificateError::BadInvite),
            (
                |it| it.grant.invite_key = SecretKey::generate().public_key().to_string(),
                CertificateError::BadInvite,
            ),
        ];
        for (at, (change, expected)) in changes.into_iter().enumerate() {
            let mut changed = certificate.clone();
            change(&mut changed);
            assert_eq!(check(&changed, &member), Err(expected), "change {at}");
        }
    }

    #[test]
    fn a_stranger_certifies_nobody() {
        let (good, member) = good();
        let (owner, invite) = (SecretKey::generate(), SecretKey::generate());
        let mut grant = good.grant.clone();
        grant.invite_key = invite.public_key().to_string();
        let own = |grant: &Grant, owner: &SecretKey| {
            let invited = owner.sign(&grant.text().expect("a text"));
            let vouched = grant.vouch(&invite, &member).expect("signed");
            Certificate::new(grant.clone(), invited, vouched)
        };
        let by_nobody = own(&grant, &owner);
        assert_eq!(check(&by_nobody, &member), Err(CertificateError::BadInvite));
        grant.owner = owner.public_key().to_string();
        let by_another = own(&grant, &owner);
        assert_eq!(check(&by_another, &member), Err(CertificateError::OtherOwner));
    }

    #[test]
    fn no_field_can_be_taken_for_two() {
        let (good, member) = good();
        let mut grant = good.grant;
        grant.invite.push_str("|x");
        assert_eq!((grant.text(), grant.vouch(&SecretKey::generate(), &member)), (None, None));
        let odd = Certificate::new(grant, good.owner_signature, good.signature);
        assert_eq!(check(&odd, &member), Err(CertificateError::Malformed));
    }

    #[test]
    fn what_is_no_certificate_is_said_to_be_none() {
        let (good, _) = good();
        let newer = BASE64URL.encode(serde_json::to_vec(&Certificate { v: 2, ..good }).unwrap());
        for text in ["", "e30", "%%%", &newer, &"A".repeat(CERTIFICATE_CHARS_MAX + 1)] {
            assert_eq!(Certificate::read(text), Err(CertificateError::Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}", bytes: Vec<u8>) {
            let _ = Certificate::read(&text);
            if let Ok(read) = Certificate::read(&BASE64URL.encode(bytes)) {
                prop_assert!(read.verify("mesh", &"0".repeat(64), "member").is_err());
            }
        }

        #[test]
        fn a_certificate_with_another_byte_is_none(at in 0_usize..2000, byte: u8) {
            let (good, member) = good();
            let mut json = serde_json::to_vec(&good).expect("JSON");
            let at = at % json.len();
            prop_assume!(json[at] != byte);
            json[at] = byte;
            let text = BASE64URL.encode(json);
            let verdict = Certificate::read(&text).and_then(|read| check(&read, &member));
            // White space, and hex digits of another case, say the same.
            let same = |read: &Certificate| {
                read.grant == good.grant
                    && read.owner_signature.eq_ignore_ascii_case(&good.owner_signature)
                    && read.signature.eq_ignore_ascii_case(&good.signature)
            };
            let says_the_same = Certificate::read(&text).is_ok_and(|read| same(&read));
            prop_assert_eq!(verdict.is_ok(), says_the_same);
        }
    }
}
