//! docs/FLOW.md shows the transition table as it is in the code.
//! `UPDATE_FLOW=1 cargo test -p smtp-proxy-proto --test flow` writes it anew.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;

const BEGIN: &str = "<!-- transition table: begin (printed by core_rs/proto/tests/flow.rs) -->\n";
const END: &str = "<!-- transition table: end -->\n";

#[test]
fn the_documented_table_is_the_real_one() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/FLOW.md");
    let text = fs::read_to_string(&path).expect("docs/FLOW.md");
    let (before, rest) = text.split_once(BEGIN).expect("begin mark in docs/FLOW.md");
    let (table, after) = rest.split_once(END).expect("end mark in docs/FLOW.md");
    let wanted = smtp_proxy_proto::session::transition_table();
    if std::env::var_os("UPDATE_FLOW").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(
        table, wanted,
        "run UPDATE_FLOW=1 cargo test -p smtp-proxy-proto --test flow"
    );
}
