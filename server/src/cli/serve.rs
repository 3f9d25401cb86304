use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use forkyard_gateway::dns::{DnsConfig, host_resolvers};
use forkyard_gateway::policy::{Operator, Policy};
use forkyard_protocol::link::DNS_PORT;
use forkyard_protocol::{
    CreateKey, MAX_BANDWIDTH_KBPS, MAX_NETWORK_CONNECTIONS, MIN_BANDWIDTH_KBPS, NetworkPolicy, ProjectId,
    Scope,
};
use rustix::fs::FlockOperation;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::action::Service;
use crate::api::{Api, router};
use crate::http_server;
use crate::image::ImageStore;
use crate::key::Keys;
use crate::network::{DEFAULT_CONNECTIONS, NetworkSettings, given_to_guests, of_environment, reachable};
use crate::preview::Previews;
use crate::quota::HostBudget;
use crate::sandbox::{Sandboxes, Settings};
use crate::store::SqliteStore;
use crate::vmm::qemu::Qemu;
use crate::vmm::qemu::cgroup::Cgroups;
use crate::vmm::{Accelerator, Limits, Vmm as _, probe};

/// Variables of the server's own environment that guests get too: the operator's package index. Never `PIP_FIND_LINKS`,
/// which names a folder that is not in the guest.
const PASSED_ON: [&str; 4] =
    ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "npm_config_registry"];

#[derive(Args)]
pub struct ServeArgs {
    /// Address and port to listen on.
    #[arg(long, env = "FORKYARD_LISTEN", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// Where machines, keys and records are kept [default: /var/lib/forkyard as root, else ~/.local/share/forkyard].
    #[arg(long, env = "FORKYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where images are kept, on the same file system as the data [default: `images` in the data directory].
    #[arg(long, env = "FORKYARD_IMAGE_DIR")]
    image_dir: Option<PathBuf>,
    /// Memory that machines may take in all, in MiB [default: nine tenths of what is available at the start].
    #[arg(long, env = "FORKYARD_MEMORY_MB")]
    memory_mb: Option<u64>,
    /// Disk space in MiB for images that were booted once and are forked from then on; 0 boots every machine.
    #[arg(long, env = "FORKYARD_TEMPLATE_MB", default_value_t = 16_384)]
    template_mb: u64,
    /// Seconds that a guest may take to boot.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    boot_timeout_secs: u64,
    /// What runs the guests' instructions: `auto` takes KVM where it proves to work, else software.
    #[arg(long, env = "FORKYARD_ACCELERATOR", value_enum, default_value_t = AcceleratorArg::Auto)]
    accelerator: AcceleratorArg,
    /// An address or CIDR, with an optional port, that machines may reach although it is private, of this host or otherwise among
    /// those that never are, such as a package mirror's: 10.1.2.0/24, 127.0.0.1:3141. Their own policies still decide. May be repeated.
    #[arg(long, env = "FORKYARD_NETWORK_ALLOW", value_delimiter = ',', value_name = "CIDR[:PORT]")]
    network_allow: Vec<String>,
    /// A resolver to ask for machines, with an optional port [default: this host's]. May be repeated.
    #[arg(long, env = "FORKYARD_DNS_UPSTREAM", value_delimiter = ',', value_name = "ADDRESS[:PORT]", value_parser = resolver)]
    dns_upstream: Vec<SocketAddr>,
    /// Queries a second that one machine may ask its resolver, twice as many in a burst.
    #[arg(long, env = "FORKYARD_DNS_QUERIES", default_value_t = DnsConfig::default().queries_per_second, value_parser = clap::value_parser!(u32).range(1..))]
    dns_queries_per_second: u32,
    /// Most connections of one machine at once, and what one has that asks for no number.
    #[arg(long, env = "FORKYARD_NETWORK_CONNECTIONS", default_value_t = DEFAULT_CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_NETWORK_CONNECTIONS)))]
    network_connections: u32,
    /// Kilobits a second that one machine may have in each direction [default: no limit].
    #[arg(long, env = "FORKYARD_NETWORK_KBPS", value_parser = clap::value_parser!(u64).range(MIN_BANDWIDTH_KBPS..=MAX_BANDWIDTH_KBPS))]
    network_kbps: Option<u64>,
    /// Leave the machines running at the end, for the next server to take up.
    #[arg(long)]
    keep_machines: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum AcceleratorArg {
    Auto,
    Tcg,
    Kvm,
}

/// Serves until SIGINT or SIGTERM.
pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    // Where a file may not grow any further, a write fails; it does not end the server.
    let _too_large = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
    let data_dir = args.data_dir.clone().unwrap_or_else(crate::paths::default_data_dir);
    let _lock = claim(&data_dir).await?;
    let store = Arc::new(SqliteStore::open(&data_dir.join("store.sqlite"))?);
    let keys = Keys::load(store.clone()).await?;
    let key_file = data_dir.join("api-key");
    if keys.is_empty() {
        make_first_key(&keys, &key_file).await?;
    }
    let previews = Previews::open(&data_dir.join("preview-key")).context("the key of previews")?;
    let images = ImageStore::open(args.image_dir.clone().unwrap_or_else(|| data_dir.join("images")));
    let accelerator = choose_accelerator(args.accelerator, &data_dir, &images).await?;
    let vmm = Arc::new(Qemu::find(accelerator).await?);
    if let Limits::Absent(reason) = vmm.limits() {
        tracing::warn!(reason, "the host's kernel does not bound what machines take");
    }
    let settings = settings(&args, &data_dir).await?;
    tracing::info!(
        vmm = vmm.version(),
        accelerator = accelerator.as_str(),
        memory_mb = settings.budget.memory_mb,
        data_dir = %data_dir.display(),
        "starting"
    );
    let sandboxes = Sandboxes::open(settings, vmm, images, store).await?;
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("forkyard: serving on http://{}", listener.local_addr()?);
    let stopping = CancellationToken::new();
    let service = Arc::new(Service { sandboxes: sandboxes.clone(), keys, previews });
    let api = Api { service, stopping: stopping.clone() };
    let server = tokio::spawn(http_server::serve(listener, router(api), stopping.clone()));
    interrupted().await?;
    println!("forkyard: stopping");
    // Machines end first: whoever waits for one learns why, and the open connections come to their ends.
    if !args.keep_machines {
        sandboxes.terminate_all().await;
    }
    stopping.cancel();
    server.await?;
    Ok(())
}

