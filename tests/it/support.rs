//! What tests share.
#![expect(dead_code, reason = "not every test is here yet")]

pub(crate) mod broker;
pub(crate) mod frames;
pub(crate) mod mesh;
pub(crate) mod peer;
