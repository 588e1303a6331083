#![allow(clippy::unwrap_used)]

use tokio::time::advance;

use super::*;

const HERE: &str = "192.0.2.1";
const THERE: &str = "192.0.2.2";

fn guard(protection: Protection) -> Arc<Guard> {
    Guard::new(protection, 10, Arc::default())
}

fn strict() -> Protection {
    Protection {
        connections_per_address: 2,
        connections_per_address_per_minute: 6,
        ipv6_prefix_bits: 64,
        login_delay: Duration::from_secs(1),
        login_delay_max: Duration::from_secs(10),
        login_failures_before_ban: 5,
        login_failures_window: Duration::from_secs(600),
        login_ban: Duration::from_secs(300),
        ..Protection::default()
    }
}

fn come(guard: &Arc<Guard>, address: &str) -> Result<Visit, Refusal> {
    guard.admit(address.parse().unwrap())
}

fn refusal(guard: &Arc<Guard>, address: &str) -> Option<Refusal> {
    come(guard, address).err()
}

fn fail(visit: &Visit, username: &str) -> u64 {
    visit.login_failed(username).as_secs()
}

#[tokio::test(start_paused = true)]
async fn connections_of_one_address_are_limited_and_come_free_again() {
    let guard = guard(strict());
    let (first, _second) = (come(&guard, HERE).unwrap(), come(&guard, HERE).unwrap());
    assert_eq!(refusal(&guard, HERE), Some(Refusal::TooMany));
    assert_eq!(refusal(&guard, "::ffff:192.0.2.1"), Some(Refusal::TooMany));
    let _other = come(&guard, THERE).unwrap();
    drop(first);
    let _third = come(&guard, HERE).unwrap();
    let _one = come(&guard, "2001:db8::1").unwrap();
    let _two = come(&guard, "2001:db8::2").unwrap();
    assert_eq!(refusal(&guard, "2001:db8::3"), Some(Refusal::TooMany));
    assert_eq!(refusal(&guard, "2001:db8:0:1::1"), None);
}

#[tokio::test(start_paused = true)]
async fn new_connections_per_minute_are_limited() {
    let guard = guard(strict());
    for _ in 0..6 {
        drop(come(&guard, HERE).unwrap());
    }
    assert_eq!(refusal(&guard, HERE), Some(Refusal::TooFast));
    advance(Duration::from_secs(11)).await;
    assert_eq!(refusal(&guard, HERE), None);
    assert_eq!(refusal(&guard, HERE), Some(Refusal::TooFast));
}

#[tokio::test(start_paused = true)]
async fn failures_of_an_address_are_delayed_more_and_more_and_then_banned() {
    let guard = guard(strict());
    let visit = come(&guard, HERE).unwrap();
    let delays: Vec<_> = (0..5)
        .map(|nth| fail(&visit, &format!("user {nth}")))
        .collect();
    assert_eq!(delays, [1, 2, 4, 8, 10]);
    assert!(!visit.is_banned());
    assert_eq!(fail(&visit, "user 6"), 10);
    assert!(visit.is_banned());
    assert_eq!(refusal(&guard, HERE), Some(Refusal::Banned));
    assert_eq!(refusal(&guard, THERE), None);
    assert_eq!(guard.metrics.login_bans_total.read(), 1);
    advance(Duration::from_secs(301)).await;
    assert_eq!(refusal(&guard, HERE), None);
}

#[tokio::test(start_paused = true)]
async fn time_and_success_forgive() {
    let guard = guard(strict());
    let visit = come(&guard, HERE).unwrap();
    assert_eq!(
        (fail(&visit, "a"), fail(&visit, "b"), fail(&visit, "c")),
        (1, 2, 4)
    );
    for _ in 0..10 {
        visit.login_succeeded();
    }
    assert_eq!(fail(&visit, "d"), 4, "ten successes forgave one failure");
    advance(Duration::from_secs(600)).await;
    assert_eq!(fail(&visit, "e"), 1);
}

