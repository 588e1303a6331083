//! From bytes to verbs and to the message's text.

use std::sync::Arc;

use memchr::memchr;

use super::Cell::{Login, Out, Stay, To};
use super::{
    Answer, Event, Gate, Mode, Session, State, Transaction, auth_answer, cell, is_used_up,
};
use crate::auth::{Exchange, Step};
use crate::command::{self, Verb};
use crate::data::Defect;
use crate::{BodyType, Envelope, Identity, Mended, Reply, Security, reply};

impl Session {
    pub(super) fn take_line(
        &mut self,
        input: &[u8],
        gate: Gate,
        out: &mut Vec<u8>,
    ) -> (usize, Event) {
        if self.begins_with_tls(input) {
            return (input.len(), self.part(&reply::NOT_TLS_YET, out));
        }
        let (limit_bytes, too_long) = self.line_limit(input);
        let within = input.get(..limit_bytes).unwrap_or(input);
        let Some(end) = memchr(b'\n', within) else {
            if input.len() < limit_bytes {
                return (0, Event::NeedInput);
            }
            let exchange = std::mem::replace(&mut self.mode, Mode::Skip);
            self.spoken = true;
            if !matches!(exchange, Mode::Auth(_)) && command::begins_chunk(within) {
                return (within.len(), self.out_of_step(&too_long, out));
            }
            return (within.len(), self.say(&too_long, out));
        };
        let bytes = within.get(..=end).unwrap_or_default();
        let line = command::line(bytes);
        let event = match (std::mem::replace(&mut self.mode, Mode::Command), line) {
            (Mode::Auth(exchange), line) => self.auth_line(exchange, line, out),
            (_, Err(reply)) if command::begins_chunk(bytes) => self.out_of_step(&reply, out),
            (_, line) => self.command_line(line, gate, out),
        };
        self.spoken = true;
        (end + 1, event)
    }

    /// Someone begins a TLS handshake where plaintext comes first: waiting for a line's end would
    /// only end in a time-out.
    fn begins_with_tls(&self, input: &[u8]) -> bool {
        const HANDSHAKE: u8 = 0x16; // RFC 8446 5.1
        !self.spoken && self.security == Security::Plaintext && input.first() == Some(&HANDSHAKE)
    }

    /// The longest line allowed here, in bytes, and what is said to a longer one.
    fn line_limit(&self, input: &[u8]) -> (usize, Reply) {
        let limits = &self.config.limits;
        let auth = matches!(self.mode, Mode::Auth(_))
            || input
                .get(..5)
                .is_some_and(|word| word.eq_ignore_ascii_case(b"AUTH "));
        if auth {
            (limits.auth_line_bytes, reply::AUTH_LINE_TOO_LONG)
        } else {
            (limits.command_line_bytes, reply::LINE_TOO_LONG)
        }
    }

    pub(super) fn skip_line(&mut self, input: &[u8]) -> (usize, Event) {
        let Some(end) = memchr(b'\n', input) else {
            return (input.len(), Event::NeedInput);
        };
        self.mode = Mode::Command;
        (end + 1, Event::NeedInput)
    }

    fn command_line(&mut self, line: Result<&str, Reply>, gate: Gate, out: &mut Vec<u8>) -> Event {
        let line = match line {
            Ok(line) => line,
            Err(reply) => return self.say(&reply, out),
        };
        match command::split(line) {
            (Some(verb), arguments) => self.command(verb, arguments, gate, out),
            (None, _) if !self.spoken && command::is_http(line) => self.part(&reply::NOT_HTTP, out),
            (None, _) => self.say(&reply::UNRECOGNIZED, out),
        }
    }

    fn command(&mut self, verb: Verb, arguments: &str, gate: Gate, out: &mut Vec<u8>) -> Event {
        if is_used_up(
            self.idle_commands,
            self.config.limits.idle_commands_per_session,
        ) {
            return self.part(&reply::TOO_MANY_IDLE, out);
        }
        if verb == Verb::Bdat {
            return self.begin_chunk(arguments, out);
        }
        let answer = match cell(self.state, verb) {
            Out => Answer::Say(reply::BAD_SEQUENCE),
            Login => Answer::Say(self.login_needed()),
            Stay | To(_) => self.handle(verb, arguments, gate, out),
        };
        if !brings_a_message_on(verb, &answer) {
            self.count_as_idle();
        }
        self.act_on(verb, answer, out)
    }

