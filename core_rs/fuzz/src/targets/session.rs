//! Any bytes at any listener: no panic, well-formed replies, harmless envelopes. The first byte chooses the listener.

use crate::Caller;

/// See above.
pub fn run(input: &[u8]) {
    let Some((listener, bytes)) = input.split_first() else {
        return;
    };
    Caller::new(*listener).send(bytes);
}
