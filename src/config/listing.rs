//! The listing of all settings, as `claudemesh-broker config` prints them: what
//! holds, and where it comes from. A secret is never shown.

use serde::Serialize;

use super::reader::{Env, lookup, shown};
use super::settings::SETTINGS;

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

/// The listing. A wrong value is listed as it was written; what depends on the
/// machine is asked of `machine_default` by the variable's name.
pub(super) fn describe(
    env: Env<'_>,
    machine_default: impl Fn(&str) -> Option<String>,
) -> Vec<SettingRow> {
    SETTINGS
        .iter()
        .map(|setting| {
            let set = lookup(env, setting.name);
            let source = if set.is_some() { "environment" } else { "default" };
            let value = match set {
                Some(value) => Some(shown(setting.name, &value)),
                None if setting.default.is_empty() => machine_default(setting.name),
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
    use crate::config::Config;

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
        let rows = Config::describe(&env);
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
}
