//! What a run is asked to do: one value, checked once.

use std::{path::PathBuf, time::Duration};

use crate::Error;

/// Where encryption begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Never.
    None,
    /// After STARTTLS (RFC 3207).
    StartTls,
    /// With the first byte (RFC 8314 3.3).
    Implicit,
}

/// How the server's certificate is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// By the certificates in this PEM file.
    CaFile(PathBuf),
    /// Not at all: for a server of one's own whose certificate is not the question.
    Anything,
}

/// How much is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many, however long it takes; those begun during the warm-up are on top.
    Messages(u64),
    /// For so long, after the warm-up.
    For(Duration),
}

/// The password of [`Plan::login`]; not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// `host:port`.
    pub address: String,
    /// The name that the certificate must carry and that SNI sends; without one, the host of `address`.
    pub server_name: Option<String>,
    /// Connections at once. In the open model: the most that can be busy at once.
    pub connections: usize,
    /// How much is sent.
    pub amount: Amount,
    /// Messages per second (open model: each is due at its own time, and late ones count from when they were due).
    /// Without one: the closed model, each connection sends its next as soon as the last is answered.
    pub rate: Option<f64>,
    /// A message as sent between DATA and the final dot: header and body, bytes.
    pub size_bytes: usize,
    /// A connection is closed with QUIT after so many; 0 = never.
    pub messages_per_connection: u64,
    /// Where encryption begins.
    pub encryption: Encryption,
    /// Needed unless `encryption` is `None`.
    pub trust: Option<Trust>,
    /// Whether a TLS session may be resumed; off, each connection pays for a full handshake.
    pub tls_resumption: bool,
    /// AUTH PLAIN (RFC 4616): user name and password.
    pub login: Option<(String, Password)>,
    /// Reverse-paths; message n takes the n-th in turn.
    pub from: Vec<String>,
    /// Recipients, one a message; message n takes the n-th in turn.
    pub to: Vec<String>,
    /// MAIL, RCPT and DATA in one write where the server offers PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// The first so many seconds are sent but not counted.
    pub warmup: Duration,
    /// For a connection to be ready, and again for each transaction.
    pub timeout: Duration,
    /// Marks all messages of this run; letters, digits and `-`.
    pub run: String,
    /// Write `sequence<TAB>reply` for each message that got 250, warm-up included.
    pub ledger: Option<PathBuf>,
}

impl Plan {
    /// A run of `amount` to `address` with everything else as is usual.
    #[must_use]
    pub fn new(address: impl Into<String>, amount: Amount) -> Self {
        Self {
            address: address.into(),
            server_name: None,
            connections: 10,
            amount,
            rate: None,
            size_bytes: 4096,
            messages_per_connection: 0,
            encryption: Encryption::None,
            trust: None,
            tls_resumption: false,
            login: None,
            from: vec!["sender@load.example".to_owned()],
            to: vec!["recipient@load.example".to_owned()],
            pipelining: false,
            warmup: Duration::ZERO,
            timeout: Duration::from_secs(60),
            run: random_run(),
            ledger: None,
        }
    }

    /// The host of `address`, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self
            .address
            .rsplit_once(':')
            .map_or(self.address.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Refuses what can not be run, or what would put something else on the wire than is meant.
    pub fn check(&self) -> Result<(), Error> {
        let rules = [
            (
                self.address
                    .rsplit_once(':')
                    .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()),
                "--address must be HOST:PORT",
            ),
            (self.connections > 0, "--connections must be at least 1"),
            (
                self.amount != Amount::Messages(0) && self.amount != Amount::For(Duration::ZERO),
                "nothing to send: --messages and --seconds must be above 0",
            ),
            (
                self.rate
                    .is_none_or(|rate| rate.is_finite() && (1e-3..=1e7).contains(&rate)),
                "--rate must be between 0.001 and 10000000 messages per second",
            ),
            (
                self.encryption == Encryption::None || self.trust.is_some(),
                "TLS needs --ca-file FILE, or --insecure for a server of your own",
            ),
            (
                self.login.is_none() || self.encryption != Encryption::None,
                "--user would send a password in the clear; give --tls",
            ),
            (
                !self.from.is_empty() && !self.to.is_empty(),
                "--from and --to need at least one address",
            ),
            (
                self.from
                    .iter()
                    .chain(&self.to)
                    .all(|address| harmless(address)),
                "--from and --to take plain addresses, without <, > or spaces",
            ),
            (
                !self.run.is_empty()
                    && self
                        .run
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-'),
                "--run takes letters, digits and -",
            ),
        ];
        rules
            .iter()
            .find(|(kept, _)| !kept)
            .map_or(Ok(()), |(_, broken)| Err(Error::Plan((*broken).to_owned())))
    }
}

fn harmless(address: &str) -> bool {
    !address
        .chars()
        .any(|c| c.is_control() || c.is_whitespace() || c == '<' || c == '>')
}

/// 16 hexadecimal digits; the standard library's hash keys are the one random source at hand without a dependency.
fn random_run() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new("127.0.0.1:2525", Amount::Messages(1))
    }

    #[test]
    fn the_usual_plan_is_fine() {
        assert!(plan().check().is_ok());
        assert_ne!(plan().run, plan().run);
    }

    #[test]
    fn what_can_not_be_run_is_refused_by_name() {
        let broken = [
            (
                Plan {
                    address: "localhost".into(),
                    ..plan()
                },
                "--address",
            ),
            (
                Plan {
                    connections: 0,
                    ..plan()
                },
                "--connections",
            ),
            (
                Plan {
                    amount: Amount::Messages(0),
                    ..plan()
                },
                "--messages",
            ),
            (
                Plan {
                    rate: Some(f64::NAN),
                    ..plan()
                },
                "--rate",
            ),
            (
                Plan {
                    encryption: Encryption::Implicit,
                    ..plan()
                },
                "--ca-file",
            ),
            (
                Plan {
                    login: Some(("u".into(), Password("p".into()))),
                    ..plan()
                },
                "in the clear",
            ),
            (
                Plan {
                    from: vec!["a@b>\r\nRCPT".into()],
                    ..plan()
                },
                "--from",
            ),
            (
                Plan {
                    to: vec![],
                    ..plan()
                },
                "--to",
            ),
            (
                Plan {
                    run: "a b".into(),
                    ..plan()
                },
                "--run",
            ),
        ];
        for (plan, named) in broken {
            let Err(error) = plan.check() else {
                panic!("{named} was let through")
            };
            assert!(
                error.to_string().contains(named),
                "{error} does not name {named}"
            );
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let plan = Plan {
            login: Some(("user".into(), Password("hunter2".into()))),
            ..plan()
        };
        assert!(!format!("{plan:?}").contains("hunter2"));
    }

    #[test]
    fn hosts_are_cut_out_of_addresses() {
        assert_eq!(plan().host(), "127.0.0.1");
        assert_eq!(
            Plan {
                address: "[::1]:25".into(),
                ..plan()
            }
            .host(),
            "::1"
        );
    }
}
