//! Waking another event loop through a descriptor, and only when it sleeps.
//!
//! The consumer says what it waits for (`arm`), looks once more, and sleeps on the descriptor. A
//! producer writes to it only if it finds the arming, and takes it down with the same step: a busy
//! consumer costs no system call per message. No wake-up is lost: both sides pass the queue's lock,
//! the producer after its push and before it looks for the arming, the consumer after the arming and
//! before it sleeps. So whoever comes second sees what the first one did.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What a consumer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest(u8);

impl Interest {
    /// Nothing; only the end of the drain wakes.
    pub const NONE: Self = Self(0);
    /// Envelopes.
    pub const ENVELOPES: Self = Self(1);
    /// Logins.
    pub const LOGINS: Self = Self(2);
    /// An envelope of a tenant that has none in a batch under way.
    pub const NEWCOMERS: Self = Self(4);

    /// Both of them.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True if `other` is all in it.
    #[must_use]
    pub const fn includes(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The descriptor and its arming.
#[derive(Debug)]
pub(crate) struct Wakeup {
    armed: AtomicU8,
    signal: Signal,
    /// Writes so far, for the metrics.
    signals: AtomicU64,
}

impl Wakeup {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            armed: AtomicU8::new(0),
            signal: Signal::new()?,
            signals: AtomicU64::new(0),
        })
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.signal.descriptor()
    }

    /// The descriptor is no longer readable, and `interest` makes it so. The caller then looks once
    /// more before it sleeps.
    pub(crate) fn arm(&self, interest: Interest) {
        // In this order: a signal that came after the arming must not be cleared with the old ones.
        self.armed.store(0, Ordering::SeqCst);
        self.signal.clear();
        self.armed.store(interest.0, Ordering::SeqCst);
    }

    /// Something of this kind was put into its queue.
    pub(crate) fn notify(&self, kind: Interest) {
        let asked = |armed: u8| armed & kind.0 != 0;
        // The load keeps a busy system's cache line shared; the swap decides.
        if asked(self.armed.load(Ordering::SeqCst)) && asked(self.armed.swap(0, Ordering::SeqCst)) {
            self.wake();
        }
    }

    pub(crate) fn signals(&self) -> u64 {
        self.signals.load(Ordering::Relaxed)
    }

    /// Wakes whatever is waited for.
    pub(crate) fn wake(&self) {
        self.signals.fetch_add(1, Ordering::Relaxed);
        self.signal.set();
    }
}

#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Signal(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Signal {
    fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn set(&self) {
        // It can only fail when 2^64 - 2 signals wait unread, and then it is readable anyway.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    fn clear(&self) {
        // WouldBlock: there was nothing to clear.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

/// Elsewhere a pair of sockets does what Linux does with one counter.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
struct Signal {
    read: std::os::unix::net::UnixStream,
    write: std::os::unix::net::UnixStream,
}

#[cfg(not(target_os = "linux"))]
impl Signal {
    fn new() -> io::Result<Self> {
        let (read, write) = std::os::unix::net::UnixStream::pair()?;
        read.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        Ok(Self { read, write })
    }

    fn descriptor(&self) -> RawFd {
        self.read.as_raw_fd()
    }

    fn set(&self) {
        // WouldBlock: it is full of signals already.
        let _ = io::Write::write(&mut &self.write, &[1]);
    }

    fn clear(&self) {
        let mut sink = [0; 256];
        while matches!(io::Read::read(&mut &self.read, &mut sink), Ok(read) if read == sink.len()) {
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn is_readable(wakeup: &Wakeup) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&wakeup.signal.0, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).unwrap() == 1
    }

    #[test]
    fn only_what_is_waited_for_wakes_and_only_once() {
        let wakeup = Wakeup::new().unwrap();
        wakeup.notify(Interest::ENVELOPES);
        assert!(!is_readable(&wakeup), "nobody asked");
        wakeup.arm(Interest::LOGINS);
        wakeup.notify(Interest::ENVELOPES);
        assert!(!is_readable(&wakeup), "asked for logins");
        wakeup.notify(Interest::LOGINS);
        wakeup.notify(Interest::LOGINS);
        assert!(is_readable(&wakeup));
        assert_eq!(wakeup.signals(), 1);
        wakeup.arm(Interest::NONE);
        assert!(!is_readable(&wakeup));
        wakeup.wake();
        assert!(is_readable(&wakeup), "the end of the drain always wakes");
    }

    #[test]
    fn interests_add_up() {
        let both = Interest::ENVELOPES.and(Interest::LOGINS);
        assert!(both.includes(Interest::LOGINS) && !Interest::LOGINS.includes(both));
    }
}
