//! Deadlines, delays and memory, on paused time and a pipe in place of a socket.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod logins;

use std::sync::Arc;
use std::time::Duration;

use smtp_proxy_proto::{ClientCertificate, EnvelopeId, Identity};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep};

use super::Connection;
use crate::batch::{Answer, Batch};
use crate::budget::Share;
use crate::guard::Visit;
use crate::listener::Port;
use crate::mailbox::Mailbox;
use crate::server::Shared;
use crate::{Config, Protection};

const SECOND: Duration = Duration::from_secs(1);
fn identity() -> Identity {
    Identity {
        tenant_id: [1; 16],
        credential_id: [2; 16],
        username: "bench".to_owned(),
        senders: smtp_proxy_proto::Senders::default(),
    }
}

fn shared(protection: Protection, max_in_flight_bytes: usize) -> Arc<Shared> {
    let config = Config {
        plaintext: Some("127.0.0.1:0".parse().unwrap()),
        plaintext_identity: Some(identity()),
        max_in_flight_bytes,
        protection,
        ..Config::default()
    };
    Arc::new(Shared::new(&config).unwrap())
}

/// One client, and the task that serves it. TLS is left out: what is tested comes after it.
struct Client {
    io: DuplexStream,
    heard: Vec<u8>,
    served: JoinHandle<()>,
}

impl Client {
    fn of(shared: &Arc<Shared>, port: Port) -> Self {
        let visit = shared.guard.admit("192.0.2.1".parse().unwrap());
        Self::with(shared, port, visit.ok().unwrap(), 1024 * 1024, None)
    }

    /// `window`: bytes that it lets us write before it reads.
    fn with(
        shared: &Arc<Shared>,
        port: Port,
        visit: Visit,
        window: usize,
        certificate: Option<ClientCertificate>,
    ) -> Self {
        let (io, theirs) = duplex(window);
        let seat = shared.connections.seat().unwrap();
        let mut connection = Connection::new(
            Arc::clone(shared),
            port,
            theirs,
            "192.0.2.1".into(),
            seat,
            visit,
        );
        let certificate = certificate.map(Arc::new);
        connection.session.certificate_shown(certificate);
        let served = tokio::spawn(async move {
            let greeted = connection.greet();
            let _ = connection.converse(greeted).await;
        });
        Self {
            io,
            heard: Vec::new(),
            served,
        }
    }

    async fn say(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads on until this was said; returns all that was.
    async fn hear(&mut self, wanted: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.heard).into_owned();
            if text.contains(wanted) {
                self.heard.clear();
                return text;
            }
            let read = self.io.read_buf(&mut self.heard).await.unwrap();
            assert!(read > 0, "closed after {text:?}, without {wanted:?}");
        }
    }

    async fn in_text(&mut self) {
        self.say("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
            .await;
        self.hear("354 ").await;
    }

    async fn in_text_and_sent(mut self, text: &str) -> Self {
        self.in_text().await;
        self.say(&format!("{text}\r\n.\r\n")).await;
        sleep(SECOND).await;
        self
    }

    async fn is_served_within(&mut self, seconds: u64, text: &str) -> bool {
        for _ in 0..seconds {
            if self.served.is_finished() || self.io.write_all(text.as_bytes()).await.is_err() {
                return false;
            }
            sleep(SECOND).await;
        }
        !self.served.is_finished()
    }
}

