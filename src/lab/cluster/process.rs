//! Processes that may be somebody else's children: found again by their
//! number and the instant of their birth, so that a number which has been
//! given to another program is never signalled.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};

/// Between two looks at a process that is to end.
const LOOK: Duration = Duration::from_millis(20);

/// A process that can be told from every other, ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) pid: u32,
    /// When it was born, in whatever form the system tells.
    born: String,
}

impl Identity {
    /// The process that has the number now.
    pub(super) fn of(pid: u32) -> Option<Self> {
        born(pid).map(|born| Self { pid, born })
    }

    /// Whether the process still runs.
    pub(super) fn is_alive(&self) -> bool {
        born(self.pid).as_ref() == Some(&self.born)
    }

    /// Sends the process a signal, if it still runs.
    pub(super) fn signal(&self, signal: Signal) {
        if self.is_alive() {
            signal_to(self.pid, signal);
        }
    }

    /// Waits until the process has ended, and says whether it has.
    pub(super) async fn wait(&self, patience: Duration) -> bool {
        let began = Instant::now();
        while self.is_alive() {
            if began.elapsed() > patience {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    /// Ends the process: by `signal`, and if that does not help, by force.
    pub(super) async fn end(&self, signal: Signal, patience: Duration) {
        self.signal(signal);
        if !self.wait(patience).await {
            self.signal(Signal::KILL);
            self.wait(patience).await;
        }
    }
}

/// Signals a process by its number; one that is gone is no failure.
pub(super) fn signal_to(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether any process has the number, be it dead and not yet waited for.
pub(super) fn is_taken(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // "Not permitted" says that there is one.
    pid.is_some_and(
        |pid| !matches!(test_kill_process(pid), Err(error) if error == rustix::io::Errno::SRCH),
    )
}

/// The name of the program that has the number now.
pub(super) fn program_of(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .ok()
        .or_else(|| ask_ps(pid, "comm="))?;
    let name = text.trim();
    Some(name.rsplit('/').next().unwrap_or(name).to_owned())
}

/// The birth of the process with that number: on Linux the boot and the clock tick
/// since, elsewhere a date. `None` when there is none, or when it is dead and only not
/// yet waited for.
fn born(pid: u32) -> Option<String> {
    if !std::path::Path::new("/proc/self/stat").exists() {
        return ask_ps(pid, "lstart=");
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    let ticks = fields.nth(18)?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Some(format!("{}/{ticks}", boot.trim()))
}

fn ask_ps(pid: u32, field: &str) -> Option<String> {
    let asked =
        std::process::Command::new("ps").args(["-o", field, "-p", &pid.to_string()]).output();
    let text = String::from_utf8(asked.ok()?.stdout).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_known_until_it_ends_and_never_after() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("sleep");
        let identity = Identity::of(child.id()).expect("it lives");
        assert!(identity.is_alive());
        assert_eq!(program_of(child.id()).as_deref(), Some("sleep"));
        identity.end(Signal::TERM, Duration::from_secs(10)).await;
        // Nobody has waited for it yet: its number is still taken.
        assert!(!identity.is_alive());
        child.wait().expect("a child");
        // The child may have been born in the same tick as this process.
        let born = format!("{} and later", identity.born);
        let other = Identity { pid: std::process::id(), born };
        assert!(!other.is_alive(), "another birth is another process");
        other.signal(Signal::KILL);
    }
}
