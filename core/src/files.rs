use bytes::Bytes;
pub use forkyard_protocol::{FileKind, FileStat};
use forkyard_protocol::{FileList, RawPath};
use http::Method;

use crate::error::{Error, ErrorCode, Result};
use crate::http::Request;
use crate::sandbox::Sandbox;

/// A machine's files. Paths are absolute and may be any bytes but NUL.
pub struct Files<'a> {
    pub(crate) sandbox: &'a Sandbox,
}

impl Files<'_> {
    /// A file's contents, whole in memory.
    pub async fn read(&self, path: impl AsRef<[u8]>) -> Result<Bytes> {
        self.bytes(Request::new(Method::GET, self.target("", path)?)).await
    }

    /// Part of a file: `length` bytes from `offset` on, fewer where it ends before.
    pub async fn read_range(&self, path: impl AsRef<[u8]>, offset: u64, length: u64) -> Result<Bytes> {
        let Some(last) = length.checked_sub(1) else { return Ok(Bytes::new()) };
        let mut request = Request::new(Method::GET, self.target("", path)?);
        request.range = Some(format!("bytes={offset}-{}", offset.saturating_add(last)));
        self.bytes(request).await
    }

    /// Replaces a file's contents as a whole; until then the old ones stay. `mode` are its permission bits. Default: those
    /// of the file that it replaces, else 0o644. It belongs to the machine's default user.
    pub async fn write(
        &self,
        path: impl AsRef<[u8]>,
        data: impl Into<Bytes>,
        mode: Option<u32>,
    ) -> Result<FileStat> {
        let mut request = self.write_request(path, mode)?;
        request.body = data.into();
        self.call(request).await
    }

    /// A folder's entries, by name.
    pub async fn list(&self, path: impl AsRef<[u8]>) -> Result<Vec<FileStat>> {
        let target = self.target("/list", path)?;
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page: FileList = self.call(Request::new(Method::GET, format!("{target}{cursor}"))).await?;
            all.extend(page.entries);
            let Some(next) = page.next_cursor else { return Ok(all) };
            cursor = format!("&cursor={next}");
        }
    }

    /// A file's attributes, those of a link's target.
    pub async fn stat(&self, path: impl AsRef<[u8]>) -> Result<FileStat> {
        self.call(Request::new(Method::GET, format!("{}&follow=true", self.target("/stat", path)?))).await
    }

    /// Whether there is something of this name.
    pub async fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        match self.stat(path).await {
            Ok(_) => Ok(true),
            Err(error) if error.errno.as_deref() == Some("ENOENT") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a folder and what is missing above it; one that is there is as wanted.
    pub async fn make_dir(&self, path: impl AsRef<[u8]>) -> Result<FileStat> {
        self.call(Request::new(Method::POST, format!("{}&parents=true", self.target("/mkdir", path)?))).await
    }

    /// Moves a file or folder, over another if so told. Not tried again after a failed connection: nobody knows then
    /// whether it was moved.
    pub async fn rename(
        &self,
        from: impl AsRef<[u8]>,
        to: impl AsRef<[u8]>,
        overwrite: bool,
    ) -> Result<FileStat> {
        let (from, to) = (encode(from)?, encode(to)?);
        let path = format!("/files/move?from={from}&to={to}&overwrite={overwrite}");
        let mut request = Request::new(Method::POST, self.sandbox.path(&path));
        request.repeatable = false;
        self.call(request).await
    }

    /// Removes a file or, recursively, a folder. Not tried again after a failed connection.
    pub async fn remove(&self, path: impl AsRef<[u8]>, recursive: bool) -> Result<()> {
        let target = format!("{}&recursive={recursive}", self.target("", path)?);
        let mut request = Request::new(Method::DELETE, target);
        request.repeatable = false;
        self.bytes(request).await.map(drop)
    }

    pub(crate) fn write_request(&self, path: impl AsRef<[u8]>, mode: Option<u32>) -> Result<Request> {
        let mode = mode.map(|mode| format!("&mode={mode:o}")).unwrap_or_default();
        Ok(Request::new(Method::PUT, format!("{}&parents=true{mode}", self.target("", path)?)))
    }

    pub(crate) fn target(&self, verb: &str, path: impl AsRef<[u8]>) -> Result<String> {
        Ok(self.sandbox.path(&format!("/files{verb}?path={}", encode(path)?)))
    }

    async fn call<T: serde::de::DeserializeOwned>(&self, request: Request) -> Result<T> {
        let client = &self.sandbox.client;
        client.inner.http.call(&request, client.deadline()).await
    }

    async fn bytes(&self, request: Request) -> Result<Bytes> {
        let client = &self.sandbox.client;
        client.inner.http.bytes(&request, client.deadline()).await
    }
}

fn encode(path: impl AsRef<[u8]>) -> Result<String> {
    let path = RawPath::new(path.as_ref());
    Ok(path.map_err(|error| Error::new(ErrorCode::InvalidArgument, error.to_string()))?.encode())
}
