//! Tests from outside.

fn main() {}
