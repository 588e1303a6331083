//! Runs against servers that are written line by line here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that panics fails, which is what it is for"
)]

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use smtp_proxy_client_engine::{Amount, Encryption, Password, Plan, Report, Trust, run};

/// How a scripted server behaves, and what it saw.
struct Script {
    extensions: &'static [&'static str],
    /// The reply to the n-th command of that verb over all connections, where it is not the usual one.
    odd_reply: fn(verb: &str, n: u64) -> Option<&'static str>,
    pause_before_250: fn(n: u64) -> Duration,
    tls: Option<(Encryption, Arc<ServerConfig>)>,
    commands: Mutex<Vec<String>>,
    bodies: Mutex<Vec<String>>,
    connections: AtomicU64,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            extensions: &["PIPELINING"],
            odd_reply: |_, _| None,
            pause_before_250: |_| Duration::ZERO,
            tls: None,
            commands: Mutex::default(),
            bodies: Mutex::default(),
            connections: AtomicU64::new(0),
        }
    }
}

impl Script {
    fn start(self) -> (SocketAddr, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(self);
        let shared = Arc::clone(&script);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let script = Arc::clone(&shared);
                thread::spawn(move || script.converse(stream.unwrap()));
            }
        });
        (address, script)
    }

    fn converse(&self, stream: TcpStream) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        match &self.tls {
            Some((Encryption::Implicit, config)) => {
                self.session(encrypted(config, stream), true);
            }
            Some((_, config)) => {
                if let Some(stream) = self.session(stream, true) {
                    self.session(encrypted(config, stream), false);
                }
            }
            None => {
                self.session(stream, true);
            }
        }
    }

    /// Returns the stream after STARTTLS.
    fn session<S: Read + Write>(&self, mut stream: S, greet: bool) -> Option<S> {
        if greet && stream.write_all(b"220 scripted\r\n").is_err() {
            return None;
        }
        loop {
            let line = read_line(&mut stream)?;
            let verb = line
                .split([' ', ':'])
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase();
            let n = self.count(&verb);
            self.commands.lock().unwrap().push(line.clone());
            let reply = (self.odd_reply)(&verb, n)
                .map_or_else(|| self.usual_reply(&verb), |r| format!("{r}\r\n"));
            stream.write_all(reply.as_bytes()).ok()?;
            match verb.as_str() {
                "DATA" if reply.starts_with("354") => self.data(&mut stream, n)?,
                "STARTTLS" => return Some(stream),
                "QUIT" => return None,
                _ if reply.starts_with("421") => return None,
                _ => {}
            }
        }
    }

    fn data<S: Read + Write>(&self, stream: &mut S, n: u64) -> Option<()> {
        let mut body = String::new();
        loop {
            let line = read_line(stream)?;
            if line == "." {
                break;
            }
            body.push_str(&line);
            body.push('\n');
        }
        self.bodies.lock().unwrap().push(body);
        thread::sleep((self.pause_before_250)(n));
        let reply = (self.odd_reply)(".", n).unwrap_or("250 2.0.0 queued as x");
        stream.write_all(format!("{reply}\r\n").as_bytes()).ok()
    }

    fn count(&self, verb: &str) -> u64 {
        let commands = self.commands.lock().unwrap();
        commands
            .iter()
            .filter(|line| line.to_ascii_uppercase().starts_with(verb))
            .count() as u64
    }

    fn usual_reply(&self, verb: &str) -> String {
        match verb {
            "EHLO" => {
                let lines = self
                    .extensions
                    .iter()
                    .fold(String::from("250-scripted\r\n"), |lines, extension| {
                        lines + &format!("250-{extension}\r\n")
                    });
                lines + "250 8BITMIME\r\n"
            }
            "DATA" => "354 go on\r\n".to_owned(),
            "AUTH" => "235 2.7.0 welcome\r\n".to_owned(),
            "STARTTLS" => "220 go on\r\n".to_owned(),
            "QUIT" => "221 bye\r\n".to_owned(),
            _ => "250 fine\r\n".to_owned(),
        }
    }
}

