//! Processes as they are told apart: a pid alone is used again.

use rustix::process::{Pid, getppid, test_kill_process};
use serde::{Deserialize, Serialize};

/// Ancestors that are looked at. A session's host is a few levels up.
const ANCESTORS_MAX: usize = 32;

/// Programs that stand between a host and what it calls.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "zsh", "fish", "ksh", "env"];

/// A process: its pid, and when it began as far as this system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: i32,
    /// When it began, in ticks since the machine did; `None` where that is not told.
    pub(crate) started: Option<u64>,
}

impl Process {
    /// The process that has this pid now.
    pub(crate) fn of(pid: i32) -> Self {
        Self { pid, started: stat(pid).map(|stat| stat.started) }
    }

    /// The host that calls this program: the one that it names (`CLAUDE_PID`), else the
    /// nearest ancestor that is no shell.
    pub(crate) fn host(named: Option<&str>) -> Self {
        let named = named.and_then(|pid| pid.trim().parse().ok()).filter(|pid| *pid > 0);
        if let Some(pid) = named {
            return Self::of(pid);
        }
        let mut found = ancestors();
        let is_shell = |process: &Self| {
            stat(process.pid).is_some_and(|stat| SHELLS.contains(&stat.name.as_str()))
        };
        found.find(|process| !is_shell(process)).unwrap_or(Self::of(0))
    }

    /// Whether it is still there.
    pub(crate) fn runs(self) -> bool {
        match self.started {
            Some(started) => stat(self.pid).is_some_and(|stat| stat.started == started),
            None => Pid::from_raw(self.pid)
                .is_some_and(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))),
        }
    }
}

/// This process's ancestors, the nearest first.
pub(super) fn ancestors() -> impl Iterator<Item = Process> {
    let parent = getppid().map(Pid::as_raw_nonzero).map(i32::from);
    let pids = std::iter::successors(parent, |pid| stat(*pid).map(|stat| stat.parent));
    // In a container the host itself may be the first process.
    pids.take_while(|pid| *pid > 0).take(ANCESTORS_MAX).map(Process::of)
}

/// What the system says of a process.
struct Stat {
    name: String,
    parent: i32,
    started: u64,
}

/// Reads `/proc`; `None` where there is none, or no such process.
fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold some itself.
    let (head, rest) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let mut fields = rest.split_whitespace();
    // After the name: state, parent ...; the start is the twentieth.
    let parent = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Stat { name, parent, started })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let own = Process::of(i32::try_from(std::process::id()).expect("fits"));
        assert!(own.runs());
        if let Some(started) = own.started {
            assert!(!Process { started: Some(started + 1), ..own }.runs());
        }
        let mut child = std::process::Command::new("true").spawn().expect("started");
        let gone = Process::of(i32::try_from(child.id()).expect("fits"));
        child.wait().expect("ended");
        assert!(!gone.runs());
    }

    #[test]
    fn the_host_is_who_it_says_and_else_an_ancestor() {
        let own = i32::try_from(std::process::id()).expect("fits");
        assert_eq!(Process::host(Some(&own.to_string())), Process::of(own));
        for odd in [None, Some("x"), Some("0"), Some("-1"), Some("")] {
            let host = Process::host(odd);
            assert!(host.pid > 1 && host.pid != own && host.runs(), "{odd:?}: {host:?}");
        }
    }
}