#[tokio::test(start_paused = true)]
async fn who_never_logs_in_cannot_stay_by_noops() {
    let protection = Protection {
        login_timeout: 120 * SECOND,
        ..Protection::default()
    };
    let shared = shared(protection, 1 << 20);
    let start = Instant::now();
    let mut stranger = Client::of(&shared, Port::StartTls);
    let mut known = Client::of(&shared, Port::Plaintext);
    while !stranger.served.is_finished() {
        let _ = stranger.io.write_all(b"NOOP\r\n").await;
        known.say("NOOP\r\n").await;
        sleep(SECOND).await;
    }
    assert!(
        (120..124).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
    stranger.hear("421 4.4.2 ").await;
    assert_eq!(shared.metrics.login_timeouts_total.read(), 1);
    assert!(known.is_served_within(150, "NOOP\r\n").await);
}

/// What it does not read must not buy it time: 1,024 bytes of window, and of each reply it takes one byte
/// in a while.
#[tokio::test(start_paused = true)]
async fn who_never_logs_in_cannot_stay_by_reading_slowly() {
    for reads in [false, true] {
        let protection = Protection {
            login_timeout: 120 * SECOND,
            ..Protection::default()
        };
        let shared = shared(protection, 1 << 20);
        let visit = shared.guard.admit("192.0.2.1".parse().unwrap());
        let mut client = Client::with(&shared, Port::StartTls, visit.ok().unwrap(), 1024, None);
        let start = Instant::now();
        while !client.served.is_finished() {
            let say = client.io.write_all(b"EHLO x\r\n");
            let _ = tokio::time::timeout(SECOND, say).await;
            if reads {
                let _ = client.io.read_u8().await;
            }
            sleep(SECOND).await;
        }
        let lived = start.elapsed().as_secs();
        assert!((120..125).contains(&lived), "{lived} s, reading: {reads}");
        assert_eq!(shared.metrics.login_timeouts_total.read(), 1);
    }
}

fn paced() -> Protection {
    Protection {
        min_data_bytes_per_second: 100,
        min_data_grace: 30 * SECOND,
        ..Protection::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_that_trickles_is_ended_and_a_slow_one_is_not() {
    let shared = shared(paced(), 1 << 20);
    let mut trickle = Client::of(&shared, Port::Plaintext);
    trickle.in_text().await;
    // 10 a second: in 30 s of grace they buy 3 more.
    assert!(trickle.is_served_within(32, "12345678\r\n").await);
    assert!(!trickle.is_served_within(4, "12345678\r\n").await);
    trickle.hear("421 4.4.2 ").await;
    assert_eq!(shared.metrics.slow_data_total.read(), 1);
    let mut slow = Client::of(&shared, Port::Plaintext);
    slow.in_text().await;
    let line = format!("{}\r\n", "x".repeat(118));
    assert!(slow.is_served_within(1000, &line).await);
}

#[tokio::test(start_paused = true)]
async fn a_fast_beginning_is_no_credit_for_hours() {
    let shared = shared(paced(), 1 << 20);
    let mut client = Client::of(&shared, Port::Plaintext);
    client.in_text().await;
    client.say(&"x\r\n".repeat(100_000)).await; // An hour's worth, and more.
    assert!(client.is_served_within(170, "x").await);
    assert!(!client.is_served_within(20, "x").await);
}

#[tokio::test(start_paused = true)]
async fn time_that_the_memory_budget_takes_is_not_the_clients() {
    let shared = shared(paced(), 128 * 1024);
    let mut other = Share::new(Arc::clone(&shared.budget), Mailbox::new());
    let mut client = Client::of(&shared, Port::Plaintext);
    client.in_text().await;
    let charge = other.hand_over(256 * 1024);
    client.say("one\r\n").await;
    sleep(1000 * SECOND).await;
    assert!(!client.served.is_finished());
    assert_eq!(shared.metrics.budget_waits_total.read(), 1);
    drop(charge);
    sleep(20 * SECOND).await;
    assert!(!client.served.is_finished(), "20 s of the grace are left");
    sleep(15 * SECOND).await;
    client.hear("421 4.4.2 ").await;
}

/// A message that was sent ahead begins while the verdict on the one before it is awaited.
#[tokio::test(start_paused = true)]
async fn time_until_a_verdict_is_not_the_next_messages() {
    let shared = shared(paced(), 1 << 20);
    let mut client = Client::of(&shared, Port::Plaintext);
    client.in_text().await;
    client
        .say("one\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
        .await;
    sleep(1000 * SECOND).await;
    let here = tokio::runtime::Handle::current();
    let take = || {
        Batch::take(
            &shared.waiting,
            crate::batch::Of::All,
            10,
            1 << 20,
            &here,
            &shared.metrics,
        )
    };
    let mut batch = take().unwrap();
    batch.commit();
    client.hear("354 ").await;
    sleep(20 * SECOND).await;
    client.say("two\r\n.\r\n").await;
    sleep(SECOND).await;
    assert!(take().is_some() && !client.served.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_answered_to_its_end() {
    let shared = shared(Protection::default(), 1 << 20);
    let mut client = Client::of(&shared, Port::Plaintext);
    client.say(&"EHLO x\r\n".repeat(900)).await;
    client.say("VRFY last\r\n").await;
    let heard = client.hear("252 ").await;
    assert_eq!(heard.matches("250 ENHANCED").count(), 900);
}

fn recipients(count: usize) -> String {
    let local = "x".repeat(50);
    let rcpt = |nth| format!("RCPT TO:<{local}{nth}@{local}.{local}.{local}.example>\r\n");
    (0..count).map(rcpt).collect()
}

#[tokio::test(start_paused = true)]
async fn recipients_are_under_the_budget() {
    let shared = shared(Protection::default(), 1 << 20);
    let mut client = Client::of(&shared, Port::Plaintext);
    client.say("EHLO x\r\nMAIL FROM:<a@b>\r\n").await;
    client.say(&recipients(10)).await;
    client.say("VRFY x\r\n").await;
    client.hear("252 ").await;
    assert_eq!(shared.budget.bytes(), 0, "a few are free");
    client.say(&recipients(990)).await;
    client.say("VRFY x\r\n").await;
    client.hear("252 ").await;
    assert!(
        (200_000..300_000).contains(&shared.budget.bytes()),
        "{}",
        shared.budget.bytes()
    );
    client.say("RSET\r\nVRFY x\r\n").await;
    client.hear("252 ").await;
    assert_eq!(shared.budget.bytes(), 0);
}

/// Many sessions that only pile up recipients hold no more than the budget and what each is free to,
/// and mail still gets through.
#[tokio::test(start_paused = true)]
async fn a_pile_of_recipients_is_bounded_and_does_not_stop_mail_for_ever() {
    const BUDGET: usize = 256 * 1024;
    let shared = shared(Protection::default(), BUDGET);
    let mut piling = Vec::new();
    for _ in 0..20 {
        let mut client = Client::of(&shared, Port::Plaintext);
        client.say("EHLO x\r\nMAIL FROM:<a@b>\r\n").await;
        client.say(&recipients(1000)).await;
        piling.push(client);
    }
    advance(SECOND).await;
    sleep(SECOND).await;
    // Beside the budget: one read of commands each, and one message on an overdraft.
    let held = shared.budget.bytes();
    assert!(
        held < BUDGET + 20 * 24 * 1024 + 256 * 1024,
        "{held} bytes instead of 5 MB"
    );
    let mut client = Client::of(&shared, Port::Plaintext);
    client.in_text().await;
    client.say("x\r\n.\r\n").await;
    // Those that pile up and do nothing are ended one after the other, and then it is its turn.
    for _ in 0..20 {
        if shared.budget.messages() > 0 {
            break;
        }
        sleep(301 * SECOND).await;
    }
    assert_eq!(shared.budget.messages(), 1);
    drop(piling);
}

/// What docs/RUNBOOK.md calculates with: what every connection costs, idle and logged in, beside TLS and
/// the kernel.
#[test]
fn an_idle_connection_is_small() {
    let size = size_of::<Connection<tokio::net::TcpStream>>();
    assert!(size <= 768, "{size} bytes");
}

/// What a tenant's limits refuse or put off leaves the batch by itself; the others stay to be encoded.
#[tokio::test(start_paused = true)]
async fn a_batch_is_split_and_each_part_answered_by_itself() {
    let shared = shared(Protection::default(), 1 << 20);
    let mut clients = Vec::new();
    for text in ["one", "two", "three"] {
        let client = Client::of(&shared, Port::Plaintext);
        clients.push(client.in_text_and_sent(text).await);
    }
    let here = tokio::runtime::Handle::current();
    let of = crate::batch::Of::All;
    let mut batch = Batch::take(&shared.waiting, of, 10, 1 << 20, &here, &shared.metrics).unwrap();
    let (whole, bytes) = (batch.outlines().collect::<Vec<_>>(), batch.size_bytes());
    assert!(
        whole
            .iter()
            .all(|each| (each.tenant_id, each.recipients) == ([1; 16], 1))
    );
    let second = whole[1].id;
    let mut apart = batch.split(&[second, EnvelopeId([9; 16])].into()).unwrap();
    assert!(apart.ids().eq([second]));
    assert!(batch.ids().eq([whole[0].id, whole[2].id]));
    assert_eq!((apart.len(), batch.len()), (1, 2));
    assert_eq!(
        (
            apart.size_bytes() + batch.size_bytes(),
            batch.tenants().len()
        ),
        (bytes, 1)
    );

    apart.answer([Answer::OverRate]);
    clients[1].hear("450 4.7.1 ").await;
    let late = Client::of(&shared, Port::Plaintext)
        .in_text_and_sent("late")
        .await;
    assert!(!shared.waiting.has_newcomer(), "two are still under way");
    assert_eq!(batch.take_letters().len(), 2);
    assert!(batch.split(&[second].into()).is_none(), "they have left");
    batch.commit();
    for nth in [0, 2] {
        clients[nth].hear("250 2.0.0 queued").await;
    }
    assert!(shared.waiting.has_newcomer());
    assert_eq!(shared.metrics.over_rate_total.read(), 1);
    drop(late);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_over_its_rate_does_not_hold_up_a_drain() {
    let shared = shared(Protection::default(), 1024 * 1024);
    shared.tenants.shut([1; 16], Duration::from_secs(60));
    let mut client = Client::of(&shared, Port::Plaintext);
    let begun = Instant::now();
    client.say("NOOP\r\n").await;
    client.hear("250 ").await;
    assert_eq!(
        begun.elapsed(),
        2 * super::OVER_RATE_PAUSE,
        "the greeting and the reply"
    );
    client.say("NOOP\r\n").await;
    sleep(Duration::from_millis(1)).await;
    let asked = Instant::now();
    shared.connections.close();
    client.hear("421 4.3.2 ").await;
    assert_eq!(asked.elapsed(), Duration::ZERO);
}
