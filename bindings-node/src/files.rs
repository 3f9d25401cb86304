//! A machine's files. Paths are bytes: they need not be UTF-8.

use napi::bindgen_prelude::{PromiseRaw, Uint8Array};
use napi::{Env, Result};
use napi_derive::napi;

use crate::call::{Cancel, begin};
use crate::progress::Progress;
use crate::record::file::FileInfo;
use crate::sandbox::Sandbox;
use crate::value::{number, whole, whole_or_none};

#[napi]
impl Sandbox {
    #[napi]
    pub fn read_file<'env>(
        &self,
        env: &'env Env,
        path: Uint8Array,
        offset: Option<f64>,
        length: Option<f64>,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Uint8Array>> {
        let (sandbox, path) = (self.sandbox.clone(), path.to_vec());
        begin(env, cancel, async move {
            let data = match (offset, length) {
                (None, None) => sandbox.files().read(path).await?,
                (offset, length) => {
                    let offset = offset.map_or(Ok(0), |value| whole("offset", value))?;
                    let length = length.map_or(Ok(u64::MAX), |value| whole("length", value))?;
                    sandbox.files().read_range(path, offset, length).await?
                }
            };
            Ok(data.into())
        })
    }

    #[napi]
    pub fn write_file<'env>(
        &self,
        env: &'env Env,
        path: Uint8Array,
        data: Uint8Array,
        mode: Option<f64>,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, FileInfo>> {
        // Copied: JavaScript may change it meanwhile.
        let (sandbox, path, data) = (self.sandbox.clone(), path.to_vec(), data.to_vec());
        begin(env, cancel, async move {
            Ok(sandbox.files().write(path, data, whole_or_none("mode", mode)?).await?.into())
        })
    }

    #[napi]
    pub fn upload<'env>(
        &self,
        env: &'env Env,
        local: String,
        remote: Uint8Array,
        mode: Option<f64>,
        progress: Option<&Progress>,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, FileInfo>> {
        let (sandbox, remote) = (self.sandbox.clone(), remote.to_vec());
        let on_progress = progress.and_then(Progress::take);
        begin(env, cancel, async move {
            let mode = whole_or_none("mode", mode)?;
            Ok(sandbox.files().upload(local, remote, mode, on_progress).await?.into())
        })
    }

    #[napi]
    pub fn download<'env>(
        &self,
        env: &'env Env,
        remote: Uint8Array,
        local: String,
        progress: Option<&Progress>,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, f64>> {
        let (sandbox, remote) = (self.sandbox.clone(), remote.to_vec());
        let on_progress = progress.and_then(Progress::take);
        begin(
            env,
            cancel,
            async move { sandbox.files().download(remote, local, on_progress).await.map(number) },
        )
    }

    #[napi]
    pub fn list_files<'env>(
        &self,
        env: &'env Env,
        path: Uint8Array,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Vec<FileInfo>>> {
        let (sandbox, path) = (self.sandbox.clone(), path.to_vec());
        begin(env, cancel, async move {
            Ok(sandbox.files().list(path).await?.into_iter().map(Into::into).collect())
        })
    }

    #[napi]
    pub fn stat<'env>(
        &self,
        env: &'env Env,
        path: Uint8Array,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, FileInfo>> {
        let (sandbox, path) = (self.sandbox.clone(), path.to_vec());
        begin(env, cancel, async move { Ok(sandbox.files().stat(path).await?.into()) })
    }

    #[napi]
    pub fn exists<'env>(
        &self,
        env: &'env Env,
        path: Uint8Array,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, bool>> {
        let (sandbox, path) = (self.sandbox.clone(), path.to_vec());
        begin(env, cancel, async move { sandbox.files().exists(path).await })
    }

    #[napi]
    pub fn make_dir<'env>(
        &self,
        env: &'env Env,
        path: Uint8Array,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, FileInfo>> {
        let (sandbox, path) = (self.sandbox.clone(), path.to_vec());
        begin(env, cancel, async move { Ok(sandbox.files().make_dir(path).await?.into()) })
    }

    #[napi]
    pub fn move_file<'env>(
        &self,
        env: &'env Env,
        source: Uint8Array,
        target: Uint8Array,
        overwrite: bool,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, FileInfo>> {
        let (sandbox, source, target) = (self.sandbox.clone(), source.to_vec(), target.to_vec());
        begin(env, cancel, async move { Ok(sandbox.files().rename(source, target, overwrite).await?.into()) })
    }

    #[napi]
    pub fn remove<'env>(
        &self,
        env: &'env Env,
        path: Uint8Array,
        recursive: bool,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, ()>> {
        let (sandbox, path) = (self.sandbox.clone(), path.to_vec());
        begin(env, cancel, async move { sandbox.files().remove(path, recursive).await })
    }
}
