use std::sync::Arc;

use forkyard::Handle;
use napi::bindgen_prelude::{PromiseRaw, Uint8Array};
use napi::{Env, Result};
use napi_derive::napi;
use tokio::sync::{Mutex, Notify};

use crate::call::{Cancel, begin};
use crate::record::process::{OutputEvent, ProcessInfo};
use crate::record::pty::size;

/// A process in a machine, and a place in its output.
#[napi]
pub struct Process {
    handle: Handle,
    /// Locked while somebody reads: two readers share one place.
    reader: Arc<Mutex<forkyard::Process>>,
    /// Ends a read that is under way.
    let_go: Arc<Notify>,
}

impl Process {
    pub fn new(process: forkyard::Process) -> Self {
        Self { handle: process.handle(), reader: Arc::new(Mutex::new(process)), let_go: Arc::default() }
    }
}

#[napi]
impl Process {
    #[napi(getter)]
    pub fn id(&self) -> String {
        self.handle.id().as_str().to_owned()
    }

    /// The next of its output; null after its end, or if it was let go of. Nothing is taken from the connection before it is asked for.
    #[napi(ts_return_type = "Promise<OutputEvent | null>")]
    pub fn next<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Option<OutputEvent>>> {
        // Made before the call begins: whoever lets go after this ends it.
        let (reader, let_go) = (self.reader.clone(), self.let_go.clone().notified_owned());
        begin(env, cancel, async move {
            let next = async { reader.lock().await.next().await };
            tokio::select! {
                event = next => Ok(event?.map(Into::into)),
                () = let_go => Ok(None),
            }
        })
    }

    /// Lets go of its output; a read that is under way ends, and the next takes it up where it was.
    #[napi]
    pub fn detach<'env>(&self, env: &'env Env, cancel: Option<&Cancel>) -> Result<PromiseRaw<'env, ()>> {
        let (reader, let_go) = (self.reader.clone(), self.let_go.clone());
        begin(env, cancel, async move {
            let_go.notify_waiters();
            reader.lock().await.detach();
            Ok(())
        })
    }

    #[napi]
    pub fn resize<'env>(
        &self,
        env: &'env Env,
        rows: f64,
        cols: f64,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, ()>> {
        let handle = self.handle.clone();
        begin(env, cancel, async move { handle.resize(size(rows, cols)?).await })
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
