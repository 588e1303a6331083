//! Envelope ids: `UUIDv7` (RFC 9562 5.7), so that the rows of a day lie together and ids sort by time.
//!
//! Own code: an id is six bytes of time, a counter and eight random bytes, and what matters here is
//! what no crate promises, one call to the system's randomness for many ids.

use std::time::{Duration, SystemTime};

use rustls::crypto::SecureRandom;
use rustls::crypto::ring;
use smtp_proxy_proto::EnvelopeId;

/// Random bytes of one id: 8 for its tail, 2 to begin the counter with.
const RANDOM_BYTES: usize = 10;
/// Ids per call to the system.
const POOLED_IDS: usize = 256;

/// Makes ids that always grow within one process (RFC 9562 6.2, method 1: a counter of 12 bits that
/// begins at random each millisecond).
pub(crate) struct Ids {
    random: &'static dyn SecureRandom,
    pool: Box<[u8]>,
    used: usize,
    last_ms: u64,
    counter: u16,
}

impl Ids {
    pub(crate) fn new() -> Self {
        Self {
            random: ring::default_provider().secure_random,
            pool: vec![0; RANDOM_BYTES * POOLED_IDS].into_boxed_slice(),
            used: RANDOM_BYTES * POOLED_IDS,
            last_ms: 0,
            counter: 0,
        }
    }

    /// `None`: the system has no randomness for us, which must not end in ids that repeat.
    pub(crate) fn next(&mut self, since_epoch: Duration) -> Option<EnvelopeId> {
        let random = self.random_bytes()?;
        let now_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        if now_ms > self.last_ms {
            self.last_ms = now_ms;
            // The top bit stays free, so that at least 2,048 more fit into the millisecond.
            self.counter = u16::from_be_bytes([random[0] & 0x07, random[1]]);
        } else if self.counter < 0x0fff {
            self.counter += 1;
        } else {
            // The clock stands or went back: run ahead of it rather than repeat or go back with it.
            self.last_ms += 1;
            self.counter = 0;
        }
        Some(layout(self.last_ms, self.counter, random))
    }

    fn random_bytes(&mut self) -> Option<[u8; RANDOM_BYTES]> {
        if self.used + RANDOM_BYTES > self.pool.len() {
            self.random.fill(&mut self.pool).ok()?;
            self.used = 0;
        }
        let bytes = self.pool.get(self.used..)?.first_chunk().copied();
        self.used += RANDOM_BYTES;
        bytes
    }
}

/// RFC 9562 5.7: time (48 bits), version 7, counter (12), variant 10, random (62).
fn layout(ms: u64, counter: u16, random: [u8; RANDOM_BYTES]) -> EnvelopeId {
    let [_, _, t0, t1, t2, t3, t4, t5] = ms.to_be_bytes();
    let [c0, c1] = counter.to_be_bytes();
    let [_, _, r0, r1, r2, r3, r4, r5, r6, r7] = random;
    EnvelopeId([
        t0,
        t1,
        t2,
        t3,
        t4,
        t5,
        0x70 | c0,
        c1,
        0x80 | (r0 & 0x3f),
        r1,
        r2,
        r3,
        r4,
        r5,
        r6,
        r7,
    ])
}

/// Wall time since 1970; zero on a machine whose clock stands before that.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_grow_even_when_the_clock_does_not() {
        let mut ids = Ids::new();
        let mut last = [0; 16];
        for n in 0..10_000_u64 {
            // It stands, runs and once goes back.
            let ms = if n == 6000 {
                5
            } else {
                1_700_000_000_000 + n / 5000
            };
            let EnvelopeId(id) = ids.next(Duration::from_millis(ms)).unwrap();
            assert!(id > last, "{n}");
            last = id;
        }
    }

    #[test]
    fn an_id_is_a_uuid_of_version_7() {
        let mut ids = Ids::new();
        let id = ids.next(Duration::from_millis(0x0193_a45e_0001)).unwrap();
        let shown = id.to_string();
        assert!(shown.starts_with("0193a45e-0001-7"), "{shown}");
        assert!(
            matches!(shown.as_bytes()[19], b'8' | b'9' | b'a' | b'b'),
            "{shown}"
        );
    }

    #[test]
    fn random_tails_do_not_repeat() {
        let mut ids = Ids::new();
        let tails: HashSet<[u8; 8]> = (0..5000)
            .map(|_| *ids.next(Duration::ZERO).unwrap().0.last_chunk().unwrap())
            .collect();
        assert_eq!(tails.len(), 5000);
    }
}
