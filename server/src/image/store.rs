use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use forkyard_protocol::{ErrorBody, ErrorCode, ImageInfo, Resource};
use sha2::{Digest as _, Sha256};

use super::manifest::{Manifest, hex};
use super::name::{InvalidImageName, validate_image_name};

/// An image that a machine can be made of.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its digest, `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// What it is made of.
    pub manifest: Manifest,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// Its kernel.
    pub vmlinux: PathBuf,
    /// Its initial RAM disk.
    pub initrd: PathBuf,
}

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name breaks the rules.
    #[error(transparent)]
    Name(#[from] InvalidImageName),
    /// No image has this name.
    #[error(
        "there is no image '{name}'; this server has: {known}. 'forkyard image build' makes the built-in ones"
    )]
    Unknown {
        /// The name.
        name: String,
        /// The tags that there are.
        known: String,
    },
    /// A file is missing, unreadable or not what its name says.
    #[error("the image is damaged: {0}; build it again with 'forkyard image build --force'")]
    Damaged(String),
    /// A recipe that is missing or not well formed.
    #[error("the recipe: {0}")]
    Recipe(String),
    /// A step of a build that failed.
    #[error("the image could not be built: {0}")]
    Build(String),
    /// The disk.
    #[error("the image could not be built: {0}")]
    Io(#[from] io::Error),
}

impl From<ImageError> for ErrorBody {
    fn from(error: ImageError) -> Self {
        let code = match error {
            ImageError::Name(_) => ErrorCode::InvalidArgument,
            ImageError::Unknown { .. } => ErrorCode::NotFound,
            ImageError::Damaged(_) | ImageError::Recipe(_) | ImageError::Build(_) | ImageError::Io(_) => {
                ErrorCode::Internal
            }
        };
        Self::new(code, error.to_string()).about(Resource::Image)
    }
}

/// The folder that holds the images. All calls read files and so block.
#[derive(Debug, Clone)]
pub struct ImageStore {
    dir: PathBuf,
}

impl ImageStore {
    /// The images of this folder, which need not be there yet.
    pub fn open(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The image of a tag or digest.
    pub fn resolve(&self, name: &str) -> Result<Image, ImageError> {
        validate_image_name(name)?;
        let digest = match name.strip_prefix("sha256:") {
            Some(digest) => digest.to_owned(),
            None => match std::fs::read_to_string(self.dir.join("tags").join(name)) {
                Ok(text) => text.trim().to_owned(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.unknown(name)),
                Err(error) => return Err(ImageError::Damaged(format!("tag '{name}': {error}"))),
            },
        };
        let manifest = match self.manifest(&digest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.unknown(name)),
            other => other.map_err(|error| ImageError::Damaged(error.to_string()))?,
        };
        let boot = self.dir.join("boot").join(&manifest.boot);
        let image = Image {
            rootfs: self.dir.join("rootfs").join(format!("{}.raw", manifest.rootfs)),
            vmlinux: boot.join("vmlinux"),
            initrd: boot.join("initrd"),
            digest: format!("sha256:{digest}"),
            manifest,
        };
        for path in [&image.rootfs, &image.vmlinux, &image.initrd] {
            std::fs::metadata(path)
                .map_err(|error| ImageError::Damaged(format!("{}: {error}", path.display())))?;
        }
        Ok(image)
    }

    /// All images, by name, with their tags. A damaged one is left out and logged: the others are as good as before.
    pub fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        let damaged = |error: io::Error| ImageError::Damaged(error.to_string());
        let mut tags: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for tag in file_names(&self.dir.join("tags")).map_err(damaged)? {
            let digest = std::fs::read_to_string(self.dir.join("tags").join(&tag)).map_err(damaged)?;
            tags.entry(digest.trim().to_owned()).or_default().push(tag);
        }
        let mut images = Vec::new();
        for file in file_names(&self.dir.join("manifests")).map_err(damaged)? {
            let Some(digest) = file.strip_suffix(".json") else { continue };
            match self.manifest(digest).and_then(|manifest| Ok((self.size(&manifest)?, manifest))) {
                Ok((size_bytes, manifest)) => images.push(ImageInfo {
                    digest: format!("sha256:{digest}"),
                    name: manifest.name,
                    tags: tags.remove(digest).unwrap_or_default(),
                    size_bytes,
                }),
                Err(error) => tracing::warn!(digest, %error, "an image is damaged"),
            }
        }
        images.sort_by(|a, b| (&a.name, &a.digest).cmp(&(&b.name, &b.digest)));
        Ok(images)
    }

    /// Bytes that an image's root file system takes on disk: it is sparse, so fewer than its length.
    fn size(&self, manifest: &Manifest) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let path = self.dir.join("rootfs").join(format!("{}.raw", manifest.rootfs));
        Ok(std::fs::metadata(path)?.blocks() * 512)
    }

    fn manifest(&self, digest: &str) -> io::Result<Manifest> {
        let bytes = std::fs::read(self.dir.join("manifests").join(format!("{digest}.json")))?;
        // The bytes as they lie there, not what is known of them: later versions may write fields that this one does not have.
        if hex(&Sha256::digest(&bytes)) != digest {
            return Err(io::Error::other(format!("manifest {digest} is not what its name says")));
        }
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn unknown(&self, name: &str) -> ImageError {
        let known = file_names(&self.dir.join("tags")).unwrap_or_default();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        ImageError::Unknown { name: name.to_owned(), known }
    }
}

