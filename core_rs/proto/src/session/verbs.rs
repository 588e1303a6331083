//! One small handler per verb. It is called only where the transition table lets it; it answers,
//! and the table moves the state.

use super::{Answer, Gate, Mode, Session, Transaction, auth_answer, is_used_up};
use crate::auth::{Exchange, Mechanism};
use crate::command::{self, Verb};
use crate::data::Text;
use crate::{BodyType, Dsn, RecipientDsn, Reply, Security, reply};

impl Session {
    pub(super) fn handle(
        &mut self,
        verb: Verb,
        arguments: &str,
        gate: Gate,
        out: &mut Vec<u8>,
    ) -> Answer {
        match verb {
            Verb::Ehlo => self.ehlo(arguments, out),
            Verb::Helo => self.helo(arguments),
            Verb::StartTls => self.starttls(arguments),
            Verb::Auth => self.auth(arguments),
            Verb::Mail => self.mail(arguments, gate),
            Verb::Rcpt => self.rcpt(arguments),
            Verb::Data => data(arguments),
            Verb::Rset => bare(arguments, reply::OK),
            Verb::Noop => Answer::Say(reply::OK),
            Verb::Vrfy => vrfy(arguments),
            Verb::Help => Answer::Say(reply::HELP),
            Verb::Quit => quit(arguments),
            // BDAT does not come here: it is answered after its octets.
            Verb::Expn | Verb::Bdat => Answer::Say(reply::NOT_IMPLEMENTED),
        }
    }

    /// RFC 5321 4.1.1.1. AUTH is announced under TLS only, and STARTTLS in plaintext only (RFC 4954
    /// 4, RFC 3207 4.2).
    fn ehlo(&mut self, arguments: &str, out: &mut Vec<u8>) -> Answer {
        if !command::is_helo_name(arguments) {
            return Answer::Say(reply::BAD_HELO);
        }
        let config = &self.config;
        let size = format!("SIZE {}", config.limits.message_bytes);
        let security = match self.security {
            Security::Plaintext if config.starttls => Some("STARTTLS"),
            // RFC 4422 A: EXTERNAL only where something outside of SASL has told who it is.
            Security::Tls if config.identity.is_none() && self.certificate.is_some() => {
                Some("AUTH PLAIN LOGIN EXTERNAL")
            }
            Security::Tls if config.identity.is_none() => Some("AUTH PLAIN LOGIN"),
            _ => None,
        };
        let mut lines = vec![
            config.hostname.as_str(),
            "PIPELINING",
            &size,
            "8BITMIME",
            "SMTPUTF8",
            "DSN",
            "CHUNKING",
        ];
        lines.extend(security);
        lines.push("ENHANCEDSTATUSCODES");
        reply::write_lines(out, 250, &lines);
        self.helo = Some(arguments.into());
        Answer::Said
    }

    fn helo(&mut self, arguments: &str) -> Answer {
        if !command::is_helo_name(arguments) {
            return Answer::Say(reply::BAD_HELO);
        }
        self.helo = Some(arguments.into());
        Answer::Say(Reply::plain(250, self.config.hostname.clone()))
    }

    fn starttls(&self, arguments: &str) -> Answer {
        if self.security == Security::Tls {
            Answer::Say(reply::ALREADY_TLS)
        } else if !self.config.starttls {
            Answer::Say(reply::NOT_IMPLEMENTED)
        } else if !arguments.is_empty() {
            Answer::Say(reply::BAD_ARGUMENTS)
        } else {
            Answer::Go(reply::START_TLS, Mode::AwaitTls)
        }
    }

    fn auth(&self, arguments: &str) -> Answer {
        let mut words = arguments.split(' ').filter(|word| !word.is_empty());
        let (mechanism, response, surplus) = (words.next(), words.next(), words.next());
        let Some(mechanism) = mechanism.filter(|_| surplus.is_none()) else {
            return Answer::Say(reply::BAD_ARGUMENTS);
        };
        let Some(mechanism) = Mechanism::read(mechanism) else {
            return Answer::Say(reply::UNKNOWN_MECHANISM);
        };
        if self.security == Security::Plaintext {
            return Answer::Say(reply::LOGIN_NEEDS_TLS);
        }
        let certificate = self.certificate.as_ref();
        auth_answer(Exchange::begin(mechanism, response, certificate))
    }

