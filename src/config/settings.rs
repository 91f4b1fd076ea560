//! Every variable the broker reads, in one table: the listing is made from it,
//! and so are the defaults.

use serde::Serialize;

use super::Config;
use super::reader::{Env, lookup, shown};

mod table;

pub use table::SETTINGS;

/// How a setting's value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// As it is.
    Open,
    /// A URL: with its password redacted.
    Url,
    /// Not at all.
    Secret,
}

/// One variable.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The variable's name.
    pub name: &'static str,
    /// The value when it is not set, as it would be written; empty when there
    /// is none or when it depends on the machine.
    pub default: &'static str,
    /// What it does, with unit and range.
    pub meaning: &'static str,
    /// How its value may be shown.
    pub privacy: Privacy,
}

/// One line of the listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SettingRow {
    /// The variable's name.
    pub name: &'static str,
    /// The value that holds, secrets redacted; `None` when there is none.
    pub value: Option<String>,
    /// `environment` or `default`.
    pub source: &'static str,
    /// What it does, with unit and range.
    pub meaning: &'static str,
}

/// The table's entry for `name`.
///
/// # Panics
/// When there is none: whatever is read must be listed.
pub(super) fn setting(name: &str) -> &'static Setting {
    SETTINGS
        .iter()
        .find(|setting| setting.name == name)
        .unwrap_or_else(|| panic!("{name} is read but missing from SETTINGS"))
}

/// The listing. A wrong value is listed as it was written; what depends on the
/// machine is listed as it turned out, unless some value is wrong.
pub(super) fn describe(env: Env<'_>) -> Vec<SettingRow> {
    let config = Config::load(env).ok();
    SETTINGS
        .iter()
        .map(|setting| {
            let set = lookup(env, setting.name);
            let source = if set.is_some() { "environment" } else { "default" };
            let value = match set {
                Some(value) => Some(shown(setting.name, &value)),
                None if setting.default.is_empty() => {
                    config.as_ref().and_then(|config| config.machine_default(setting.name))
                }
                None => Some(setting.default.to_owned()),
            };
            SettingRow { name: setting.name, value, source, meaning: setting.meaning }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_lists_exactly_what_is_read() {
        let asked = RefCell::new(BTreeSet::new());
        let env = |name: &str| {
            asked.borrow_mut().insert(name.to_owned());
            (name == "CLAUDEMESH_DATA_DIR").then(|| "/data".to_owned())
        };
        Config::load(&env).expect("the defaults are valid");
        let listed: BTreeSet<String> =
            SETTINGS.iter().map(|setting| setting.name.to_owned()).collect();
        assert_eq!(listed.len(), SETTINGS.len(), "a name stands in the table twice");
        assert_eq!(asked.into_inner(), listed);
    }

    #[test]
    fn the_listing_tells_sources_apart_and_hides_secrets() {
        let env = |name: &str| match name {
            "HOOK_TOKEN" => Some("0123456789abcdef0123".to_owned()),
            "DATABASE_URL" => Some("postgres://u:hunter2@db/mesh".to_owned()),
            "BROKER_PORT" => Some("8001".to_owned()),
            "NODE_ID" => Some("node-a".to_owned()),
            _ => None,
        };
        let rows = describe(&env);
        let row = |name: &str| rows.iter().find(|row| row.name == name).expect(name).clone();
        assert_eq!(row("HOOK_TOKEN").value.as_deref(), Some("[redacted]"));
        assert_eq!(row("DATABASE_URL").value.as_deref(), Some("postgres://u:[redacted]@db/mesh"));
        assert_eq!(row("BROKER_PORT").value.as_deref(), Some("8001"));
        assert_eq!(row("BROKER_PORT").source, "environment");
        assert_eq!(row("STATUS_TTL_SECONDS").value.as_deref(), Some("60"));
        assert_eq!(row("STATUS_TTL_SECONDS").source, "default");
        assert_eq!(row("BROKER_WS_URL").value.as_deref(), Some("ws://localhost:8001/ws"));
        assert_eq!(row("TRUSTED_PROXIES").value, None);
        assert!(!format!("{rows:?}").contains("hunter2"));
        assert!(!format!("{rows:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn every_setting_has_a_meaning_that_reads_as_a_phrase() {
        for setting in SETTINGS {
            assert!(!setting.meaning.is_empty(), "{}", setting.name);
            assert!(!setting.meaning.ends_with('.'), "{}", setting.name);
        }
    }
}