/// What machines run on. A KVM that seems to work is proved with the kernel of any image that there is.
async fn choose_accelerator(
    wanted: AcceleratorArg,
    data_dir: &Path,
    images: &ImageStore,
) -> anyhow::Result<Accelerator> {
    match wanted {
        AcceleratorArg::Tcg => return Ok(Accelerator::Tcg),
        AcceleratorArg::Kvm => return Ok(Accelerator::Kvm),
        AcceleratorArg::Auto => {}
    }
    let images = images.clone();
    let image = tokio::task::spawn_blocking(move || {
        let first = images.list()?.into_iter().next();
        first.map(|image| images.resolve(&image.digest)).transpose()
    })
    .await??;
    let mut helper = tokio::process::Command::new(std::env::current_exe()?);
    helper.arg(probe::CHILD_COMMAND);
    let kernel = image.as_ref().map(|image| probe::Kernel { vmlinux: &image.vmlinux, initrd: &image.initrd });
    let verdict = probe::verdict(data_dir, helper, kernel).await;
    tracing::info!(%verdict, "KVM");
    Ok(verdict.accelerator())
}

/// How long the data directory may be in use still. A server that was killed while it started a machine leaves a process that is
/// not QEMU yet: it holds the lock, and the port, and nobody would find it among the machines. It is QEMU milliseconds later.
const HAND_OVER: Duration = Duration::from_secs(3);

