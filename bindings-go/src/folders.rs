use std::sync::Arc;

use forkyard::runtime::run;

use crate::files::callback;
use crate::{Answer, Blob, Progress, Sandbox, value};

/// TreeSummary is what a folder that was sent or fetched consists of.
#[derive(Debug, uniffi::Record)]
pub struct TreeSummary {
    /// Files is how many regular files.
    pub files: i64,
    /// Folders is how many folders, itself among them.
    pub folders: i64,
    /// Links is how many symbolic links.
    pub links: i64,
    /// Bytes is how many bytes of all files.
    pub bytes: i64,
    /// Skipped is how many were left out: devices, pipes and sockets; where a folder is fetched, also links that lead out of it.
    pub skipped: i64,
    /// SkippedPaths are the first 100 of those, relative to the folder, with U+FFFD in place of what is not UTF-8.
    pub skipped_paths: Vec<String>,
}

impl From<forkyard::TreeSummary> for TreeSummary {
    fn from(summary: forkyard::TreeSummary) -> Self {
        let forkyard::TreeSummary { files, folders, links, bytes, skipped, skipped_paths } = summary;
        Self {
            files: value::bytes(files),
            folders: value::bytes(folders),
            links: value::bytes(links),
            bytes: value::bytes(bytes),
            skipped: value::bytes(skipped),
            skipped_paths,
        }
    }
}

#[uniffi::export]
impl Sandbox {
    /// Sends a local folder.
    pub async fn upload_dir_native(
        &self,
        local: String,
        remote: Blob,
        progress: Arc<Progress>,
    ) -> Answer<TreeSummary> {
        let sandbox = self.sandbox.clone();
        let told = Some(callback(progress));
        Ok(run(async move { sandbox.files().upload_dir(local, remote.0, told).await }).await?.into())
    }

    /// Fetches a folder.
    pub async fn download_dir_native(
        &self,
        remote: Blob,
        local: String,
        progress: Arc<Progress>,
    ) -> Answer<TreeSummary> {
        let sandbox = self.sandbox.clone();
        let told = Some(callback(progress));
        Ok(run(async move { sandbox.files().download_dir(remote.0, local, told).await }).await?.into())
    }
}
