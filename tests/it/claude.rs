//! Coding sessions as peers, from outside: the program itself, called by a stand-in for
//! the host that it is made for.

mod faults;
mod hooks;
mod host;
mod libraries;
mod loops;
mod mcp;
mod real;
mod setup;
