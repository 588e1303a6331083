//! Whether a text is a mailbox: what RCPT takes is the protocol's to say.

use pyo3::prelude::*;
use smtp_proxy_proto::address;

/// As between the brackets of a path.
#[pyfunction]
pub(crate) fn is_mailbox(text: &str) -> bool {
    const BRACKETS: usize = 2;
    text.len() + BRACKETS <= address::PATH_BYTES && address::mailbox(text).is_ok()
}
