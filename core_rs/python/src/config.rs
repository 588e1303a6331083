//! `ServerConfig`: one frozen object instead of twenty parameters.

use std::collections::HashMap;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use smtp_proxy_proto::{Identity, Limits, SenderPattern, Senders, Submission};
use smtp_proxy_server::{
    CertificatePem, ClientAuth, ClientTrust, Config, Network, Protection, Timeouts, TlsOptions,
};

use crate::error::{bad_setting, exception};

/// Chain and key, PEM; and in the longer form a response to be stapled and what errors shall call it.
#[derive(FromPyObject)]
pub(crate) enum Pem {
    #[pyo3(transparent)]
    Whole((Vec<u8>, Vec<u8>, Vec<u8>, String)),
    #[pyo3(transparent)]
    Pair((Vec<u8>, Vec<u8>)),
}

/// Who somebody is, as Python says it: tenant id, credential id, username, and the reverse-paths that it may use, which may
/// be left out when it may use any.
#[derive(FromPyObject)]
pub(crate) enum GivenIdentity {
    Restricted((Vec<u8>, Vec<u8>, String, Vec<String>)),
    Any((Vec<u8>, Vec<u8>, String)),
}

impl GivenIdentity {
    /// Errors say what is wrong with it.
    pub(crate) fn read(self) -> Result<Identity, String> {
        let (tenant, credential, username, senders) = match self {
            Self::Restricted(given) => given,
            Self::Any((tenant, credential, username)) => (tenant, credential, username, Vec::new()),
        };
        let (Some(tenant_id), Some(credential_id)) = (uuid(&tenant), uuid(&credential)) else {
            return Err("tenant and credential id must be 16 bytes each".to_owned());
        };
        Ok(Identity {
            tenant_id,
            credential_id,
            username,
            senders: Senders::read(senders).map_err(|error| error.to_string())?,
        })
    }
}

/// All that a server is told at its start.
#[pyclass(frozen, module = "smtp_proxy._core")]
pub(crate) struct ServerConfig {
    pub(crate) config: Config,
}

#[pymethods]
impl ServerConfig {
    #[new]
    #[pyo3(signature = (
        *,
        hostname,
        software = "smtp-proxy",
        starttls_address = None,
        tls_address = None,
        plaintext_address = None,
        plaintext_identity = None,
        certificates = Vec::new(),
        limits = HashMap::new(),
        command_timeout_seconds = 300.0,
        data_timeout_seconds = 180.0,
        handshake_timeout_seconds = 30.0,
        session_max_seconds = 0.0,
        max_connections = 20_000,
        max_in_flight_bytes = 268_435_456,
        max_waiting_messages = 10_000,
        threads = 0,
        add_missing_headers = true,
        strip_bcc = true,
        tls13_only = false,
        ticket_seconds = 43_200,
        client_auth = "none",
        client_ca = Vec::new(),
        client_crl = Vec::new(),
        protection = HashMap::new(),
        proxy_networks = Vec::new(),
    ))]
    // One keyword per setting is the point of this object.
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        hostname: String,
        software: &str,
        starttls_address: Option<String>,
        tls_address: Option<String>,
        plaintext_address: Option<String>,
        plaintext_identity: Option<GivenIdentity>,
        certificates: Vec<Pem>,
        limits: HashMap<String, u64>,
        command_timeout_seconds: f64,
        data_timeout_seconds: f64,
        handshake_timeout_seconds: f64,
        session_max_seconds: f64,
        max_connections: usize,
        max_in_flight_bytes: usize,
        max_waiting_messages: usize,
        threads: usize,
        add_missing_headers: bool,
        strip_bcc: bool,
        tls13_only: bool,
        ticket_seconds: u32,
        client_auth: &str,
        client_ca: Vec<u8>,
        client_crl: Vec<u8>,
        protection: HashMap<String, f64>,
        proxy_networks: Vec<String>,
    ) -> PyResult<Self> {
        // A name is resolved here, and that may take its time.
        let [starttls, tls, plaintext] = py.detach(|| {
            [
                ("starttls_address", starttls_address),
                ("tls_address", tls_address),
                ("plaintext_address", plaintext_address),
            ]
            .map(|(name, text)| text.map(|text| Config::address(name, &text)).transpose())
        });
        let config = Config {
            hostname,
            software: software.to_owned(),
            starttls: starttls.map_err(exception)?,
            tls: tls.map_err(exception)?,
            plaintext: plaintext.map_err(exception)?,
            plaintext_identity: plaintext_identity.map(preset_identity).transpose()?,
            certificates: pems(certificates),
            tls_options: TlsOptions {
                tls13_only,
                ticket_lifetime: Duration::from_secs(ticket_seconds.into()),
                client_auth: read_client_auth(client_auth)?,
            },
            client_trust: ClientTrust {
                ca: client_ca,
                crl: client_crl,
            },
            limits: read_limits(limits)?,
            timeouts: Timeouts {
                command: seconds("command_timeout_seconds", command_timeout_seconds)?,
                data: seconds("data_timeout_seconds", data_timeout_seconds)?,
                handshake: seconds("handshake_timeout_seconds", handshake_timeout_seconds)?,
                session: Some(seconds("session_max_seconds", session_max_seconds)?)
                    .filter(|max| !max.is_zero()),
            },
            max_connections,
            max_in_flight_bytes,
            max_waiting_messages,
            threads,
            submission: Submission {
                add_missing_headers,
                strip_bcc,
            },
            protection: read_protection(protection, proxy_networks)?,
        };
        config.check().map_err(exception)?;
        Ok(Self { config })
    }

    fn __repr__(&self) -> String {
        format!(
            "ServerConfig({:?}, {} certificates)",
            self.config.hostname,
            self.config.certificates.len()
        )
    }
}

