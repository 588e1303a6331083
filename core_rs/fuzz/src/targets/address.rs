//! MAIL's, RCPT's and BDAT's arguments: what is taken is harmless, and is taken again as it is. Sender patterns: the
//! spelling that is kept means the same, and a mailbox allows itself.

use smtp_proxy_proto::{SenderPattern, Senders, address, command, dsn};

/// See above.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let _ = command::mail(text);
    let _ = command::rcpt(text, true);
    let _ = command::bdat(text);
    let _ = dsn::envid(text);
    let _ = dsn::notify(text);
    if dsn::orcpt(text, false).is_some() {
        assert!(text.is_ascii() && dsn::orcpt(text, true) == Some(text));
    }
    if let Ok(pattern) = text.parse::<SenderPattern>() {
        assert_eq!(pattern.to_string().parse(), Ok(pattern));
    }
    if let Ok(mailbox) = address::mailbox(text) {
        assert!(Senders::read([mailbox]).is_ok_and(|senders| senders.allow(mailbox)));
    }
    for path in [address::reverse_path(text), address::forward_path(text)]
        .into_iter()
        .flatten()
    {
        let found = path.address;
        assert!(text.starts_with('<') && text.len() - path.rest.len() <= address::PATH_BYTES);
        assert!(!found.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')));
        assert!(
            found.is_empty()
                || found.eq_ignore_ascii_case("postmaster")
                || address::mailbox(found) == Ok(found)
        );
        assert_eq!(
            address::forward_path(&format!("<{found}>"))
                .map(|path| path.address)
                .ok(),
            Some(found).filter(|a| !a.is_empty())
        );
    }
}
