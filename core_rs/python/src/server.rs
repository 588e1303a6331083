//! `Server`: the few verbs of the border.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use smtp_proxy_server::{self as server, ClientTrust, Gate, Interest, Lane};

use crate::batch::Batch;
use crate::config::{Pem, ServerConfig, pems, seconds as read_seconds, uuid};
use crate::error::{bad_setting, exception};
use crate::logins::LoginBatch;

/// The SMTP server.
#[pyclass(frozen, module = "smtp_proxy._core")]
pub(crate) struct Server {
    server: server::Server,
}

#[pymethods]
impl Server {
    #[new]
    fn new(py: Python<'_>, config: &Bound<'_, ServerConfig>) -> PyResult<Self> {
        let config = &config.get().config;
        let server = py
            .detach(|| server::Server::new(config))
            .map_err(exception)?;
        Ok(Self { server })
    }

    fn start(&self, py: Python<'_>) -> PyResult<BTreeMap<&'static str, (String, u16)>> {
        let addresses = py.detach(|| self.server.start()).map_err(exception)?;
        let named = [
            ("starttls", addresses.starttls),
            ("tls", addresses.tls),
            ("plaintext", addresses.plaintext),
        ];
        let opened = named
            .into_iter()
            .filter_map(|(name, address)| Some((name, address?)));
        Ok(opened
            .map(|(name, address)| (name, (address.ip().to_string(), address.port())))
            .collect())
    }

    fn fileno(&self) -> i32 {
        self.server.wakeup_descriptor()
    }

    #[pyo3(signature = (batches = true, logins = true, newcomers = false))]
    fn arm(&self, batches: bool, logins: bool, newcomers: bool) -> bool {
        let wanted = |wanted, interest| if wanted { interest } else { Interest::NONE };
        let interest = wanted(batches, Interest::ENVELOPES)
            .and(wanted(logins, Interest::LOGINS))
            .and(wanted(newcomers, Interest::NEWCOMERS));
        self.server.arm(interest)
    }

    #[pyo3(signature = (max_messages, max_bytes, newcomers = false))]
    fn next_batch(&self, max_messages: usize, max_bytes: usize, newcomers: bool) -> Option<Batch> {
        let batch = if newcomers {
            self.server.next_newcomers(max_messages, max_bytes)
        } else {
            self.server.next_batch(max_messages, max_bytes)
        };
        batch.map(Batch::new)
    }

    fn next_logins(&self, max_logins: usize) -> Option<LoginBatch> {
        self.server.next_logins(max_logins).map(LoginBatch::new)
    }

    fn forget_logins(&self) {
        self.server.forget_logins();
    }

    fn set_gate(&self, gate: &str) -> PyResult<()> {
        self.server.set_gate(match gate {
            "open" => Gate::Open,
            "busy" => Gate::Busy,
            "store_down" => Gate::StoreDown,
            "draining" => Gate::Draining,
            other => {
                let problem = format!("{other:?} is none of open, busy, store_down, draining");
                return Err(bad_setting("gate", &problem));
            }
        });
        Ok(())
    }

    fn shut_tenant(&self, tenant_id: &[u8], seconds: f64) -> PyResult<()> {
        let tenant_id = read_tenant(tenant_id)?;
        self.server
            .shut_tenant(tenant_id, read_seconds("seconds", seconds)?);
        Ok(())
    }

    fn limit_sessions(&self, limits: Vec<(Vec<u8>, usize)>) -> PyResult<()> {
        let limits = limits
            .into_iter()
            .map(|(tenant_id, most)| Ok((read_tenant(&tenant_id)?, most)))
            .collect::<PyResult<Vec<_>>>()?;
        self.server.limit_sessions(&limits);
        Ok(())
    }

    fn set_lanes(&self, lanes: Vec<(Vec<u8>, u8)>) -> PyResult<()> {
        let read = |(id, number): (Vec<u8>, u8)| {
            let id = uuid(&id).ok_or_else(|| PyValueError::new_err("an id has 16 bytes"))?;
            let lane = Lane::from_number(number)
                .ok_or_else(|| PyValueError::new_err(format!("{number} is no lane: 0 or 1 is")))?;
            Ok((id, lane))
        };
        let lanes = lanes.into_iter().map(read).collect::<PyResult<_>>()?;
        self.server.set_lanes(lanes);
        Ok(())
    }

    fn tenant_sessions<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, usize)> {
        let sessions = self.server.tenant_sessions();
        let told = |(tenant_id, count): ([u8; 16], usize)| (PyBytes::new(py, &tenant_id), count);
        sessions.into_iter().map(told).collect()
    }

    #[pyo3(signature = (certificates, client_ca = Vec::new(), client_crl = Vec::new()))]
    fn reload_tls(
        &self,
        py: Python<'_>,
        certificates: Vec<Pem>,
        client_ca: Vec<u8>,
        client_crl: Vec<u8>,
    ) -> PyResult<()> {
        let certificates = pems(certificates);
        let trust = ClientTrust {
            ca: client_ca,
            crl: client_crl,
        };
        py.detach(|| self.server.reload_tls(&certificates, &trust))
            .map_err(exception)
    }

    fn ban(&self, address: &str, seconds: f64) -> PyResult<bool> {
        let duration = read_seconds("seconds", seconds)?;
        Ok(self.server.ban(read_address(address)?, duration))
    }

    fn bans(&self) -> Vec<(String, f64)> {
        let bans = self.server.bans().into_iter();
        bans.map(|(address, left)| (address.to_string(), left.as_secs_f64()))
            .collect()
    }

    fn lift_ban(&self, address: &str) -> PyResult<bool> {
        Ok(self.server.lift_ban(read_address(address)?))
    }

    fn drain(&self, py: Python<'_>) {
        py.detach(|| self.server.drain());
    }

    fn is_drained(&self) -> bool {
        self.server.is_drained()
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.server.stop());
    }

    fn stats(&self) -> BTreeMap<&'static str, u64> {
        self.server.stats().into_iter().collect()
    }
}

fn read_address(text: &str) -> PyResult<IpAddr> {
    let address = text.parse();
    address.map_err(|_| PyValueError::new_err(format!("{text:?} is no IP address")))
}

fn read_tenant(tenant_id: &[u8]) -> PyResult<[u8; 16]> {
    uuid(tenant_id).ok_or_else(|| PyValueError::new_err("a tenant id has 16 bytes"))
}
