//! What a run saw. Its JSON is the interface; names carry their units.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::{CreationError, Histogram};
use serde::Serialize;

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Marks all messages of this run (`X-Load-Run`).
    pub run: String,
    /// `closed` or `open`.
    pub model: &'static str,
    /// Accepted after the warm-up and before the end.
    pub messages: u64,
    /// What `messages` was counted over.
    pub seconds: f64,
    /// `messages` / `seconds`.
    pub messages_per_second: f64,
    /// Size of a message as sent, bytes.
    pub size_bytes: usize,
    /// Connections at once.
    pub connections: usize,
    /// Opened during the whole run.
    pub connections_opened: u64,
    /// Messages that failed or connections that could not be opened, in the whole run, warm-up included.
    pub errors_total: u64,
    /// The same by phase and reply or error; beyond 100 different ones under `others`.
    pub errors: BTreeMap<String, u64>,
    /// Sequence numbers handed out, warm-up included: 0 to this less one.
    pub sequences: u64,
    /// Messages that got 250 in the whole run, warm-up and stragglers included; what a ledger holds.
    pub accepted_total: u64,
    /// Open model: due, but no connection was free before the end.
    pub never_sent: u64,
    /// CPU that the generator itself used in the whole run, seconds.
    pub own_cpu_seconds: f64,
    /// `own_cpu_seconds` per message attempted, microseconds.
    pub own_cpu_us_per_message: f64,
    /// By phase, of messages due after the warm-up.
    pub latency: Latencies,
}

/// How long the phases took.
#[derive(Clone, Debug, Serialize)]
pub struct Latencies {
    /// From the first packet to the greeting, without implicit TLS; all of the run's.
    pub connect: Latency,
    /// TLS handshake; all of the run's.
    pub handshake: Latency,
    /// AUTH to 235; all of the run's.
    pub login: Latency,
    /// From MAIL to the 250 for the message.
    pub transaction: Latency,
    /// From the final dot to its 250.
    pub final_dot: Latency,
    /// From when the message was due to its 250; in the closed model this includes a new connection if one was needed.
    pub from_due: Latency,
}

/// One phase, milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// How many it is made of.
    pub count: u64,
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// 90 % of them took no longer.
    pub p90_ms: f64,
    /// 99 % of them took no longer.
    pub p99_ms: f64,
    /// 99.9 % of them took no longer.
    pub p999_ms: f64,
    /// None took longer.
    pub max_ms: f64,
}

impl Latency {
    /// Of a histogram of microseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| milliseconds(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: milliseconds(histogram.max()),
        }
    }
}

/// An empty histogram of microseconds, exact to one in a thousand. What takes over an hour is recorded as an hour.
pub(crate) fn histogram() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3)
}

/// Rounded to a microsecond.
fn milliseconds(microseconds: u64) -> f64 {
    Duration::from_micros(microseconds).as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_in_milliseconds() {
        let mut histogram = histogram().unwrap();
        for microseconds in 1..=1000 {
            histogram.saturating_record(microseconds * 1000);
        }
        let latency = Latency::of(&histogram);
        assert_eq!(latency.count, 1000);
        assert!(
            (499.0..=502.0).contains(&latency.p50_ms) && (989.0..=992.0).contains(&latency.p99_ms),
            "{latency:?}"
        );
        assert!((999.0..=1002.0).contains(&latency.max_ms), "{latency:?}");
    }

    #[test]
    fn nothing_measured_is_zero() {
        assert_eq!(Latency::of(&histogram().unwrap()).count, 0);
    }
}
