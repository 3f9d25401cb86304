use std::sync::Arc;

use forkyard::Handle;
use napi::bindgen_prelude::{PromiseRaw, Uint8Array};
use napi::{Env, Result};
use napi_derive::napi;
use tokio::sync::Mutex;

use crate::call::{Cancel, begin};
use crate::record::process::{OutputEvent, ProcessInfo};

/// A process in a machine, and a place in its output.
#[napi]
pub struct Process {
    handle: Handle,
    /// Locked while somebody reads: two readers share one place.
    reader: Arc<Mutex<forkyard::Process>>,
}

impl Process {
    pub fn new(process: forkyard::Process) -> Self {
        Self { handle: process.handle(), reader: Arc::new(Mutex::new(process)) }
    }
}

#[napi]
impl Process {
    #[napi(getter)]
    pub fn id(&self) -> String {
        self.handle.id().as_str().to_owned()
    }

    /// The next of its output; null after its end. Nothing is taken from the connection before it is asked for.
    #[napi(ts_return_type = "Promise<OutputEvent | null>")]
    pub fn next<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Option<OutputEvent>>> {
        let reader = self.reader.clone();
        begin(env, cancel, async move { Ok(reader.lock().await.next().await?.map(Into::into)) })
    }

    #[napi]
    pub fn info<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, ProcessInfo>> {
        let handle = self.handle.clone();
        begin(env, cancel, async move { Ok(handle.info().await?.into()) })
    }

    #[napi]
    pub fn signal<'env>(
        &self,
        env: &'env Env,
        number: i32,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, ()>> {
        let handle = self.handle.clone();
        begin(env, cancel, async move { handle.signal(number).await })
    }

    #[napi]
    pub fn write_stdin<'env>(
        &self,
        env: &'env Env,
        data: Uint8Array,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, ()>> {
        let (handle, data) = (self.handle.clone(), data.to_vec());
        begin(env, cancel, async move { handle.write_stdin(data).await })
    }

    #[napi]
    pub fn close_stdin<'env>(&self, env: &'env Env, cancel: Option<&Cancel>) -> Result<PromiseRaw<'env, ()>> {
        let handle = self.handle.clone();
        begin(env, cancel, async move { handle.close_stdin().await })
    }

    /// Kills it without waiting for that: for code that is being aborted itself.
    #[napi]
    pub fn kill_in_background(&self) {
        self.handle.kill_in_background();
    }
}
