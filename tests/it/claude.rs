//! Coding sessions as peers, from outside: the program itself, called by a stand-in for
//! the host that it is made for.

mod hooks;
mod host;
mod libraries;
mod mcp;
mod real;
mod setup;
