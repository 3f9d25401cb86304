use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The Python exception for an error of the core's: one class a code, made where people read it, in `_errors.py`.
pub fn to_py_err(py: Python<'_>, error: forkyard::Error) -> PyErr {
    static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    // Without `..`: a new field breaks the build until it is carried.
    let forkyard::Error { code, message, request_id, retry_after, resource, errno } = error;
    let make = || {
        let resource = resource.map(serde_json::to_value).transpose().ok().flatten();
        let resource = resource.as_ref().and_then(|value| value.as_str());
        let retry_after = retry_after.map(|wait| wait.as_secs_f64());
        let arguments = (code.as_str(), message, request_id, retry_after, resource, errno);
        MAKE.import(py, "forkyard._errors", "make_error")?.call1(arguments)
    };
    match make() {
        Ok(exception) => PyErr::from_value(exception),
        Err(failure) => failure,
    }
}

/// The exception for a value that is wrong before anything is sent.
pub fn invalid(py: Python<'_>, message: String) -> PyErr {
    to_py_err(py, forkyard::Error::new(forkyard::ErrorCode::InvalidArgument, message))
}
