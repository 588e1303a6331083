//! `Batch`: envelopes as tuples, in one crossing.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyInt, PyList, PyString, PyTuple};
use smtp_proxy_proto::{Dsn, Envelope, EnvelopeId, Identity, Notify, Security};
use smtp_proxy_server::{self as server, Letter};

/// Envelopes to be stored in one transaction.
#[pyclass(frozen, module = "smtp_proxy._core")]
pub(crate) struct Batch {
    inner: Mutex<server::Batch>,
    envelopes: PyOnceLock<Py<PyList>>,
}

impl Batch {
    pub(crate) fn new(batch: server::Batch) -> Self {
        Self {
            inner: Mutex::new(batch),
            envelopes: PyOnceLock::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, server::Batch> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Batch {
    fn __len__(&self) -> usize {
        self.inner().len()
    }

    #[getter]
    fn size_bytes(&self) -> usize {
        self.inner().size_bytes()
    }

    fn envelopes(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        let list = self.envelopes.get_or_try_init(py, || {
            // The lock is not held while Python objects are made: that may run any Python code.
            let letters = self.inner().take_letters();
            let mut identities = Identities::default();
            let rows: PyResult<Vec<_>> = letters
                .into_iter()
                .map(|letter| row(py, letter, &mut identities))
                .collect();
            PyResult::Ok(PyList::new(py, rows?)?.unbind())
        })?;
        Ok(list.clone_ref(py))
    }

    fn encode(slf: Bound<'_, Self>, sweep_at_us: i64) -> PyResult<Pieces> {
        let encoding = slf.get().inner().begin_encoding(sweep_at_us);
        let encoding = encoding.ok_or_else(|| {
            PyValueError::new_err(
                "the envelopes have left this batch: encode comes neither after envelopes nor after the answer",
            )
        })?;
        Ok(Pieces {
            batch: slf.unbind(),
            encoding: Mutex::new(encoding),
        })
    }

    fn ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let ids: Vec<_> = self.inner().ids().collect();
        PyList::new(py, ids.iter().map(|id| PyBytes::new(py, &id.0)))
    }

    fn bulk_ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let ids = self.inner().bulk_ids();
        PyList::new(py, ids.iter().map(|id| PyBytes::new(py, &id.0)))
    }

    fn tenants<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let tenants = self.inner().tenants();
        PyList::new(py, tenants.iter().map(|id| PyBytes::new(py, id)))
    }

    #[getter]
    fn beside_quiet(&self) -> bool {
        self.inner().beside_quiet()
    }

    fn outlines<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let outlines: Vec<_> = self.inner().outlines().collect();
        PyList::new(
            py,
            outlines.iter().map(|outline| {
                let id = PyBytes::new(py, &outline.id.0);
                let tenant_id = PyBytes::new(py, &outline.tenant_id);
                (id, tenant_id, outline.recipients, outline.body_bytes)
            }),
        )
    }

    fn split(&self, py: Python<'_>, ids: Vec<Vec<u8>>) -> PyResult<Self> {
        let ids = ids
            .into_iter()
            .map(|id| id.try_into().map(EnvelopeId))
            .collect::<Result<_, _>>()
            .map_err(|_| PyValueError::new_err("an envelope id has 16 bytes"))?;
        let apart = py.detach(|| self.inner().split(&ids));
        apart.map(Self::new).ok_or_else(|| {
            PyValueError::new_err(
                "the envelopes have left this batch: split comes before envelopes",
            )
        })
    }

    fn commit(&self) {
        self.inner().commit();
    }

    fn defer(&self) {
        self.inner().defer();
    }

    fn rename(&self, ids: Vec<Vec<u8>>) -> PyResult<()> {
        let mut inner = self.inner();
        if ids.len() != inner.len() {
            let message = format!("{} ids for {} envelopes", ids.len(), inner.len());
            return Err(PyValueError::new_err(message));
        }
        let ids: Vec<_> = ids
            .into_iter()
            .map(|id| id.try_into().map(EnvelopeId))
            .collect::<Result<_, _>>()
            .map_err(|_| PyValueError::new_err("an envelope id has 16 bytes"))?;
        inner.rename(ids);
        Ok(())
    }

    fn answer(&self, answers: Vec<u8>) -> PyResult<()> {
        let mut inner = self.inner();
        if !inner.is_empty() && answers.len() != inner.len() {
            let message = format!("{} answers for {} envelopes", answers.len(), inner.len());
            return Err(PyValueError::new_err(message));
        }
        let read = |number| {
            server::Answer::from_number(number).ok_or_else(|| {
                PyValueError::new_err(format!("{number} is no answer: 0, 1 or 2 is"))
            })
        };
        let answers: Vec<_> = answers.into_iter().map(read).collect::<PyResult<_>>()?;
        inner.answer(answers);
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!(
            "<Batch of {} unanswered, {} bytes>",
            self.__len__(),
            self.size_bytes()
        )
    }
}

