//! Counting while a run goes on.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write as _},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{
    Error,
    failure::Failure,
    plan::Plan,
    report::{Latencies, Latency, Report, histogram},
    schedule::{Due, Schedule},
    session::{Opening, Timing},
};

/// A server that puts an id into its refusals must not fill the memory.
const MOST_ERROR_TEXTS: usize = 100;

pub(crate) struct Tally {
    messages: u64,
    accepted_total: u64,
    connections_opened: u64,
    errors: BTreeMap<String, u64>,
    last_done: Instant,
    connect: Histogram<u64>,
    handshake: Histogram<u64>,
    login: Histogram<u64>,
    transaction: Histogram<u64>,
    final_dot: Histogram<u64>,
    from_due: Histogram<u64>,
    ledger: Option<BufWriter<File>>,
    ledger_error: Option<std::io::Error>,
}

impl Tally {
    pub(crate) fn new(plan: &Plan) -> Result<Self, Error> {
        let ledger = plan
            .ledger
            .as_ref()
            .map(File::create)
            .transpose()
            .map_err(Error::Ledger)?;
        let empty = || histogram().map_err(|error| Error::Plan(error.to_string()));
        Ok(Self {
            messages: 0,
            accepted_total: 0,
            connections_opened: 0,
            errors: BTreeMap::new(),
            last_done: Instant::now(),
            connect: empty()?,
            handshake: empty()?,
            login: empty()?,
            transaction: empty()?,
            final_dot: empty()?,
            from_due: empty()?,
            ledger: ledger.map(BufWriter::new),
            ledger_error: None,
        })
    }

    pub(crate) fn opened(&mut self, opening: &Opening) {
        self.connections_opened += 1;
        record(&mut self.connect, opening.connect);
        if let Some(handshake) = opening.handshake {
            record(&mut self.handshake, handshake);
        }
        if let Some(login) = opening.login {
            record(&mut self.login, login);
        }
    }

    pub(crate) fn failed(&mut self, failure: &Failure) {
        let known = self.errors.len() < MOST_ERROR_TEXTS || self.errors.contains_key(&failure.text);
        let text = if known {
            failure.text.as_str()
        } else {
            "others"
        };
        *self.errors.entry(text.to_owned()).or_default() += 1;
    }

    pub(crate) fn accepted(&mut self, schedule: &Schedule, due: Due, timing: Timing, reply: &[u8]) {
        let done = Instant::now();
        self.last_done = done;
        self.accepted_total += 1;
        if schedule.in_window(done) {
            self.messages += 1;
        }
        if schedule.counts(due.at) {
            record(&mut self.transaction, timing.transaction);
            record(&mut self.final_dot, timing.final_dot);
            record(&mut self.from_due, done.saturating_duration_since(due.at));
        }
        if let Some(ledger) = &mut self.ledger {
            let reply = String::from_utf8_lossy(reply);
            if let Err(error) = writeln!(ledger, "{:012}\t{reply}", due.sequence) {
                self.ledger_error = Some(error);
            }
        }
    }

    pub(crate) fn report(
        mut self,
        plan: &Plan,
        schedule: &Schedule,
        own_cpu: Duration,
    ) -> Result<Report, Error> {
        if let Some(ledger) = &mut self.ledger {
            ledger.flush().map_err(Error::Ledger)?;
        }
        if let Some(error) = self.ledger_error {
            return Err(Error::Ledger(error));
        }
        let seconds = schedule.window(self.last_done).as_secs_f64();
        Ok(Report {
            run: plan.run.clone(),
            model: if plan.rate.is_some() {
                "open"
            } else {
                "closed"
            },
            messages: self.messages,
            seconds,
            messages_per_second: if seconds > 0.0 {
                float(self.messages) / seconds
            } else {
                0.0
            },
            size_bytes: plan.size_bytes,
            connections: plan.connections,
            connections_opened: self.connections_opened,
            errors_total: self.errors.values().sum(),
            errors: self.errors,
            sequences: schedule.taken(),
            accepted_total: self.accepted_total,
            never_sent: schedule.never_sent(),
            own_cpu_seconds: own_cpu.as_secs_f64(),
            own_cpu_us_per_message: own_cpu.as_secs_f64() * 1e6 / float(schedule.taken().max(1)),
            latency: Latencies {
                connect: Latency::of(&self.connect),
                handshake: Latency::of(&self.handshake),
                login: Latency::of(&self.login),
                transaction: Latency::of(&self.transaction),
                final_dot: Latency::of(&self.final_dot),
                from_due: Latency::of(&self.from_due),
            },
        })
    }
}

fn record(histogram: &mut Histogram<u64>, took: Duration) {
    histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 messages")]
fn float(count: u64) -> f64 {
    count as f64
}
