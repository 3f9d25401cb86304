//! Templates: an image that was booted once, frozen with its memory before anybody used it, and forked ever after.
//!
//! ```text
//! templates/<key>/     the frozen machine and `contents.json`, what its files must be
//! templates/.<key>/    one that is being written
//! ```
//!
//! The first machine of a kind boots, is frozen on the way, and goes on to its caller: a template costs no machine of its own.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use forkyard_protocol::ErrorBody;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::task::spawn_blocking;

use super::manager::internal;
use super::origin::Origin;
use crate::image::hex;
use crate::snapshot::{Contents, Folder, delete};
use crate::vmm::{Freeze, Machine};

/// The list of a template's files with their digests, among them.
const CONTENTS: &str = "contents.json";

/// What makes two machines of images alike: they can be forks of one template.
#[derive(Debug, Clone)]
pub struct Kind<'a> {
    /// The image's digest.
    pub image_digest: &'a str,
    /// Whole virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// What runs them.
    pub accelerator: &'a str,
    /// The virtual machine monitor and its version.
    pub vmm: &'a str,
}

impl Kind<'_> {
    fn key(&self) -> String {
        // Without `..`: a new field breaks the build until it counts.
        let Self { image_digest, vcpus, memory_mb, accelerator, vmm } = self;
        let text = format!("{image_digest}\n{vcpus}\n{memory_mb}\n{accelerator}\n{vmm}");
        hex(&Sha256::digest(text)[..16])
    }
}

/// The templates of this server. They are a cache: one that is lost is made again.
pub struct Templates {
    dir: PathBuf,
    budget_bytes: u64,
    /// By key: who holds it makes or looks at the template. True once its files were found whole.
    known: Mutex<HashMap<String, Arc<AsyncMutex<bool>>>>,
}

/// What [`Templates::find`] found.
pub enum Found {
    /// A template to fork.
    Template(Box<Origin>),
    /// None; whoever holds this is to make it, and others wait.
    Missing(Making),
}

/// The right to make one template.
pub struct Making {
    key: String,
    verified: OwnedMutexGuard<bool>,
}

impl Templates {
    /// The templates of this folder, which need not be there yet, in at most so many bytes on disk.
    pub fn open(dir: PathBuf, budget_bytes: u64) -> Self {
        Self { dir, budget_bytes, known: Mutex::default() }
    }

    /// The template for machines of this kind; waits where it is just being made.
    pub async fn find(&self, kind: &Kind<'_>, image: &Origin) -> Result<Found, ErrorBody> {
        let key = kind.key();
        let known =
            self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default().clone();
        let mut verified = known.lock_owned().await;
        let (path, is_verified) = (self.dir.join(&key), *verified);
        let contents =
            spawn_blocking(move || look_at(&path, is_verified)).await.map_err(|error| internal(&error))?;
        let Some(contents) = contents else {
            *verified = false;
            return Ok(Found::Missing(Making { key, verified }));
        };
        *verified = true;
        Ok(Found::Template(Box::new(image.going_on_from(&contents, &self.dir.join(&key)))))
    }

    /// Freezes a machine that has booted and that nobody has used yet. It runs on.
    pub async fn make(&self, mut making: Making, machine: &dyn Machine) -> Result<(), ErrorBody> {
        let (dir, key) = (self.dir.clone(), making.key.clone());
        let folder = spawn_blocking(move || {
            // What an earlier server left of an attempt.
            delete(&dir.join(format!(".{key}")))?;
            Folder::make(&dir, &key)
        });
        let folder = folder.await.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
        machine.freeze(folder.path().to_owned(), Freeze::Memory).await?;
        let (dir, key, budget_bytes) = (self.dir.clone(), making.key.clone(), self.budget_bytes);
        let made = spawn_blocking(move || {
            let contents = folder.seal()?;
            std::fs::write(folder.path().join(CONTENTS), serde_json::to_vec(&contents)?)?;
            folder.publish(&dir.join(&key))?;
            evict(&dir, &key, budget_bytes)
        });
        made.await.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
        *making.verified = true;
        Ok(())
    }
}

/// A template's files, if they are there and whole; one that is not is deleted. Blocks.
fn look_at(path: &Path, is_verified: bool) -> Option<Contents> {
    let contents: Contents = serde_json::from_slice(&std::fs::read(path.join(CONTENTS)).ok()?).ok()?;
    let checked = if is_verified { contents.check_sizes(path) } else { contents.check(path) };
    if let Err(what) = checked {
        tracing::warn!(path = %path.display(), what, "a damaged template is made anew");
        delete(path).inspect_err(|error| tracing::error!(%error, "it cannot be deleted")).ok()?;
        return None;
    }
    // The time of its last use, for eviction; a template that cannot be marked is only evicted early.
    let now = SystemTime::now();
    drop(File::open(path).and_then(|folder| folder.set_modified(now)));
    Some(contents)
}

/// Deletes the templates that were used the longest ago, until all fit the budget; never `keep`. Blocks.
fn evict(dir: &Path, keep: &str, budget_bytes: u64) -> io::Result<()> {
    let mut others = Vec::new();
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(bytes) = std::fs::read(entry.path().join(CONTENTS)) else { continue };
        let contents: Contents = serde_json::from_slice(&bytes)?;
        total += contents.size_bytes;
        if entry.file_name() != keep {
            others.push((entry.metadata()?.modified()?, contents.size_bytes, entry.path()));
        }
    }
    others.sort();
    for (_, size, path) in others {
        if total <= budget_bytes {
            break;
        }
        tracing::info!(path = %path.display(), "a template that was not used for long gives way");
        delete(&path)?;
        total -= size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, key: &str, size_bytes: u64, age_secs: u64) {
        let path = dir.join(key);
        std::fs::create_dir_all(&path).unwrap();
        let contents = Contents { size_bytes, ..Contents::default() };
        std::fs::write(path.join(CONTENTS), serde_json::to_vec(&contents).unwrap()).unwrap();
        let used = SystemTime::now() - std::time::Duration::from_secs(age_secs);
        File::open(path).unwrap().set_modified(used).unwrap();
    }

    #[test]
    fn the_one_that_was_used_the_longest_ago_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        for (key, age) in [("a", 10), ("b", 30), ("c", 20), ("new", 0)] {
            write(dir.path(), key, 100, age);
        }
        evict(dir.path(), "new", 250).unwrap();
        let left = |key: &str| dir.path().join(key).exists();
        assert_eq!(["a", "b", "c", "new"].map(left), [true, false, false, true]);
        evict(dir.path(), "new", 0).unwrap();
        assert_eq!(["a", "new"].map(left), [false, true], "what was just made is wanted");
    }

    #[test]
    fn machines_that_differ_have_templates_of_their_own() {
        let kind =
            Kind { image_digest: "sha256:1", vcpus: 1, memory_mb: 512, accelerator: "tcg", vmm: "QEMU 7.2" };
        let others = [
            Kind { vcpus: 2, ..kind.clone() },
            Kind { memory_mb: 256, ..kind.clone() },
            Kind { image_digest: "sha256:2", ..kind.clone() },
            Kind { accelerator: "kvm", ..kind.clone() },
            Kind { vmm: "QEMU 10.0", ..kind.clone() },
        ];
        assert!(others.iter().all(|other| other.key() != kind.key()));
        assert_eq!(kind.key().len(), 32);
    }
}
