use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forkyard::{Command, HealthCheck, OnProgress, RestartPolicy};
use pyo3::prelude::*;
use serde::Deserialize;

use crate::call::Call;
use crate::client::{seconds, wait_secs};
use crate::error::{invalid, to_py_err};
use crate::feed::Feed;
use crate::ports::{Forward, Tunnel};
use crate::process::Process;
use crate::value::{Data, Json, Nothing, Number, Object, Objects};

/// A machine.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Sandbox {
    sandbox: forkyard::Sandbox,
}

/// A command as Python describes it.
#[derive(FromPyObject)]
pub struct Spec {
    #[pyo3(item)]
    command: String,
    #[pyo3(item)]
    args: Vec<String>,
    #[pyo3(item)]
    env: Option<BTreeMap<String, String>>,
    #[pyo3(item)]
    cwd: Option<String>,
    #[pyo3(item)]
    user: Option<String>,
    #[pyo3(item)]
    stdin: Option<Vec<u8>>,
    #[pyo3(item)]
    open_stdin: bool,
    #[pyo3(item)]
    timeout: Option<f64>,
    #[pyo3(item)]
    kill_on_cancel: bool,
    /// As JSON.
    #[pyo3(item)]
    management: Option<String>,
}

/// How a process is kept running, on the wire.
#[derive(Deserialize)]
struct Management {
    name: Option<String>,
    restart: Option<RestartPolicy>,
    health_check: Option<HealthCheck>,
}

impl Spec {
    fn into_command(self, py: Python<'_>) -> PyResult<Command> {
        let mut command = Command::new(self.command).args(self.args).kill_on_cancel(self.kill_on_cancel);
        for (name, value) in self.env.unwrap_or_default() {
            command = command.env(name, value);
        }
        if let Some(cwd) = self.cwd {
            command = command.cwd(cwd);
        }
        if let Some(user) = self.user {
            command = command.user(user);
        }
        if let Some(stdin) = self.stdin {
            command = command.stdin(stdin);
        }
        if self.open_stdin {
            command = command.open_stdin();
        }
        if let Some(timeout) = self.timeout {
            command = command.timeout(seconds(py, "timeout", timeout)?);
        }
        if let Some(management) = self.management {
            let management = serde_json::from_str(&management);
            let Management { name, restart, health_check } =
                management.map_err(|error| invalid(py, error.to_string()))?;
            command = name.into_iter().fold(command, Command::name);
            command = restart.into_iter().fold(command, Command::restart);
            command = health_check.into_iter().fold(command, Command::health_check);
        }
        Ok(command)
    }
}

impl Sandbox {
    pub fn new(sandbox: forkyard::Sandbox) -> Self {
        Self { sandbox }
    }
}

#[pymethods]
impl Sandbox {
    #[getter]
    fn id(&self) -> &str {
        self.sandbox.id()
    }

    /// The record as it was when this object was made.
    #[getter]
    fn record(&self, py: Python<'_>) -> PyResult<String> {
        Json::new(self.sandbox.info()).map(|json| json.0).map_err(|error| to_py_err(py, error))
    }

    fn run(&self, py: Python<'_>, spec: Spec) -> PyResult<Call> {
        let (sandbox, command) = (self.sandbox.clone(), spec.into_command(py)?);
        Ok(Call::new(async move { sandbox.run(command).await }))
    }

    fn start(&self, py: Python<'_>, spec: Spec) -> PyResult<Call> {
        let (sandbox, command) = (self.sandbox.clone(), spec.into_command(py)?);
        Ok(Call::new(
            async move { sandbox.start(command).await.map(|process| Object(Process::new(process))) },
        ))
    }

    /// A command that the first look at its output starts.
    fn prepare(&self, py: Python<'_>, spec: Spec) -> PyResult<Process> {
        self.sandbox.prepare(spec.into_command(py)?).map(Process::new).map_err(|error| to_py_err(py, error))
    }

    /// Starts a command on a terminal; `terminal` is the wire's JSON.
    fn pty(&self, py: Python<'_>, spec: Spec, terminal: &str) -> PyResult<Call> {
        let terminal = serde_json::from_str(terminal).map_err(|error| invalid(py, error.to_string()))?;
        let (sandbox, command) = (self.sandbox.clone(), spec.into_command(py)?.terminal(terminal));
        Ok(Call::new(
            async move { sandbox.start(command).await.map(|process| Object(Process::new(process))) },
        ))
    }

