//! Folders between this host and a machine.

use napi::bindgen_prelude::{PromiseRaw, Uint8Array};
use napi::{Env, Result};
use napi_derive::napi;

use crate::call::{Cancel, begin};
use crate::progress::Progress;
use crate::record::file::TreeSummary;
use crate::sandbox::Sandbox;

#[napi]
impl Sandbox {
    #[napi]
    pub fn upload_dir<'env>(
        &self,
        env: &'env Env,
        local: String,
        remote: Uint8Array,
        progress: Option<&Progress>,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, TreeSummary>> {
        let (sandbox, remote) = (self.sandbox.clone(), remote.to_vec());
        let on_progress = progress.and_then(Progress::take);
        begin(
            env,
            cancel,
            async move { Ok(sandbox.files().upload_dir(local, remote, on_progress).await?.into()) },
        )
    }

    #[napi]
    pub fn download_dir<'env>(
        &self,
        env: &'env Env,
        remote: Uint8Array,
        local: String,
        progress: Option<&Progress>,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, TreeSummary>> {
        let (sandbox, remote) = (self.sandbox.clone(), remote.to_vec());
        let on_progress = progress.and_then(Progress::take);
        begin(env, cancel, async move {
            Ok(sandbox.files().download_dir(remote, local, on_progress).await?.into())
        })
    }
}
