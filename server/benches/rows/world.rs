//! A server in this process, over real machines, on loopback.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forkyard::{Client, CreateSandbox, Sandbox};
use forkyard_protocol::{
    CreateKey, Decoder, ExitStatus, Frame, GuestConfig, ProcessId, ProcessSpec, ProjectId, SandboxId, Scope,
};
use forkyard_server::action::Service;
use forkyard_server::api::{Api, router};
use forkyard_server::guest::{Guest, GuestCall, Offsets};
use forkyard_server::http_server;
use forkyard_server::image::{Image, ImageStore};
use forkyard_server::key::Keys;
use forkyard_server::quota::HostBudget;
use forkyard_server::sandbox::{Sandboxes, Settings};
use forkyard_server::store::SqliteStore;
use forkyard_server::vmm::qemu::Qemu;
use forkyard_server::vmm::{Accelerator, Devices, FrozenMemory, Machine, MachineSpec, Vmm};
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Any failure of a measurement, in words.
pub type Outcome<T> = Result<T, String>;

/// Memory of the machines that are measured, in MiB.
const MEMORY_MB: u64 = 256;

pub struct World {
    pub service: Arc<Service>,
    pub client: Client,
    pub url: String,
    pub key: String,
    pub vmm: Arc<Qemu>,
    pub image: Image,
    pub dir: tempfile::TempDir,
    stopping: CancellationToken,
}

pub fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl World {
    pub async fn new(images: PathBuf) -> Outcome<Self> {
        let beside = images.parent().ok_or("the images' folder has none above it")?;
        let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(beside).map_err(words)?;
        let store = Arc::new(SqliteStore::open(&dir.path().join("store.sqlite")).map_err(words)?);
        let settings = Settings {
            machines_dir: dir.path().join("machines"),
            snapshots_dir: dir.path().join("snapshots"),
            suspended_dir: dir.path().join("suspended"),
            templates_dir: dir.path().join("templates"),
            template_budget_bytes: 4 << 30,
            budget: HostBudget { memory_mb: 16_384, sandboxes: 64 },
            boot_deadline: Duration::from_mins(2),
            concurrent_boots: std::thread::available_parallelism().map_err(words)?.get(),
            guest_env: [].into(),
            guest_files: Vec::new(),
        };
        // Both sides of every ratio run on the same accelerator, so the one that works everywhere will do.
        let vmm = Arc::new(Qemu::find(Accelerator::Tcg).await.map_err(words)?);
        let images = ImageStore::open(images);
        let image = images.resolve("base").map_err(words)?;
        let sandboxes = Sandboxes::open(settings, vmm.clone(), images, store.clone()).await.map_err(words)?;
        let keys = Keys::load(store).await.map_err(words)?;
        let request = CreateKey {
            scope: Scope::Admin,
            max_sandboxes: 64,
            requests_per_second: 100_000,
            ..CreateKey::default()
        };
        let project = ProjectId::parse("prj_bench").map_err(words)?;
        let key = keys.create(request, project).await.map_err(words)?.api_key;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(words)?;
        let url = format!("http://{}", listener.local_addr().map_err(words)?);
        let service = Arc::new(Service { sandboxes, keys });
        let stopping = CancellationToken::new();
        let api = Api { service: service.clone(), stopping: stopping.clone() };
        tokio::spawn(http_server::serve(listener, router(api), stopping.clone()));
        let client = Client::builder().url(&url).api_key(&key).build().map_err(words)?;
        Ok(Self { service, client, url, key, vmm, image, dir, stopping })
    }

    /// Ends every machine.
    pub async fn end(self) {
        self.service.sandboxes.terminate_all().await;
        self.stopping.cancel();
    }

    pub async fn machine(&self) -> Outcome<Sandbox> {
        let request = CreateSandbox {
            image: Some("base".to_owned()),
            memory_mb: Some(MEMORY_MB),
            ..CreateSandbox::default()
        };
        self.client.create(request).await.map_err(words)
    }

    /// The agent of a machine of the server's, without the server in between.
    pub fn guest(&self, sandbox: &Sandbox) -> Outcome<Guest> {
        let project = ProjectId::parse("prj_bench").map_err(words)?;
        let id = SandboxId::parse(sandbox.id()).map_err(words)?;
        let slot = self.service.sandboxes.get(&project, &id).map_err(words)?;
        slot.guest().map(|(guest, _)| guest).map_err(words)
    }

    /// A machine that no server knows: QEMU on the template's files, until its agent takes commands.
    pub async fn bare_machine(&self, number: usize) -> Outcome<(Arc<dyn Machine>, Guest, PathBuf)> {
        let id = SandboxId::parse(&format!("sbx_bare{number}")).map_err(words)?;
        let dir = self.dir.path().join("bare").join(id.as_str());
        std::fs::create_dir_all(&dir).map_err(words)?;
        let manifest = self.image.manifest.clone();
        let template = std::fs::read_dir(self.dir.path().join("templates")).map_err(words)?.next();
        let template = template.ok_or("no template was made")?.map_err(words)?.path();
        let file = |name: &str| template.join(name);
        let spec = MachineSpec {
            sandbox_id: id,
            dir: dir.clone(),
            rootfs: file("base.raw"),
            vmlinux: file("vmlinux"),
            initrd: file("initrd"),
            vcpus: 1,
            memory_mb: MEMORY_MB,
            layers: vec![file("layer-0.qcow2")],
            memory: Some(FrozenMemory { ram: file("ram"), state: file("state") }),
            devices: Devices::NOW,
        };
        let machine = self.vmm.start(spec).await.map_err(words)?;
        let deadline = Instant::now() + Duration::from_mins(2);
        let guest = Guest::connect_restored(machine.agent_socket(), deadline).await.map_err(words)?;
        let config = GuestConfig {
            hostname: "bare".to_owned(),
            machine_id: "0".repeat(32),
            unix_time_ns: forkyard_server::clock::now_ns(),
            env: manifest.env,
            user: manifest.user,
            cwd: manifest.cwd,
            ..GuestConfig::default()
        };
        guest.configure(&config).await.map_err(words)?;
        Ok((machine, guest, dir))
    }
}

/// Runs `true` by asking the agent itself.
pub async fn bare_run(guest: &Guest) -> Outcome<ExitStatus> {
    let id = ProcessId::parse(&format!("prc_{}", ulid::Ulid::generate())).map_err(words)?;
    let spec = ProcessSpec { id: Some(id), command: "true".to_owned(), ..ProcessSpec::default() };
    let call = GuestCall::StartProcess(Box::new(spec), Some(Offsets::default()));
    let response = guest.send(call.into_request().map_err(words)?).await.map_err(words)?;
    let (mut body, mut decoder) = (response.into_body(), Decoder::new());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(words)?.into_data() {
            decoder.push(&data);
        }
        while let Some(frame) = decoder.next_frame().map_err(words)? {
            if let Frame::Exited(status) = frame {
                return Ok(status);
            }
        }
    }
    Err("the stream broke off".to_owned())
}

/// This process's resident memory in bytes.
pub fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Removes a bare machine's files.
pub fn forget(dir: &Path) -> Outcome<()> {
    std::fs::remove_dir_all(dir).map_err(words)
}
