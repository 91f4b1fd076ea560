//! `claudemesh-broker config`: every setting with its value, its source and what
//! it means; and everything that is wrong.

use std::io::{self, Write};
use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::config::{Config, ConfigError, Env, SettingRow};

/// The exit code when a value is wrong.
const WRONG_VALUES: u8 = 2;

/// Prints the settings to standard output, as a table or as one JSON object, and
/// every wrong value to standard error. The exit code is 0, or 2 when a value is wrong.
pub(crate) fn run(json: bool, env: Env<'_>) -> anyhow::Result<ExitCode> {
    let code = print(json, env, &mut io::stdout().lock(), &mut io::stderr().lock())?;
    Ok(ExitCode::from(code))
}

#[derive(Serialize)]
struct Report {
    valid: bool,
    settings: Vec<SettingRow>,
    problems: Vec<ConfigError>,
}

fn print(json: bool, env: Env<'_>, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let problems = Config::load(env).err().map(|errors| errors.0).unwrap_or_default();
    let report = Report { valid: problems.is_empty(), settings: Config::describe(env), problems };
    if json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", table(&report.settings))?;
    }
    out.flush()?;
    for problem in &report.problems {
        writeln!(err, "{problem}")?;
    }
    Ok(if report.valid { 0 } else { WRONG_VALUES })
}

fn table(rows: &[SettingRow]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["name", "value", "source", "meaning"]);
    for row in rows {
        let value = row.value.as_deref().unwrap_or("-");
        table.add_row([row.name, value, row.source, row.meaning]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    fn printed(json: bool, set: &[(&str, &str)]) -> (u8, String, String) {
        let env = |name: &str| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = print(json, &env, &mut out, &mut err).expect("memory can be written");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (code, text(out), text(err))
    }

    #[test]
    fn the_table_names_every_setting_and_no_secret() {
        let set = [
            ("HOOK_TOKEN", "hunter2hunter2hunter2"),
            ("BROKER_PORT", "8123"),
            ("CLAUDEMESH_DATA_DIR", "/data"),
        ];
        let (code, out, err) = printed(false, &set);
        assert_eq!((code, err.as_str()), (0, ""));
        for setting in SETTINGS {
            assert!(out.contains(setting.name), "{}", setting.name);
        }
        assert!(out.contains("8123") && out.contains("environment"), "{out}");
        assert!(out.contains("[redacted]") && !out.contains("hunter2"), "{out}");
    }

    #[test]
    fn json_is_one_object_even_when_values_are_wrong() {
        let (code, out, err) = printed(true, &[("BROKER_PORT", "x"), ("DRAIN_SECONDS", "y")]);
        assert_eq!(code, WRONG_VALUES);
        let report: serde_json::Value = serde_json::from_str(&out).expect("one JSON object");
        assert_eq!(report["valid"], false);
        assert_eq!(report["settings"].as_array().map(Vec::len), Some(SETTINGS.len()));
        assert_eq!(report["problems"][0]["name"], "BROKER_PORT");
        assert_eq!(err.lines().count(), 2, "{err}");
        assert!(err.contains("BROKER_PORT") && err.contains("DRAIN_SECONDS"), "{err}");
    }

    #[test]
    fn an_unset_value_is_null() {
        let (code, out, _) = printed(true, &[("CLAUDEMESH_DATA_DIR", "/data")]);
        assert_eq!(code, 0);
        let report: serde_json::Value = serde_json::from_str(&out).expect("one JSON object");
        let settings = report["settings"].as_array().expect("a list");
        let redis = settings.iter().find(|row| row["name"] == "REDIS_URL").expect("listed");
        assert!(redis["value"].is_null());
        assert_eq!(redis["source"], "default");
    }
}
