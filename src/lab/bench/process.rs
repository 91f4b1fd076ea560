//! What a process costs, as Linux counts it.

use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

/// Clock ticks per second in `/proc/<pid>/stat`: the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// A process that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process(u32);

/// Memory of one process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Memory {
    /// Bytes that are resident now.
    pub(super) resident: u64,
    /// Bytes that were resident at most, ever.
    pub(super) resident_peak: u64,
    /// Resident bytes that no file backs: heap and stacks.
    pub(super) anonymous: u64,
}

impl Process {
    pub(super) const fn new(pid: u32) -> Self {
        Self(pid)
    }

    /// The process that runs this.
    pub(super) fn own() -> Self {
        Self(std::process::id())
    }

    /// Kills the process, without a warning.
    pub(super) fn kill(self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.0).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.context("a process has a positive id")?;
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::KILL)?)
    }

    /// CPU time so far, of all threads.
    pub(super) fn cpu(self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        cpu_of(&stat)
    }

    /// The process's memory now.
    pub(super) fn memory(self) -> Option<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let field = |name: &str| kilobytes(&status, name);
        Some(Memory {
            resident: field("VmRSS:")?,
            resident_peak: field("VmHWM:")?,
            anonymous: field("RssAnon:").unwrap_or_default(),
        })
    }
}

/// User and system time of a `stat` line. The command's name stands in
/// parentheses and may hold anything.
fn cpu_of(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// CPU and memory of some processes over a span of time.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Usage {
    /// CPU seconds of all of them together.
    pub(super) cpu_seconds: f64,
    /// The memory of each at the start of the span.
    pub(super) before: Vec<Memory>,
    /// The memory of each at its end.
    pub(super) after: Vec<Memory>,
}

impl Usage {
    /// The most that any one of them ever held.
    pub(super) fn resident_peak(&self) -> u64 {
        self.after.iter().map(|memory| memory.resident_peak).max().unwrap_or_default()
    }

    /// What is resident at the end, of all together.
    pub(super) fn resident(&self) -> u64 {
        self.after.iter().map(|memory| memory.resident).sum()
    }

    /// What came to be resident within the span, of all together.
    pub(super) fn grown(&self) -> u64 {
        let before: u64 = self.before.iter().map(|memory| memory.resident).sum();
        self.resident().saturating_sub(before)
    }
}

/// A span under way.
pub(super) struct Meter {
    processes: Vec<Process>,
    cpu: Vec<Option<Duration>>,
    before: Vec<Memory>,
}

impl Meter {
    /// Starts to measure.
    pub(super) fn start(processes: &[Process]) -> Self {
        Self {
            processes: processes.to_vec(),
            cpu: processes.iter().map(|process| process.cpu()).collect(),
            before: memories(processes),
        }
    }

    /// Ends the span, and says what it cost.
    pub(super) fn stop(self) -> Usage {
        let spent = self.processes.iter().zip(&self.cpu).filter_map(|(process, before)| {
            Some(process.cpu()?.saturating_sub((*before)?).as_secs_f64())
        });
        Usage { cpu_seconds: spent.sum(), before: self.before, after: memories(&self.processes) }
    }
}

fn memories(processes: &[Process]) -> Vec<Memory> {
    processes.iter().filter_map(|process| process.memory()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 3 0 9 9 9";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_of("nonsense"), None);
    }

    #[test]
    fn memory_is_given_in_bytes() {
        assert_eq!(kilobytes("VmPeak:\t 9 kB\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12 * 1024));
        assert_eq!(kilobytes("", "VmRSS:"), None);
    }

    #[test]
    fn a_process_knows_itself_where_there_is_a_proc() {
        if std::path::Path::new("/proc/self/status").exists() {
            let memory = Process::own().memory().expect("readable");
            assert!(memory.resident > 0 && memory.resident_peak >= memory.resident / 2);
            assert!(Process::own().cpu().is_some());
        }
    }
}
