//! A message made ready for the next hop, without a copy in between.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use smtp_proxy_proto::data::Defect;
use smtp_proxy_proto::transmission::Transmission;

/// From here on it is worth it to let other threads run meanwhile.
const LARGE_BYTES: usize = 256 * 1024;

#[pyfunction]
pub(crate) fn transmission<'py>(
    py: Python<'py>,
    trace: &[u8],
    body: &[u8],
) -> PyResult<(Bound<'py, PyBytes>, bool)> {
    let made = if body.len() < LARGE_BYTES {
        Transmission::new(trace, body)
    } else {
        py.detach(|| Transmission::new(trace, body))
    };
    let made = made.map_err(|defect| PyValueError::new_err(text(defect)))?;
    let data = PyBytes::new_with(py, made.len(), |out| {
        made.write(out);
        Ok(())
    })?;
    Ok((data, made.is_ascii()))
}

fn text(defect: Defect) -> &'static str {
    if defect == Defect::Nul {
        "the message holds NUL"
    } else {
        "the message holds a bare CR or LF"
    }
}
