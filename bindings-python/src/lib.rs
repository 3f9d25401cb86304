//! The native half of the Python package `forkyard`: values in, calls out. What Python sees is in `python/forkyard`.

mod call;
mod client;
mod error;
mod fork_guard;
mod process;
mod sandbox;
mod value;
mod waiter;

/// The native module.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::call::Call;
    #[pymodule_export]
    use crate::client::Client;
    #[pymodule_export]
    use crate::process::Process;
    #[pymodule_export]
    use crate::sandbox::Sandbox;
}
