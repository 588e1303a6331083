//! What is fuzzed: one function per target, so that `tests/replay.rs` calls the same ones without libFuzzer.

pub mod caller;
pub mod targets;
