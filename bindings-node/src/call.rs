//! One call into the core: a promise, and the means to drop the work behind it.

use std::future::Future;

use forkyard::{Error, ErrorCode};
use napi::bindgen_prelude::{JsValue as _, PromiseRaw, ToNapiValue};
use napi::{Env, Result};
use napi_derive::napi;
use tokio_util::sync::CancellationToken;

use crate::error::to_js_error;

/// Drops the work behind the calls that it was given to.
#[napi]
#[derive(Default)]
pub struct Cancel {
    token: CancellationToken,
}

#[napi]
impl Cancel {
    /// One that has not been used.
    #[napi(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Drops the work; its promises are rejected with `cancelled`.
    #[napi]
    pub fn cancel(&self) {
        self.token.cancel();
    }
}

type Resolver<T> = Box<dyn FnOnce(Env) -> Result<T> + Send>;

/// Begins a call on the core's runtime and answers its promise. Node stays alive until that is settled, and no longer.
pub fn begin<'env, T, F>(env: &'env Env, cancel: Option<&Cancel>, future: F) -> Result<PromiseRaw<'env, T>>
where
    T: ToNapiValue + Send + 'static,
    F: Future<Output = std::result::Result<T, Error>> + Send + 'static,
{
    let (deferred, promise) = env.create_deferred::<T, Resolver<T>>()?;
    let token = cancel.map(|cancel| cancel.token.clone()).unwrap_or_default();
    forkyard::runtime::handle().spawn(async move {
        let outcome = token.run_until_cancelled_owned(future).await;
        let outcome =
            outcome.unwrap_or_else(|| Err(Error::new(ErrorCode::Cancelled, "the call was aborted")));
        deferred.resolve(Box::new(move |env| outcome.map_err(|error| to_js_error(env, error))));
    });
    Ok(PromiseRaw::new(env.raw(), promise.raw()))
}
