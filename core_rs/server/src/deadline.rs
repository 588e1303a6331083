//! A connection's time limit. It moves with every piece of progress, so moving it must cost nothing:
//! the timer is left where it is, looks at the limit when it fires, and sleeps on if that has moved.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

#[derive(Debug)]
pub(crate) struct Deadline {
    /// `None`: no limit for the time being.
    at: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// The timer never sleeps longer than the shortest limit, and so never has to be woken early.
    shortest: Duration,
}

impl Deadline {
    pub(crate) fn new(shortest: Duration) -> Self {
        Self {
            at: None,
            timer: Box::pin(sleep(shortest)),
            shortest,
        }
    }

    pub(crate) fn set(&mut self, at: Instant) {
        if at < self.timer.deadline() {
            self.timer.as_mut().reset(at);
        }
        self.at = Some(at);
    }

    pub(crate) fn lift(&mut self) {
        self.at = None;
    }

    pub(crate) fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if self.at.is_some_and(|at| at <= now) {
                return Poll::Ready(());
            }
            let next = now + self.shortest;
            self.timer
                .as_mut()
                .reset(self.at.map_or(next, |at| at.min(next)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_passes_when_the_limit_does_and_not_when_the_timer_fires() {
        let start = Instant::now();
        let mut deadline = Deadline::new(Duration::from_secs(10));
        deadline.set(start + Duration::from_secs(300));
        poll_fn(|cx| deadline.poll_passed(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 300);
    }

    #[tokio::test(start_paused = true)]
    async fn it_can_be_set_earlier_and_lifted() {
        let start = Instant::now();
        let mut deadline = Deadline::new(Duration::from_secs(10));
        deadline.set(start + Duration::from_secs(3));
        poll_fn(|cx| deadline.poll_passed(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 3);
        deadline.lift();
        let lifted = tokio::time::timeout(
            Duration::from_secs(1000),
            poll_fn(|cx| deadline.poll_passed(cx)),
        );
        assert!(lifted.await.is_err());
    }
}
