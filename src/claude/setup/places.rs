//! Where hosts keep what they read: folders and files of this user, of a project, of an
//! administrator.

use std::path::{Path, PathBuf};

use crate::config::Env;
use crate::output::Failure;

/// The folders, as the environment tells them.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// This user's folder.
    pub(crate) home: PathBuf,
    /// Claude Code's folder.
    pub(crate) claude: PathBuf,
    /// The file that Claude Code keeps and rewrites while it runs: never written by us.
    pub(crate) claude_state: PathBuf,
    /// Codex's folder.
    pub(crate) codex: PathBuf,
    /// The folder in which a session is, or would be, started.
    pub(crate) project: PathBuf,
    /// What an administrator has set for Claude Code.
    pub(crate) managed: PathBuf,
    /// Where programs are looked for.
    pub(crate) path: Vec<PathBuf>,
}

impl Places {
    /// Reads them from an environment.
    pub(crate) fn of(env: Env<'_>, project: PathBuf) -> Result<Self, Failure> {
        let set = |name: &str| env(name).filter(|text| !text.trim().is_empty()).map(PathBuf::from);
        let home = set("HOME")
            .or_else(|| directories::BaseDirs::new().map(|folders| folders.home_dir().to_owned()));
        let home = home.ok_or_else(|| {
            Failure::new(
                "no_home",
                "this user has no home folder; set HOME to the one that the host uses",
            )
        })?;
        let config = set("CLAUDE_CONFIG_DIR");
        let claude_state = config.as_ref().unwrap_or(&home).join(".claude.json");
        let path = std::env::split_paths(&env("PATH").unwrap_or_default()).collect();
        Ok(Self {
            claude: config.unwrap_or_else(|| home.join(".claude")),
            claude_state,
            codex: set("CODEX_HOME").unwrap_or_else(|| home.join(".codex")),
            managed: managed_folder().join("managed-settings.json"),
            project,
            path,
            home,
        })
    }

    /// The settings of Claude Code for this user everywhere.
    pub(crate) fn user_settings(&self) -> PathBuf {
        self.claude.join("settings.json")
    }

    /// The settings of the project, which its people share.
    pub(crate) fn project_settings(&self) -> PathBuf {
        self.project.join(".claude/settings.json")
    }

    /// The settings of this user for the project.
    pub(crate) fn local_settings(&self) -> PathBuf {
        self.project.join(".claude/settings.local.json")
    }

    /// The servers of the project.
    pub(crate) fn project_servers(&self) -> PathBuf {
        self.project.join(".mcp.json")
    }

    /// A program on the path, or in one of the folders where hosts put theirs without it.
    pub(crate) fn find_program(&self, name: &str) -> Option<PathBuf> {
        let usual = [self.home.join(".local/bin"), self.home.join(".claude/local")];
        let mut found = self.path.iter().chain(&usual).map(|folder| folder.join(name));
        found.find(|file| is_program(file))
    }
}

/// Whether a file can be run.
pub(crate) fn is_program(file: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(file) else { return false };
    #[cfg(unix)]
    let runs = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let runs = true;
    metadata.is_file() && runs
}

fn managed_folder() -> &'static Path {
    Path::new(if cfg!(target_os = "macos") {
        "/Library/Application Support/ClaudeCode"
    } else {
        "/etc/claude-code"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(set: &[(&str, &str)]) -> Places {
        let find = |name: &str| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Places::of(&find, PathBuf::from("/work")).expect("a home")
    }

    #[test]
    fn the_hosts_own_variables_move_their_folders() {
        let usual = places(&[("HOME", "/home/ada")]);
        assert_eq!(usual.user_settings(), Path::new("/home/ada/.claude/settings.json"));
        assert_eq!(usual.claude_state, Path::new("/home/ada/.claude.json"));
        assert_eq!(usual.codex, Path::new("/home/ada/.codex"));
        let moved = places(&[("HOME", "/h"), ("CLAUDE_CONFIG_DIR", "/c"), ("CODEX_HOME", "/x")]);
        assert_eq!(moved.user_settings(), Path::new("/c/settings.json"));
        assert_eq!(moved.claude_state, Path::new("/c/.claude.json"));
        assert_eq!(moved.codex, Path::new("/x"));
    }
}
