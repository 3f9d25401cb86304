use napi::Env;
use napi::bindgen_prelude::JsValue as _;
use napi_derive::napi;

use crate::value::number;

/// What went wrong; `lib/errors.ts` makes an error of the right class of it.
#[napi(object, object_from_js = false)]
pub struct Failure {
    /// The stable word on the wire, such as `no_capacity`.
    pub code: String,
    /// For people.
    pub message: String,
    /// The request as the server logged it.
    pub request_id: Option<String>,
    /// Milliseconds after which a retry makes sense.
    pub retry_after_ms: Option<f64>,
    /// The kind of thing that it is about.
    pub resource: Option<String>,
    /// The guest kernel's own word, such as `ENOSPC`.
    pub errno: Option<String>,
}

impl From<forkyard::Error> for Failure {
    fn from(error: forkyard::Error) -> Self {
        let forkyard::Error { code, message, request_id, retry_after, resource, errno } = error;
        let resource = resource.and_then(|resource| serde_json::to_value(resource).ok());
        Self {
            code: code.as_str().to_owned(),
            message,
            request_id,
            retry_after_ms: retry_after
                .map(|wait| number(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))),
            resource: resource.as_ref().and_then(|word| word.as_str()).map(str::to_owned),
            errno,
        }
    }
}

/// The error to throw or reject with: an `Error` of JavaScript's whose `failure` is a [`Failure`].
pub fn to_js_error(env: Env, error: forkyard::Error) -> napi::Error {
    let make = || {
        let mut object = env.create_error(napi::Error::from_reason(error.message.clone()))?;
        object.set("failure", Failure::from(error))?;
        Ok::<_, napi::Error>(object.to_unknown().into())
    };
    make().unwrap_or_else(|error| error)
}
