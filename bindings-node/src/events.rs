//! What happens in a machine's folders, and to the machine, as it happens.

use forkyard::SharedFeed;
use napi::bindgen_prelude::{PromiseRaw, Uint8Array};
use napi::{Env, Result};
use napi_derive::napi;

use crate::call::{Cancel, begin};
use crate::record::event::{SandboxEvent, SandboxEvents};
use crate::record::file::FileEvent;
use crate::sandbox::Sandbox;
use crate::value::millis_or_zero;

/// Events of a watched folder.
#[napi]
pub struct Watch {
    feed: SharedFeed<forkyard::Watch>,
}

/// A machine's events.
#[napi]
pub struct EventStream {
    feed: SharedFeed<forkyard::EventStream>,
}

#[napi]
impl Sandbox {
    #[napi]
    pub fn watch_files<'env>(
        &self,
        env: &'env Env,
        path: Uint8Array,
        recursive: bool,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Watch>> {
        let (sandbox, path) = (self.sandbox.clone(), path.to_vec());
        begin(env, cancel, async move {
            Ok(Watch { feed: SharedFeed::new(sandbox.files().watch(path, recursive).await?) })
        })
    }

    #[napi]
    pub fn events<'env>(
        &self,
        env: &'env Env,
        cursor: Option<String>,
        wait_ms: f64,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, SandboxEvents>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move {
            let wait = millis_or_zero("waitMs", wait_ms)?;
            Ok(sandbox.events(cursor.as_deref(), wait).await?.into())
        })
    }

    #[napi]
    pub fn follow_events(&self, cursor: Option<String>) -> EventStream {
        EventStream { feed: SharedFeed::new(self.sandbox.follow_events(cursor)) }
    }
}

#[napi]
impl Watch {
    /// The next event; null after the last, or once it was closed.
    #[napi(ts_return_type = "Promise<FileEvent | null>")]
    pub fn next<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Option<FileEvent>>> {
        let feed = self.feed.clone();
        begin(env, cancel, async move { Ok(feed.next().await?.map(Into::into)) })
    }

    /// Ends it; a call for the next event that is under way ends too.
    #[napi]
    pub fn close<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        let feed = self.feed.clone();
        begin(env, None, async move {
            feed.close().await;
            Ok(())
        })
    }
}

#[napi]
impl EventStream {
    /// The next event; null after the last, or once it was closed.
    #[napi(ts_return_type = "Promise<SandboxEvent | null>")]
    pub fn next<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Option<SandboxEvent>>> {
        let feed = self.feed.clone();
        begin(env, cancel, async move { Ok(feed.next().await?.map(Into::into)) })
    }

    /// Ends it; a call for the next event that is under way ends too.
    #[napi]
    pub fn close<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        let feed = self.feed.clone();
        begin(env, None, async move {
            feed.close().await;
            Ok(())
        })
    }
}
