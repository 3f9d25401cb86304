//! The native half of the Python package `forkyard`: values in, calls out. What Python sees is in `python/forkyard`.

mod call;
mod client;
mod error;
mod feed;
mod fork_guard;
mod listing;
mod ports;
mod process;
mod sandbox;
mod swarm;
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
    use crate::feed::Feed;
    #[pymodule_export]
    use crate::listing::Listing;
    #[pymodule_export]
    use crate::ports::{Forward, Tunnel};
    #[pymodule_export]
    use crate::process::Process;
    #[pymodule_export]
    use crate::sandbox::Sandbox;
    #[pymodule_export]
    use crate::swarm::SwarmPlan;

    /// Waits up to two seconds until what interrupted calls left behind is cleaned up; for the interpreter's end.
    #[pyo3::pyfunction]
    fn settle(py: pyo3::Python<'_>) {
        if crate::fork_guard::check().is_ok() {
            py.detach(|| forkyard::runtime::settle(std::time::Duration::from_secs(2)));
        }
    }
}
