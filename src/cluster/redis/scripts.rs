//! The Lua scripts, and calls to them.

use redis::{Cmd, Script};

/// `books.lua` in front of a lease script.
macro_rules! on_books {
    ($file:literal) => {
        concat!(include_str!("books.lua"), "\n", include_str!($file))
    };
}

/// Every script, by what it does.
pub(super) struct Scripts {
    pub(super) acquire: Script,
    pub(super) renew: Script,
    pub(super) release: Script,
    pub(super) revoke: Script,
    pub(super) reap: Script,
    pub(super) adopt: Script,
    pub(super) write_record: Script,
    pub(super) directory: Script,
    pub(super) leases: Script,
    pub(super) members: Script,
    pub(super) tokens: Script,
}

const SOURCES: [&str; 11] = [
    on_books!("acquire.lua"),
    on_books!("renew.lua"),
    on_books!("release.lua"),
    on_books!("revoke.lua"),
    on_books!("reap.lua"),
    on_books!("adopt.lua"),
    on_books!("write_record.lua"),
    on_books!("directory.lua"),
    on_books!("leases.lua"),
    include_str!("members.lua"),
    include_str!("tokens.lua"),
];

impl Scripts {
    pub(super) fn new() -> Self {
        let [
            acquire,
            renew,
            release,
            revoke,
            reap,
            adopt,
            write_record,
            directory,
            leases,
            members,
            tokens,
        ] = SOURCES.map(Script::new);
        Self {
            acquire,
            renew,
            release,
            revoke,
            reap,
            adopt,
            write_record,
            directory,
            leases,
            members,
            tokens,
        }
    }
}

/// The commands that make a server know every script.
pub(super) fn load_commands() -> impl Iterator<Item = Cmd> {
    SOURCES.iter().map(|source| {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(source);
        load
    })
}

/// The command that runs a script on these keys; its arguments are added to it.
pub(super) fn call(script: &Script, keys: &[String]) -> Cmd {
    let mut call = redis::cmd("EVALSHA");
    call.arg(script.get_hash()).arg(keys.len()).arg(keys);
    call
}
