//! May mail come in? Set from outside, read by every session at its greeting and at MAIL.

use std::sync::atomic::{AtomicU8, Ordering};

use smtp_proxy_proto::Gate;

/// A [`Gate`] that all threads share.
#[derive(Debug, Default)]
pub(crate) struct SharedGate(AtomicU8);

impl SharedGate {
    pub(crate) fn read(&self) -> Gate {
        match self.0.load(Ordering::Relaxed) {
            0 => Gate::Open,
            1 => Gate::Busy,
            2 => Gate::StoreDown,
            _ => Gate::Draining,
        }
    }

    /// Draining is for good: whoever opens the gate afterwards has not heard of it yet.
    pub(crate) fn set(&self, gate: Gate) {
        let number = match gate {
            Gate::Open => 0,
            Gate::Busy => 1,
            Gate::StoreDown => 2,
            Gate::Draining => 3,
            Gate::OverRate => return, // of one tenant, and kept there
        };
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                (now != 3).then_some(number)
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_is_for_good() {
        let gate = SharedGate::default();
        for wanted in [Gate::Busy, Gate::StoreDown, Gate::Open, Gate::Draining] {
            gate.set(wanted);
            assert_eq!(gate.read(), wanted);
        }
        gate.set(Gate::Open);
        assert_eq!(gate.read(), Gate::Draining);
    }
}
