//! A server in this process, over real machines, on loopback.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forkyard::{Client, CreateSandbox, Sandbox};
use forkyard_gateway::policy::Operator;
use forkyard_protocol::{CreateKey, ProjectId, SandboxId, Scope};
use forkyard_server::action::Service;
use forkyard_server::api::{Api, router};
use forkyard_server::guest::Guest;
use forkyard_server::http_server;
use forkyard_server::image::{Image, ImageStore};
use forkyard_server::key::Keys;
use forkyard_server::network::{NetworkSettings, given_to_guests};
use forkyard_server::preview::Previews;
use forkyard_server::quota::HostBudget;
use forkyard_server::sandbox::{Sandboxes, Settings, Slot};
use forkyard_server::store::SqliteStore;
use forkyard_server::vmm::qemu::Qemu;
use forkyard_server::vmm::{Accelerator, Machine, Vmm as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::network_rows::own_address;

/// Any failure of a measurement, in words.
pub type Outcome<T> = Result<T, String>;

/// Milliseconds of a second.
pub const MS: f64 = 1000.0;

/// Memory of the machines that are measured, in MiB.
pub const MEMORY_MB: u64 = 256;

/// Their image.
pub const IMAGE: &str = "base";

const PROJECT: &str = "prj_bench";

/// Most machines alive at once: a hundred that are used and a hundred that are made ready.
const SANDBOXES: u32 = 256;

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
            // More than the host has: a hundred machines of which each uses a fraction are to be measured.
            budget: HostBudget { memory_mb: 1 << 20, sandboxes: SANDBOXES.into() },
            boot_deadline: Duration::from_mins(2),
            concurrent_boots: at_once()?,
            guest_env: [].into(),
            network: network().await,
        };
        // Both sides of every ratio run on the same accelerator, so the one that works everywhere will do.
        let vmm = Arc::new(Qemu::find(Accelerator::Tcg).await.map_err(words)?);
        let images = ImageStore::open(images);
        let image = images.resolve(IMAGE).map_err(words)?;
        let sandboxes = Sandboxes::open(settings, vmm.clone(), images, store.clone()).await.map_err(words)?;
        let keys = Keys::load(store).await.map_err(words)?;
        let request = CreateKey {
            scope: Scope::Admin,
            max_sandboxes: SANDBOXES,
            requests_per_second: 100_000,
            ..CreateKey::default()
        };
        let project = ProjectId::parse(PROJECT).map_err(words)?;
        let key = keys.create(request, project).await.map_err(words)?.api_key;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(words)?;
        let url = format!("http://{}", listener.local_addr().map_err(words)?);
        let previews = Previews::open(&dir.path().join("preview-key")).map_err(words)?;
        let service = Arc::new(Service { sandboxes, keys, previews });
        let stopping = CancellationToken::new();
        let api = Api { service: service.clone(), stopping: stopping.clone() };
        tokio::spawn(http_server::serve(listener, router(api), stopping.clone()));
        let client = Client::builder().url(&url).api_key(&key).build().map_err(words)?;
        Ok(Self { service, client, url, key, vmm, image, dir, stopping })
    }

    /// Ends every machine.
    pub async fn end(self) {
        self.service.sandboxes.terminate_all().await;
        // A measurement that failed in the middle left its bare ones.
        if let Err(error) = self.vmm.sweep(&self.dir.path().join("bare"), &HashSet::new()).await {
            eprintln!("bare machines may run on: {error}");
        }
        self.stopping.cancel();
    }

    /// Asks for the kind of machine that is measured: a fork of its image's template, as users get it.
    pub fn kind() -> CreateSandbox {
        CreateSandbox {
            image: Some(IMAGE.to_owned()),
            memory_mb: Some(MEMORY_MB),
            ..CreateSandbox::default()
        }
    }

    pub async fn machine(&self) -> Outcome<Sandbox> {
        self.client.create(Self::kind()).await.map_err(words)
    }

    pub async fn machine_of(&self, memory_mb: u64) -> Outcome<Sandbox> {
        let request = CreateSandbox { memory_mb: Some(memory_mb), ..Self::kind() };
        self.client.create(request).await.map_err(words)
    }

    fn slot(&self, sandbox: &Sandbox) -> Outcome<Arc<Slot>> {
        let project = ProjectId::parse(PROJECT).map_err(words)?;
        let id = SandboxId::parse(sandbox.id()).map_err(words)?;
        self.service.sandboxes.get(&project, &id).map_err(words)
    }

    /// What runs a machine of the server's.
    pub fn monitor(&self, sandbox: &Sandbox) -> Outcome<Arc<dyn Machine>> {
        self.slot(sandbox)?.machine().ok_or_else(|| "it does not run".to_owned())
    }

    /// The agent of a machine of the server's, without the server in between.
    pub fn guest(&self, sandbox: &Sandbox) -> Outcome<Guest> {
        self.slot(sandbox)?.guest().map(|(guest, _)| guest).map_err(words)
    }

    /// The folder of the frozen machine that [`World::machine`]'s machines go on from.
    pub async fn template(&self) -> Outcome<PathBuf> {
        // The first one makes it, and the second waits until it is whole.
        for _ in 0..2 {
            self.machine().await?.terminate().await.map_err(words)?;
        }
        let ram = |path: &Path| std::fs::metadata(path.join("ram")).map_or(0, |ram| ram.len());
        let dirs = std::fs::read_dir(self.dir.path().join("templates")).map_err(words)?;
        let mut dirs = dirs.filter_map(|entry| Some(entry.ok()?.path()));
        dirs.find(|dir| ram(dir) == MEMORY_MB << 20).ok_or_else(|| "no template was made".to_owned())
    }
}

/// Networks as users get them, and a way to this host's own address for those whose policy names it.
async fn network() -> Arc<NetworkSettings> {
    let extra_allow = own_address().map(|address| address.to_string()).into_iter().collect();
    let operator = Operator { extra_allow, ..Operator::default() };
    // This program is a benchmark, and no gateway.
    let program = PathBuf::from(env!("CARGO_BIN_EXE_forkyard"));
    let given = given_to_guests(&operator).await;
    Arc::new(NetworkSettings { program, given, operator, ..NetworkSettings::default() })
}

/// How many machines the server starts at once, and whoever is measured against it.
pub fn at_once() -> Outcome<usize> {
    std::thread::available_parallelism().map(std::num::NonZero::get).map_err(words)
}

/// This process's resident memory in bytes.
pub fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
