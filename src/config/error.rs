//! What is wrong with the configuration, all of it at once.

use std::fmt;

use serde::Serialize;

/// One setting that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// The variable.
    pub name: &'static str,
    /// The value, redacted if secret; `None` when it is not set.
    pub value: Option<String>,
    /// What is wrong with it, and what to set.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(out, "{} is {value:?}: {}", self.name, self.problem),
            None => write!(out, "{} is not set: {}", self.name, self.problem),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Everything that is wrong with the configuration; at least one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the configuration is wrong:")?;
        for error in &self.0 {
            write!(out, "\n  {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_line_with_name_value_and_remedy() {
        let errors = ConfigErrors(vec![
            ConfigError {
                name: "BROKER_PORT",
                value: Some("x".to_owned()),
                problem: "set a number".to_owned(),
            },
            ConfigError {
                name: "DATABASE_URL",
                value: None,
                problem: "set a Postgres URL".to_owned(),
            },
        ]);
        assert_eq!(
            errors.to_string(),
            "the configuration is wrong:\n  BROKER_PORT is \"x\": set a number\n  \
             DATABASE_URL is not set: set a Postgres URL"
        );
    }
}
