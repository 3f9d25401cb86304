use std::sync::{Arc, Mutex, PoisonError};

use forkyard::OnProgress;
use napi::bindgen_prelude::PromiseRaw;
use napi::{Env, Result};
use napi_derive::napi;
use tokio::sync::watch;

use crate::call::begin;
use crate::value::number;

/// How far a transfer has come. Asked for, not called back: a slow listener misses steps and holds nothing up.
#[napi]
pub struct Progress {
    told: Mutex<Option<watch::Sender<u64>>>,
    bytes: Arc<tokio::sync::Mutex<watch::Receiver<u64>>>,
}

impl Default for Progress {
    fn default() -> Self {
        let (told, bytes) = watch::channel(0);
        Self { told: Mutex::new(Some(told)), bytes: Arc::new(tokio::sync::Mutex::new(bytes)) }
    }
}

impl Progress {
    /// What the transfer tells; when it is gone, the transfer has ended.
    pub fn take(&self) -> Option<OnProgress> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Arc::new(move |bytes| {
            told.send_replace(bytes);
        }))
    }
}

#[napi]
impl Progress {
    /// That of one transfer, which is still to begin.
    #[napi(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the transfer never began, or is over: whoever waits for more is told.
    #[napi]
    pub fn end(&self) {
        drop(self.take());
    }

    /// Bytes that went over, once they are others than before; null when the transfer has ended.
    #[napi(ts_return_type = "Promise<number | null>")]
    pub fn next<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, Option<f64>>> {
        let bytes = self.bytes.clone();
        begin(env, None, async move {
            let mut bytes = bytes.lock().await;
            let has_changed = bytes.changed().await.is_ok();
            Ok(has_changed.then(|| number(*bytes.borrow_and_update())))
        })
    }
}
