//! Deadlines, delays and memory, on paused time and a pipe in place of a socket.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use smtp_proxy_proto::{Identity, LoginVerdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep};

use super::Connection;
use crate::batch::Batch;
use crate::budget::Share;
use crate::listener::Port;
use crate::logins::LoginBatch;
use crate::mailbox::Mailbox;
use crate::server::Shared;
use crate::{Config, Protection};

const SECOND: Duration = Duration::from_secs(1);
/// `\0user\0guess` in base64.
const GUESS: &str = "AUTH PLAIN AHVzZXIAZ3Vlc3M=\r\n";

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
        let (io, theirs) = duplex(1024 * 1024);
        let visit = shared
            .guard
            .admit("192.0.2.1".parse().unwrap())
            .ok()
            .unwrap();
        let seat = shared.connections.seat().unwrap();
        let mut connection = Connection::new(
            Arc::clone(shared),
            port,
            theirs,
            "192.0.2.1".into(),
            seat,
            visit,
        );
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

/// Answers every login that comes.
fn rejecting(shared: &Arc<Shared>) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        loop {
            if let Some(mut logins) =
                LoginBatch::take(&shared.asking, 100, &shared.metrics, &shared.known)
            {
                logins.answer([LoginVerdict::Rejected]);
            }
            sleep(Duration::from_millis(1)).await;
        }
    })
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
async fn a_failed_login_is_answered_later_each_time_and_at_last_the_address_is_banned() {
    let protection = Protection {
        login_delay: SECOND,
        login_delay_max: 10 * SECOND,
        login_failures_before_ban: 2,
        login_failures_window: 600 * SECOND,
        login_ban: 600 * SECOND,
        ..Protection::default()
    };
    let shared = shared(protection, 1 << 20);
    let verifying = rejecting(&shared);
    let (mut guesser, mut parallel) = (
        Client::of(&shared, Port::Tls),
        Client::of(&shared, Port::Tls),
    );
    for client in [&mut guesser, &mut parallel] {
        client.say("EHLO x\r\n").await;
        client.hear("250 ENHANCED").await;
    }
    let mut delays = Vec::new();
    for _ in 0..2 {
        let asked = Instant::now();
        guesser.say(GUESS).await;
        guesser.hear("535 ").await;
        delays.push(asked.elapsed().as_secs());
    }
    assert_eq!(delays, [1, 2]);
    guesser.say(GUESS).await;
    guesser.hear("421 4.7.0 Too many failed").await;
    assert!(shared.guard.admit("192.0.2.1".parse().unwrap()).is_err());
    // What the same address has open already is not even verified.
    let verified = shared.metrics.auth_failures_total.read();
    parallel.say(GUESS).await;
    parallel.hear("421 4.7.0 Too many failed").await;
    assert_eq!(shared.metrics.auth_failures_total.read(), verified);
    assert_eq!(shared.metrics.login_delays_total.read(), 3);
    verifying.abort();
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_a_delay() {
    let protection = Protection {
        login_delay: 500 * SECOND,
        login_delay_max: 500 * SECOND,
        login_failures_window: 600 * SECOND,
        ..Protection::default()
    };
    let shared = shared(protection, 1 << 20);
    let verifying = rejecting(&shared);
    let mut client = Client::of(&shared, Port::Tls);
    client.say(&format!("EHLO x\r\n{GUESS}")).await;
    client.hear("250 ENHANCED").await;
    sleep(SECOND).await;
    let asked = Instant::now();
    shared.connections.close();
    client.hear("421 4.3.2 ").await;
    assert!(asked.elapsed() < SECOND);
    verifying.abort();
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
