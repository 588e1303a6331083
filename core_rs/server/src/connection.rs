//! One client's bytes in, one session's replies out.
//!
//! Reading goes into a buffer that belongs to the thread, not to the connection: an idle connection
//! holds no buffer at all, and a busy one parses bytes that are still in the cache. What the session
//! does not take yet (part of a line) is kept aside. All replies to one read are one write (RFC 2920
//! 3.2).
//!
//! A connection waits for one of three things at a time: its client, a verdict, or a handshake. While
//! it waits for the client it also listens for its deadline, for the order to close, and, in a text,
//! for leave from the memory budget. A verdict has no deadline: it is ours to give.

mod limits;
mod logins;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::HandshakeKind;
use smtp_proxy_proto::{
    Envelope, EnvelopeVerdict, Event, Gate, LoginRequest, LoginVerdict, Phase, Security, Session,
};
use tokio::io::ReadBuf;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;

use crate::budget::{Charge, PIECE_BYTES, Share};
use crate::deadline::Deadline;
use crate::guard::Visit;
use crate::listener::Port;
use crate::logins::Login;
use crate::mailbox::{Mailbox, Verdict};
use crate::server::Shared;
use crate::shutdown::Seat;
use crate::stream::{Io, Stream};
use crate::tenants::Membership;

/// RFC 5321 3.8: having said the last word, so long at most we wait for the client to take it. A
/// socket closed with bytes unread would take the reply back (RST).
const LINGER: Duration = Duration::from_secs(2);
/// A tenant over its rate is answered no faster: whoever hammers on is not to take the time of others.
const OVER_RATE_PAUSE: Duration = Duration::from_millis(500);
/// Buffers up to this size stay with a connection between two commands.
const KEPT_BYTES: usize = 512;

thread_local! {
    /// One piece, and before it what was kept of the last one: at most a whole line of AUTH, for
    /// which `proto` allows up to one more piece.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 2 * PIECE_BYTES]);
}

/// The client is gone, or does not take what we write. There is nobody left to talk to.
struct Gone;

/// What came of waiting for the client.
enum Turn {
    /// The session went on; its replies are to be written.
    Said(Event),
    Gone,
    Late,
    Closing,
}

pub(crate) struct Connection<S> {
    shared: Arc<Shared>,
    session: Session,
    stream: Stream<S>,
    deadline: Deadline,
    share: Share,
    /// A complete message on its way from the session to the queue.
    charge: Option<Charge>,
    /// Read and not yet taken.
    kept: Vec<u8>,
    out: Vec<u8>,
    client_address: Arc<str>,
    oldest: Option<Instant>,
    /// Until then somebody must have logged in.
    login_by: Option<Instant>,
    /// In a text: until then more of it must have come, to keep to the least rate.
    paced_until: Option<Instant>,
    /// Since when the memory budget keeps the client waiting.
    waiting_since: Option<Instant>,
    visit: Visit,
    seat: Seat,
    /// Since the login.
    membership: Option<Membership>,
}

