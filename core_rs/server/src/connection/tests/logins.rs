//! What a failed login costs, and whom it is counted for.

use std::sync::Arc;
use std::time::Duration;

use smtp_proxy_proto::{ClientCertificate, LoginVerdict};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{Client, SECOND, shared};
use crate::Protection;
use crate::listener::Port;
use crate::logins::LoginBatch;
use crate::server::Shared;

/// `\0user\0guess` in base64.
const GUESS: &str = "AUTH PLAIN AHVzZXIAZ3Vlc3M=\r\n";
/// `other\0user\0guess`: as somebody else.
const ON_BEHALF: &str = "AUTH PLAIN b3RoZXIAdXNlcgBndWVzcw==\r\n";

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

fn delaying() -> Protection {
    Protection {
        login_delay: SECOND,
        login_delay_max: 10 * SECOND,
        login_failures_before_ban: 3,
        login_failures_window: 600 * SECOND,
        login_ban: 600 * SECOND,
        ..Protection::default()
    }
}

/// So many seconds until a login is refused.
async fn refused_after(client: &mut Client, login: &str) -> u64 {
    let asked = Instant::now();
    client.say(login).await;
    client.hear("535 ").await;
    asked.elapsed().as_secs()
}

async fn greeted(mut client: Client) -> Client {
    client.say("EHLO x\r\n").await;
    client.hear("250 ENHANCED").await;
    client
}

/// It is answered without anybody to verify it, and yet it is as dear as a wrong password.
#[tokio::test(start_paused = true)]
async fn a_login_on_behalf_of_somebody_else_counts_as_a_failed_one() {
    let shared = shared(delaying(), 1 << 20);
    let (mut client, mut other) = (
        greeted(Client::of(&shared, Port::Tls)).await,
        greeted(Client::of(&shared, Port::Tls)).await,
    );
    assert_eq!(refused_after(&mut client, ON_BEHALF).await, 1);
    assert_eq!(refused_after(&mut client, ON_BEHALF).await, 2);
    client.say(ON_BEHALF).await;
    client.hear("421 4.7.0 Too many failed").await;
    assert_eq!(refused_after(&mut other, ON_BEHALF).await, 8, "by address");
    other.say(ON_BEHALF).await;
    other.hear("421 4.7.0 Too many failed").await;
    assert!(shared.guard.admit("192.0.2.1".parse().unwrap()).is_err());
    assert_eq!(shared.metrics.auth_failures_total.read(), 4);
    assert_eq!(shared.metrics.login_delays_total.read(), 4);
    let elsewhere = shared.guard.admit("192.0.2.2".parse().unwrap());
    let delay = elsewhere.ok().unwrap().login_failed("user");
    assert_eq!(delay, 10 * SECOND, "by username");
}

/// Most ask for no name, and so must not share what the failures of that name cost.
#[tokio::test(start_paused = true)]
async fn each_certificate_answers_for_its_own_failures() {
    let shared = shared(delaying(), 1 << 20);
    let verifying = rejecting(&shared);
    let come = |nth: u8, fingerprint: u8| {
        let visit = shared.guard.admit([192, 0, 2, nth].into());
        let certificate = ClientCertificate {
            fingerprint: [fingerprint; 32],
            names: Vec::new(),
        };
        greeted(Client::with(
            &shared,
            Port::Tls,
            visit.ok().unwrap(),
            1 << 20,
            Some(certificate),
        ))
    };
    for (nth, wanted) in [(1, 1), (2, 2), (3, 4)] {
        let mut broken = come(nth, 0xbb).await;
        assert_eq!(
            refused_after(&mut broken, "AUTH EXTERNAL =\r\n").await,
            wanted
        );
    }
    let mut other = come(4, 0xaa).await;
    assert_eq!(refused_after(&mut other, "AUTH EXTERNAL =\r\n").await, 1);
    let mut named = come(5, 0xbb).await;
    let asked = refused_after(&mut named, "AUTH EXTERNAL dXNlcg==\r\n").await;
    assert_eq!(asked, 8, "the certificate's, whatever it asks for");
    let guesser = shared.guard.admit([192, 0, 2, 6].into()).ok().unwrap();
    assert_eq!(guesser.login_failed("user"), SECOND, "and not the name's");
    verifying.abort();
}

#[tokio::test(start_paused = true)]
async fn a_login_by_a_proxy_that_names_nobody_is_from_no_address() {
    let shared = shared(delaying(), 1 << 20);
    let proxy = "192.0.2.1".parse().unwrap();
    let unnamed = shared.guard.admit_unnamed(proxy).ok().unwrap();
    let named = shared.guard.admit(proxy).ok().unwrap();
    for (visit, wanted) in [(unnamed, ""), (named, "192.0.2.1")] {
        let mut client = greeted(Client::with(&shared, Port::Tls, visit, 1 << 20, None)).await;
        client.say(GUESS).await;
        sleep(SECOND).await;
        let logins = LoginBatch::take(&shared.asking, 100, &shared.metrics, &shared.known).unwrap();
        let told = logins.logins().first().map(|login| &*login.client_address);
        assert_eq!(told, Some(wanted));
    }
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