fn encrypted(
    config: &Arc<ServerConfig>,
    stream: TcpStream,
) -> StreamOwned<ServerConnection, TcpStream> {
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream)
}

fn read_line<S: Read>(stream: &mut S) -> Option<String> {
    // Unbuffered, so that nothing of a handshake is swallowed.
    let mut line = Vec::new();
    let mut reader = BufReader::with_capacity(1, stream);
    reader
        .read_until(b'\n', &mut line)
        .ok()
        .filter(|&n| n > 0)?;
    Some(String::from_utf8(line).unwrap().trim_end().to_owned())
}

fn plan(address: SocketAddr, messages: u64) -> Plan {
    Plan {
        size_bytes: 1000,
        connections: 2,
        ..Plan::new(address.to_string(), Amount::Messages(messages))
    }
}

fn run_clean(plan: Plan) -> Report {
    let report = run(plan).unwrap();
    assert_eq!(report.errors_total, 0, "{:?}", report.errors);
    report
}

#[test]
fn every_message_arrives_once_with_its_own_sequence_number_and_is_in_the_ledger() {
    let (address, script) = Script::default().start();
    let ledger =
        std::env::temp_dir().join(format!("ledger-{}-{}", std::process::id(), address.port()));
    let report = run_clean(Plan {
        ledger: Some(ledger.clone()),
        ..plan(address, 20)
    });
    assert_eq!(
        (report.messages, report.accepted_total, report.sequences),
        (20, 20, 20)
    );
    assert_eq!(report.connections_opened, 2);
    assert_eq!(
        (
            report.latency.final_dot.count,
            report.latency.handshake.count
        ),
        (20, 0)
    );

    let expected: Vec<String> = (0..20).map(|n| format!("{n:012}")).collect();
    let mut seen: Vec<String> = script
        .bodies
        .lock()
        .unwrap()
        .iter()
        .map(|body| header(body, "X-Load-Sequence"))
        .collect();
    seen.sort();
    assert_eq!(seen, expected);
    let written = std::fs::read_to_string(&ledger).unwrap();
    std::fs::remove_file(&ledger).unwrap();
    let mut lines: Vec<&str> = written.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        expected
            .iter()
            .map(|n| format!("{n}\t250 2.0.0 queued as x"))
            .collect::<Vec<_>>()
    );
}

fn header(body: &str, name: &str) -> String {
    let line = body
        .lines()
        .find(|line| line.starts_with(name))
        .expect("the header");
    line.split_once(": ").expect("a value").1.to_owned()
}

#[test]
fn commands_go_one_by_one_or_at_once_where_offered() {
    for (extensions, asked, at_once) in [
        (&["PIPELINING"][..], true, true),
        (&[], true, false),
        (&["PIPELINING"], false, false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"220 scripted\r\n").unwrap();
            read_line(&mut stream).unwrap();
            let offered = extensions.first().copied().unwrap_or("SIZE");
            let ehlo = format!("250-scripted\r\n250 {offered}\r\n");
            stream.write_all(ehlo.as_bytes()).unwrap();
            assert_eq!(
                read_line(&mut stream).unwrap(),
                "MAIL FROM:<sender@load.example>"
            );
            // Nothing is answered: whatever comes now was sent without waiting.
            stream
                .set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            let mut more = [0; 100];
            stream.read(&mut more).map_or(0, |count| count)
        });
        let report = run(Plan {
            connections: 1,
            pipelining: asked,
            timeout: Duration::from_secs(1),
            ..plan(address, 1)
        })
        .unwrap();
        assert_eq!(server.join().unwrap() > 0, at_once);
        assert_eq!(
            report.errors_total, 1,
            "the server left: {:?}",
            report.errors
        );
    }
}