pub(crate) fn pems(certificates: Vec<Pem>) -> Vec<CertificatePem> {
    certificates
        .into_iter()
        .map(|pem| match pem {
            Pem::Pair((chain, key)) => CertificatePem {
                chain,
                key,
                ..CertificatePem::default()
            },
            Pem::Whole((chain, key, ocsp, name)) => CertificatePem {
                chain,
                key,
                ocsp,
                name,
            },
        })
        .collect()
}

fn read_client_auth(name: &str) -> PyResult<ClientAuth> {
    match name {
        "none" => Ok(ClientAuth::None),
        "optional" => Ok(ClientAuth::Optional),
        "required" => Ok(ClientAuth::Required),
        other => Err(bad_setting(
            "client_auth",
            &format!("{other:?} is none of none, optional, required"),
        )),
    }
}

/// `bytes` of a UUID.
pub(crate) fn uuid(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.try_into().ok()
}

fn preset_identity(given: GivenIdentity) -> PyResult<Identity> {
    given
        .read()
        .map_err(|problem| bad_setting("plaintext_identity", &problem))
}

/// The one spelling in which a pattern is kept.
#[pyfunction]
pub(crate) fn sender_pattern(pattern: &str) -> PyResult<String> {
    let parsed = pattern.parse::<SenderPattern>();
    let parsed = parsed.map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(parsed.to_string())
}

fn read_limits(given: HashMap<String, u64>) -> PyResult<Limits> {
    let mut limits = Limits::default();
    for (name, value) in given {
        limits
            .set(&name, value)
            .map_err(|error| bad_setting("limits", &error.to_string()))?;
    }
    Ok(limits)
}

fn read_protection(given: HashMap<String, f64>, proxies: Vec<String>) -> PyResult<Protection> {
    let mut protection = Protection::default();
    for (name, value) in given {
        protection.set(&name, value).map_err(exception)?;
    }
    let networks = proxies.into_iter().map(|text| Network::read(&text));
    protection.proxy_networks = networks.collect::<Result<_, _>>().map_err(exception)?;
    Ok(protection)
}

pub(crate) fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    // Ten years: beyond, the arithmetic of deadlines may overflow, and nobody means it.
    const MOST: f64 = 10.0 * 365.0 * 86_400.0;
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|duration| duration.as_secs_f64() <= MOST)
        .ok_or_else(|| {
            bad_setting(
                name,
                &format!("{value} is not a time between 0 and {MOST:.0} seconds"),
            )
        })
}
