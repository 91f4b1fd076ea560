//! Every variable that the broker reads, in one table: the listing is made from it,
//! and so are the defaults. The reader of variables looks here; nothing is read here.

mod table;

pub use table::SETTINGS;

/// How a setting's value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// The value is shown as it is.
    Open,
    /// A URL: with its password redacted.
    Url,
    /// The value is not shown at all.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_meaning_that_reads_as_a_phrase() {
        for setting in SETTINGS {
            assert!(!setting.meaning.is_empty(), "{}", setting.name);
            assert!(!setting.meaning.ends_with('.'), "{}", setting.name);
        }
    }
}
