//! From a user's machine to a session that is a peer: what hosts are told of this program
//! (`install`, `uninstall`, the plugin folder), what is off (`doctor`), a session that is
//! started for a peer (`launch`), and what is known of those that run (`status`).
//!
//! Files of hosts belong to their users: nothing that is not ours is changed, nothing is
//! changed by halves, and every change is said. What a host rewrites while it runs is
//! changed by its own program only. The room's root calls it.

pub(super) mod doctor;
pub(super) mod install;
pub(super) mod launch;
pub(super) mod plugin;
pub(super) mod status;
pub(super) mod uninstall;

mod codex;
mod copies;
mod description;
mod file;
mod host;
mod json_text;
mod owner;
mod places;
mod program;
mod report;
mod servers;
mod settings;
mod version;
