//! Which message is next, when it is due, and what of it counts.
//!
//! ```text
//! start ── warm-up ──▶ counting ── plan.amount ──▶ end
//! ```
//! Closed model: the next message is due when a connection asks for it. Open model: message k is due at start + k/rate,
//! whoever is free; its latency counts from there, so a server that stalls is charged for all whom it kept waiting.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use crate::plan::{Amount, Plan};

/// One message to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) sequence: u64,
    pub(crate) at: Instant,
}

/// Hands out sequence numbers; shared by all connections of the one thread.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    counting_from: Instant,
    end: Option<Instant>,
    most_counted: Option<u64>,
    rate: Option<f64>,
    next: Cell<u64>,
    counted: Cell<u64>,
}

impl Schedule {
    pub(crate) fn new(plan: &Plan, start: Instant) -> Self {
        let counting_from = start + plan.warmup;
        let (most_counted, end) = match plan.amount {
            Amount::Messages(count) => (Some(count), None),
            Amount::For(duration) => (None, Some(counting_from + duration)),
        };
        let (next, counted) = (Cell::new(0), Cell::new(0));
        Self {
            start,
            counting_from,
            end,
            most_counted,
            rate: plan.rate,
            next,
            counted,
        }
    }

    /// The next message, due now or (open model) later; `None` when the run is over.
    pub(crate) fn take(&self, now: Instant) -> Option<Due> {
        let sequence = self.next.get();
        let at = self
            .rate
            .map_or(now, |rate| self.start + due_after(sequence, rate));
        let over = self.end.is_some_and(|end| at >= end || now >= end)
            || self
                .most_counted
                .is_some_and(|most| self.counted.get() >= most);
        if over {
            return None;
        }
        self.next.set(sequence + 1);
        if self.counts(at) {
            self.counted.set(self.counted.get() + 1);
        }
        Some(Due { sequence, at })
    }

    /// Whether what happens then is after the warm-up.
    pub(crate) fn counts(&self, at: Instant) -> bool {
        at >= self.counting_from
    }

    /// Whether what is done then is done in the time that messages per second are counted over.
    pub(crate) fn in_window(&self, done: Instant) -> bool {
        self.counts(done) && self.end.is_none_or(|end| done <= end)
    }

    /// What messages per second are counted over: the time asked for, or until the last one was done.
    pub(crate) fn window(&self, last_done: Instant) -> Duration {
        self.end
            .unwrap_or(last_done)
            .saturating_duration_since(self.counting_from)
    }

    /// Handed out so far, warm-up included.
    pub(crate) fn taken(&self) -> u64 {
        self.next.get()
    }

    /// Open model: due before the end, but every connection was busy until then.
    pub(crate) fn never_sent(&self) -> u64 {
        let (Some(end), Some(rate)) = (self.end, self.rate) else {
            return 0;
        };
        let mut sequence = self.next.get();
        while self.start + due_after(sequence, rate) < end {
            sequence += 1;
        }
        sequence - self.next.get()
    }
}

fn due_after(sequence: u64, rate: f64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 messages")]
    Duration::from_secs_f64(sequence as f64 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn closed_by_number_counts_after_the_warm_up_only() {
        let start = Instant::now();
        let plan = Plan {
            warmup: Duration::from_secs(1),
            ..Plan::new("h:1", Amount::Messages(2))
        };
        let schedule = Schedule::new(&plan, start);
        assert_eq!(schedule.take(start).map(|due| due.sequence), Some(0));
        assert_eq!(
            schedule.take(after(start, 1)).map(|due| due.sequence),
            Some(1)
        );
        assert_eq!(
            schedule.take(after(start, 1)).map(|due| due.sequence),
            Some(2)
        );
        assert!(schedule.take(after(start, 1)).is_none());
        assert_eq!((schedule.taken(), schedule.never_sent()), (3, 0));
        assert_eq!(schedule.window(after(start, 5)), Duration::from_secs(4));
    }

    #[test]
    fn closed_by_time_ends_with_it() {
        let start = Instant::now();
        let schedule = Schedule::new(
            &Plan::new("h:1", Amount::For(Duration::from_secs(2))),
            start,
        );
        assert!(schedule.take(after(start, 1)).is_some());
        assert!(schedule.take(after(start, 2)).is_none());
        assert!(schedule.in_window(after(start, 2)) && !schedule.in_window(after(start, 3)));
        assert_eq!(schedule.window(after(start, 9)), Duration::from_secs(2));
    }

    #[test]
    fn open_messages_are_due_at_their_own_time_however_late_they_are_asked_for() {
        let start = Instant::now();
        let plan = Plan {
            rate: Some(2.0),
            ..Plan::new("h:1", Amount::For(Duration::from_secs(3)))
        };
        let schedule = Schedule::new(&plan, start);
        let due = |asked| {
            schedule
                .take(after(start, asked))
                .map(|due| due.at.duration_since(start).as_millis())
        };
        assert_eq!(
            [due(0), due(0), due(2), due(2)],
            [Some(0), Some(500), Some(1000), Some(1500)]
        );
        assert_eq!(due(4), None);
        assert_eq!(schedule.never_sent(), 2);
    }
}
