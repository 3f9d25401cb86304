//! Machines that programs find by their name, and how long they live while nobody calls.

use std::time::Duration;

use forkyard_protocol::ExtendTimeout;
use http::Method;
use tokio::time::{Instant, sleep};

use crate::client::{Client, CreateSandbox, SandboxInfo, SandboxStatus};
use crate::error::{Error, ErrorCode, Result};
use crate::http::Request;
use crate::listing::SandboxFilter;
use crate::sandbox::Sandbox;

/// How long one call waits for a machine that another program makes, in milliseconds.
const WATCH_MS: u64 = 30_000;

/// How long to wait where a name was taken and then nobody had it.
const PAUSE: Duration = Duration::from_millis(50);

impl Client {
    /// The machine of this name, running: the one that is there, resumed where it is suspended, or else a new one. However
    /// many programs ask at once, one machine is made and all get it. A machine that is there is taken as it is: image, size
    /// and whatever else is asked for say only what a new one is made of. Where this future is dropped the machine stays, since
    /// others may have it already.
    pub async fn get_or_create(&self, name: &str, request: CreateSandbox) -> Result<Sandbox> {
        let request = CreateSandbox { name: Some(name.to_owned()), ..request };
        let (_, deadline) = self.creation(&request)?;
        loop {
            if let Some(found) = self.named(name).await? {
                match self.brought_up(found, deadline).await {
                    Ok(Some(info)) => return Ok(Sandbox::new(self.clone(), info)),
                    // It has ended meanwhile: its name is free.
                    Ok(None) => {}
                    Err(error) => return Err(error),
                }
            }
            // Under a key of its own each time: an earlier attempt's machine may have ended since.
            let (call, _) = self.creation(&request)?;
            match self.inner.http.call::<SandboxInfo>(&call, deadline).await {
                Ok(info) => return Ok(Sandbox::new(self.clone(), info)),
                Err(error) if error.code != ErrorCode::AlreadyExists => return Err(error),
                Err(error) if Instant::now() + PAUSE >= deadline => return Err(error),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// The machine that has this name now.
    pub(crate) async fn named(&self, name: &str) -> Result<Option<SandboxInfo>> {
        let filter = SandboxFilter { name: Some(name.to_owned()), ..SandboxFilter::default() };
        // The newest first: whoever has the name is on the first page.
        let page = self.sandboxes(&filter)?.next_page().await?.unwrap_or_default();
        Ok(page.into_iter().find(|sandbox| sandbox.status.is_alive()))
    }

    /// Waits for a machine that is being made, and resumes one that is suspended; `None` where it has ended.
    async fn brought_up(&self, mut info: SandboxInfo, deadline: Instant) -> Result<Option<SandboxInfo>> {
        while info.status == SandboxStatus::Pending {
            let path = format!("/sandboxes/{}?wait_ms={WATCH_MS}", info.sandbox_id);
            match self.inner.http.call(&Request::new(Method::GET, path), deadline).await {
                Ok(now) => info = now,
                Err(error) if is_gone(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        if info.status == SandboxStatus::Running {
            return Ok(Some(info));
        }
        if !info.status.is_alive() {
            return Ok(None);
        }
        let resume = Request::new(Method::POST, format!("/sandboxes/{}/resume", info.sandbox_id));
        match self.inner.http.call(&resume, deadline).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error.code, ErrorCode::SandboxLost | ErrorCode::NotFound)
}

impl Sandbox {
    /// Gives the machine another idle time-out: seconds without any call, counted from this one on, after which it is terminated
    /// or, if it has a name, suspended; 1 to 2,592,000. It may be shorter than the one before. A suspended machine stays so.
    pub async fn extend_timeout(&self, timeout_secs: u64) -> Result<SandboxInfo> {
        let request = ExtendTimeout { timeout_secs };
        request.validate()?;
        let call = Request::new(Method::PUT, self.path("/timeout")).json(&request)?;
        self.client.inner.http.call(&call, self.client.deadline()).await
    }
}
