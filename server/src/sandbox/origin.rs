use std::path::{Path, PathBuf};
use std::sync::Arc;

use forkyard_protocol::{
    CreateSandbox, DEFAULT_CPUS, DEFAULT_IMAGE, DEFAULT_MEMORY_MB, ErrorBody, ErrorCode, SnapshotId,
};

use crate::image::Image;
use crate::snapshot::{self, Contents, Folder, GuestDefaults};
use crate::vmm::{Devices, FrozenMemory};

/// What a machine is made of: an image, or a machine that was frozen.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The image's name, as it was asked for.
    pub image: String,
    /// The image's digest.
    pub image_digest: String,
    /// The snapshot, if it has an id.
    pub snapshot_id: Option<SnapshotId>,
    /// Commands that are to be run before a template is made of it.
    pub warm: Vec<Vec<String>>,
    /// What processes start from.
    pub defaults: GuestDefaults,
    /// Virtual CPUs, unless the caller says otherwise.
    pub cpus: f64,
    /// Memory in MiB, unless the caller says otherwise.
    pub memory_mb: u64,
    /// The root file system.
    pub rootfs: PathBuf,
    /// The kernel.
    pub vmlinux: PathBuf,
    /// The initial RAM disk.
    pub initrd: PathBuf,
    /// Frozen disks over the root file system.
    pub layers: Vec<PathBuf>,
    /// Frozen memory; it boots where there is none.
    pub memory: Option<FrozenMemory>,
    /// The devices of the machine that was frozen: its memory knows them, and a frozen disk's boot files fit them.
    pub devices: Devices,
    /// A folder that is deleted once nobody needs it any more.
    pub folder: Option<Arc<Folder>>,
}

impl Origin {
    /// A machine of an image, for a request that names one or none.
    pub fn image(image: Image, request: &CreateSandbox) -> Result<Self, ErrorBody> {
        let name = request.image.clone().unwrap_or_else(|| DEFAULT_IMAGE.to_owned());
        let least = image.manifest.min_memory_mb;
        let memory_mb = request.memory_mb.unwrap_or(DEFAULT_MEMORY_MB);
        if memory_mb < least {
            let message = format!("image '{name}' needs memory_mb of at least {least}, not {memory_mb}");
            return Err(ErrorBody::new(ErrorCode::InvalidArgument, message));
        }
        Ok(Self {
            image: name,
            image_digest: image.digest,
            snapshot_id: None,
            defaults: GuestDefaults {
                env: image.manifest.env,
                user: image.manifest.user,
                cwd: image.manifest.cwd,
            },
            warm: image.manifest.warm,
            cpus: DEFAULT_CPUS,
            memory_mb: DEFAULT_MEMORY_MB,
            rootfs: image.rootfs,
            vmlinux: image.vmlinux,
            initrd: image.initrd,
            layers: Vec::new(),
            memory: None,
            devices: image.manifest.devices,
            folder: None,
        })
    }

    /// A machine of a snapshot whose files lie in `dir`.
    pub fn snapshot(record: snapshot::Record, dir: &Path) -> Self {
        let files = Self::frozen(&record.contents, dir, record.devices);
        Self {
            image: record.view.image,
            image_digest: record.view.image_digest,
            snapshot_id: Some(record.view.snapshot_id),
            defaults: record.defaults,
            cpus: record.view.cpus,
            memory_mb: record.view.memory_mb,
            ..files
        }
    }

    /// The same machine, going on from where its template was frozen.
    pub fn going_on_from(&self, contents: &Contents, dir: &Path) -> Self {
        let frozen = Self::frozen(contents, dir, self.devices);
        Self {
            rootfs: frozen.rootfs,
            vmlinux: frozen.vmlinux,
            initrd: frozen.initrd,
            layers: frozen.layers,
            memory: frozen.memory,
            ..self.clone()
        }
    }

    /// Whether it is an image as it was built, of which a template can be made.
    pub fn is_image(&self) -> bool {
        self.memory.is_none() && self.layers.is_empty()
    }

    /// The files of a frozen machine; everything else is for the caller to say.
    pub fn frozen(contents: &Contents, dir: &Path, devices: Devices) -> Self {
        Self {
            image: String::new(),
            image_digest: String::new(),
            snapshot_id: None,
            warm: Vec::new(),
            defaults: GuestDefaults::default(),
            cpus: DEFAULT_CPUS,
            memory_mb: DEFAULT_MEMORY_MB,
            rootfs: dir.join("base.raw"),
            vmlinux: dir.join("vmlinux"),
            initrd: dir.join("initrd"),
            layers: contents.layers(dir),
            memory: contents.memory(dir),
            devices,
            folder: None,
        }
    }
}
