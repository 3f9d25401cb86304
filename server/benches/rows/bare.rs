//! Machines that no server knows: QEMU on frozen files, and its agent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::{Decoder, ExitStatus, Frame, GuestConfig, ProcessId, ProcessSpec, SandboxId};
use forkyard_server::guest::{Guest, GuestCall, Offsets};
use forkyard_server::vmm::{Devices, FrozenMemory, Machine, MachineSpec, Vmm as _};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use crate::world::{MEMORY_MB, Outcome, World, words};

/// How long an agent may take to answer on a host that does other things too.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// A machine that goes on from frozen files.
pub struct Bare {
    pub machine: Arc<dyn Machine>,
    pub guest: Guest,
    dir: PathBuf,
}

impl Bare {
    /// Starts QEMU on a folder's frozen machine of [`MEMORY_MB`]; answers once its agent takes commands.
    pub async fn restore(world: &World, files: &Path) -> Outcome<Self> {
        let id = SandboxId::parse(&format!("sbx_{}", ulid::Ulid::generate())).map_err(words)?;
        let dir = world.dir.path().join("bare").join(id.as_str());
        std::fs::create_dir_all(&dir).map_err(words)?;
        let file = |name: &str| files.join(name);
        let layers = (0..).map(|layer| file(&format!("layer-{layer}.qcow2")));
        let spec = MachineSpec {
            sandbox_id: id,
            dir: dir.clone(),
            rootfs: file("base.raw"),
            vmlinux: file("vmlinux"),
            initrd: file("initrd"),
            vcpus: 1,
            memory_mb: MEMORY_MB,
            layers: layers.take_while(|layer| layer.exists()).collect(),
            devices: Devices::NOW,
            memory: Some(FrozenMemory { ram: file("ram"), changed: None, state: file("state") }),
        };
        let machine = world.vmm.start(spec).await.map_err(words)?;
        let guest = greet(world, machine.agent_socket(), false).await?;
        Ok(Self { machine, guest, dir })
    }

    /// Ends it and deletes its files.
    pub async fn end(self) -> Outcome<()> {
        self.machine.kill().await.map_err(words)?;
        std::fs::remove_dir_all(&self.dir).map_err(words)
    }
}

/// Opens a restored machine's channel and tells its agent what it must know, such as whether it has a network.
pub async fn greet(world: &World, socket: PathBuf, network: bool) -> Outcome<Guest> {
    let guest = Guest::connect_restored(socket, Instant::now() + PATIENCE).await.map_err(words)?;
    let manifest = world.image.manifest.clone();
    let config = GuestConfig {
        hostname: "bare".to_owned(),
        machine_id: "0".repeat(32),
        unix_time_ns: forkyard_server::clock::now_ns(),
        env: manifest.env,
        user: manifest.user,
        cwd: manifest.cwd,
        network,
        ..GuestConfig::default()
    };
    guest.configure(&config).await.map_err(words)?;
    Ok(guest)
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
