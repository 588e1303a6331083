//! `LoginBatch`: who claims to be whom, and what came of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBool;
use smtp_proxy_proto::{LoginVerdict, Proof};
use smtp_proxy_server::{self as server, Keep, Network};

use crate::config::{GivenIdentity, seconds};
use crate::error::exception;

/// Username, password, client address; or username (may be empty), fingerprint of the client's
/// certificate, its names, client address.
#[derive(IntoPyObject)]
pub(crate) enum Request {
    #[pyo3(transparent)]
    Password((String, String, String)),
    #[pyo3(transparent)]
    Certificate((String, String, Vec<String>, String)),
}

/// Seconds, and the networks of the credential.
type Kept = (f64, Vec<String>);

/// Logins to be verified.
#[pyclass(frozen, module = "smtp_proxy._core")]
pub(crate) struct LoginBatch {
    inner: Mutex<server::LoginBatch>,
}

impl LoginBatch {
    pub(crate) fn new(batch: server::LoginBatch) -> Self {
        Self {
            inner: Mutex::new(batch),
        }
    }

    fn inner(&self) -> MutexGuard<'_, server::LoginBatch> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl LoginBatch {
    fn __len__(&self) -> usize {
        self.inner().len()
    }

    fn requests(&self) -> Vec<Request> {
        let inner = self.inner();
        let told = |login: &server::Login| {
            let (username, address) = (
                login.request.username.clone(),
                login.client_address.to_string(),
            );
            match &login.request.proof {
                Proof::Password(password) => {
                    Request::Password((username, password.expose().to_owned(), address))
                }
                Proof::Certificate(certificate) => Request::Certificate((
                    username,
                    certificate.fingerprint_hex(),
                    certificate.names.clone(),
                    address,
                )),
            }
        };
        inner.logins().iter().map(told).collect()
    }

    #[pyo3(signature = (verdicts, keep = Vec::new()))]
    fn answer(&self, verdicts: Vec<Bound<'_, PyAny>>, keep: Vec<Option<Kept>>) -> PyResult<()> {
        let verdicts = verdicts
            .into_iter()
            .map(|given| verdict(&given))
            .collect::<PyResult<Vec<_>>>()?;
        let keep = keep
            .into_iter()
            .map(|given| given.map(read_keep).transpose())
            .collect::<PyResult<Vec<_>>>()?;
        let mut inner = self.inner();
        if !inner.is_empty() && verdicts.len() != inner.len() {
            return Err(PyValueError::new_err(format!(
                "{} verdicts for {} logins",
                verdicts.len(),
                inner.len()
            )));
        }
        inner.keep(keep);
        inner.answer(verdicts);
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("<LoginBatch of {} unanswered>", self.__len__())
    }
}

fn read_keep((duration, networks): Kept) -> PyResult<Keep> {
    let networks = networks.iter().map(|text| Network::read(text));
    Ok(Keep {
        duration: seconds("seconds", duration)?,
        networks: networks.collect::<Result<_, _>>().map_err(exception)?,
    })
}

fn verdict(given: &Bound<'_, PyAny>) -> PyResult<LoginVerdict> {
    if given.is_none() {
        return Ok(LoginVerdict::Unavailable);
    }
    if given.cast::<PyBool>().is_ok_and(|is| !is.is_true()) {
        return Ok(LoginVerdict::Rejected);
    }
    let identity = given
        .extract::<GivenIdentity>()
        .map_err(|_| "it is none of these".to_owned())
        .and_then(GivenIdentity::read);
    identity.map(|identity| LoginVerdict::Accepted(Arc::new(identity))).map_err(|problem| {
        PyTypeError::new_err(format!(
            "a verdict is (tenant id, credential id, username, senders), the ids 16 bytes each, or False, or None: {problem}"
        ))
    })
}