#[test]
fn pipelined_transactions_work() {
    let (address, script) = Script::default().start();
    let report = run_clean(Plan {
        pipelining: true,
        ..plan(address, 10)
    });
    assert_eq!(
        (report.messages, script.bodies.lock().unwrap().len()),
        (10, 10)
    );
}

#[test]
fn refusals_are_counted_by_their_text_and_the_connection_goes_on() {
    for pipelining in [false, true] {
        let odd_reply: fn(&str, u64) -> Option<&'static str> = |verb, n| match (verb, n) {
            ("RCPT", 1) => Some("550 5.1.1 nobody there"),
            (".", 3) => Some("451 4.3.0 not now"),
            _ => None,
        };
        let (address, script) = Script {
            odd_reply,
            ..Script::default()
        }
        .start();
        let report = run(Plan {
            connections: 1,
            pipelining,
            ..plan(address, 6)
        })
        .unwrap();
        assert_eq!(
            (report.messages, report.errors_total),
            (4, 2),
            "{:?}",
            report.errors
        );
        assert_eq!(report.errors.get("RCPT: 550 5.1.1 nobody there"), Some(&1));
        assert_eq!(report.errors.get("final dot: 451 4.3.0 not now"), Some(&1));
        assert_eq!(script.connections.load(Ordering::Relaxed), 1);
        assert_eq!(script.count("RSET"), 2);
    }
}

#[test]
fn a_connection_that_the_server_ends_is_replaced() {
    let odd_reply: fn(&str, u64) -> Option<&'static str> =
        |verb, n| (verb == "MAIL" && n == 2).then_some("421 4.3.2 busy");
    let (address, script) = Script {
        odd_reply,
        ..Script::default()
    }
    .start();
    let report = run(Plan {
        connections: 1,
        ..plan(address, 5)
    })
    .unwrap();
    assert_eq!((report.messages, report.errors_total), (4, 1));
    assert_eq!(report.errors.get("MAIL: 421 4.3.2 busy"), Some(&1));
    assert_eq!(
        (
            script.connections.load(Ordering::Relaxed),
            report.connections_opened
        ),
        (2, 2)
    );
}

#[test]
fn a_connection_is_left_after_the_messages_it_is_good_for() {
    let (address, script) = Script::default().start();
    let report = run_clean(Plan {
        connections: 1,
        messages_per_connection: 2,
        ..plan(address, 6)
    });
    assert_eq!((report.messages, report.connections_opened), (6, 3));
    assert_eq!(script.count("QUIT"), 3);
}

#[test]
fn nobody_there_is_an_error_for_each_message_and_ends() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let report = run(Plan {
        connections: 1,
        ..plan(address, 2)
    })
    .unwrap();
    assert_eq!((report.messages, report.accepted_total), (0, 0));
    assert!(
        report
            .errors
            .keys()
            .all(|text| text.starts_with("connect: ")),
        "{:?}",
        report.errors
    );
}

#[test]
fn an_open_run_charges_a_stall_to_all_who_waited() {
    // One message takes 400 ms; with one connection and 50 a second, the 20 behind it are late as well.
    let pause: fn(u64) -> Duration = |n| Duration::from_millis(if n == 5 { 400 } else { 0 });
    let (address, _) = Script {
        pause_before_250: pause,
        ..Script::default()
    }
    .start();
    let seconds = Duration::from_secs(1);
    let report = run_clean(Plan {
        connections: 1,
        rate: Some(50.0),
        amount: Amount::For(seconds),
        ..plan(address, 1)
    });
    assert_eq!((report.model, report.never_sent), ("open", 0));
    assert!(
        report.latency.final_dot.p90_ms < 100.0,
        "only one was slow: {:?}",
        report.latency.final_dot
    );
    assert!(
        report.latency.from_due.p90_ms > 100.0,
        "but many waited: {:?}",
        report.latency.from_due
    );
}

