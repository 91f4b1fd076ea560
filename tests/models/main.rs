//! Models of the broker's two protocols, made of the code that runs them: that of
//! leases explored breadth first up to a number of states, that of delivery by
//! random plans.
//!
//! A counterexample is printed as a short list of steps. `MODEL_STATES=5000000`
//! looks at more than the tests do by themselves; that wants an optimized build.

#![expect(unreachable_pub, reason = "a test crate has no callers outside")]

mod delivery;
mod lease;
