//! What each machine must have of its own: names and ids. They lie in memory, over the files of the disk, so that a fork takes
//! on its own without touching its disk, which costs tens of milliseconds under emulation, and no snapshot of a disk holds
//! another machine's.

use std::fs;
use std::io;
use std::path::Path;

use forkyard_protocol::GuestConfig;

use crate::network;

/// Where the files lie.
const DIR: &str = "/run/forkyard";

const HOSTNAME: &str = "hostname";
const HOSTS: &str = "hosts";
const MACHINE_ID: &str = "machine-id";
const BOOT_ID: &str = "boot-id";
const RESOLV_CONF: &str = "resolv.conf";

/// Each file and what it covers.
const COVERS: [(&str, &str); 5] = [
    (HOSTNAME, "/etc/hostname"),
    (HOSTS, "/etc/hosts"),
    (MACHINE_ID, "/etc/machine-id"),
    (BOOT_ID, "/proc/sys/kernel/random/boot_id"),
    (RESOLV_CONF, "/etc/resolv.conf"),
];

/// Puts the files in their places, with what they cover as their content. Once, at boot.
pub fn set_up() -> io::Result<()> {
    fs::create_dir_all(DIR)?;
    for (name, target) in COVERS {
        // A link may lead to where a service that does not run here would write.
        if fs::symlink_metadata(target).is_ok_and(|found| found.is_symlink()) {
            fs::remove_file(target)?;
        }
        let content = match fs::read(target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::write(target, "")?;
                Vec::new()
            }
            other => other?,
        };
        let own = Path::new(DIR).join(name);
        fs::write(&own, content)?;
        rustix::mount::mount_bind(&own, target)?;
    }
    Ok(())
}

/// Takes on what the host says.
pub fn assume(config: &GuestConfig) -> io::Result<()> {
    let name = &config.hostname;
    rustix::system::sethostname(name.as_bytes())?;
    put(HOSTNAME, &format!("{name}\n"))?;
    put(RESOLV_CONF, &if config.network { network::resolver() } else { String::new() })?;
    put(HOSTS, &format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost\n"))?;
    if put(MACHINE_ID, &format!("{}\n", config.machine_id))? {
        // The kernel's boot id was made before the fork, and all twins have it. A machine that was only suspended keeps its own.
        put(BOOT_ID, &fs::read_to_string("/proc/sys/kernel/random/uuid")?)?;
    }
    Ok(())
}

/// Writes a file; `false` where it was so already.
fn put(name: &str, content: &str) -> io::Result<bool> {
    let path = Path::new(DIR).join(name);
    let differs = fs::read_to_string(&path)? != content;
    if differs {
        fs::write(path, content)?;
    }
    Ok(differs)
}