/// A batch as Postgres takes it, a piece at a time.
#[pyclass(frozen, module = "smtp_proxy._core")]
pub(crate) struct Pieces {
    batch: Py<Batch>,
    encoding: Mutex<server::Encoding>,
}

#[pymethods]
impl Pieces {
    #[getter]
    fn has_parts(&self) -> bool {
        let encoding = self.encoding.lock();
        encoding.unwrap_or_else(PoisonError::into_inner).has_parts()
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let batch = self.batch.get();
        let piece = py.detach(|| {
            let mut encoding = self.encoding.lock().unwrap_or_else(PoisonError::into_inner);
            batch.inner().encode(&mut encoding)
        })?;
        Some(PyBytes::new(py, &piece))
    }
}

/// The last identity's ids as Python objects: neighbours in a batch mostly share them.
#[derive(Default)]
struct Identities<'py> {
    last: Option<(Arc<Identity>, Bound<'py, PyBytes>, Bound<'py, PyBytes>)>,
}

impl<'py> Identities<'py> {
    fn ids(
        &mut self,
        py: Python<'py>,
        identity: &Arc<Identity>,
    ) -> (Bound<'py, PyBytes>, Bound<'py, PyBytes>) {
        match &self.last {
            Some((known, tenant, credential)) if Arc::ptr_eq(known, identity) => {
                (tenant.clone(), credential.clone())
            }
            _ => {
                let tenant = PyBytes::new(py, &identity.tenant_id);
                let credential = PyBytes::new(py, &identity.credential_id);
                self.last = Some((Arc::clone(identity), tenant.clone(), credential.clone()));
                (tenant, credential)
            }
        }
    }
}

/// With what was missing in its place; either way it is copied once.
fn body<'py>(
    py: Python<'py>,
    envelope: &Envelope,
    additions: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    if additions.is_empty() {
        return Ok(PyBytes::new(py, &envelope.body));
    }
    let length = envelope.body.len() + additions.len();
    PyBytes::new_with(py, length, |mut place| {
        for piece in envelope.pieces(additions) {
            place.write_all(piece)?;
        }
        Ok(())
    })
}

/// The letter's own memory is freed as soon as Python has its copy.
fn row<'py>(
    py: Python<'py>,
    letter: Letter,
    identities: &mut Identities<'py>,
) -> PyResult<Bound<'py, PyTuple>> {
    let Letter {
        id,
        envelope,
        client_address,
        tls_suite,
        received_at_us,
        additions,
        lane,
    } = letter;
    let is_tls = envelope.security == Security::Tls;
    let (tenant, credential) = identities.ids(py, &envelope.identity);
    let recipients = PyList::new(
        py,
        envelope
            .recipients
            .iter()
            .map(|recipient| PyString::new(py, recipient)),
    )?;
    PyTuple::new(
        py,
        [
            PyBytes::new(py, &id.0).into_any(),
            tenant.into_any(),
            credential.into_any(),
            PyString::new(py, &envelope.reverse_path).into_any(),
            recipients.into_any(),
            body(py, &envelope, &additions)?.into_any(),
            PyInt::new(py, envelope.body_type as u8).into_any(),
            PyBool::new(py, envelope.smtputf8).to_owned().into_any(),
            PyString::new(py, &envelope.helo).into_any(),
            PyString::new(py, &client_address).into_any(),
            PyInt::new(py, tls_suite.unwrap_or(u16::from(is_tls))).into_any(),
            PyInt::new(py, received_at_us).into_any(),
            match envelope.dsn {
                None => py.None().into_bound(py),
                Some(dsn) => dsn_row(py, &dsn)?.into_any(),
            },
            PyInt::new(py, lane as u8).into_any(),
        ],
    )
}

/// RET, ENVID, and NOTIFY with ORCPT of each recipient; None is what was not given.
fn dsn_row<'py>(py: Python<'py>, dsn: &Dsn) -> PyResult<Bound<'py, PyTuple>> {
    let recipients = dsn
        .recipients
        .iter()
        .map(|asked| (asked.notify.map(Notify::bits), asked.orcpt.as_deref()));
    let recipients = PyList::new(py, recipients.collect::<Vec<_>>())?;
    (
        dsn.ret.map(|ret| ret as u8),
        dsn.envid.as_deref(),
        recipients,
    )
        .into_pyobject(py)
}
