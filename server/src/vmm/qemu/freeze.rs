//! Freezing a running machine: its disk gets a new layer to write to, its memory is copied as far as it changed it.
//!
//! The state of processors and devices is saved with a command made for another hypervisor, which writes it without the
//! memory and leaves the disks alone: it takes 4 to 5 ms where migration would copy all of the memory or need it shared.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::RangeInclusive;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::READERS_GID;
use super::argv::{disk_node, layer_file};
use super::disk::empty_qcow2;
use super::launch::{Taken, link};
use super::machine::QemuMachine;
use super::merge::lowest;
use super::process::Account;
use super::ram;
use crate::sparse;
use crate::vmm::{Freeze, Frozen, Machine as _, VmmError, socket};

/// Where QEMU writes the state, in the machine's directory.
const STATE: &str = "state";

/// What a machine that halts has changed of its memory, in the frozen machine's folder.
const CHANGED: &str = "changed";

/// How much a machine may have changed to be written as its changes, in bytes. They are put back before it goes on, at about a
/// gigabyte a second; the pages of a whole copy are read when they are used.
const FEW_CHANGES: u64 = 128 << 20;

#[derive(Deserialize)]
struct BlockDevice {
    inserted: Option<Inserted>,
}

#[derive(Deserialize)]
struct Inserted {
    #[serde(rename = "node-name")]
    node_name: String,
}

/// Makes a file that QEMU may write to, and nobody else but the server.
pub(super) fn make_file(path: &Path, account: Option<Account>) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if let Some(account) = account {
        fchown(&file, Some(account.uid), Some(account.gid))?;
    }
    Ok(file)
}

/// Makes an empty layer of a disk.
pub(super) fn make_layer(path: &Path, disk_bytes: u64, account: Option<Account>) -> io::Result<()> {
    make_file(path, account)?.write_all(&empty_qcow2(disk_bytes))
}

/// Whom a machine's files belong to: its process.
fn account_of(pid: u32) -> io::Result<Option<Account>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let metadata = std::fs::metadata(format!("/proc/{pid}"))?;
    Ok(Some(Account { uid: metadata.uid(), gid: metadata.gid(), readers: READERS_GID }))
}

