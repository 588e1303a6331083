//! AUTH PLAIN (RFC 4616), LOGIN and EXTERNAL (RFC 4422 appendix A), each with and without an initial
//! response (RFC 4954).
//!
//! An exchange only turns the client's lines into a [`LoginRequest`]; whether it is true is decided
//! outside. A rejected login is told the same way whether or not the user exists.

mod base64;
mod request;

use std::fmt;
use std::sync::Arc;

pub use self::base64::{NotBase64, decode};
pub use self::request::{LoginRequest, LoginVerdict, Mechanism, Proof};

use crate::{ClientCertificate, Reply, Secret, reply};

/// What an exchange wants next.
#[derive(Debug)]
pub enum Step {
    /// Send this challenge (base64 already) as 334 and go on.
    Ask(&'static str, Exchange),
    /// All is said.
    Login(LoginRequest),
    /// All is said, and nobody needs to look at it: this user asks to act as somebody else.
    Fail {
        /// As in [`LoginRequest::username`].
        username: String,
    },
    /// The exchange is over.
    Refuse(Reply),
}

/// An exchange that waits for the client's next line.
pub struct Exchange(Awaited);

enum Awaited {
    Plain,
    LoginUsername,
    LoginPassword { username: String },
    External(Arc<ClientCertificate>),
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Awaited::Plain => "Exchange(Plain)",
            Awaited::LoginUsername => "Exchange(LoginUsername)",
            Awaited::LoginPassword { .. } => "Exchange(LoginPassword)",
            Awaited::External(_) => "Exchange(External)",
        })
    }
}

/// `Username:` and `Password:` in base64. Some clients compare them, so they are what everyone
/// sends.
const ASK_USERNAME: &str = "VXNlcm5hbWU6";
const ASK_PASSWORD: &str = "UGFzc3dvcmQ6";

impl Exchange {
    /// Begins with what followed the mechanism's name: nothing, `=` for an empty response (RFC 4954
    /// 4), or base64. EXTERNAL is only known where there is a verified `certificate`.
    #[must_use]
    pub fn begin(
        mechanism: Mechanism,
        initial_response: Option<&str>,
        certificate: Option<&Arc<ClientCertificate>>,
    ) -> Step {
        let (challenge, exchange) = match (mechanism, certificate) {
            (Mechanism::Plain, _) => ("", Self(Awaited::Plain)),
            (Mechanism::Login, _) => (ASK_USERNAME, Self(Awaited::LoginUsername)),
            (Mechanism::External, Some(certificate)) => {
                ("", Self(Awaited::External(Arc::clone(certificate))))
            }
            (Mechanism::External, None) => return Step::Refuse(reply::UNKNOWN_MECHANISM),
        };
        match initial_response {
            None => Step::Ask(challenge, exchange),
            Some("=") => exchange.response(Ok(Secret::default())),
            Some(response) => exchange.response(decode(response)),
        }
    }

    /// Goes on with the client's line: base64, an empty line, or `*` to cancel.
    #[must_use]
    pub fn next(self, line: &str) -> Step {
        if line == "*" {
            Step::Refuse(reply::AUTH_CANCELLED)
        } else {
            self.response(decode(line))
        }
    }

    fn response(self, response: Result<Secret, NotBase64>) -> Step {
        let Ok(response) = response else {
            return Step::Refuse(reply::BAD_BASE64);
        };
        let step = match self.0 {
            Awaited::Plain => plain(&response),
            Awaited::LoginUsername => name(response.expose_bytes())
                .map(|username| Step::Ask(ASK_PASSWORD, Self(Awaited::LoginPassword { username }))),
            Awaited::LoginPassword { username } => {
                password(response.expose_bytes()).map(|password| {
                    Step::Login(LoginRequest {
                        username,
                        proof: Proof::Password(password),
                        mechanism: Mechanism::Login,
                    })
                })
            }
            Awaited::External(certificate) => external(&response, certificate),
        };
        step.unwrap_or(Step::Refuse(reply::BAD_RESPONSE))
    }
}

