//! The Lua scripts, and calls to them.

use redis::{Cmd, Script};

/// `books.lua` in front of a lease script.
macro_rules! on_books {
    ($file:literal) => {
        concat!(include_str!("books.lua"), "\n", include_str!($file))
    };
}

/// Every script by what it does, each with its source beside its name.
macro_rules! scripts {
    ($($name:ident: $source:expr,)+) => {
        /// Every script, by what it does.
        pub(super) struct Scripts {
            $(pub(super) $name: Script,)+
        }

        const SOURCES: &[&str] = &[$($source),+];

        impl Scripts {
            pub(super) fn new() -> Self {
                Self { $($name: Script::new($source),)+ }
            }
        }
    };
}

scripts! {
    acquire: on_books!("acquire.lua"),
    renew: on_books!("renew.lua"),
    release: on_books!("release.lua"),
    revoke: on_books!("revoke.lua"),
    reap: on_books!("reap.lua"),
    adopt: on_books!("adopt.lua"),
    write_record: on_books!("write_record.lua"),
    directory: on_books!("directory.lua"),
    leases: on_books!("leases.lua"),
    sim_clock: on_books!("sim_clock.lua"),
    members: include_str!("members.lua"),
    tokens: include_str!("tokens.lua"),
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
