//! What a client proved by its TLS certificate, as far as a login is concerned.

use std::fmt::Write as _;

/// A client certificate that was verified against the operator's own CA and CRL before anything was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// SHA-256 of the certificate (DER).
    pub fingerprint: [u8; 32],
    /// Whom it names, each with its kind: `dns:`, `email:`, `uri:`, `ip:` of its subjectAltName, else
    /// `cn:` of its subject. In lower case where the kind has no case.
    pub names: Vec<String>,
}

impl ClientCertificate {
    /// The fingerprint in lower-case hexadecimal digits.
    #[must_use]
    pub fn fingerprint_hex(&self) -> String {
        self.fingerprint
            .iter()
            .fold(String::with_capacity(64), |mut text, byte| {
                // Writing to a String does not fail.
                let _ = write!(text, "{byte:02x}");
                text
            })
    }
}