/// RFC 4616 2: `[authzid] NUL authcid NUL passwd`.
fn plain(response: &Secret) -> Option<Step> {
    let mut parts = response.expose_bytes().splitn(3, |b| *b == 0);
    let (authorised, authenticated) = (parts.next()?, parts.next()?);
    let (username, password) = (name(authenticated)?, password(parts.next()?)?);
    // Nobody acts for someone else here. It counts and is told as a wrong password, so nothing is
    // learnt from it.
    if !authorised.is_empty() && authorised != authenticated {
        return Some(Step::Fail { username });
    }
    Some(Step::Login(LoginRequest {
        username,
        proof: Proof::Password(password),
        mechanism: Mechanism::Plain,
    }))
}

/// RFC 4422 A.1: nothing, or the identity that the client asks to act as.
fn external(response: &Secret, certificate: Arc<ClientCertificate>) -> Option<Step> {
    let asked = response.expose_bytes();
    let username = if asked.is_empty() {
        String::new()
    } else {
        name(asked)?
    };
    Some(Step::Login(LoginRequest {
        username,
        proof: Proof::Certificate(certificate),
        mechanism: Mechanism::External,
    }))
}

fn name(bytes: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(bytes).ok()?;
    (!name.is_empty() && !name.contains(char::is_control)).then(|| name.to_owned())
}

