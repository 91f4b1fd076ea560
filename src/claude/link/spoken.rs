//! What a session says of itself, so that it can be said again to a broker that has
//! forgotten it.

use std::collections::BTreeMap;

use crate::protocol::{Group, Status};

/// What was said, and what is still to be said.
#[derive(Debug, Default)]
pub(crate) struct Spoken {
    summary: Option<String>,
    groups: BTreeMap<String, Group>,
    /// The model wants to be left alone, whatever its turns are.
    undisturbed: bool,
    /// What the broker was told last.
    status: Option<Status>,
    again: bool,
}

impl Spoken {
    /// The session's work.
    pub(crate) fn summary(&mut self, summary: &str) {
        self.summary = Some(summary.to_owned());
    }

    /// The session is in a group.
    pub(crate) fn joined(&mut self, group: Group) {
        self.groups.insert(group.name.clone(), group);
    }

    /// The session is not in it any more.
    pub(crate) fn left(&mut self, name: &str) {
        self.groups.remove(name);
    }

    /// Whether the session wants to be left alone.
    pub(crate) fn undisturbed(&mut self, is: bool) {
        self.undisturbed = is;
    }

    /// The status to tell, of a host that is in `turn`; `None` if it was told.
    pub(super) fn status_to_tell(&self, turn: Status) -> Option<Status> {
        let status = if self.undisturbed { Status::Dnd } else { turn };
        (self.status != Some(status)).then_some(status)
    }

    /// The broker knows the status.
    pub(super) fn told(&mut self, status: Status) {
        self.status = Some(status);
    }

    /// The broker has a new presence, of which it knows nothing.
    pub(super) fn is_to_be_said_again(&mut self) {
        self.again = true;
        self.status = None;
    }

    /// Summary and groups, if they have to be said again.
    pub(super) fn again(&mut self) -> Option<(Option<String>, Vec<Group>)> {
        std::mem::take(&mut self.again)
            .then(|| (self.summary.clone(), self.groups.values().cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_once_and_dnd_outlasts_turns() {
        let mut spoken = Spoken::default();
        assert_eq!(spoken.status_to_tell(Status::Idle), Some(Status::Idle));
        spoken.told(Status::Idle);
        assert_eq!(spoken.status_to_tell(Status::Idle), None);
        assert_eq!(spoken.status_to_tell(Status::Working), Some(Status::Working));
        spoken.undisturbed(true);
        assert_eq!(spoken.status_to_tell(Status::Working), Some(Status::Dnd));
        spoken.told(Status::Dnd);
        assert_eq!(spoken.status_to_tell(Status::Idle), None);
        spoken.undisturbed(false);
        assert_eq!(spoken.status_to_tell(Status::Idle), Some(Status::Idle));
    }

    #[test]
    fn a_new_presence_is_told_everything_again() {
        let mut spoken = Spoken::default();
        spoken.summary("the parser");
        spoken.joined(Group { name: "dev".to_owned(), role: None });
        spoken.joined(Group { name: "ops".to_owned(), role: None });
        spoken.left("ops");
        spoken.told(Status::Working);
        assert!(spoken.again().is_none());
        spoken.is_to_be_said_again();
        let (summary, groups) = spoken.again().expect("to be said");
        assert_eq!(summary.as_deref(), Some("the parser"));
        assert_eq!(groups.iter().map(|of| of.name.as_str()).collect::<Vec<_>>(), ["dev"]);
        assert_eq!(spoken.status_to_tell(Status::Working), Some(Status::Working));
        assert!(spoken.again().is_none(), "once");
    }
}
