use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use forkyard_protocol::{
    Capacity, CreateKey, CreateSandbox, CreatedKey, ImageInfo, KeyInfo, Sandbox as SandboxInfo, SandboxPage,
    SandboxStatus, Scope as KeyScope, ServerInfo, Stage,
};
use forkyard_protocol::{ImageList, KeyId, KeyList, SandboxId, SandboxList};
use http::Method;
use tokio::time::Instant;

use crate::error::{Error, ErrorCode, Result};
use crate::http::{Http, Request};
use crate::listing::SandboxFilter;
use crate::retry::RetryPolicy;
use crate::sandbox::Sandbox;

/// Where a server listens unless told otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:7070";

/// How long a call may take in all, retries included, unless told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(1);

/// How long making a machine may take in all: it may wait for room.
pub(crate) const CREATE_TIMEOUT: Duration = Duration::from_mins(2);

/// How long one call waits for news of a machine that is being made, in milliseconds.
const WATCH_MS: u64 = 30_000;

/// One server and one pool of connections to it, however many machines it drives. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub http: Http,
    pub timeout: Duration,
}

/// How to reach a server.
#[derive(Clone, Default)]
pub struct ClientBuilder {
    url: Option<String>,
    api_key: Option<String>,
    timeout: Option<Duration>,
    policy: RetryPolicy,
}

impl ClientBuilder {
    /// The server's address. Default: `FORKYARD_URL`, else `http://127.0.0.1:7070`.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// The API key. Default: `FORKYARD_API_KEY`, else the file that a server on this host wrote at its first start.
    #[must_use]
    pub fn api_key(mut self, api_key: impl Into<String>) -> Self {
        self.api_key = Some(api_key.into());
        self
    }

    /// How long each call may take in all, retries included. Default: 60 s; making a machine: 120 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Retries after the first attempt. Default: 4.
    #[must_use]
    pub fn max_retries(mut self, max_retries: u32) -> Self {
        self.policy = RetryPolicy { max_retries };
        self
    }

    /// A client. Connects when it is first used. Fails with `invalid_argument` where no key is found.
    pub fn build(self) -> Result<Client> {
        let url =
            self.url.or_else(|| std::env::var("FORKYARD_URL").ok()).unwrap_or_else(|| DEFAULT_URL.to_owned());
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("'{url}' is no http:// or https:// address"),
            ));
        }
        let api_key = match self.api_key.or_else(|| std::env::var("FORKYARD_API_KEY").ok()) {
            Some(key) => key,
            None => key_from_file()?,
        };
        let http = Http::new(url.trim_end_matches('/').to_owned(), api_key.trim().to_owned(), self.policy);
        Ok(Client { inner: Arc::new(Inner { http, timeout: self.timeout.unwrap_or(DEFAULT_TIMEOUT) }) })
    }
}

fn key_from_file() -> Result<String> {
    let file = std::env::var_os("FORKYARD_API_KEY_FILE").map_or_else(default_key_file, PathBuf::from);
    std::fs::read_to_string(&file).map_err(|error| {
        let message = format!(
            "no API key: pass one, set FORKYARD_API_KEY, or name a file in FORKYARD_API_KEY_FILE (tried {}: {error})",
            file.display()
        );
        Error::new(ErrorCode::InvalidArgument, message)
    })
}