    fn process(&self, py: Python<'_>, process_id: &str) -> PyResult<Process> {
        self.sandbox.process(process_id).map(Process::new).map_err(|error| to_py_err(py, error))
    }

    fn processes(&self) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move { Json::new(&sandbox.processes().await?) })
    }

    fn info(&self) -> Call {
        let mut sandbox = self.sandbox.clone();
        Call::new(async move { Json::new(sandbox.refresh().await?) })
    }

    fn terminate(&self) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move { Json::new(&sandbox.terminate().await?) })
    }

    /// Freezes the machine; `request` is the wire's JSON.
    fn checkpoint(&self, py: Python<'_>, request: &str) -> PyResult<Call> {
        let request = serde_json::from_str(request).map_err(|error| invalid(py, error.to_string()))?;
        let sandbox = self.sandbox.clone();
        Ok(Call::new(async move { Json::new(&sandbox.checkpoint(request).await?) }))
    }

    fn suspend(&self) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move { Json::new(&sandbox.suspend().await?) })
    }

    fn resume(&self) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move { Json::new(&sandbox.resume().await?) })
    }

    fn extend_timeout(&self, timeout_secs: u64) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move { Json::new(&sandbox.extend_timeout(timeout_secs).await?) })
    }

    fn restore(&self, snapshot_id: String) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move { Json::new(&sandbox.restore(&snapshot_id).await?) })
    }

    /// Starts twins; `request` is the wire's JSON.
    fn fork(&self, py: Python<'_>, request: &str) -> PyResult<Call> {
        let request = serde_json::from_str(request).map_err(|error| invalid(py, error.to_string()))?;
        let sandbox = self.sandbox.clone();
        Ok(Call::new(async move {
            let forks = sandbox.fork(request).await?;
            Ok(Objects(forks.into_iter().map(Self::new).collect()))
        }))
    }

    fn network(&self) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move { Json::new(&sandbox.network().await?) })
    }

    /// Puts another policy in place; `policy` is the wire's JSON.
    fn update_network(&self, py: Python<'_>, policy: &str) -> PyResult<Call> {
        let policy = serde_json::from_str(policy).map_err(|error| invalid(py, error.to_string()))?;
        let sandbox = self.sandbox.clone();
        Ok(Call::new(async move { Json::new(&sandbox.update_network(&policy).await?) }))
    }

    /// The events after a cursor, and the cursor to go on with, as a list of the two.
    fn network_events(&self, py: Python<'_>, cursor: Option<String>, wait: f64) -> PyResult<Call> {
        let (sandbox, wait) = (self.sandbox.clone(), wait_secs(py, wait)?);
        Ok(Call::new(async move { Json::new(&sandbox.network_events(cursor.as_deref(), wait).await?) }))
    }

    /// The events after a cursor, and the cursor to go on with, as JSON.
    fn events(&self, py: Python<'_>, cursor: Option<String>, wait: f64) -> PyResult<Call> {
        let (sandbox, wait) = (self.sandbox.clone(), wait_secs(py, wait)?);
        Ok(Call::new(async move { Json::new(&sandbox.events(cursor.as_deref(), wait).await?) }))
    }

    fn follow_events(&self, cursor: Option<String>) -> Feed {
        Feed::of_sandbox(self.sandbox.follow_events(cursor))
    }

    fn ports(&self) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move { Json::new(&sandbox.ports().list().await?) })
    }

    fn wait_port(&self, py: Python<'_>, port: u16, timeout: f64) -> PyResult<Call> {
        let (sandbox, patience) = (self.sandbox.clone(), seconds(py, "timeout", timeout)?);
        Ok(Call::new(async move { sandbox.ports().wait(port, patience).await.map(|()| Nothing) }))
    }

    fn connect_port(&self, port: u16) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(
            async move { sandbox.ports().connect(port).await.map(|tunnel| Object(Tunnel::new(tunnel))) },
        )
    }

    fn forward_port(&self, port: u16, host: String, local_port: u16) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move {
            let forward = sandbox.ports().forward(port, (host, local_port)).await?;
            Ok(Object(Forward::new(forward)))
        })
    }

    /// The address of a preview.
    fn preview_url(&self, port: u16, expires_secs: u64) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move {
            let preview = sandbox.ports().preview(port, Duration::from_secs(expires_secs)).await?;
            Json::new(&preview.url)
        })
    }

    fn port_url(&self, py: Python<'_>, port: u16) -> PyResult<String> {
        self.sandbox.ports().url(port).map_err(|error| to_py_err(py, error))
    }

    #[pyo3(signature = (path, offset=None, length=None))]
    fn read_file(&self, path: Vec<u8>, offset: Option<u64>, length: Option<u64>) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move {
            let data = match (offset, length) {
                (None, None) => sandbox.files().read(path).await?,
                (offset, length) => {
                    sandbox.files().read_range(path, offset.unwrap_or(0), length.unwrap_or(u64::MAX)).await?
                }
            };
            Ok(Data(data))
        })
    }

    #[pyo3(signature = (path, data, mode=None))]
    fn write_file(&self, path: Vec<u8>, data: Vec<u8>, mode: Option<u32>) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move { Json::new(&sandbox.files().write(path, data, mode).await?) })
    }

    #[pyo3(signature = (local, remote, mode=None, on_progress=None))]
    fn upload(
        &self,
        local: PathBuf,
        remote: Vec<u8>,
        mode: Option<u32>,
        on_progress: Option<Py<PyAny>>,
    ) -> Call {
        let sandbox = self.sandbox.clone();
        let on_progress = on_progress.map(progress);
        Call::new(async move { Json::new(&sandbox.files().upload(local, remote, mode, on_progress).await?) })
    }

    #[pyo3(signature = (remote, local, on_progress=None))]
    fn download(&self, remote: Vec<u8>, local: PathBuf, on_progress: Option<Py<PyAny>>) -> Call {
        let sandbox = self.sandbox.clone();
        let on_progress = on_progress.map(progress);
        Call::new(async move { sandbox.files().download(remote, local, on_progress).await.map(Number) })
    }

    #[pyo3(signature = (local, remote, on_progress=None))]
    fn upload_dir(&self, local: PathBuf, remote: Vec<u8>, on_progress: Option<Py<PyAny>>) -> Call {
        let sandbox = self.sandbox.clone();
        let on_progress = on_progress.map(progress);
        Call::new(async move { Json::new(&sandbox.files().upload_dir(local, remote, on_progress).await?) })
    }

    #[pyo3(signature = (remote, local, on_progress=None))]
    fn download_dir(&self, remote: Vec<u8>, local: PathBuf, on_progress: Option<Py<PyAny>>) -> Call {
        let sandbox = self.sandbox.clone();
        let on_progress = on_progress.map(progress);
        Call::new(async move { Json::new(&sandbox.files().download_dir(remote, local, on_progress).await?) })
    }

    fn watch_files(&self, path: Vec<u8>, recursive: bool) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move {
            sandbox.files().watch(path, recursive).await.map(|watch| Object(Feed::of_folder(watch)))
        })
    }

    fn list_files(&self, path: Vec<u8>) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move { Json::new(&sandbox.files().list(path).await?) })
    }

    fn stat(&self, path: Vec<u8>) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move { Json::new(&sandbox.files().stat(path).await?) })
    }

    fn make_dir(&self, path: Vec<u8>) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move { Json::new(&sandbox.files().make_dir(path).await?) })
    }

    fn move_file(&self, source: Vec<u8>, target: Vec<u8>, overwrite: bool) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move { Json::new(&sandbox.files().rename(source, target, overwrite).await?) })
    }

    fn remove(&self, path: Vec<u8>, recursive: bool) -> Call {
        let sandbox = self.sandbox.clone();
        Call::new(async move { sandbox.files().remove(path, recursive).await.map(|()| Nothing) })
    }
}

/// Tells a Python callable. An exception in it cannot stop the transfer, so it is reported where such ones go.
fn progress(callback: Py<PyAny>) -> OnProgress {
    Arc::new(move |bytes| {
        Python::attach(|py| {
            if let Err(error) = callback.call1(py, (bytes,)) {
                error.write_unraisable(py, Some(callback.bind(py)));
            }
        });
    })
}
