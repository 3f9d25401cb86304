use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

use super::command::run;
use super::manifest::{Manifest, hex};
use super::recipe::Recipe;
use super::{Image, ImageError, ImageStore, boot};
use crate::vmm::Devices;

const CUSTOMIZE: &str = include_str!("../../image/customize.sh");

/// Grows whenever images are made otherwise than before from the same recipe.
const BUILDER: u32 = 1;

/// Builds images into a store's folder.
pub struct Builder<'a> {
    dir: PathBuf,
    store: ImageStore,
    agent: &'a [u8],
    say: &'a dyn Fn(&str),
}

impl<'a> Builder<'a> {
    /// A builder for this folder and agent; `say` is told of progress, a line each.
    pub fn new(dir: &Path, agent: &'a [u8], say: &'a dyn Fn(&str)) -> Self {
        Self { dir: dir.to_owned(), store: ImageStore::open(dir), agent, say }
    }

    /// Builds an image, unless the one that its tag names was made of the same recipe and agent. A new agent takes a new
    /// initial RAM disk alone.
    pub fn build(&self, recipe: &Recipe, force: bool) -> Result<Image, ImageError> {
        for folder in ["tags", "manifests", "rootfs", "boot", "tmp"] {
            std::fs::create_dir_all(self.dir.join(folder))?;
        }
        let _lock = self.lock()?;
        let tag = recipe.tags.first().ok_or_else(|| ImageError::Recipe("it has no tag".to_owned()))?;
        let (recipe_digest, agent_digest) = (recipe_digest(recipe), hex(&Sha256::digest(self.agent)));
        let before = if force { None } else { self.store.resolve(tag).ok() };
        let before = before.filter(|image| image.manifest.recipe == recipe_digest);
        if let Some(image) = before.as_ref().filter(|image| image.manifest.agent == agent_digest) {
            (self.say)(&format!("{}: up to date, {}", recipe.name, image.digest));
            return Ok(image.clone());
        }
        let started = Instant::now();
        // Here, not in the system's folder: files are moved into their places by renaming.
        let scratch = tempfile::tempdir_in(self.dir.join("tmp"))?;
        let (rootfs, packages) = match &before {
            Some(image) => (image.manifest.rootfs.clone(), image.manifest.packages.clone()),
            None => self.rootfs(recipe, scratch.path())?,
        };
        (self.say)(&format!("{}: kernel and initial RAM disk", recipe.name));
        let (boot, kernel) = self.boot(scratch.path())?;
        let manifest = Manifest {
            name: recipe.name.clone(),
            recipe: recipe_digest,
            packages,
            rootfs,
            boot,
            kernel,
            agent: agent_digest,
            env: recipe.env.clone(),
            user: "agent".to_owned(),
            cwd: "/workspace".to_owned(),
            warm: recipe.warm.clone(),
            devices: Devices::NOW,
            min_memory_mb: recipe.min_memory_mb,
        };
        let digest = manifest.digest().map_err(|error| ImageError::Build(error.to_string()))?;
        let json = manifest.to_json().map_err(|error| ImageError::Build(error.to_string()))?;
        self.publish(scratch.path(), &format!("manifests/{digest}.json"), &json)?;
        for tag in &recipe.tags {
            self.publish(scratch.path(), &format!("tags/{tag}"), format!("{digest}\n").as_bytes())?;
        }
        (self.say)(&format!("{}: built in {} s, sha256:{digest}", recipe.name, started.elapsed().as_secs()));
        self.store.resolve(tag)
    }

    /// Keeps two builds apart; the second waits.
    fn lock(&self) -> Result<File, ImageError> {
        let lock = File::options().create(true).truncate(false).write(true).open(self.dir.join("lock"))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            (self.say)("waiting for another build to end");
            rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(std::io::Error::from)?;
        }
        // What a build that was killed left behind: nobody else builds now.
        for entry in std::fs::read_dir(self.dir.join("tmp"))? {
            std::fs::remove_dir_all(entry?.path())?;
        }
        Ok(lock)
    }

    fn rootfs(
        &self,
        recipe: &Recipe,
        scratch: &Path,
    ) -> Result<(String, BTreeMap<String, String>), ImageError> {
        if !rustix::process::geteuid().is_root() {
            return Err(ImageError::Build(
                "building an image needs root, for its files' owners: use sudo".to_owned(),
            ));
        }
        (self.say)(&format!("{}: {} packages and what they need", recipe.name, recipe.packages.len()));
        let (root, raw, list) = (scratch.join("root"), scratch.join("rootfs.raw"), scratch.join("packages"));
        let customize = scratch.join("customize.sh");
        std::fs::write(&customize, CUSTOMIZE)?;
        std::fs::set_permissions(&customize, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        run("mmdebstrap", |command| {
            command.args(["--variant=minbase", "--format=directory", "--mode=root"]);
            command.arg(r#"--aptopt=APT::Install-Recommends "false""#);
            for folder in ["doc", "man", "locale", "info"] {
                command.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
            }
            command.arg(format!("--include={}", recipe.packages.join(",")));
            command.arg(format!("--customize-hook={}", customize.display()));
            command.arg("bookworm").arg(&root);
            command
                .env("FORKYARD_PACKAGES", &list)
                .env("FORKYARD_VENV", recipe.venv.as_deref().unwrap_or_default())
                .env("FORKYARD_PIP", recipe.pip.join(" "));
        })?;
        (self.say)(&format!("{}: file system", recipe.name));
        run("mke2fs", |command| {
            command.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-m", "0", "-d"]);
            command.arg(&root).arg(&raw).arg(format!("{}M", recipe.disk_mb));
        })?;
        let file = File::open(&raw)?;
        let digest = digest_of(&file)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o444))?;
        file.sync_all()?;
        std::fs::rename(&raw, self.dir.join(format!("rootfs/{digest}.raw")))?;
        std::fs::remove_dir_all(&root)?;
        let packages = std::fs::read_to_string(&list)?;
        let packages = packages.lines().filter_map(|line| line.split_once('\t'));
        Ok((digest, packages.map(|(name, version)| (name.to_owned(), version.to_owned())).collect()))
    }

    fn boot(&self, scratch: &Path) -> Result<(String, String), ImageError> {
        let fetched = boot::fetch(scratch)?;
        let initrd = boot::initrd(self.agent, &fetched.modules);
        let digest = hex(&Sha256::new().chain_update(&fetched.vmlinux).chain_update(&initrd).finalize());
        let target = self.dir.join("boot").join(&digest);
        if !target.is_dir() {
            let beside = scratch.join("boot");
            std::fs::create_dir(&beside)?;
            for (name, content) in [("vmlinux", &fetched.vmlinux), ("initrd", &initrd)] {
                write_synced(&beside.join(name), content)?;
            }
            std::fs::rename(&beside, &target)?;
        }
        Ok((digest, fetched.kernel))
    }

    /// Writes a file beside, then moves it into its place as a whole.
    fn publish(&self, scratch: &Path, name: &str, content: &[u8]) -> Result<(), ImageError> {
        let beside = scratch.join("publish");
        write_synced(&beside, content)?;
        Ok(std::fs::rename(&beside, self.dir.join(name))?)
    }
}

fn write_synced(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o444))?;
    file.sync_all()
}

fn digest_of(mut file: &File) -> std::io::Result<String> {
    use std::io::Read as _;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn recipe_digest(recipe: &Recipe) -> String {
    // The debug form names every field, so none can be forgotten.
    hex(&Sha256::digest(format!("{BUILDER}\n{recipe:?}\n{CUSTOMIZE}")))
}
