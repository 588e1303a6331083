//! A run: all connections on one thread, so that nothing is locked and little is spent.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{sync::Barrier, task::LocalSet, time::timeout};

use crate::{
    Error,
    failure::{Failure, Phase},
    message::Messages,
    plan::Plan,
    report::Report,
    schedule::{Due, Schedule},
    session::Session,
    tally::Tally,
    tls::Tls,
};

/// A server that refuses connections is asked again after this, so that a run does not become a storm.
const PAUSE_AFTER_NO_CONNECTION: Duration = Duration::from_millis(50);

/// What all connections of a run share.
struct Run {
    plan: Plan,
    tls: Option<Tls>,
    messages: Messages,
    tally: RefCell<Tally>,
    schedule: RefCell<Option<Rc<Schedule>>>,
    ready: Barrier,
}

/// Runs the plan on the calling thread; returns when every message is answered or has failed.
///
/// Must not be called from within an async runtime.
pub fn run(plan: Plan) -> Result<Report, Error> {
    plan.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let run = Rc::new(Run {
        tls: Tls::of(&plan)?,
        messages: Messages::new(&plan, SystemTime::now())?,
        tally: RefCell::new(Tally::new(&plan)?),
        schedule: RefCell::new(None),
        ready: Barrier::new(plan.connections),
        plan,
    });
    let cpu_before = own_cpu();
    let tasks = LocalSet::new();
    for _ in 0..run.plan.connections {
        tasks.spawn_local(connection(Rc::clone(&run)));
    }
    runtime.block_on(tasks);
    let own = own_cpu().saturating_sub(cpu_before);
    let run = Rc::into_inner(run)
        .ok_or_else(|| Error::Plan("a connection outlived the run".to_owned()))?;
    let schedule = run
        .schedule
        .into_inner()
        .unwrap_or_else(|| Rc::new(Schedule::new(&run.plan, Instant::now())));
    run.tally.into_inner().report(&run.plan, &schedule, own)
}

/// One connection after another in one place of the plan's `connections`, until the schedule has no more.
async fn connection(run: Rc<Run>) {
    let mut session = run.open().await;
    // Nobody begins before all are connected: opening is not what is measured, except where it is asked for.
    run.ready.wait().await;
    let schedule = run.schedule();
    let mut sent = 0;
    while let Some(due) = schedule.take(Instant::now()) {
        wait_until(due.at).await;
        if session.is_none() {
            (session, sent) = (run.open().await, 0);
        }
        let Some(open) = &mut session else { continue };
        let usable = run.send(open, &schedule, due).await;
        sent += 1;
        let used_up = sent == run.plan.messages_per_connection;
        if usable && !used_up {
            continue;
        }
        if let Some(used) = session.take().filter(|_| usable) {
            run.quit(used).await;
        }
    }
    if let Some(idle) = session {
        run.quit(idle).await;
    }
}

impl Run {
    /// The schedule; its clock starts with the first who asks.
    fn schedule(&self) -> Rc<Schedule> {
        let mut schedule = self.schedule.borrow_mut();
        Rc::clone(
            schedule.get_or_insert_with(|| Rc::new(Schedule::new(&self.plan, Instant::now()))),
        )
    }

    async fn open(&self) -> Option<Session> {
        let opened = timeout(
            self.plan.timeout,
            Session::open(&self.plan, self.tls.as_ref()),
        )
        .await;
        match opened.unwrap_or_else(|_| Err(Failure::timed_out(Phase::Connect))) {
            Ok((session, opening)) => {
                self.tally.borrow_mut().opened(&opening);
                Some(session)
            }
            Err(failure) => {
                self.tally.borrow_mut().failed(&failure);
                tokio::time::sleep(PAUSE_AFTER_NO_CONNECTION).await;
                None
            }
        }
    }

    /// Sends and counts one message; false when the connection is of no more use.
    async fn send(&self, session: &mut Session, schedule: &Schedule, due: Due) -> bool {
        let sent = timeout(
            self.plan.timeout,
            session.send(&self.messages, due.sequence),
        )
        .await;
        match sent.unwrap_or_else(|_| Err(Failure::timed_out(Phase::Transaction))) {
            Ok(timing) => {
                self.tally
                    .borrow_mut()
                    .accepted(schedule, due, timing, &session.queued);
                true
            }
            Err(failure) => {
                self.tally.borrow_mut().failed(&failure);
                failure.connection_is_usable
            }
        }
    }

    async fn quit(&self, session: Session) {
        // The mail is in; how the goodbye went changes nothing.
        let _ = timeout(self.plan.timeout, session.quit()).await;
    }
}

async fn wait_until(due: Instant) {
    if due > Instant::now() {
        tokio::time::sleep_until(due.into()).await;
    }
}

/// CPU time of this process so far, all threads.
fn own_cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let nanoseconds = u32::try_from(used.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(used.tv_sec).unwrap_or_default(), nanoseconds)
}