/// The file that a server writes at its first start: `api-key` in its data directory.
fn default_key_file() -> PathBuf {
    if let Some(dir) = std::env::var_os("FORKYARD_DATA_DIR") {
        return PathBuf::from(dir).join("api-key");
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let own = home.join(".local/share/forkyard/api-key");
    if own.exists() { own } else { PathBuf::from("/var/lib/forkyard/api-key") }
}

impl Client {
    /// A builder with the defaults.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Makes a machine and waits until it runs; where the host has no room, waits for it until the deadline. However often
    /// it is tried, one machine is made; if the future is dropped, it is ended again.
    pub async fn create(&self, request: CreateSandbox) -> Result<Sandbox> {
        let (call, deadline) = self.creation(&request)?;
        let guard = Unfinished::new(self, &call, false);
        let created = self.inner.http.call::<SandboxInfo>(&call, deadline).await;
        guard.settle(&created);
        Ok(Sandbox::new(self.clone(), created?))
    }

    /// The same, and tells how far the machine has come whenever that changes: the first of an image boots, which takes seconds.
    pub async fn create_watched(
        &self,
        request: CreateSandbox,
        mut on_stage: impl FnMut(Stage),
    ) -> Result<Sandbox> {
        let (call, deadline) = self.creation(&request)?;
        let guard = Unfinished::new(self, &call, false);
        let watching = async {
            let begin = Request { path: format!("{}?wait=false", call.path), ..call.clone() };
            let mut info = self.inner.http.call::<SandboxInfo>(&begin, deadline).await?;
            while let (SandboxStatus::Pending, Some(stage)) = (info.status, info.stage) {
                on_stage(stage);
                let path =
                    format!("/sandboxes/{}?wait_ms={WATCH_MS}&stage={}", info.sandbox_id, stage.as_str());
                info = self.inner.http.call(&Request::new(Method::GET, path), deadline).await?;
            }
            // The same call again answers with the machine, or says why there is none.
            self.inner.http.call::<SandboxInfo>(&call, deadline).await
        };
        let created = watching.await;
        guard.settle(&created);
        Ok(Sandbox::new(self.clone(), created?))
    }

    /// A creating call, and when it must have its answer.
    pub(crate) fn creation(&self, request: &CreateSandbox) -> Result<(Request, Instant)> {
        request.validate()?;
        let mut call = Request::new(Method::POST, "/sandboxes").json(request)?;
        call.idempotency_key = Some(ulid::Ulid::generate().to_string());
        let in_line = Duration::from_secs(request.queue_timeout_secs);
        Ok((call, Instant::now() + self.inner.timeout.max(CREATE_TIMEOUT) + in_line))
    }

    /// A machine that is there already, by its id or its name.
    pub async fn connect(&self, id_or_name: &str) -> Result<Sandbox> {
        if SandboxId::parse(id_or_name).is_ok() {
            return Ok(Sandbox::new(self.clone(), self.get(id_or_name).await?));
        }
        let found = self
            .named(id_or_name)
            .await?
            .ok_or_else(|| Error::new(ErrorCode::NotFound, format!("no sandbox is named '{id_or_name}'")))?;
        Ok(Sandbox::new(self.clone(), found))
    }

    /// A machine's record, by its id.
    pub async fn get(&self, id: &str) -> Result<SandboxInfo> {
        self.get_json(&format!("/sandboxes/{}", checked(id)?)).await
    }

    /// All machines of the project, newest first. [`Client::sandboxes`] finds some of them, and fetches them as they are read.
    pub async fn list(&self) -> Result<Vec<SandboxInfo>> {
        let filter = SandboxFilter { page_size: Some(1000), ..SandboxFilter::default() };
        self.sandboxes(&filter)?.all().await
    }

    /// Ends a machine and waits for its end. Ending one that has ended answers how it ended.
    pub async fn terminate(&self, id: &str) -> Result<SandboxInfo> {
        let request = Request::new(Method::DELETE, format!("/sandboxes/{}", checked(id)?));
        self.inner.http.call(&request, self.deadline()).await
    }

    /// The server's images.
    pub async fn images(&self) -> Result<Vec<ImageInfo>> {
        Ok(self.get_json::<ImageList>("/images").await?.images)
    }

    /// The server's version, accelerator and room.
    pub async fn server_info(&self) -> Result<ServerInfo> {
        self.get_json("/server").await
    }

    /// Makes an API key (scope `admin`). Not tried again after a failed connection: a second key would come of it.
    pub async fn create_key(&self, request: &CreateKey) -> Result<CreatedKey> {
        let mut call = Request::new(Method::POST, "/keys").json(request)?;
        call.repeatable = false;
        self.inner.http.call(&call, self.deadline()).await
    }

    /// The server's API keys, without their secrets (scope `admin`).
    pub async fn list_keys(&self) -> Result<Vec<KeyInfo>> {
        Ok(self.get_json::<KeyList>("/keys").await?.keys)
    }

    /// Revokes an API key (scope `admin`).
    pub async fn revoke_key(&self, key_id: &KeyId) -> Result<()> {
        let mut call = Request::new(Method::DELETE, format!("/keys/{key_id}"));
        call.repeatable = false;
        self.inner.http.bytes(&call, self.deadline()).await.map(drop)
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.inner.timeout
    }

    pub(crate) async fn get_json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.inner.http.call(&Request::new(Method::GET, path), self.deadline()).await
    }
}

fn checked(id: &str) -> Result<SandboxId> {
    SandboxId::parse(id).map_err(|error| Error::new(ErrorCode::InvalidArgument, error.to_string()))
}

/// A create or fork whose caller has not heard of its machines yet.
pub(crate) struct Unfinished {
    client: Client,
    call: Option<Request>,
    many: bool,
}

impl Unfinished {
    pub fn new(client: &Client, call: &Request, many: bool) -> Self {
        Self { client: client.clone(), call: Some(call.clone()), many }
    }

    /// The caller hears how it went, unless nobody knows whether there are machines.
    pub fn settle<T>(mut self, outcome: &Result<T>) {
        let unknown = |error: &Error| matches!(error.code, ErrorCode::Timeout | ErrorCode::Connection);
        if !outcome.as_ref().is_err_and(unknown) {
            self.call = None;
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(mut call) = self.call.take() else { return };
        let (client, many) = (self.client.clone(), self.many);
        // The same call again names the machines, if there are any; then they are ended.
        call.path.push_str("?wait=false");
        crate::runtime::spawn_cleanup(async move {
            let found = if many {
                client.inner.http.call::<SandboxList>(&call, client.deadline()).await?.sandboxes
            } else {
                vec![client.inner.http.call::<SandboxInfo>(&call, client.deadline()).await?]
            };
            for machine in found {
                client.terminate(machine.sandbox_id.as_str()).await?;
            }
            Ok(())
        });
    }
}
