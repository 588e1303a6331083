//! Any bytes at any listener: no panic, well-formed replies, harmless envelopes. The first byte chooses the listener.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_proxy_fuzz::Caller;

fuzz_target!(|input: &[u8]| {
    let Some((listener, bytes)) = input.split_first() else {
        return;
    };
    Caller::new(*listener).send(bytes);
});
