use std::sync::Arc;
use std::time::Duration;

use forkyard::runtime::{run, run_or_undo};

use crate::sandbox::{Options, Sandbox, SandboxInfo};
use crate::{Answer, value};

/// Client is one server and one pool of connections to it, however many machines it drives. It is safe for use by many goroutines.
#[derive(uniffi::Object)]
pub struct Client {
    pub(crate) client: forkyard::Client,
}

/// ClientOptions says how to reach a server. Zero values stand for defaults.
#[derive(Debug, uniffi::Record)]
pub struct ClientOptions {
    /// URL is the server's address. Default: FORKYARD_URL, else port 7070 of this host.
    pub url: String,
    /// APIKey defaults to FORKYARD_API_KEY, else to the file that a server on this host wrote at its first start.
    pub api_key: String,
    /// Timeout is how long each call may take in all, retries included. Default: a minute; making a machine: two.
    pub timeout: Duration,
}

#[uniffi::export]
impl Client {
    /// NewClient makes a client, which connects when it is first used. It fails with [CodeInvalidArgument] where no key is found.
    #[uniffi::constructor]
    pub fn new(options: ClientOptions) -> Answer<Arc<Self>> {
        let ClientOptions { url, api_key, timeout } = options;
        let mut builder = forkyard::Client::builder();
        if let Some(url) = value::text(url) {
            builder = builder.url(url);
        }
        if let Some(api_key) = value::text(api_key) {
            builder = builder.api_key(api_key);
        }
        if !timeout.is_zero() {
            builder = builder.timeout(timeout);
        }
        Ok(Arc::new(Self { client: builder.build()? }))
    }

    /// Create makes a machine and waits until it runs; where the host has no room, it waits for that for two minutes. However
    /// often it is tried, one machine is made; if the context is cancelled, it is ended again.
    pub async fn create(&self, options: Options) -> Answer<Arc<Sandbox>> {
        let (client, request) = (self.client.clone(), options.try_into()?);
        let creating = async move { client.create(request).await };
        let end = |made: forkyard::Sandbox| async move { made.terminate().await.map(drop) };
        Ok(Sandbox::new(run_or_undo(creating, end).await?))
    }

    /// GetOrCreate answers the machine of this name, running: the one that is there, resumed if it is suspended, or else a new one.
    /// However many programs ask at once, one machine is made and all get it.
    ///
    /// One that is there is taken as it is: the options say only what a new one is made of, and are not compared with it; the name
    /// in them does not matter. If the context is cancelled no machine is ended, since others may have it already.
    pub async fn get_or_create(&self, name: String, options: Options) -> Answer<Arc<Sandbox>> {
        let (client, request) = (self.client.clone(), options.try_into()?);
        Ok(Sandbox::new(run(async move { client.get_or_create(&name, request).await }).await?))
    }

    /// Connect finds a machine that is there already, by its name or id.
    pub async fn connect(&self, name_or_id: String) -> Answer<Arc<Sandbox>> {
        let client = self.client.clone();
        Ok(Sandbox::new(run(async move { client.connect(&name_or_id).await }).await?))
    }

    /// Get answers a machine's record.
    pub async fn get(&self, sandbox_id: String) -> Answer<SandboxInfo> {
        let client = self.client.clone();
        Ok(run(async move { client.get(&sandbox_id).await }).await?.into())
    }

    /// Terminate ends a machine and waits for its end; ending one that has ended answers how it ended.
    pub async fn terminate(&self, sandbox_id: String) -> Answer<SandboxInfo> {
        let client = self.client.clone();
        Ok(run(async move { client.terminate(&sandbox_id).await }).await?.into())
    }
}
