//! How long a client may take, and how much it may hold.

use std::task::Poll;
use std::time::Duration;

use smtp_proxy_proto::{Envelope, Event, Phase};
use tokio::time::Instant;

use super::{Connection, PIECE_BYTES};
use crate::stream::Io;

/// What one read takes from a client that sends commands. Who is not logged in gets less of us: 20,000
/// strangers together cannot make us hold 100 MiB by it.
const COMMANDS_BYTES: usize = 16 * 1024;
const STRANGERS_BYTES: usize = 4 * 1024;
/// What every connection may hold, of addresses and of what it sent ahead, beside the memory budget.
const FREE_BYTES: usize = 4 * 1024;

/// What a complete message holds until its verdict, beyond what every connection may.
pub(super) fn held_by(envelope: &Envelope) -> usize {
    let recipients = envelope
        .recipients
        .iter()
        .map(|recipient| size_of::<String>() + recipient.len());
    let dsn = envelope.dsn.iter().flat_map(|dsn| &dsn.recipients);
    let dsn = dsn.map(|asked| size_of_val(asked) + asked.orcpt.as_ref().map_or(0, String::len));
    let addresses = envelope.reverse_path.len() + recipients.sum::<usize>() + dsn.sum::<usize>();
    envelope.body.capacity() + addresses.saturating_sub(FREE_BYTES)
}

impl<S: Io> Connection<S> {
    /// The most that the next read takes.
    pub(super) fn piece_bytes(&self) -> usize {
        match self.session.phase() {
            Phase::Data => PIECE_BYTES,
            _ if self.session.is_logged_in() => COMMANDS_BYTES,
            _ => STRANGERS_BYTES,
        }
    }

    /// The replies are written, and then the session takes what the client had sent ahead of them.
    pub(super) async fn go_on_when_flushed(&mut self) -> Result<Event, super::Gone> {
        self.flush().await?;
        Ok(self.go_on(Event::NeedInput))
    }

    // -- the memory budget

    /// Only who holds, or is about to hold, a part of the budget has to wait for it.
    pub(super) fn needs_leave(&self) -> bool {
        self.session.phase() == Phase::Data || self.held_bytes() > 0
    }

    fn held_bytes(&self) -> usize {
        let beside = self.session.address_bytes() + self.kept.len();
        self.session.body_bytes() + beside.saturating_sub(FREE_BYTES)
    }

    /// Tells the budget what this connection holds now. `handed_over`: its message is another's.
    pub(super) fn settle(&mut self, handed_over: bool) {
        if handed_over {
            self.paced_until = None; // The next text may be here already, and has a time of its own.
        }
        let held = self.held_bytes();
        let finished = handed_over || (self.session.phase() != Phase::Data && held == 0);
        self.share.settle(held, finished);
    }

    /// Leave from the memory budget. While we keep the client waiting, its time stands still.
    pub(super) fn poll_leave(&mut self) -> Poll<()> {
        let waited = self.share.is_queued();
        let leave = self.share.poll_leave();
        match (waited, self.share.is_queued()) {
            (false, true) => {
                self.shared.metrics.budget_waits_total.one();
                self.deadline.lift();
                self.waiting_since = Some(Instant::now());
            }
            (true, false) => {
                if let (Some(until), Some(since)) = (self.paced_until, self.waiting_since.take()) {
                    self.paced_until = Some(until + since.elapsed());
                }
                self.extend_deadline();
            }
            _ => {}
        }
        leave
    }

    // -- time

    /// The client's turn begins; on an overdraft its time goes on.
    pub(super) fn wait_anew(&mut self) {
        if self.session.phase() != Phase::Data {
            self.paced_until = None;
        } else if self.paced_until.is_none() {
            let protection = &self.shared.guard.protection;
            self.paced_until = (protection.min_data_bytes_per_second > 0)
                .then(|| Instant::now() + protection.min_data_grace);
        }
        if !self.share.is_overdraft() {
            self.extend_deadline();
        }
    }

    /// So many bytes of a text have come. Each buys the client time, up to what one piece may take: a
    /// fast beginning is no credit for hours.
    pub(super) fn pace(&mut self, bytes: usize) {
        if let Some(until) = self.paced_until {
            let rate = f64::from(
                self.shared
                    .guard
                    .protection
                    .min_data_bytes_per_second
                    .max(1),
            );
            #[allow(clippy::cast_precision_loss)] // A piece is far below 2^52 bytes.
            let bought = Duration::from_secs_f64(bytes as f64 / rate);
            let most = self
                .shared
                .timeouts
                .data
                .max(self.shared.guard.protection.min_data_grace);
            self.paced_until = Some((until + bought).min(Instant::now() + most));
        }
    }

    pub(super) fn extend_deadline(&mut self) {
        let timeouts = &self.shared.timeouts;
        let allowed = match self.session.phase() {
            Phase::Data => timeouts.data,
            _ => timeouts.command,
        };
        let at = self.earliest(allowed);
        self.deadline.set(at);
    }

    /// So much from now, unless something else that binds the client ends before.
    pub(super) fn earliest(&self, allowed: Duration) -> Instant {
        let in_text = self.session.phase() == Phase::Data;
        let earliest = [
            self.oldest.filter(|_| !self.session.in_transaction()),
            self.login_by.filter(|_| !self.session.is_logged_in()),
            self.paced_until.filter(|_| in_text),
        ];
        let at = Instant::now() + allowed;
        earliest.into_iter().flatten().fold(at, Instant::min)
    }

    pub(super) fn is_too_old(&self) -> bool {
        self.oldest.is_some_and(|oldest| oldest <= Instant::now()) && !self.session.in_transaction()
    }

    pub(super) fn count_lateness(&self) {
        let metrics = &self.shared.metrics;
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
        metrics.timeouts_total.one();
        if self.session.phase() == Phase::Data && passed(self.paced_until) {
            metrics.slow_data_total.one();
        } else if !self.session.is_logged_in() && passed(self.login_by) {
            metrics.login_timeouts_total.one();
        }
    }
}
