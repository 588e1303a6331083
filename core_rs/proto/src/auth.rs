//! AUTH PLAIN (RFC 4616), LOGIN and EXTERNAL (RFC 4422 appendix A), each with and without an initial
//! response (RFC 4954).
//!
//! An exchange only turns the client's lines into a [`LoginRequest`]; whether it is true is decided
//! outside. A rejected login is told the same way whether or not the user exists.

use std::fmt;
use std::sync::Arc;

use crate::{ClientCertificate, Identity, Reply, Secret, reply};

/// How the client logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616: everything in one response.
    Plain,
    /// Two questions; never standardised, and what many clients still prefer.
    Login,
    /// RFC 4422 A: by the certificate of the TLS handshake.
    External,
}

impl Mechanism {
    /// RFC 4422 3.1: mechanism names have no case here, since clients write them as they like.
    #[must_use]
    pub fn read(name: &str) -> Option<Self> {
        match name {
            _ if name.eq_ignore_ascii_case("PLAIN") => Some(Self::Plain),
            _ if name.eq_ignore_ascii_case("LOGIN") => Some(Self::Login),
            _ if name.eq_ignore_ascii_case("EXTERNAL") => Some(Self::External),
            _ => None,
        }
    }
}

/// A login to be verified; answered by [`crate::Session::login_answered`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRequest {
    /// UTF-8 without control characters. Empty with a certificate alone: whoever it stands for.
    pub username: String,
    /// What shall prove it.
    pub proof: Proof,
    /// How it came.
    pub mechanism: Mechanism,
}

/// What the client has to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// UTF-8 without NUL, not empty.
    Password(Secret),
    /// Verified in the handshake; what is left to ask is whose it is.
    Certificate(Arc<ClientCertificate>),
}

impl LoginRequest {
    /// The password, if that is the proof.
    #[must_use]
    pub fn password(&self) -> Option<&Secret> {
        match &self.proof {
            Proof::Password(password) => Some(password),
            Proof::Certificate(_) => None,
        }
    }
}

/// What became of a [`LoginRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginVerdict {
    /// 235 2.7.0.
    Accepted(Arc<Identity>),
    /// 535 5.7.8: unknown user and wrong password are told alike.
    Rejected,
    /// 454 4.7.0: we could not find out.
    Unavailable,
    /// 421 4.7.0, and closed: the login is good, and its tenant has as many sessions as it may.
    Crowded,
}

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

/// The text is not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotBase64;

/// RFC 4648 4 to the letter: padded, no blanks, no bits left over. Strict, because one secret
/// should have one spelling.
pub fn decode(text: &str) -> Result<Secret, NotBase64> {
    let bytes = text.as_bytes();
    if bytes.len() % 4 != 0 {
        return Err(NotBase64);
    }
    let mut decoded = Vec::with_capacity(bytes.len() / 4 * 3);
    let mut quads = bytes.chunks_exact(4).peekable();
    while let Some(quad) = quads.next() {
        let last = quads.peek().is_none();
        if let Err(error) = decode_quad(quad, last, &mut decoded) {
            // What was decoded so far is wiped as well.
            drop(Secret::new(decoded));
            return Err(error);
        }
    }
    Ok(Secret::new(decoded))
}

fn decode_quad(quad: &[u8], last: bool, decoded: &mut Vec<u8>) -> Result<(), NotBase64> {
    let (a, b, c, d) = match quad {
        [a, b, b'=', b'='] if last => (a, b, None, None),
        [a, b, c, b'='] if last => (a, b, Some(c), None),
        [a, b, c, d] => (a, b, Some(c), Some(d)),
        _ => return Err(NotBase64),
    };
    let bits = |symbol: Option<&u8>| symbol.map_or(Ok(0), |symbol| sextet(*symbol));
    let value = sextet(*a)? << 18 | sextet(*b)? << 12 | bits(c)? << 6 | bits(d)?;
    let [_, first, second, third] = value.to_be_bytes();
    decoded.push(first);
    match (c, d) {
        (None, _) if second == 0 && third == 0 => {}
        (Some(_), None) if third == 0 => decoded.push(second),
        (Some(_), Some(_)) => decoded.extend_from_slice(&[second, third]),
        _ => return Err(NotBase64),
    }
    Ok(())
}

fn sextet(symbol: u8) -> Result<u32, NotBase64> {
    match symbol {
        b'A'..=b'Z' => Ok(u32::from(symbol - b'A')),
        b'a'..=b'z' => Ok(u32::from(symbol - b'a') + 26),
        b'0'..=b'9' => Ok(u32::from(symbol - b'0') + 52),
        b'+' => Ok(62),
        b'/' => Ok(63),
        _ => Err(NotBase64),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Result<Vec<u8>, NotBase64> {
        decode(text).map(|secret| secret.expose_bytes().to_vec())
    }

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
    fn the_vectors_of_rfc_4648() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decoded(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(decoded("+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
    }

    #[test]
    fn strict_base64() {
        for bad in [
            "Z",
            "Zg",
            "Zg=",
            "Zg===",
            "Zh==",
            "Zm9=",
            "Zg==Zg==",
            "=",
            "====",
            "Z===",
            "Zm 9v",
            "Zm9v\n",
            "Zm-_",
            "Zm9vZg==Zm9v",
            "Zö==",
        ] {
            assert_eq!(decoded(bad), Err(NotBase64), "{bad:?}");
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
