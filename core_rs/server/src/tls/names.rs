//! Which certificate for which name.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{canary, validate};
use crate::{CertificatePem, Error};

/// Exact, else wildcard, else the first one, which also serves the many clients that name no server
/// (RFC 6066 3). Of two certificates for one name the first counts.
#[derive(Debug)]
pub(super) struct Names {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows `*.`; a wildcard stands for one label (RFC 6125 6.4.3).
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl Names {
    /// All of them validated, or the first one that is not good.
    pub(super) fn read(
        certificates: &[CertificatePem],
        versions: &[&'static SupportedProtocolVersion],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        let mut default = None;
        for (number, pem) in certificates.iter().enumerate() {
            let refuse = |problem| Error::Certificate {
                number,
                name: pem.name.clone(),
                problem,
            };
            let (key, names) = validate::certified(pem, provider).map_err(refuse)?;
            let key = Arc::new(key);
            canary::shake_hands(&key, &names, versions, provider).map_err(refuse)?;
            for name in names {
                match name.strip_prefix("*.") {
                    Some(parent) => wildcard
                        .entry(parent.to_owned())
                        .or_insert_with(|| Arc::clone(&key)),
                    None => exact.entry(name).or_insert_with(|| Arc::clone(&key)),
                };
            }
            default.get_or_insert(key);
        }
        let default = default.ok_or_else(|| Error::Certificate {
            number: 0,
            name: String::new(),
            problem: "the list is empty".to_owned(),
        })?;
        Ok(Self {
            exact,
            wildcard,
            default,
        })
    }

    fn choose(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else {
            return &self.default;
        };
        let name = name.trim_end_matches('.');
        let parent = || {
            name.split_once('.')
                .and_then(|(_, parent)| self.wildcard.get(parent))
        };
        self.exact
            .get(name)
            .or_else(parent)
            .unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.choose(hello.server_name())))
    }
}
