//! Threads do not survive `os.fork`: in a child the core's runtime would wait for ever, so it is refused there.

use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

static OWNER: OnceLock<u32> = OnceLock::new();

/// Refuses to go on in a child of the process in which this was first called.
pub fn check() -> PyResult<()> {
    let this = std::process::id();
    if *OWNER.get_or_init(|| this) == this {
        return Ok(());
    }
    Err(PyRuntimeError::new_err(
        "forkyard was used before os.fork() and cannot be used in the child: start children with \
         multiprocessing's 'spawn' or 'forkserver' method, or use forkyard only after forking",
    ))
}
