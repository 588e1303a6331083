//! The end, in three words. *Close*: the listeners go, and what is still in their backlog with them.
//! *Drain*: idle sessions get 421 at once, those between DATA and its reply when that is said.
//! *Leave*: when nobody is left the wake-up says so; [`crate::Server::stop`] does not wait for it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::mailbox::Mailbox;
use crate::wakeup::Wakeup;

/// Who is connected, so that all of them can be told, and counted.
#[derive(Debug)]
pub(crate) struct Connections {
    limit: usize,
    active: AtomicUsize,
    closing: AtomicBool,
    listeners: watch::Sender<bool>,
    seats: Mutex<Seats>,
    wakeup: Arc<Wakeup>,
}

#[derive(Debug, Default)]
struct Seats {
    taken: Vec<Option<Arc<Mailbox>>>,
    free: Vec<usize>,
}

impl Connections {
    pub(crate) fn new(limit: usize, wakeup: Arc<Wakeup>) -> Arc<Self> {
        Arc::new(Self {
            limit,
            active: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            listeners: watch::Sender::new(false),
            seats: Mutex::default(),
            wakeup,
        })
    }

    /// A place for one more, if there is one and the server is not leaving.
    pub(crate) fn seat(self: &Arc<Self>) -> Option<Seat> {
        let mut seats = self.lock();
        if self.closing.load(Ordering::SeqCst) || self.active.load(Ordering::SeqCst) >= self.limit {
            return None;
        }
        self.active.fetch_add(1, Ordering::SeqCst);
        let mailbox = Mailbox::new();
        let number = seats.put(Arc::clone(&mailbox));
        Some(Seat {
            connections: Arc::clone(self),
            mailbox,
            number,
        })
    }

    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::SeqCst)
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.closing.load(Ordering::SeqCst) && self.active() == 0
    }

    /// For a listener: done when it is to close.
    pub(crate) fn close_order(&self) -> watch::Receiver<bool> {
        self.listeners.subscribe()
    }

    /// Close and drain. Again: nothing.
    pub(crate) fn close(&self) {
        let seated: Vec<_> = {
            let seats = self.lock();
            self.closing.store(true, Ordering::SeqCst);
            seats.taken.iter().flatten().cloned().collect()
        };
        self.listeners.send_replace(true);
        for mailbox in seated {
            mailbox.close();
        }
        self.tell_when_drained();
    }

    fn tell_when_drained(&self) {
        if self.is_drained() {
            self.wakeup.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    fn put(&mut self, mailbox: Arc<Mailbox>) -> usize {
        if let Some((number, seat)) = self
            .free
            .pop()
            .and_then(|n| Some((n, self.taken.get_mut(n)?)))
        {
            *seat = Some(mailbox);
            return number;
        }
        self.taken.push(Some(mailbox));
        self.taken.len() - 1
    }

    fn leave(&mut self, number: usize) {
        if let Some(seat) = self.taken.get_mut(number) {
            *seat = None;
            self.free.push(number);
        }
    }
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    connections: Arc<Connections>,
    mailbox: Arc<Mailbox>,
    number: usize,
}

impl Seat {
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.lock().leave(self.number);
        self.connections.active.fetch_sub(1, Ordering::SeqCst);
        self.connections.tell_when_drained();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn connections(limit: usize) -> Arc<Connections> {
        Connections::new(limit, Arc::new(Wakeup::new().unwrap()))
    }

    #[test]
    fn seats_are_limited_and_come_free_again() {
        let connections = connections(2);
        let first = connections.seat().unwrap();
        let _second = connections.seat().unwrap();
        assert!(connections.seat().is_none());
        drop(first);
        assert_eq!(connections.seat().unwrap().number, 0);
        assert_eq!(connections.active(), 1);
    }

    #[test]
    fn drained_is_when_closed_and_empty() {
        let connections = connections(2);
        let seat = connections.seat().unwrap();
        connections.close();
        assert!(connections.seat().is_none() && !connections.is_drained());
        assert!(*connections.close_order().borrow());
        drop(seat);
        assert!(connections.is_drained());
        assert_eq!(connections.wakeup.signals(), 1);
    }
}