impl<S: Io> Connection<S> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        port: Port,
        io: S,
        client_address: Arc<str>,
        seat: Seat,
        visit: Visit,
    ) -> Self {
        let login_timeout = shared.guard.protection.login_timeout;
        let timeouts = &shared.timeouts;
        let shortest = timeouts.command.min(timeouts.data);
        let config = Arc::clone(shared.session_config(port));
        let preset = config.identity.as_ref();
        let membership = preset.map(|identity| shared.tenants.join(identity.tenant_id));
        let mut connection = Self {
            session: Session::new(config, port.security()),
            stream: Stream::Plain(io),
            deadline: Deadline::new(shortest),
            share: Share::new(Arc::clone(&shared.budget), Arc::clone(seat.mailbox())),
            charge: None,
            kept: Vec::new(),
            out: Vec::new(),
            client_address,
            oldest: timeouts.session.map(|max| Instant::now() + max),
            login_by: (!login_timeout.is_zero()).then(|| Instant::now() + login_timeout),
            paced_until: None,
            waiting_since: None,
            visit,
            seat,
            membership: None,
            shared,
        };
        connection.belong_to(membership);
        connection
    }

    /// From the greeting to the end.
    pub(crate) async fn run(mut self, port: Port) {
        let implicit_tls = port.security() == Security::Tls;
        // Before the handshake, which takes it along if it may.
        let greeted = self.greet();
        if implicit_tls && self.shake_hands(port).await.is_err() {
            return;
        }
        if self.converse(greeted).await.is_err() && self.session.in_transaction() {
            self.shared.metrics.vanished_total.one();
        }
    }

    fn greet(&mut self) -> Event {
        self.session.greet(self.shared.gate.read(), &mut self.out)
    }

    /// `event`: what came of the greeting.
    async fn converse(&mut self, mut event: Event) -> Result<(), Gone> {
        if matches!(event, Event::Close) {
            self.shared.metrics.refused_busy_total.one();
        }
        loop {
            event = match event {
                Event::NeedInput => self.hear().await?,
                Event::Flush => self.go_on_when_flushed().await?,
                Event::StartTls => self.start_tls().await?,
                Event::Login(request) => self.log_in(request).await?,
                Event::FailedLogin(username) => self.fail_login(&username).await?,
                Event::Envelope(envelope) => self.submit(envelope).await?,
                Event::Close => return self.part().await,
            };
        }
    }

    /// Says what there is to say and waits for what the client answers.
    async fn hear(&mut self) -> Result<Event, Gone> {
        if !self.out.is_empty() && self.is_over_rate() {
            self.wait_or_leave(OVER_RATE_PAUSE).await;
        }
        self.flush().await?;
        // An overdraft is for one data time-out, however often its client is answered between two
        // chunks.
        if !self.share.is_overdraft() {
            self.wait_anew();
        }
        match poll_fn(|cx| self.poll_turn(cx)).await {
            Turn::Said(event) => return Ok(event),
            Turn::Gone => return Err(Gone),
            Turn::Closing => self.session.shut_down(&mut self.out),
            Turn::Late if self.is_too_old() => self.session.shut_down(&mut self.out),
            Turn::Late => {
                self.count_lateness();
                self.session.timed_out(&mut self.out);
            }
        }
        Ok(Event::Close)
    }

    /// RFC 3207 4.2: what came in plaintext after STARTTLS is discarded unread (CVE-2011-0411).
    async fn start_tls(&mut self) -> Result<Event, Gone> {
        self.flush().await?;
        self.kept = Vec::new();
        self.session.tls_established();
        self.shake_hands(Port::StartTls).await?;
        Ok(Event::NeedInput)
    }

    async fn log_in(&mut self, request: LoginRequest) -> Result<Event, Gone> {
        self.flush().await?;
        if self.visit.is_banned() {
            return Ok(self.end_banned());
        }
        let claimed = logins::claimed(&request);
        let address = self.login_address();
        let verdict = if let Some(identity) = self.shared.known.look(&request, &address) {
            self.shared.metrics.logins_total.one();
            self.shared.metrics.logins_remembered_total.one();
            LoginVerdict::Accepted(identity)
        } else {
            self.ask(request, address).await
        };
        let verdict = self.seated(verdict);
        self.take_to_heart(&claimed, &verdict).await;
        let event = self.session.login_answered(verdict, &mut self.out);
        Ok(self.go_on(event))
    }

    async fn ask(&self, request: LoginRequest, client_address: Arc<str>) -> LoginVerdict {
        let login = Login {
            request,
            client_address,
        };
        self.shared.asking.push(login, Arc::clone(self.mailbox()));
        match poll_fn(|cx| self.mailbox().poll_verdict(cx)).await {
            Verdict::Login(verdict) => verdict,
            Verdict::Envelope(_) => LoginVerdict::Unavailable,
        }
    }

    /// A good login needs a seat among its tenant's sessions as well.
    fn seated(&mut self, verdict: LoginVerdict) -> LoginVerdict {
        let LoginVerdict::Accepted(identity) = &verdict else {
            return verdict;
        };
        let membership = self
            .shared
            .tenants
            .admit(identity.tenant_id, identity.credential_id);
        if membership.is_none() {
            self.shared.metrics.refused_sessions_total.one();
            return LoginVerdict::Crowded;
        }
        self.belong_to(membership);
        verdict
    }

    fn belong_to(&mut self, membership: Option<Membership>) {
        if let Some(membership) = &membership {
            self.share.belong_to(&membership.tenant().holding);
        }
        self.membership = membership;
    }

    /// What the session is to know of the world: of its tenant only where all others may come in.
    fn gate(&self) -> Gate {
        match self.shared.gate.read() {
            Gate::Open if self.is_over_rate() => Gate::OverRate,
            gate => gate,
        }
    }

    fn is_over_rate(&self) -> bool {
        self.membership
            .as_ref()
            .is_some_and(|membership| membership.tenant().is_shut())
    }

    async fn submit(&mut self, envelope: Envelope) -> Result<Event, Gone> {
        self.flush().await?;
        // Always there: whoever returned the event has left it.
        if let Some(charge) = self.charge.take() {
            let address = Arc::clone(&self.client_address);
            let (suite, mailbox) = (self.stream.cipher_suite(), Arc::clone(self.mailbox()));
            let waiting = &self.shared.waiting;
            waiting.push(envelope, address, suite, mailbox, charge);
        }
        let verdict = match poll_fn(|cx| self.mailbox().poll_verdict(cx)).await {
            Verdict::Envelope(verdict) => verdict,
            Verdict::Login(_) => EnvelopeVerdict::Deferred,
        };
        let event = self.session.envelope_answered(verdict, &mut self.out);
        Ok(self.go_on(event))
    }

    /// Having answered, the session takes what the client has sent ahead (RFC 2920).
    fn go_on(&mut self, event: Event) -> Event {
        if !matches!(event, Event::NeedInput) || self.kept.is_empty() {
            return event;
        }
        let kept = std::mem::take(&mut self.kept);
        self.advance(&kept).1
    }

    /// The last words, with TLS's own, and time for the client to read them.
    async fn part(&mut self) -> Result<(), Gone> {
        let finished = self.stream.finish_with(&mut self.out);
        self.write_out().await?;
        let _ = timeout(LINGER, self.linger(finished)).await;
        Ok(())
    }

    /// `finished`: TLS has said goodbye.
    async fn linger(&mut self, finished: bool) {
        let tls_is_open = self.stream.is_tls() && !finished;
        if tls_is_open && poll_fn(|cx| self.stream.poll_shutdown(cx)).await.is_err() {
            return;
        }
        let unread = poll_fn(|cx| Poll::Ready(self.poll_discard(cx))).await;
        if !matches!(unread, Poll::Ready(true)) {
            return; // The rule: nothing is unread, so closing takes nothing back.
        }
        if poll_fn(|cx| self.stream.poll_shutdown(cx)).await.is_ok() {
            while poll_fn(|cx| self.poll_discard(cx)).await {}
        }
    }

    /// Of a certificate that the client shows, the session gets to know.
    async fn shake_hands(&mut self, port: Port) -> Result<(), Gone> {
        let (Some(tls), Some(io)) = (&self.shared.tls, self.stream.take_plain()) else {
            return Err(Gone);
        };
        let greeting = if tls.asks_for_certificates() {
            Vec::new()
        } else {
            std::mem::take(&mut self.out)
        };
        let mut handshake = Box::pin(timeout(
            self.shared.timeouts.handshake,
            tls.accept(port, io, &greeting),
        ));
        let mailbox = self.seat.mailbox();
        let done = poll_fn(|cx| {
            if mailbox.is_closing(cx) {
                return Poll::Ready(None);
            }
            handshake.as_mut().poll(cx).map(Some)
        })
        .await;
        drop(handshake);
        match done {
            Some(Ok(Ok(stream))) => {
                if let Ok(certificate) = tls.client(stream.get_ref().1) {
                    self.session.certificate_shown(certificate);
                    self.shaken_hands(stream);
                    return Ok(());
                }
                self.shared.metrics.tls_failures_total.one();
            }
            Some(_) => self.shared.metrics.tls_failures_total.one(),
            None => {} // We are leaving; it is nobody's failure.
        }
        Err(Gone)
    }

    fn shaken_hands(&mut self, stream: TlsStream<S>) {
        let metrics = &self.shared.metrics;
        metrics.tls_handshakes_total.one();
        if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
            metrics.tls_resumptions_total.one();
        }
        self.stream = Stream::Tls(Box::new(stream));
    }

    /// Writes all replies. A client that does not read them has the time of one piece to begin, and no
    /// longer than it had to log in, or than its session may last.
    async fn flush(&mut self) -> Result<(), Gone> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.write_out().await
    }

    async fn write_out(&mut self) -> Result<(), Gone> {
        let (mut written, mut waited_at) = (0, None);
        poll_fn(|cx| {
            match self.stream.poll_write_all(cx, &self.out, &mut written) {
                Poll::Ready(result) => return Poll::Ready(result.map_err(|_| Gone)),
                Poll::Pending if waited_at != Some(written) && !self.share.is_overdraft() => {
                    waited_at = Some(written);
                    let at = self.earliest(self.shared.timeouts.data);
                    self.deadline.set(at);
                }
                Poll::Pending => {}
            }
            ready!(self.deadline.poll_passed(cx));
            // Its last words are about a time-out that was counted, or about something else.
            if self.session.phase() != Phase::Closed {
                self.count_lateness();
            }
            Poll::Ready(Err(Gone))
        })
        .await?;
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES);
        Ok(())
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        if self.mailbox().is_closing(cx) && !self.session.in_transaction() {
            return Poll::Ready(Turn::Closing);
        }
        // Before leave is asked for: asking stops the clock, and a client that is silent must not
        // be saved by a full memory again and again.
        if self.needs_leave() && self.deadline.poll_passed(cx).is_ready() {
            return Poll::Ready(Turn::Late);
        }
        loop {
            if self.needs_leave() && self.poll_leave().is_pending() {
                break;
            }
            match self.poll_input(cx) {
                Poll::Ready(Turn::Said(Event::NeedInput)) if self.out.is_empty() => {}
                Poll::Ready(turn) => return Poll::Ready(turn),
                Poll::Pending => {
                    self.share.nothing_read();
                    break;
                }
            }
        }
        self.deadline.poll_passed(cx).map(|()| Turn::Late)
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        SCRATCH.with_borrow_mut(|scratch| {
            let before = self.kept.len();
            let (Some(place), true) = (scratch.get_mut(..before), before <= PIECE_BYTES) else {
                return Poll::Ready(Turn::Gone);
            };
            place.copy_from_slice(&self.kept);
            let mut piece = ReadBuf::new(
                scratch
                    .get_mut(before..before + self.piece_bytes())
                    .unwrap_or_default(),
            );
            let result = ready!(self.stream.poll_read(cx, &mut piece));
            let read = piece.filled().len();
            if result.is_err() || read == 0 {
                return Poll::Ready(Turn::Gone);
            }
            self.kept.clear();
            self.pace(read);
            let (taken, event) = self.advance(scratch.get(..before + read).unwrap_or_default());
            // In a text every byte is progress, among commands only a whole one is: else a client
            // could stay for ever with a byte now and then.
            if (taken > 0 || self.session.phase() == Phase::Data) && !self.share.is_overdraft() {
                self.extend_deadline();
            }
            Poll::Ready(Turn::Said(event))
        })
    }

    /// Lets the session take what it can, and keeps the rest.
    fn advance(&mut self, input: &[u8]) -> (usize, Event) {
        let gate = self.gate();
        let (taken, event) = self.session.advance(input, gate, &mut self.out);
        self.kept
            .extend_from_slice(input.get(taken..).unwrap_or_default());
        if self.kept.is_empty() {
            self.kept.shrink_to(KEPT_BYTES);
        }
        // Before the session's share is settled: in between, the message would belong to nobody.
        if let Event::Envelope(envelope) = &event {
            self.charge = Some(self.share.hand_over(limits::held_by(envelope)));
        }
        self.settle(matches!(event, Event::Envelope(_)));
        (taken, event)
    }

    /// Reads and forgets; true while there may be more.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut piece = ReadBuf::new(scratch);
            let result = ready!(self.stream.poll_read(cx, &mut piece));
            Poll::Ready(result.is_ok() && !piece.filled().is_empty())
        })
    }

    fn mailbox(&self) -> &Arc<Mailbox> {
        self.seat.mailbox()
    }
}