/// The names of a folder's files, sorted; none where there is no folder.
fn file_names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // Files of ours have plain names; a dot marks one that is being written.
        if let Some(name) = entry?.file_name().to_str().filter(|name| !name.starts_with('.')) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// An image whose files are there but hold nothing that boots.
#[cfg(test)]
pub(crate) fn write_fake(dir: &Path, tag: &str) -> String {
    let manifest = Manifest {
        name: tag.to_owned(),
        recipe: "r".into(),
        packages: BTreeMap::from([("python3".into(), "3.11".into())]),
        rootfs: "r0".into(),
        boot: "b0".into(),
        kernel: "k".into(),
        agent: "a".into(),
        env: BTreeMap::from([("PATH".into(), "/bin".into())]),
        user: "agent".into(),
        cwd: "/workspace".into(),
        warm: Vec::new(),
        devices: crate::vmm::Devices::NOW,
        min_memory_mb: 128,
    };
    let digest = manifest.digest().unwrap();
    for folder in ["tags", "manifests", "rootfs", "boot/b0"] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
    }
    std::fs::write(dir.join("tags").join(tag), format!("{digest}\n")).unwrap();
    std::fs::write(dir.join("manifests").join(format!("{digest}.json")), manifest.to_json().unwrap())
        .unwrap();
    std::fs::write(dir.join("rootfs/r0.raw"), [0; 4096]).unwrap();
    std::fs::write(dir.join("boot/b0/vmlinux"), "k").unwrap();
    std::fs::write(dir.join("boot/b0/initrd"), "i").unwrap();
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_digests_lead_to_the_same_image() {
        let dir = tempfile::tempdir().unwrap();
        let digest = write_fake(dir.path(), "python");
        let store = ImageStore::open(dir.path());
        let by_tag = store.resolve("python").unwrap();
        assert_eq!(by_tag.digest, format!("sha256:{digest}"));
        assert_eq!(store.resolve(&by_tag.digest).unwrap().rootfs, by_tag.rootfs);
        let list = store.list().unwrap();
        assert_eq!((list.len(), list[0].tags.as_slice()), (1, &["python".to_owned()][..]));
    }

    #[test]
    fn an_image_of_a_later_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let digest = write_fake(dir.path(), "python");
        let path = dir.path().join("manifests").join(format!("{digest}.json"));
        let later = std::fs::read_to_string(path).unwrap().replacen('{', "{ \"later\": 1,", 1);
        let digest = hex(&Sha256::digest(&later));
        std::fs::write(dir.path().join("manifests").join(format!("{digest}.json")), later).unwrap();
        assert_eq!(
            ImageStore::open(dir.path()).resolve(&format!("sha256:{digest}")).unwrap().manifest.name,
            "python"
        );
    }

    #[test]
    fn what_is_wrong_with_an_image_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path());
        assert!(store.list().unwrap().is_empty());
        assert!(store.resolve("python").unwrap_err().to_string().contains("this server has: none"));
        let digest = write_fake(dir.path(), "python");
        assert!(store.resolve("ruby").unwrap_err().to_string().contains("this server has: python"));
        assert!(matches!(store.resolve("../python"), Err(ImageError::Name(_))));
        let path = dir.path().join("manifests").join(format!("{digest}.json"));
        let changed = std::fs::read_to_string(&path).unwrap().replace("3.11", "3.12");
        std::fs::write(&path, changed).unwrap();
        assert!(store.resolve("python").unwrap_err().to_string().contains("not what its name says"));
        let other = write_fake(dir.path(), "ruby");
        let listed: Vec<_> = store.list().unwrap().into_iter().map(|image| image.digest).collect();
        assert_eq!(listed, [format!("sha256:{other}")], "the damaged one harms no other");
        write_fake(dir.path(), "python");
        std::fs::remove_file(dir.path().join("boot/b0/initrd")).unwrap();
        assert!(matches!(store.resolve("python"), Err(ImageError::Damaged(_))));
    }
}