#[tokio::test(start_paused = true)]
async fn guesses_at_one_name_from_many_addresses_are_delayed_and_nobody_is_locked_out() {
    let guard = guard(strict());
    let delays: Vec<_> = (1..=5)
        .map(|nth| {
            fail(
                &come(&guard, &format!("198.51.100.{nth}")).unwrap(),
                "victim",
            )
        })
        .collect();
    assert_eq!(delays, [1, 2, 4, 8, 10]);
    let customer = come(&guard, HERE).unwrap();
    assert!(!customer.is_banned());
    customer.login_succeeded();
    assert_eq!(fail(&customer, "another"), 1);
}

#[test]
fn a_flood_of_addresses_takes_bounded_memory_and_frees_nobody() {
    let guard = guard(strict());
    guard.ban(HERE.parse().unwrap(), Duration::from_secs(300));
    let _visits = (come(&guard, THERE).unwrap(), come(&guard, THERE).unwrap());
    for network in 0..200_000_u128 {
        let address = std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) | (network << 64));
        drop(guard.admit(address.into()).unwrap());
    }
    assert_eq!(guard.len(), KNOWN);
    assert_eq!(refusal(&guard, HERE), Some(Refusal::Banned));
    assert_eq!(refusal(&guard, THERE), Some(Refusal::TooMany));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_names_nobody_is_limited_and_delayed_but_never_banned() {
    let guard = guard(strict());
    let unnamed = || guard.admit_unnamed(HERE.parse().unwrap());
    let (first, second) = (unnamed().unwrap(), unnamed().unwrap());
    assert_eq!(unnamed().err(), Some(Refusal::TooMany));
    assert_eq!(refusal(&guard, HERE), None, "clients there count apart");
    drop(second);
    let delays: Vec<_> = (0..20).map(|nth| fail(&first, &format!("{nth}"))).collect();
    assert_eq!(delays.get(..5), Some(&[1, 2, 4, 8, 10][..]));
    guard.ban(HERE.parse().unwrap(), Duration::from_secs(300));
    assert!(!first.is_banned() && unnamed().is_ok());
    assert_eq!(refusal(&guard, HERE), Some(Refusal::Banned));
    let left = Duration::from_secs(300);
    assert_eq!(guard.bans(), [(HERE.parse().unwrap(), left)]);
    for _ in 0..3 {
        drop(unnamed().unwrap());
    }
    assert_eq!(unnamed().err(), Some(Refusal::TooFast));
}

#[tokio::test(start_paused = true)]
async fn bans_by_order_are_listed_and_lifted() {
    for protection in [strict(), Protection::default()] {
        let guard = guard(protection);
        let visit = come(&guard, "2001:db8::7").unwrap();
        let address = "2001:db8::9".parse().unwrap();
        assert!(guard.ban(address, Duration::from_secs(60)));
        guard.ban(THERE.parse().unwrap(), Duration::from_secs(9));
        advance(Duration::from_secs(10)).await;
        assert_eq!(refusal(&guard, "2001:db8::9"), Some(Refusal::Banned));
        assert_eq!(refusal(&guard, THERE), None, "its ban has ended");
        let bans = guard.bans();
        assert!(
            matches!(bans[..], [(_, left)] if left.as_secs() == 50),
            "{bans:?}"
        );
        if visit.counts {
            assert!(visit.is_banned(), "it is of the same network");
            assert_eq!(fail(&visit, "a"), 1);
        }
        assert!(guard.lift_ban(address) && !guard.lift_ban(address));
        assert_eq!(fail(&visit, "b"), u64::from(visit.counts), "forgiven");
        assert!(refusal(&guard, "2001:db8::9").is_none() && guard.bans().is_empty());
        assert!(!guard.lift_ban(HERE.parse().unwrap()));
    }
}

#[test]
fn with_everything_off_nothing_is_remembered() {
    let guard = guard(Protection::default());
    for _ in 0..100 {
        let visit = come(&guard, HERE).unwrap();
        assert_eq!(visit.login_failed("a"), Duration::ZERO);
        assert!(!visit.is_banned());
    }
    assert_eq!(guard.len(), 0);
}