    fn mail(&mut self, arguments: &str, gate: Gate) -> Answer {
        match self.open_transaction(arguments, gate) {
            Ok(transaction) => {
                self.transaction = Some(Box::new(transaction));
                Answer::Say(reply::SENDER_OK)
            }
            Err(reply) => Answer::Say(reply),
        }
    }

    fn open_transaction(&self, arguments: &str, gate: Gate) -> Result<Transaction, Reply> {
        let limits = &self.config.limits;
        if self.security == Security::Plaintext && !self.config.allow_plaintext_submission {
            return Err(self.login_needed());
        }
        if is_used_up(self.messages, limits.messages_per_session) {
            return Err(reply::TOO_MANY_MESSAGES);
        }
        match gate {
            Gate::Open => {}
            Gate::Busy | Gate::Draining => return Err(reply::NOT_ACCEPTING),
            Gate::StoreDown => return Err(reply::STORE_DOWN),
            Gate::OverRate => return Err(reply::OVER_RATE),
        }
        let mail = command::mail(arguments)?;
        if mail
            .size_bytes
            .is_some_and(|size| size > limits.message_bytes as u64)
        {
            return Err(reply::MESSAGE_TOO_LARGE);
        }
        let identity = self.identity.as_deref();
        if identity.is_some_and(|identity| !identity.senders.allow(mail.reverse_path)) {
            return Err(reply::not_allowed_sender(mail.reverse_path));
        }
        Ok(Transaction {
            reverse_path: mail.reverse_path.to_owned(),
            recipients: Vec::new(),
            address_bytes: mail.reverse_path.len(),
            body_type: match mail.body {
                Some(command::Body::EightBitMime) => BodyType::EightBitMime,
                Some(command::Body::SevenBit) | None => BodyType::SevenBit,
            },
            smtputf8: mail.smtputf8,
            text: Text::new(mail.size_bytes),
            dsn: mail_dsn(&mail),
        })
    }

    fn rcpt(&mut self, arguments: &str) -> Answer {
        let most = usize::try_from(self.config.limits.recipients).unwrap_or(usize::MAX);
        let Some(transaction) = self.transaction.as_mut() else {
            return Answer::Say(reply::BAD_SEQUENCE);
        };
        let rcpt = match command::rcpt(arguments, transaction.smtputf8) {
            Ok(rcpt) => rcpt,
            Err(reply) => return Answer::Say(reply),
        };
        if transaction.recipients.len() >= most {
            return Answer::Say(reply::TOO_MANY_RECIPIENTS);
        }
        transaction.address_bytes += size_of::<String>() + rcpt.forward_path.len();
        transaction.recipients.push(rcpt.forward_path.to_owned());
        if rcpt.notify.is_some() || rcpt.orcpt.is_some() {
            transaction.dsn.get_or_insert_default();
        }
        if let Some(dsn) = &mut transaction.dsn {
            // Those before it have asked for nothing, if they are not there.
            dsn.recipients
                .resize_with(transaction.recipients.len(), RecipientDsn::default);
            if let Some(last) = dsn.recipients.last_mut() {
                transaction.address_bytes += size_of_val(last) + rcpt.orcpt.map_or(0, str::len);
                last.notify = rcpt.notify;
                last.orcpt = rcpt.orcpt.map(str::to_owned);
            }
        }
        Answer::Say(reply::RECIPIENT_OK)
    }
}

/// Nothing, as a rule.
fn mail_dsn(mail: &command::Mail<'_>) -> Option<Box<Dsn>> {
    (mail.ret.is_some() || mail.envid.is_some()).then(|| {
        Box::new(Dsn {
            ret: mail.ret,
            envid: mail.envid.map(str::to_owned),
            recipients: Vec::new(),
        })
    })
}

fn data(arguments: &str) -> Answer {
    if arguments.is_empty() {
        Answer::Go(reply::SEND_TEXT, Mode::Text)
    } else {
        Answer::Say(reply::BAD_ARGUMENTS)
    }
}

fn vrfy(arguments: &str) -> Answer {
    Answer::Say(if arguments.is_empty() {
        reply::BAD_ARGUMENTS
    } else {
        reply::NOT_VERIFIED
    })
}

fn quit(arguments: &str) -> Answer {
    if arguments.is_empty() {
        Answer::Go(reply::BYE, Mode::Closed)
    } else {
        Answer::Say(reply::BAD_ARGUMENTS)
    }
}

fn bare(arguments: &str, reply: Reply) -> Answer {
    Answer::Say(if arguments.is_empty() {
        reply
    } else {
        reply::BAD_ARGUMENTS
    })
}
