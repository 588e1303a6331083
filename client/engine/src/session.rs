//! The SMTP client: opens a session, then sends one message after another.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::{
    failure::{Failure, Phase},
    message::Messages,
    plan::{Encryption, Plan},
    tls::Tls,
    wire::{Stream, Wire},
};

/// How long the steps of opening took; absent where there was no such step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening {
    /// To the greeting: from the first packet, implicit TLS apart.
    pub(crate) connect: Duration,
    pub(crate) handshake: Option<Duration>,
    pub(crate) login: Option<Duration>,
}

/// When the parts of one accepted message were done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// From MAIL.
    pub(crate) transaction: Duration,
    /// From the final dot.
    pub(crate) final_dot: Duration,
}

/// An open session.
pub(crate) struct Session {
    wire: Wire,
    pipelining: bool,
    scratch: Vec<u8>,
    /// The last line of the reply to the last final dot.
    pub(crate) queued: Vec<u8>,
}

impl Session {
    /// Connects, and leaves the session ready for MAIL.
    pub(crate) async fn open(plan: &Plan, tls: Option<&Tls>) -> Result<(Self, Opening), Failure> {
        let mut opening = Opening::default();
        let began = Instant::now();
        let stream = TcpStream::connect(&plan.address)
            .await
            .map_err(|error| Failure::io(Phase::Connect, &error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| Failure::io(Phase::Connect, &error))?;
        let mut wire = Wire::new(Stream::Plain(stream));
        if plan.encryption == Encryption::Implicit {
            wire = handshake(wire, tls, &mut opening).await?;
        }
        wire.expect(Phase::Greeting, 220).await?;
        opening.connect = began
            .elapsed()
            .saturating_sub(opening.handshake.unwrap_or_default());
        let mut pipelining = ehlo(&mut wire).await?;
        if plan.encryption == Encryption::StartTls {
            wire.write(Phase::StartTls, b"STARTTLS\r\n").await?;
            wire.expect(Phase::StartTls, 220).await?;
            wire = handshake(wire, tls, &mut opening).await?;
            pipelining = ehlo(&mut wire).await?;
        }
        if let Some((user, password)) = &plan.login {
            let began = Instant::now();
            let line = format!(
                "AUTH PLAIN {}\r\n",
                base64(format!("\0{user}\0{}", password.0).as_bytes())
            );
            wire.write(Phase::Auth, line.as_bytes()).await?;
            wire.expect(Phase::Auth, 235).await?;
            opening.login = Some(began.elapsed());
        }
        let pipelining = pipelining && plan.pipelining;
        Ok((
            Self {
                wire,
                pipelining,
                scratch: Vec::with_capacity(512),
                queued: Vec::new(),
            },
            opening,
        ))
    }

    /// Sends one message. After a failure that leaves the connection usable the session is ready for the next.
    pub(crate) async fn send(
        &mut self,
        messages: &Messages,
        sequence: u64,
    ) -> Result<Timing, Failure> {
        let began = Instant::now();
        let ready = if self.pipelining {
            self.envelope_at_once(messages, sequence).await
        } else {
            self.envelope_step_by_step(messages, sequence).await
        };
        if let Err(failure) = ready {
            return Err(self.recover(failure).await);
        }
        self.scratch.clear();
        messages.write_head(sequence, &mut self.scratch);
        self.wire
            .write_both(Phase::FinalDot, &self.scratch, messages.tail())
            .await?;
        let dot = Instant::now();
        let queued = &mut self.queued;
        let keep_last = |line: &[u8]| {
            queued.clear();
            queued.extend_from_slice(line);
        };
        if let Err(failure) = self.wire.reply(Phase::FinalDot, 250, keep_last).await {
            return Err(self.recover(failure).await);
        }
        let done = Instant::now();
        Ok(Timing {
            transaction: done - began,
            final_dot: done - dot,
        })
    }

    /// Says QUIT and hears the answer out, so that the server, not we, closes first.
    pub(crate) async fn quit(mut self) -> Result<(), Failure> {
        self.wire.write(Phase::Quit, b"QUIT\r\n").await?;
        self.wire.expect(Phase::Quit, 221).await
    }

    async fn envelope_step_by_step(
        &mut self,
        messages: &Messages,
        sequence: u64,
    ) -> Result<(), Failure> {
        for (phase, code) in [(Phase::Mail, 250), (Phase::Rcpt, 250), (Phase::Data, 354)] {
            self.scratch.clear();
            write_command(phase, messages, sequence, &mut self.scratch);
            self.wire.write(phase, &self.scratch).await?;
            self.wire.expect(phase, code).await?;
        }
        Ok(())
    }

    /// RFC 2920 3.1. All three replies are read whatever they are; the first refusal is the failure.
    async fn envelope_at_once(
        &mut self,
        messages: &Messages,
        sequence: u64,
    ) -> Result<(), Failure> {
        self.scratch.clear();
        for phase in [Phase::Mail, Phase::Rcpt, Phase::Data] {
            write_command(phase, messages, sequence, &mut self.scratch);
        }
        self.wire.write(Phase::Mail, &self.scratch).await?;
        let mut first = Ok(());
        for (phase, code) in [(Phase::Mail, 250), (Phase::Rcpt, 250)] {
            match self.wire.expect(phase, code).await {
                Err(failure) if !failure.connection_is_usable => return Err(failure),
                answer => first = first.and(answer),
            }
        }
        match (self.wire.expect(Phase::Data, 354).await, first) {
            (Ok(()), Ok(())) => Ok(()),
            (Ok(()), Err(refusal)) => {
                // The server waits for a message though it refused the envelope: give it an empty one to refuse.
                self.wire.write(Phase::Data, b".\r\n").await?;
                let _ = self.wire.expect(Phase::Data, 554).await;
                Err(refusal)
            }
            (Err(failure), Ok(())) => Err(failure),
            (Err(failure), Err(refusal)) => Err(if failure.connection_is_usable {
                refusal
            } else {
                failure
            }),
        }
    }

    async fn recover(&mut self, failure: Failure) -> Failure {
        if !failure.connection_is_usable {
            return failure;
        }
        let reset = async {
            self.wire.write(Phase::Reset, b"RSET\r\n").await?;
            self.wire.expect(Phase::Reset, 250).await
        };
        let connection_is_usable = reset.await.is_ok();
        Failure {
            connection_is_usable,
            ..failure
        }
    }
}

async fn ehlo(wire: &mut Wire) -> Result<bool, Failure> {
    let mut pipelining = false;
    wire.write(Phase::Ehlo, b"EHLO load.invalid\r\n").await?;
    let notice = |line: &[u8]| {
        pipelining |= line
            .get(4..)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"PIPELINING"));
    };
    wire.reply(Phase::Ehlo, 250, notice).await?;
    Ok(pipelining)
}

