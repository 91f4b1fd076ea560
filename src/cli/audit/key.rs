//! `claudemesh-broker audit key`: the key by which heads are signed, made and shown.
//!
//! Only its public half is ever printed.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use crate::auth::SecretKey;
use crate::cli::{Failure, output};
use crate::config::{AuditKeySource, Config};
use crate::private;

/// The key that the configuration names, if it names one.
pub(super) fn configured(config: &Config) -> anyhow::Result<Option<SecretKey>> {
    let Some(source) = &config.audit.key else { return Ok(None) };
    let seed = source.read().with_context(|| match source {
        AuditKeySource::File(path) => {
            format!("cannot read the key of AUDIT_KEY, {}", path.display())
        }
        AuditKeySource::Seed(_) => "cannot read AUDIT_KEY".to_owned(),
    })?;
    let key = SecretKey::from_seed_hex(seed.expose());
    let key = key.ok_or_else(|| {
        let message = "what AUDIT_KEY names is no key: it has to be 64 hex digits and nothing else";
        Failure::new("invalid_key", message)
    })?;
    Ok(Some(key))
}

/// Tells the public half of the configured key.
pub(super) fn show(config: &Config, json: bool) -> anyhow::Result<()> {
    let key = configured(config)?.ok_or_else(|| {
        let message = "AUDIT_KEY is not set; `claudemesh-broker audit key --new FILE` makes a key, \
                       to be set to the whole path of that file";
        Failure::new("no_key", message)
    })?;
    let public = key.public_key();
    output::answer(json, &json!({"publicKey": public}), public.as_str())
}

/// Makes a key in a new file.
pub(super) fn make(file: &Path, json: bool) -> anyhow::Result<()> {
    let is_there =
        file.try_exists().with_context(|| format!("cannot look for {}", file.display()))?;
    if is_there {
        let message = format!("{} is there already; name a file that is not", file.display());
        return Err(Failure::new("exists", message).into());
    }
    let key = SecretKey::generate();
    private::write(file, key.to_seed_hex().as_bytes())?;
    // AUDIT_KEY takes whole paths alone.
    let file = std::path::absolute(file)?;
    let (public, shown) = (key.public_key(), file.display().to_string());
    let text = format!(
        "The key is in {shown}, for this user alone. Set AUDIT_KEY to that path, and note the\n\
         public key, by which anchors are checked:\n  {public}"
    );
    output::answer(json, &json!({"publicKey": public, "file": shown}), &text)
}