#[test]
fn an_open_run_tells_what_it_could_not_send() {
    let (address, _) = Script {
        pause_before_250: |_| Duration::from_millis(300),
        ..Script::default()
    }
    .start();
    let amount = Amount::For(Duration::from_millis(500));
    let report = run_clean(Plan {
        connections: 1,
        rate: Some(100.0),
        amount,
        ..plan(address, 1)
    });
    assert_eq!(report.never_sent + report.sequences, 50);
    assert!(report.never_sent >= 47, "{}", report.never_sent);
}

#[test]
fn the_warm_up_is_sent_but_not_counted() {
    let (address, script) = Script {
        pause_before_250: |_| Duration::from_millis(20),
        ..Script::default()
    }
    .start();
    let report = run_clean(Plan {
        warmup: Duration::from_millis(200),
        ..plan(address, 6)
    });
    assert_eq!(
        (report.messages, report.latency.transaction.count),
        (report.messages, 6)
    );
    assert!(
        (6..=8).contains(&report.messages),
        "6 begun, and what was under way: {}",
        report.messages
    );
    assert!(report.accepted_total > 8);
    assert_eq!(
        script.bodies.lock().unwrap().len() as u64,
        report.accepted_total
    );
}

#[test]
fn a_silent_server_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let began = Instant::now();
    let report = run(Plan {
        connections: 1,
        timeout: Duration::from_millis(100),
        ..plan(address, 1)
    })
    .unwrap();
    assert_eq!(
        report.errors.get("connect: timed out"),
        Some(&2),
        "at the start, and for the message: {:?}",
        report.errors
    );
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// A server configuration for localhost, and its certificate in a PEM file.
fn certificate() -> (Arc<ServerConfig>, std::path::PathBuf) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("engine-ca-{}-{number}.pem", std::process::id()));
    std::fs::write(&path, made.cert.pem()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
    (Arc::new(config), path)
}

#[test]
fn messages_go_through_tls_with_a_login() {
    for encryption in [Encryption::StartTls, Encryption::Implicit] {
        let (config, ca_file) = certificate();
        let (address, script) = Script {
            tls: Some((encryption, config)),
            ..Script::default()
        }
        .start();
        let report = run_clean(Plan {
            encryption,
            trust: Some(Trust::CaFile(ca_file.clone())),
            server_name: Some("localhost".to_owned()),
            login: Some(("me".to_owned(), Password("pw".to_owned()))),
            messages_per_connection: 2,
            ..plan(address, 8)
        });
        std::fs::remove_file(ca_file).unwrap();
        assert_eq!(report.messages, 8);
        assert_eq!(report.latency.handshake.count, report.connections_opened);
        assert_eq!(report.latency.login.count, report.connections_opened);
        assert!(
            script
                .commands
                .lock()
                .unwrap()
                .contains(&"AUTH PLAIN AG1lAHB3".to_owned())
        );
        assert_eq!(
            script.count("STARTTLS") > 0,
            encryption == Encryption::StartTls
        );
    }
}

#[test]
fn a_certificate_of_someone_else_is_refused_unless_anything_goes() {
    let ((config, ca_file), (_, other_ca_file)) = (certificate(), certificate());
    let (address, _) = Script {
        tls: Some((Encryption::Implicit, config)),
        ..Script::default()
    }
    .start();
    let with = |trust, name: &str| Plan {
        encryption: Encryption::Implicit,
        trust: Some(trust),
        server_name: Some(name.to_owned()),
        connections: 1,
        ..plan(address, 1)
    };
    for plan in [
        with(Trust::CaFile(other_ca_file.clone()), "localhost"),
        with(Trust::CaFile(ca_file.clone()), "example.com"),
    ] {
        let report = run(plan).unwrap();
        assert_eq!(report.messages, 0);
        assert!(
            report
                .errors
                .keys()
                .all(|text| text.starts_with("TLS handshake: ")),
            "{:?}",
            report.errors
        );
    }
    assert_eq!(run_clean(with(Trust::Anything, "example.com")).messages, 1);
    std::fs::remove_file(ca_file).unwrap();
    std::fs::remove_file(other_ca_file).unwrap();
}