    pub(super) fn count_as_idle(&mut self) {
        self.idle_commands = self.idle_commands.saturating_add(1);
    }

    fn auth_line(
        &mut self,
        exchange: Exchange,
        line: Result<&str, Reply>,
        out: &mut Vec<u8>,
    ) -> Event {
        let step = line.map_or_else(Step::Refuse, |line| exchange.next(line));
        self.act_on(Verb::Auth, auth_answer(step), out)
    }

    fn act_on(&mut self, verb: Verb, answer: Answer, out: &mut Vec<u8>) -> Event {
        match answer {
            Answer::Say(reply) => {
                if reply.is_positive() {
                    self.succeed(verb);
                }
                self.say(&reply, out)
            }
            Answer::Said => {
                self.succeed(verb);
                Event::NeedInput
            }
            Answer::Go(reply, mode) => {
                self.mode = mode;
                reply.write(out);
                self.idle_event()
            }
            Answer::Verify(request) => {
                self.mode = Mode::AwaitLogin;
                Event::Login(request)
            }
            Answer::Fail(username) => {
                self.mode = Mode::AwaitFailure;
                Event::FailedLogin(username)
            }
        }
    }

    pub(super) fn take_text(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Event) {
        let Some(transaction) = self.transaction.as_mut() else {
            // Not reached: the mode is entered with a transaction only. Leaving it is the safe
            // side.
            self.mode = Mode::Command;
            return (0, self.say(&reply::BAD_SEQUENCE, out));
        };
        let (taken, done) = transaction.text.receive(input, &self.config.limits);
        if !done {
            return (taken, Event::NeedInput);
        }
        (taken, self.hand_over(out))
    }

    /// The text is complete: the transaction ends, and leaves as an envelope if it is one.
    pub(super) fn hand_over(&mut self, out: &mut Vec<u8>) -> Event {
        let transaction = self.transaction.take();
        self.mode = Mode::Command;
        self.enter(State::Ready);
        match transaction
            .zip(self.identity.clone())
            .map(|(transaction, identity)| self.envelope(*transaction, identity))
        {
            Some(Ok(envelope)) => {
                self.idle_commands = 0;
                self.mode = Mode::AwaitEnvelope;
                Event::Envelope(envelope)
            }
            Some(Err(refusal)) => self.say(&refusal, out),
            None => self.say(&reply::LOGIN_NEEDED, out),
        }
    }

    fn envelope(
        &self,
        transaction: Transaction,
        identity: Arc<Identity>,
    ) -> Result<Envelope, Reply> {
        let Transaction {
            reverse_path,
            recipients,
            body_type,
            smtputf8,
            text,
            dsn,
            address_bytes: _,
        } = transaction;
        let mut body = text.finish().map_err(Defect::reply)?;
        let config = &self.config;
        let Mended { missing, lane } = config.submission.mend(&mut body, config.limits.hops)?;
        let body_type = if body.is_ascii() {
            body_type
        } else {
            BodyType::EightBitMime
        };
        let helo = self.helo.clone().unwrap_or_else(|| Arc::from(""));
        Ok(Envelope {
            identity,
            reverse_path,
            recipients,
            body,
            body_type,
            smtputf8,
            helo,
            security: self.security,
            missing,
            dsn,
            lane,
        })
    }
}

/// MAIL, RCPT and DATA, accepted: how many of them there are has limits of its own. BDAT counts for itself (`chunks`).
fn brings_a_message_on(verb: Verb, answer: &Answer) -> bool {
    let is_of_it = matches!(verb, Verb::Mail | Verb::Rcpt | Verb::Data);
    is_of_it && !matches!(answer, Answer::Say(reply) if !reply.is_positive())
}
