use napi::bindgen_prelude::{PromiseRaw, Uint8Array};
use napi::{Env, Result};
use napi_derive::napi;

use crate::call::{Cancel, begin};
use crate::error::to_js_error;
use crate::process::Process;
use crate::record::managed::ManagementRequest;
use crate::record::network::NetworkRequest;
use crate::record::process::{CommandRequest, CommandResult, Handling, ProcessInfo};
use crate::record::pty::PtyRequest;
use crate::record::sandbox::{ForkRequest, SandboxInfo};
use crate::record::snapshot::{CheckpointRequest, SnapshotInfo};
use crate::value::{seconds, whole};

/// A machine. Its files are in `files.rs` and `folders.rs`, its network in `network.rs`, its ports in `ports.rs`.
#[napi]
pub struct Sandbox {
    pub(crate) sandbox: forkyard::Sandbox,
}

impl Sandbox {
    pub fn new(sandbox: forkyard::Sandbox) -> Self {
        Self { sandbox }
    }
}

#[napi]
impl Sandbox {
    /// The record as it was when this object was made.
    #[napi(getter)]
    pub fn record(&self) -> SandboxInfo {
        self.sandbox.info().clone().into()
    }

    #[napi]
    pub fn run<'env>(
        &self,
        env: &'env Env,
        request: CommandRequest,
        stdin: Option<Uint8Array>,
        kill_on_cancel: bool,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, CommandResult>> {
        let sandbox = self.sandbox.clone();
        let stdin = stdin.map(|data| data.to_vec());
        begin(env, cancel, async move {
            let command = request.handled(Handling { stdin, open_stdin: false, kill_on_cancel })?;
            Ok(sandbox.run(command).await?.into())
        })
    }

    #[napi]
    pub fn start<'env>(
        &self,
        env: &'env Env,
        request: CommandRequest,
        management: ManagementRequest,
        stdin: Option<Uint8Array>,
        open_stdin: bool,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Process>> {
        let sandbox = self.sandbox.clone();
        let stdin = stdin.map(|data| data.to_vec());
        begin(env, cancel, async move {
            let command = request.handled(Handling { stdin, open_stdin, kill_on_cancel: true })?;
            Ok(Process::new(sandbox.start(management.manage(command)?).await?))
        })
    }

    #[napi]
    pub fn pty<'env>(
        &self,
        env: &'env Env,
        request: CommandRequest,
        terminal: PtyRequest,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Process>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move {
            let handling = Handling { stdin: None, open_stdin: false, kill_on_cancel: true };
            let command = request.handled(handling)?.terminal(terminal.try_into()?);
            Ok(Process::new(sandbox.start(command).await?))
        })
    }

    #[napi]
    pub fn process(&self, env: Env, process_id: String) -> Result<Process> {
        self.sandbox.process(&process_id).map(Process::new).map_err(|error| to_js_error(env, error))
    }

    #[napi]
    pub fn processes<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Vec<ProcessInfo>>> {
        let sandbox = self.sandbox.clone();
        begin(
            env,
            cancel,
            async move { Ok(sandbox.processes().await?.into_iter().map(Into::into).collect()) },
        )
    }

    #[napi]
    pub fn info<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, SandboxInfo>> {
        let mut sandbox = self.sandbox.clone();
        begin(env, cancel, async move { Ok(sandbox.refresh().await?.clone().into()) })
    }

    #[napi]
    pub fn extend_timeout<'env>(
        &self,
        env: &'env Env,
        timeout_ms: f64,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, SandboxInfo>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move {
            Ok(sandbox.extend_timeout(seconds("timeoutMs", timeout_ms)?).await?.into())
        })
    }

    #[napi]
    pub fn terminate<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, SandboxInfo>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move { Ok(sandbox.terminate().await?.into()) })
    }

    #[napi]
    pub fn checkpoint<'env>(
        &self,
        env: &'env Env,
        request: CheckpointRequest,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, SnapshotInfo>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move { Ok(sandbox.checkpoint(request.into()).await?.into()) })
    }

    #[napi]
    pub fn fork<'env>(
        &self,
        env: &'env Env,
        count: f64,
        request: ForkRequest,
        network: NetworkRequest,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Vec<Sandbox>>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move {
            let forks = sandbox.fork(request.of(whole("count", count)?, network)?).await?;
            Ok(forks.into_iter().map(Self::new).collect())
        })
    }

    #[napi]
    pub fn suspend<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, SandboxInfo>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move { Ok(sandbox.suspend().await?.into()) })
    }

    #[napi]
    pub fn resume<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, SandboxInfo>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move { Ok(sandbox.resume().await?.into()) })
    }

    #[napi]
    pub fn restore<'env>(
        &self,
        env: &'env Env,
        snapshot_id: String,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, SandboxInfo>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move { Ok(sandbox.restore(&snapshot_id).await?.into()) })
    }
}