/// Gives a frozen file to all machines that it will be linked to. QEMU before 9.0 opens memory for writing though it only
/// ever changes copies.
fn give_to_readers(path: &Path, mode: u32) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    let is_root = rustix::process::geteuid().is_root();
    if metadata.mode() & 0o777 == mode && (!is_root || (metadata.uid(), metadata.gid()) == (0, READERS_GID)) {
        // Of a machine that this one went on from: others may be mapping it.
        return Ok(());
    }
    if is_root {
        chown(path, Some(0), Some(READERS_GID))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Runs blocking work away from the event loop.
pub(super) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, VmmError> {
    let done = spawn_blocking(work).await.map_err(|error| VmmError::Failed(error.to_string()))?;
    done.map_err(|error| VmmError::of_files(what, &error))
}

impl QemuMachine {
    /// Takes frozen processors and devices in and lets the guest go on.
    pub(super) async fn take_in(&self, frozen: Taken) -> Result<(), VmmError> {
        use std::os::fd::AsRawFd as _;
        let Taken { state, changed } = frozen;
        // Its greeting says that it has mapped its memory.
        let qmp = self.qmp().await?;
        if let Some(changed) = changed {
            let (pid, ram) = (self.pid(), self.dir().join("ram"));
            blocking("the guest's memory", move || ram::restore_changed(pid, &ram, changed)).await?;
        }
        self.await_network().await?;
        let mut events = qmp.events()?;
        let capabilities = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        qmp.execute::<IgnoredAny>("migrate-set-capabilities", Some(capabilities)).await?;
        let uri = format!("fd:{}", state.as_raw_fd());
        qmp.execute::<IgnoredAny>("migrate-incoming", Some(json!({ "uri": uri }))).await?;
        loop {
            let event = match events.recv().await {
                Ok(event) => event,
                Err(error) => return Err(self.explained(&error.to_string()).await),
            };
            match event.data["status"].as_str().filter(|_| event.name == "MIGRATION") {
                Some("completed") => break,
                Some("failed") => return Err(self.explained("QEMU refused the frozen state").await),
                _ => {}
            }
        }
        self.run_on().await
    }

    /// Waits until QEMU listens for its network card's other end, as a connection shows. It begins to in a thread of its own, and a
    /// frame before that ends it with a segmentation fault; it has the card send one itself where a machine goes on, so one start
    /// in dozens died of it on a busy host (7.2, `net/stream.c`).
    async fn await_network(&self) -> Result<(), VmmError> {
        let Some(path) = self.network_socket() else { return Ok(()) };
        let mut events = self.qmp().await?.events()?;
        let failed = |error: &dyn std::fmt::Display| format!("the network card's socket: {error}");
        let connection = socket::connect(&path).await.map_err(|error| VmmError::Failed(failed(&error)))?;
        let mut connection = Some(connection);
        loop {
            match events.recv().await {
                Ok(event) if event.name == "NETDEV_STREAM_CONNECTED" => drop(connection.take()),
                Ok(event) if event.name == "NETDEV_STREAM_DISCONNECTED" => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(self.explained(&failed(&error)).await),
            }
        }
    }

    /// Lets a guest that stands still run.
    pub(super) async fn run_on(&self) -> Result<(), VmmError> {
        self.qmp().await?.execute::<IgnoredAny>("cont", None).await.map(drop)
    }

    /// Freezes; see [`crate::vmm::Machine::freeze`].
    pub(super) async fn freeze_into(&self, target: PathBuf, what: Freeze) -> Result<Frozen, VmmError> {
        let mut halted = self.halted.lock().await;
        if *halted {
            // To be frozen it would have to run on at the end, and change the disk that it was put away with.
            return Err(VmmError::Failed("the machine is being put on disk".to_owned()));
        }
        let top = self.top_layer().await?;
        let frozen = self.freeze_above(top, target, what).await;
        match &frozen {
            Ok(_) => *halted = what == Freeze::Halt,
            Err(_) => self.tidy().await,
        }
        frozen
    }

    async fn freeze_above(&self, top: usize, target: PathBuf, what: Freeze) -> Result<Frozen, VmmError> {
        let dir = self.dir().to_owned();
        let (pid, from, to) = (self.pid(), dir.clone(), target.clone());
        let memory =
            blocking("the frozen machine's folder", move || prepare(pid, &from, &to, top, what)).await?;
        if what != Freeze::Halt {
            self.add_layer(top + 1).await?;
        }
        let started = Instant::now();
        let halts = what != Freeze::Disk;
        if halts {
            self.qmp().await?.execute::<IgnoredAny>("stop", None).await?;
        }
        let taken = self.take(top, what, memory).await;
        if halts && (what != Freeze::Halt || taken.is_err()) {
            self.run_on().await?;
        }
        taken?;
        let pause = if halts { started.elapsed() } else { Duration::ZERO };
        let lowest = lowest(&dir, top);
        let finished = blocking("the frozen files", move || finish(&dir, &target, lowest..=top, what)).await;
        if finished.is_err() && what == Freeze::Halt {
            self.run_on().await?;
        }
        finished?;
        Ok(Frozen { pause, layers: top - lowest + 1 })
    }

    /// Removes what an attempt left in the machine's directory that failed, or whose server was killed. What cannot be removed now
    /// is before the next one.
    pub(super) async fn tidy(&self) {
        let tidied = async {
            let next = self.top_layer().await? + 1;
            self.drop_layer(next).await?;
            let dir = self.dir().to_owned();
            blocking("what is left of it", move || {
                remove_if_there(&dir.join(layer_file(next)))?;
                remove_if_there(&dir.join(STATE))
            })
            .await
        };
        if let Err(error) = tidied.await {
            tracing::warn!(pid = self.pid(), %error, "what is left of an attempt to freeze a machine was not removed");
        }
    }

    /// What happens while the guest stands still.
    async fn take(&self, top: usize, what: Freeze, memory: Option<Memory>) -> Result<(), VmmError> {
        let qmp = self.qmp().await?;
        if what != Freeze::Halt {
            let next = disk_node(top + 1);
            let arguments = json!({ "node": disk_node(top), "overlay": next });
            qmp.execute::<IgnoredAny>("blockdev-snapshot", Some(arguments)).await?;
        }
        if let Some(memory) = memory {
            let arguments = json!({ "filename": STATE, "live": true });
            let saved = qmp.execute::<IgnoredAny>("xen-save-devices-state", Some(arguments)).await;
            saved.map_err(|error| self.unsaved(error))?;
            let (pid, own) = (self.pid(), self.dir().join("ram"));
            blocking("the guest's memory", move || match memory {
                Memory::Copy(copy) => ram::copy_changed(pid, &own, &copy),
                Memory::Changes(file) => ram::save_changed(pid, &own, file),
            })
            .await?;
        }
        Ok(())
    }

    /// Why the state was not written: QEMU does not say that the disk is full.
    fn unsaved(&self, error: VmmError) -> VmmError {
        match crate::host::free_disk_mb(self.dir()) {
            Ok(0) => VmmError::NoSpace(format!("it is full; {error}")),
            _ => error,
        }
    }

    /// Has QEMU open a layer that is there already.
    async fn add_layer(&self, layer: usize) -> Result<(), VmmError> {
        // One of this name may be left that could not be removed.
        self.drop_layer(layer).await?;
        let arguments = json!({
            "driver": "qcow2",
            "node-name": disk_node(layer),
            "backing": null,
            "discard": "unmap",
            "file": { "driver": "file", "filename": layer_file(layer), "discard": "unmap" },
        });
        self.qmp().await?.execute::<IgnoredAny>("blockdev-add", Some(arguments)).await.map(drop)
    }

    /// Has QEMU close a layer that the guest does not use, if it has it open; mostly it does not.
    async fn drop_layer(&self, layer: usize) -> Result<(), VmmError> {
        self.drop_node(&disk_node(layer)).await
    }

    /// Has QEMU close what nothing uses, if it has it open.
    pub(super) async fn drop_node(&self, node: &str) -> Result<(), VmmError> {
        let unused = json!({ "node-name": node });
        if let Err(error) = self.qmp().await?.execute::<IgnoredAny>("blockdev-del", Some(unused)).await {
            tracing::trace!(%error, node, "it was not open");
        }
        Ok(())
    }

    /// The layer that the guest writes to.
    pub(super) async fn top_layer(&self) -> Result<usize, VmmError> {
        let devices: Vec<BlockDevice> = self.qmp().await?.execute("query-block", None).await?;
        let nodes = devices.into_iter().filter_map(|device| device.inserted);
        let mut layers = nodes.filter_map(|inserted| inserted.node_name.strip_prefix("disk-")?.parse().ok());
        layers.next().ok_or_else(|| VmmError::Failed("QEMU knows no disk of this machine".to_owned()))
    }
}

/// Where what a machine changed of its memory goes.
enum Memory {
    /// Onto a copy of what it went on from.
    Copy(File),
    /// Into a file of its own, beside what it went on from.
    Changes(File),
}

impl Memory {
    fn prepare(pid: u32, dir: &Path, target: &Path, what: Freeze) -> io::Result<Self> {
        let new = |name| OpenOptions::new().write(true).create_new(true).mode(0o600).open(target.join(name));
        let ram = dir.join("ram");
        if what == Freeze::Halt && ram::changed_bytes(pid, &ram)? <= FEW_CHANGES {
            link(&ram, &target.join("ram"))?;
            return Ok(Self::Changes(new(CHANGED)?));
        }
        let copy = new("ram")?;
        sparse::copy(&File::open(ram)?, &copy)?;
        Ok(Self::Copy(copy))
    }
}

/// All that can be done before the guest stands still; answers where its memory goes, if it is wanted.
fn prepare(pid: u32, dir: &Path, target: &Path, top: usize, what: Freeze) -> io::Result<Option<Memory>> {
    for name in ["base.raw", "vmlinux", "initrd"] {
        link(&dir.join(name), &target.join(name))?;
    }
    let account = account_of(pid)?;
    if what != Freeze::Halt {
        let next = dir.join(layer_file(top + 1));
        // An attempt that failed may have left one.
        remove_if_there(&next)?;
        make_layer(&next, std::fs::metadata(dir.join("base.raw"))?.len(), account)?;
    }
    if what == Freeze::Disk {
        return Ok(None);
    }
    remove_if_there(&dir.join(STATE))?;
    make_file(&dir.join(STATE), account)?;
    Memory::prepare(pid, dir, target, what).map(Some)
}

/// What is left to do once the guest runs again.
fn finish(dir: &Path, target: &Path, layers: RangeInclusive<usize>, what: Freeze) -> io::Result<()> {
    for (number, layer) in layers.enumerate() {
        let given = target.join(layer_file(number));
        link(&dir.join(layer_file(layer)), &given)?;
        // Not the top alone: a server that was killed, or failed, just after it closed one has given it to nobody, and no machine
        // of another account could be made of what comes after.
        give_to_readers(&given, 0o440)?;
    }
    if what != Freeze::Disk {
        std::fs::rename(dir.join(STATE), target.join(STATE))?;
        give_to_readers(&target.join(STATE), 0o440)?;
        give_to_readers(&target.join("ram"), 0o660)?;
    }
    Ok(())
}

/// Removes a file, or finds it gone.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server leaves them that was killed once the guest wrote to the next layer: one that was frozen before and is given to
    /// all, one that nobody was given, and the top.
    #[test]
    fn a_layer_that_a_killed_server_closed_is_given_to_all_with_the_next() {
        let (dir, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for layer in 0..3 {
            make_file(&dir.path().join(layer_file(layer)), None).unwrap();
        }
        give_to_readers(&dir.path().join(layer_file(0)), 0o440).unwrap();
        finish(dir.path(), target.path(), 0..=2, Freeze::Disk).unwrap();
        for layer in 0..3 {
            let metadata = std::fs::metadata(target.path().join(layer_file(layer))).unwrap();
            assert_eq!(metadata.mode() & 0o777, 0o440, "layer {layer}");
            if rustix::process::geteuid().is_root() {
                assert_eq!((metadata.uid(), metadata.gid()), (0, READERS_GID), "layer {layer}");
            }
        }
    }
}
