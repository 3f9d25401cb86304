use napi::bindgen_prelude::PromiseRaw;
use napi::{Env, Result};
use napi_derive::napi;

use crate::call::{Cancel, begin};
use crate::record::network::{NetworkEvents, NetworkInfo, NetworkRequest};
use crate::sandbox::Sandbox;
use crate::value::millis_or_zero;

#[napi]
impl Sandbox {
    #[napi]
    pub fn network<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, NetworkInfo>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move { Ok(sandbox.network().await?.into()) })
    }

    #[napi]
    pub fn update_network<'env>(
        &self,
        env: &'env Env,
        request: NetworkRequest,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, NetworkInfo>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move {
            let policy = request.policy()?.unwrap_or_default();
            Ok(sandbox.update_network(&policy).await?.into())
        })
    }

    #[napi]
    pub fn network_events<'env>(
        &self,
        env: &'env Env,
        cursor: Option<String>,
        wait_ms: f64,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, NetworkEvents>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move {
            let wait = millis_or_zero("waitMs", wait_ms)?;
            Ok(sandbox.network_events(cursor.as_deref(), wait).await?.into())
        })
    }
}
