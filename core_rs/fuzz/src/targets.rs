//! One module per target: `run` takes any bytes, and panics when what must always hold does not.

pub mod address;
pub mod auth;
pub mod client_reply;
pub mod data;
pub mod header;
pub mod proxy;
pub mod session;
pub mod session_split;

/// A target's name, which is that of its file in `fuzz_targets`, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All of them; `tests/replay.rs` sees to it that none is missing.
pub const ALL: &[Target] = &[
    ("address", address::run),
    ("auth", auth::run),
    ("client_reply", client_reply::run),
    ("data", data::run),
    ("header", header::run),
    ("proxy", proxy::run),
    ("session", session::run),
    ("session_split", session_split::run),
];