fn password(bytes: &[u8]) -> Option<Secret> {
    let good = !bytes.is_empty() && !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok();
    good.then(|| Secret::new(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn login(step: Step) -> Option<(String, String)> {
        match step {
            Step::Login(request) => Some((
                request.username.clone(),
                request.password()?.expose().to_owned(),
            )),
            _ => None,
        }
    }

    fn refusal(step: Step) -> Option<Reply> {
        match step {
            Step::Refuse(reply) => Some(reply),
            _ => None,
        }
    }

    #[test]
    fn plain_in_one_line_and_in_two() {
        let expected = Some(("user".to_owned(), "pass".to_owned()));
        assert_eq!(
            login(Exchange::begin(
                Mechanism::Plain,
                Some("AHVzZXIAcGFzcw=="),
                None
            )),
            expected
        );
        let Step::Ask("", exchange) = Exchange::begin(Mechanism::Plain, None, None) else {
            panic!("no question")
        };
        assert_eq!(login(exchange.next("dXNlcgB1c2VyAHBhc3M=")), expected);
    }

    #[test]
    fn login_in_two_lines_and_in_three() {
        let expected = Some(("user".to_owned(), "pass".to_owned()));
        let Step::Ask(ASK_USERNAME, exchange) = Exchange::begin(Mechanism::Login, None, None)
        else {
            panic!("no question")
        };
        let Step::Ask(ASK_PASSWORD, exchange) = exchange.next("dXNlcg==") else {
            panic!("no question")
        };
        assert_eq!(login(exchange.next("cGFzcw==")), expected);
        let Step::Ask(ASK_PASSWORD, exchange) =
            Exchange::begin(Mechanism::Login, Some("dXNlcg=="), None)
        else {
            panic!("no question")
        };
        assert_eq!(login(exchange.next("cGFzcw==")), expected);
    }

    #[test]
    fn refused_responses() {
        for (response, wanted) in [
            ("=", reply::BAD_RESPONSE),
            ("dXNlcg==", reply::BAD_RESPONSE),         // user
            ("AHVzZXI=", reply::BAD_RESPONSE),         // \0user
            ("AABwYXNz", reply::BAD_RESPONSE),         // \0\0pass
            ("AHVzZXIA", reply::BAD_RESPONSE),         // \0user\0
            ("AHVzZXIAcGEAc3M=", reply::BAD_RESPONSE), // \0user\0pa\0ss
            ("AHVzCmVyAHBhc3M=", reply::BAD_RESPONSE), // \0us\ner\0pass
            ("AP91c2VyAHBhc3M=", reply::BAD_RESPONSE), // \0\xffuser\0pass
            ("not base64", reply::BAD_BASE64),
            ("*", reply::BAD_BASE64),
        ] {
            assert_eq!(
                refusal(Exchange::begin(Mechanism::Plain, Some(response), None)),
                Some(wanted),
                "{response}"
            );
        }
        let Step::Ask(_, exchange) = Exchange::begin(Mechanism::Login, None, None) else {
            panic!("no question")
        };
        assert_eq!(refusal(exchange.next("*")), Some(reply::AUTH_CANCELLED));
        let Step::Ask(_, exchange) = Exchange::begin(Mechanism::Login, None, None) else {
            panic!("no question")
        };
        assert_eq!(refusal(exchange.next("")), Some(reply::BAD_RESPONSE));
    }

    #[test]
    fn to_act_as_somebody_else_is_a_failed_login() {
        let begin = |response| Exchange::begin(Mechanism::Plain, Some(response), None);
        let step = begin("b3RoZXIAdXNlcgBwYXNz"); // other\0user\0pass
        assert!(matches!(step, Step::Fail { username } if username == "user"));
        let step = begin("dXNlcgB1c2VyAHBhc3M="); // user\0user\0pass
        assert!(matches!(step, Step::Login(_)));
        let step = begin("b3RoZXIAdXNlcgA="); // other\0user\0
        assert_eq!(refusal(step), Some(reply::BAD_RESPONSE));
    }

    fn certificate() -> Arc<ClientCertificate> {
        Arc::new(ClientCertificate {
            fingerprint: [0xab; 32],
            names: vec!["dns:app.example".to_owned()],
        })
    }

    #[test]
    fn external_with_and_without_an_initial_response() {
        let shown = certificate();
        let begin = |response| Exchange::begin(Mechanism::External, response, Some(&shown));
        let asked = |step| match step {
            Step::Login(request) => {
                assert_eq!(request.proof, Proof::Certificate(certificate()));
                assert_eq!(request.mechanism, Mechanism::External);
                Some(request.username)
            }
            _ => None,
        };
        assert_eq!(asked(begin(Some("="))).unwrap(), "");
        assert_eq!(asked(begin(Some("dXNlcg=="))).unwrap(), "user");
        for (line, username) in [("", ""), ("dXNlcg==", "user")] {
            let Step::Ask("", exchange) = begin(None) else {
                panic!("no question")
            };
            assert_eq!(asked(exchange.next(line)).unwrap(), username);
        }
        for (response, wanted) in [
            ("dXMAZXI=", reply::BAD_RESPONSE), // us\0er
            ("/w==", reply::BAD_RESPONSE),     // not UTF-8
            ("user?", reply::BAD_BASE64),
        ] {
            assert_eq!(refusal(begin(Some(response))), Some(wanted), "{response}");
        }
        let Step::Ask(_, exchange) = begin(None) else {
            panic!("no question")
        };
        assert_eq!(refusal(exchange.next("*")), Some(reply::AUTH_CANCELLED));
    }

    #[test]
    fn external_is_unknown_without_a_certificate() {
        for response in [None, Some("="), Some("dXNlcg==")] {
            assert_eq!(
                refusal(Exchange::begin(Mechanism::External, response, None)),
                Some(reply::UNKNOWN_MECHANISM)
            );
        }
    }

    #[test]
    fn a_fingerprint_is_hexadecimal() {
        assert_eq!(certificate().fingerprint_hex(), "ab".repeat(32));
    }

    #[test]
    fn debug_shows_no_secret() {
        let step = Exchange::begin(Mechanism::Plain, Some("AHVzZXIAcGFzcw=="), None);
        assert!(!format!("{step:?}").contains("pass\""));
    }
}