/// Makes the data directory where it is missing, and keeps a second server out of it.
async fn claim(data_dir: &Path) -> anyhow::Result<File> {
    let shown = data_dir.display();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .with_context(|| format!("cannot make the data directory {shown}; choose another with --data-dir"))?;
    let lock =
        File::options().create(true).write(true).truncate(false).mode(0o600).open(data_dir.join("lock"))?;
    let (sender, locked) = tokio::sync::oneshot::channel();
    // A thread of its own: one that waits in vain must not keep this process from ending.
    std::thread::spawn(move || {
        let outcome = rustix::fs::flock(&lock, FlockOperation::LockExclusive);
        // Nobody waits any more where it took too long.
        drop(sender.send(outcome.map(|()| lock)));
    });
    match timeout(HAND_OVER, locked).await {
        Ok(locked) => Ok(locked?.with_context(|| format!("cannot lock the data directory {shown}"))?),
        Err(_) => {
            bail!(
                "another server uses the data directory {shown}; stop it, or choose another with --data-dir"
            )
        }
    }
}

async fn make_first_key(keys: &Keys, file: &Path) -> anyhow::Result<()> {
    let request = CreateKey {
        scope: Scope::Admin,
        description: "made at the first start".to_owned(),
        max_sandboxes: 64,
        ..CreateKey::default()
    };
    let created = keys.create(request, ProjectId::parse("prj_default")?).await?;
    let shown = file.display();
    let mut options = File::options();
    options.create(true).write(true).truncate(true).mode(0o600);
    let mut written =
        options.open(file).with_context(|| format!("cannot write the first API key to {shown}"))?;
    writeln!(written, "{}", created.api_key)?;
    written.sync_all()?;
    println!("forkyard: the first API key, shown this once, also in {shown}:\n{}", created.api_key);
    Ok(())
}

/// `ADDRESS[:PORT]`.
fn resolver(text: &str) -> Result<SocketAddr, String> {
    let plain = || text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, DNS_PORT));
    text.parse()
        .ok()
        .or_else(plain)
        .ok_or_else(|| format!("'{text}' is no address, such as 192.0.2.1 or 192.0.2.1:53"))
}

async fn network_settings(args: &ServeArgs) -> anyhow::Result<NetworkSettings> {
    let operator = Operator { extra_allow: args.network_allow.clone(), ..Operator::default() };
    Policy::new(&NetworkPolicy::default(), &operator).context("--network-allow")?;
    let upstreams = if args.dns_upstream.is_empty() { host_resolvers()? } else { args.dns_upstream.clone() };
    let queries_per_second = args.dns_queries_per_second;
    Ok(NetworkSettings {
        given: given_to_guests(&operator).await,
        operator,
        dns: DnsConfig { upstreams, queries_per_second, ..DnsConfig::default() },
        cgroups: tokio::task::spawn_blocking(Cgroups::find).await?.ok(),
        max_connections: args.network_connections,
        bandwidth_kbps: args.network_kbps,
        ..NetworkSettings::default()
    })
}

async fn settings(args: &ServeArgs, data_dir: &Path) -> anyhow::Result<Settings> {
    let budget = HostBudget::from_available(crate::host::available_memory_mb()?);
    let network = network_settings(args).await?;
    let guest_env = reachable(of_environment(&PASSED_ON), &network.operator).await;
    Ok(Settings {
        machines_dir: data_dir.join("machines"),
        snapshots_dir: data_dir.join("snapshots"),
        suspended_dir: data_dir.join("suspended"),
        templates_dir: data_dir.join("templates"),
        template_budget_bytes: args.template_mb << 20,
        budget: HostBudget { memory_mb: args.memory_mb.unwrap_or(budget.memory_mb), ..budget },
        boot_deadline: Duration::from_secs(args.boot_timeout_secs),
        concurrent_boots: std::thread::available_parallelism()?.get(),
        guest_env,
        network: Arc::new(network),
    })
}

async fn interrupted() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
