//! What calls answer with, as Python sees it.

use pyo3::IntoPyObjectExt as _;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::call::ToPython;

/// Nothing.
pub struct Nothing;

/// A record as JSON, which `_records.py` makes a dataclass of.
pub struct Json(pub String);

/// Bytes.
pub struct Data(pub bytes::Bytes);

/// A number.
pub struct Number(pub u64);

/// An object of this module.
pub struct Object<T>(pub T);

/// Objects of this module.
pub struct Objects<T>(pub Vec<T>);

impl Json {
    /// A record as JSON.
    pub fn new(record: &impl serde::Serialize) -> Result<Self, forkyard::Error> {
        let text = serde_json::to_string(record);
        text.map(Self).map_err(|error| forkyard::Error::new(forkyard::ErrorCode::Internal, error.to_string()))
    }
}

impl ToPython for Nothing {
    fn to_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(py.None().into_bound(py))
    }
}

impl ToPython for Json {
    fn to_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        self.0.into_bound_py_any(py)
    }
}

impl ToPython for Data {
    fn to_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(PyBytes::new(py, &self.0).into_any())
    }
}

impl ToPython for Number {
    fn to_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        self.0.into_bound_py_any(py)
    }
}

impl<T> ToPython for Object<T>
where
    T: pyo3::PyClass + Into<pyo3::PyClassInitializer<T>> + Send + 'static,
{
    fn to_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(Bound::new(py, self.0)?.into_any())
    }
}

impl<T> ToPython for Objects<T>
where
    T: pyo3::PyClass + Into<pyo3::PyClassInitializer<T>> + Send + 'static,
{
    fn to_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let objects: PyResult<Vec<_>> = self.0.into_iter().map(|object| Bound::new(py, object)).collect();
        objects?.into_bound_py_any(py)
    }
}

impl ToPython for forkyard::CommandResult {
    fn to_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        // Without `..`: a new field breaks the build until it is carried.
        let Self { process_id, exit_code, signal, stdout, stderr, oom_killed, timed_out, duration } = self;
        let exit_code = signal.is_none().then_some(exit_code);
        let (stdout, stderr) = (PyBytes::new(py, &stdout), PyBytes::new(py, &stderr));
        let duration = duration.as_secs_f64();
        (exit_code, signal, stdout, stderr, oom_killed, timed_out, duration, process_id.as_str())
            .into_bound_py_any(py)
    }
}

impl ToPython for Option<forkyard::OutputEvent> {
    fn to_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        use forkyard::OutputEvent;
        match self {
            None => Ok(py.None().into_bound(py)),
            Some(OutputEvent::Stdout(data)) => ("stdout", PyBytes::new(py, &data)).into_bound_py_any(py),
            Some(OutputEvent::Stderr(data)) => ("stderr", PyBytes::new(py, &data)).into_bound_py_any(py),
            Some(OutputEvent::Dropped { stdout, stderr }) => {
                ("dropped", stdout + stderr).into_bound_py_any(py)
            }
            Some(OutputEvent::Exited(status)) => {
                let status = serde_json::to_string(&status)
                    .map_err(|error| pyo3::exceptions::PyRuntimeError::new_err(error.to_string()))?;
                ("exited", status).into_bound_py_any(py)
            }
        }
    }
}
