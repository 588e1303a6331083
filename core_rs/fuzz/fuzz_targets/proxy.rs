//! See `smtp_proxy_fuzz::targets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| smtp_proxy_fuzz::targets::proxy::run(input));
