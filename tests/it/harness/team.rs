//! A broker that serves the mesh `team`, and a user's terminal with peers of it.

use serde_json::Value;

use super::program::{Answer, Place, Serving, text};

/// What is typed runs against the broker, which ends with this.
pub struct Team {
    /// The public keys of the peers, in the order of their names.
    pub keys: Vec<String>,
    place: Place,
    broker: Serving,
}

impl Team {
    /// With peers of those names, on a broker with these variables.
    pub fn of(names: &[&str], env: &[(&str, &str)]) -> Self {
        let place = Place::new();
        let broker = Serving::start_with(&place, env);
        let mut team = Self { keys: Vec::new(), place, broker };
        team.types(&["mesh", "create", "team"]);
        let uses = names.len().to_string();
        let invite = team.types(&["invite", "create", "team", "--max-uses", &uses]);
        for name in names {
            let joined = team.types(&["peer", "join", &text(&invite["link"]), "--name", name]);
            team.keys.push(text(&joined["pubkey"]));
        }
        team
    }

    /// What a command answers.
    pub fn answers(&self, args: &[&str]) -> Answer {
        let mut command = self.place.command(args);
        command.env("BROKER_PORT", self.broker.port.to_string());
        Answer::of(&command.output().expect("the program starts"), args)
    }

    /// The one object that a command answers, which must work.
    pub fn types(&self, args: &[&str]) -> Value {
        let answer = self.answers(&[args, &["--json"]].concat());
        assert_eq!(answer.code, 0, "{args:?}: {answer:?}");
        answer.object()
    }
}
