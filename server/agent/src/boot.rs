//! From the initial RAM disk to a system that runs: everything PID 1 does before it serves.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::inotify;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::system::RebootCommand;

use crate::api::Agent;
use crate::identity;
use crate::port::Port;
use crate::process::Limits;
use crate::session;

/// The virtio-serial port that the host opens.
const PORT_NAME: &str = "agent";

/// How long the disk and the port may take to appear once their drivers are loaded.
const DEVICE_DEADLINE: Duration = Duration::from_secs(20);

/// Boots and serves. Does not return: a guest whose agent fails is worth nothing, so the machine is switched off, with the
/// cause on its console.
pub fn run() -> ExitCode {
    if let Err(error) = prepare().and_then(|()| serve()) {
        eprintln!("forkyard-agent: {error}");
    }
    // With -no-reboot QEMU ends, and the host sees it.
    let _ = rustix::system::reboot(RebootCommand::Restart);
    ExitCode::FAILURE
}

/// Says what was being done when something failed.
fn step<T>(what: &str, result: Result<T, impl Into<io::Error>>) -> io::Result<T> {
    result.map_err(|error| io::Error::other(format!("{what}: {}", error.into())))
}

fn prepare() -> io::Result<()> {
    mount_virtual("/proc", "proc", c"")?;
    mount_virtual("/sys", "sysfs", c"")?;
    mount_virtual("/dev", "devtmpfs", c"")?;
    load_modules()?;
    step("waiting for the disk", wait_for(Path::new("/dev/vda")))?;
    fs::create_dir_all("/newroot")?;
    step("mounting the disk", mount("/dev/vda", "/newroot", "ext4", MountFlags::NOATIME, c""))?;
    switch_root()?;
    mount_virtual("/run", "tmpfs", c"mode=755")?;
    mount_virtual("/dev/shm", "tmpfs", c"mode=1777")?;
    mount_virtual("/dev/pts", "devpts", c"gid=5,mode=620,ptmxmode=666")?;
    // Every process moves into its cgroup once; without this option each move waits for an RCU grace period.
    mount_virtual("/sys/fs/cgroup", "cgroup2", c"favordynmods")?;
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        match symlink(target, link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return step(link, Err(error)),
            _ => {}
        }
    }
    step(
        "exempting the agent from the out-of-memory killer",
        fs::write("/proc/self/oom_score_adj", "-1000"),
    )?;
    step("setting up the machine's identity", identity::set_up())?;
    step("bringing up the loopback interface", bring_up_loopback())
}

fn mount_virtual(target: &str, kind: &str, options: &CStr) -> io::Result<()> {
    step(target, fs::create_dir_all(target))?;
    let flags = match kind {
        "devtmpfs" => MountFlags::NOSUID,
        // Terminals are devices, and no programs.
        "devpts" => MountFlags::NOSUID | MountFlags::NOEXEC,
        _ => MountFlags::NOSUID | MountFlags::NODEV,
    };
    match mount(kind, target, kind, flags, options) {
        // The kernel mounts /dev itself where it was built to.
        Err(rustix::io::Errno::BUSY) => Ok(()),
        other => step(target, other),
    }
}

/// Loads `/modules/*` in the order of their names, which is that of their dependencies.
fn load_modules() -> io::Result<()> {
    let mut modules = match fs::read_dir("/modules") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => {
            step("/modules", entries)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?
        }
    };
    modules.sort();
    for module in modules {
        let file = fs::File::open(&module)?;
        match rustix::system::finit_module(&file, c"", 0) {
            Err(rustix::io::Errno::EXIST) => {}
            other => step(&module.display().to_string(), other)?,
        }
    }
    Ok(())
}

/// Waits until a file is there, woken by whatever appears beside it.
fn wait_for(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + DEVICE_DEADLINE;
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&events, parent, inotify::WatchFlags::CREATE)?;
    // Looked for after the watch is set: what appears in between brings an event.
    while !path.exists() {
        let left = deadline.checked_duration_since(Instant::now()).ok_or(io::ErrorKind::TimedOut)?;
        let left = rustix::event::Timespec::try_from(left).map_err(io::Error::other)?;
        rustix::event::poll(
            &mut [rustix::event::PollFd::new(&events, rustix::event::PollFlags::IN)],
            Some(&left),
        )?;
        // Takes the events off; which they were does not matter.
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&events, &mut buffer);
        while reader.next().is_ok() {}
    }
    Ok(())
}

/// Makes the disk the root, in this very process: the agent stays outside the guest's root file system, which holds
/// nothing of Forkyard's.
fn switch_root() -> io::Result<()> {
    for dir in ["proc", "sys", "dev"] {
        let target = format!("/newroot/{dir}");
        fs::create_dir_all(&target)?;
        step(&target, mount_move(format!("/{dir}"), &target))?;
    }
    // What the initial RAM disk holds is memory; the agent's own file lives on as long as it runs.
    let _ = fs::remove_dir_all("/modules");
    let _ = fs::remove_file("/init");
    std::env::set_current_dir("/newroot")?;
    step("moving the root", mount_move(".", "/"))?;
    step("changing the root", rustix::process::chroot("."))?;
    std::env::set_current_dir("/")
}

fn bring_up_loopback() -> io::Result<()> {
    // linux/sockios.h and net/if.h: SIOCSIFFLAGS with IFF_UP on an `ifreq`, whose flags follow its name of 16 bytes.
    const SET_FLAGS: rustix::ioctl::Opcode = 0x8914;
    const UP: u8 = 1;
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16] = UP;
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: the operation reads an `ifreq` of 40 bytes, which `request` is.
    unsafe {
        rustix::ioctl::ioctl(&socket, rustix::ioctl::Setter::<SET_FLAGS, [u8; 40]>::new(request))?;
    }
    Ok(())
}

#[tokio::main]
async fn serve() -> io::Result<()> {
    let limits = step("setting up cgroups", Limits::set_up())?;
    let agent = Arc::new(Agent::new(limits, true));
    let path = step("finding the host's port", find_port())?;
    let mut port = step("opening the host's port", Port::open(&path))?;
    loop {
        port.host_present().await?;
        if let Err(error) = session::serve(&mut port, agent.clone()).await {
            eprintln!("forkyard-agent: a session ended: {error}");
        }
    }
}

fn find_port() -> io::Result<PathBuf> {
    let ports = Path::new("/sys/class/virtio-ports");
    for entry in fs::read_dir(ports)? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT_NAME {
            let path = Path::new("/dev").join(entry.file_name());
            wait_for(&path)?;
            return Ok(path);
        }
    }
    Err(io::Error::other(format!("no port is named '{PORT_NAME}'")))
}
