//! `ServerConfig`: one frozen object instead of twenty parameters.

use std::collections::HashMap;
use std::time::Duration;

use pyo3::prelude::*;
use smtp_proxy_proto::{Identity, Limits};
use smtp_proxy_server::{CertificatePem, Config, Timeouts};

use crate::error::{bad_setting, exception};

/// Chain and key, PEM.
pub(crate) type Pem = (Vec<u8>, Vec<u8>);
type PresetIdentity = (Vec<u8>, Vec<u8>, String);

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
        plaintext_identity: Option<PresetIdentity>,
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
        .map(|(chain, key)| CertificatePem { chain, key })
        .collect()
}

/// `bytes` of a UUID.
pub(crate) fn uuid(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.try_into().ok()
}

fn preset_identity((tenant, credential, username): PresetIdentity) -> PyResult<Identity> {
    match (uuid(&tenant), uuid(&credential)) {
        (Some(tenant_id), Some(credential_id)) => Ok(Identity {
            tenant_id,
            credential_id,
            username,
        }),
        _ => Err(bad_setting(
            "plaintext_identity",
            "tenant and credential id must be 16 bytes each",
        )),
    }
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
