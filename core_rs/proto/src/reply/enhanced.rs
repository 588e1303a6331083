//! Enhanced status codes (RFC 3463).

/// RFC 2034 and RFC 3463: class.subject.detail. The class always is the first digit of the basic
/// code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enhanced(pub u8, pub u8, pub u8);

impl Enhanced {
    pub(super) const OK: Self = Self(2, 0, 0);
    pub(super) const SENDER_OK: Self = Self(2, 1, 0);
    pub(super) const RECIPIENT_OK: Self = Self(2, 1, 5);
    pub(super) const AUTHENTICATED: Self = Self(2, 7, 0);
    pub(super) const SYSTEM: Self = Self(4, 3, 0);
    pub(super) const NOT_ACCEPTING: Self = Self(4, 3, 2);
    pub(super) const TOO_SLOW: Self = Self(4, 4, 2);
    pub(super) const RECIPIENTS: Self = Self(4, 5, 3);
    pub(super) const POLICY_FOR_NOW: Self = Self(4, 7, 0);
    pub(super) const NOT_AUTHORIZED_NOW: Self = Self(4, 7, 1);
    pub(super) const BAD_RECIPIENT: Self = Self(5, 1, 3);
    pub(super) const BAD_SENDER: Self = Self(5, 1, 7);
    pub(super) const TOO_LARGE: Self = Self(5, 3, 4);
    pub(super) const LOOP: Self = Self(5, 4, 6);
    pub(super) const INVALID_COMMAND: Self = Self(5, 5, 1);
    pub(super) const SYNTAX: Self = Self(5, 5, 2);
    pub(super) const ARGUMENTS: Self = Self(5, 5, 4);
    pub(super) const AUTH_LINE: Self = Self(5, 5, 6);
    pub(super) const CONTENT: Self = Self(5, 6, 0);
    pub(super) const NON_ASCII: Self = Self(5, 6, 7);
    pub(super) const POLICY: Self = Self(5, 7, 0);
    pub(super) const NOT_AUTHORIZED: Self = Self(5, 7, 1);
    pub(super) const CREDENTIALS: Self = Self(5, 7, 8);
    pub(super) const ENCRYPTION: Self = Self(5, 7, 11);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EnvelopeId;
    use crate::reply::{ALL, octets_received, queued};

    /// Subject and detail of the IANA registry "Simple Mail Transfer Protocol (SMTP) Enhanced Status
    /// Codes", which RFC 5248 made, and where each is defined. The classes are 2, 4 and 5 (RFC 3463
    /// 3.1).
    const REGISTERED: [(&str, &[(u8, u8)]); 12] = [
        (
            "RFC 3463",
            &[
                (0, 0),
                (1, 0),
                (1, 1),
                (1, 2),
                (1, 3),
                (1, 4),
                (1, 5),
                (1, 6),
                (1, 7),
                (1, 8),
                (2, 0),
                (2, 1),
                (2, 2),
                (2, 3),
                (2, 4),
                (3, 0),
                (3, 1),
                (3, 2),
                (3, 3),
                (3, 4),
                (3, 5),
                (4, 0),
                (4, 1),
                (4, 2),
                (4, 3),
                (4, 4),
                (4, 5),
                (4, 6),
                (4, 7),
                (5, 0),
                (5, 1),
                (5, 2),
                (5, 3),
                (5, 4),
                (5, 5),
                (6, 0),
                (6, 1),
                (6, 2),
                (6, 3),
                (6, 4),
                (6, 5),
                (7, 0),
                (7, 1),
                (7, 2),
                (7, 3),
                (7, 4),
                (7, 5),
                (7, 6),
                (7, 7),
            ],
        ),
        ("RFC 3886", &[(1, 9)]),
        ("RFC 7505", &[(1, 10), (7, 27)]),
        ("RFC 6710", &[(3, 6), (7, 15), (7, 16)]),
        ("RFC 4954", &[(5, 6), (7, 8), (7, 9), (7, 11), (7, 12)]),
        ("RFC 4468", &[(6, 6)]),
        ("RFC 6531", &[(6, 7), (6, 8), (6, 9)]),
        ("RFC 5248", &[(7, 10), (7, 13), (7, 14)]),
        ("RFC 7293", &[(7, 17), (7, 18), (7, 19)]),
        (
            "RFC 7372",
            &[
                (7, 20),
                (7, 21),
                (7, 22),
                (7, 23),
                (7, 24),
                (7, 25),
                (7, 26),
            ],
        ),
        ("RFC 8617", &[(7, 29)]),
        ("RFC 8689", &[(7, 30)]),
    ];

    #[test]
    fn every_enhanced_code_is_registered() {
        let known = |enhanced: Enhanced| {
            let Enhanced(class, subject, detail) = enhanced;
            matches!(class, 2 | 4 | 5)
                && REGISTERED
                    .iter()
                    .any(|(_, codes)| codes.contains(&(subject, detail)))
        };
        let made = [queued(EnvelopeId([0; 16])), octets_received(1)];
        for reply in ALL.iter().chain(&made) {
            assert!(reply.enhanced().is_none_or(known), "{reply:?}");
            let class = reply
                .enhanced()
                .map_or(3, |Enhanced(class, _, _)| u16::from(class));
            assert_eq!(class, reply.code() / 100, "{reply:?}");
        }
        assert!(!known(Enhanced(5, 7, 255)) && !known(Enhanced(3, 0, 0)));
    }
}