async fn handshake(wire: Wire, tls: Option<&Tls>, opening: &mut Opening) -> Result<Wire, Failure> {
    let (Stream::Plain(stream), Some(tls)) = (wire.into_stream()?, tls) else {
        return Err(Failure::fatal(Phase::Handshake, "not a plain connection"));
    };
    let began = Instant::now();
    let encrypted = tls.connector.connect(tls.name.clone(), stream).await;
    let encrypted = encrypted.map_err(|error| Failure::io(Phase::Handshake, &error))?;
    opening.handshake = Some(began.elapsed());
    Ok(Wire::new(Stream::Tls(Box::new(encrypted))))
}

fn write_command(phase: Phase, messages: &Messages, sequence: u64, out: &mut Vec<u8>) {
    let (before, address, after) = match phase {
        Phase::Mail => ("MAIL FROM:<", messages.from(sequence), ">\r\n"),
        Phase::Rcpt => ("RCPT TO:<", messages.to(sequence), ">\r\n"),
        _ => ("DATA\r\n", "", ""),
    };
    for part in [before, address, after] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// RFC 4648 4, padded.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |group: u32, shift: u32| {
        ALPHABET
            .get((group >> shift & 63) as usize)
            .map_or('=', |&b| char::from(b))
    };
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        text.push(letter(group, 18));
        text.push(letter(group, 12));
        text.push(if chunk.len() > 1 {
            letter(group, 6)
        } else {
            '='
        });
        text.push(if chunk.len() > 2 {
            letter(group, 0)
        } else {
            '='
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_as_in_rfc_4648_10() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
