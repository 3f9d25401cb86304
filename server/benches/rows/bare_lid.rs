//! Suspension as QEMU itself offers it: the guest's memory is shared with its file, stays there when the process ends, and is
//! mapped again. Of processors and devices alone a state is written. Nothing is synced to disk.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use forkyard_server::guest::Guest;
use forkyard_server::sparse;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::bare::{Bare, PATIENCE, greet};
use crate::world::{Outcome, World, words};

/// What carries a machine's frames.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Nobody: a socket as the server's machines have it, to which no gateway connects.
    Nobody,
    /// QEMU's own user-mode network, which has the same addresses.
    User,
}

/// A machine of the server's kind under a QEMU of its own, whose lid can be closed and opened.
pub struct BareLid {
    dir: PathBuf,
    args: Vec<String>,
    network: Network,
    running: Option<(Child, Qmp)>,
}

impl BareLid {
    /// Takes the command line of a restored machine, so that both are alike but for their memory, and starts it on copies.
    pub async fn open(world: &World, files: &Path, network: Network) -> Outcome<(Self, Guest)> {
        let bare = Bare::restore(world, files).await?;
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", bare.machine.pid()));
        bare.end().await?;
        let args =
            line.map_err(words)?.split_terminator('\0').skip(1).map(|arg| adapted(arg, network)).collect();
        let dir = world.dir.path().join(if network == Network::User { "bare-user" } else { "bare-lid" });
        std::fs::create_dir(&dir).map_err(words)?;
        for entry in std::fs::read_dir(files).map_err(words)? {
            let entry = entry.map_err(words)?;
            let (from, to) = (entry.path(), dir.join(entry.file_name()));
            if entry.file_name() == "ram" {
                let open =
                    |path| std::fs::File::options().write(true).create(true).truncate(false).open(path);
                sparse::copy(&std::fs::File::open(from).map_err(words)?, &open(to).map_err(words)?)
                    .map_err(words)?;
            } else if entry.file_name() == "state" {
                std::fs::copy(from, to).map_err(words)?;
            } else {
                std::fs::hard_link(from, to).map_err(words)?;
            }
        }
        let mut layers = (0..u32::MAX).map(|n| dir.join(format!("layer-{n}.qcow2")));
        let layer = layers.find(|path| !path.exists());
        let size = std::fs::metadata(dir.join("base.raw")).map_err(words)?.len();
        let mut made = Command::new("qemu-img");
        made.args(["create", "-q", "-f", "qcow2"]).arg(layer.unwrap_or_default()).arg(size.to_string());
        succeed(&mut made).await?;
        let mut lid = Self { dir, args, network, running: None };
        let guest = lid.resume(world).await?;
        Ok((lid, guest))
    }

    /// Writes the state and ends the process.
    pub async fn suspend(&mut self) -> Outcome<()> {
        let (mut child, mut qmp) = self.running.take().ok_or("it does not run")?;
        qmp.execute("stop", json!({})).await?;
        qmp.migrate("migrate", "exec:cat>state").await?;
        qmp.execute("quit", json!({})).await?;
        child.wait().await.map(drop).map_err(words)
    }

    /// Starts a process on the memory and the state; answers once its agent takes commands.
    pub async fn resume(&mut self, world: &World) -> Outcome<Guest> {
        for name in ["qmp", "agent", "network"] {
            let removed = std::fs::remove_file(self.dir.join(name));
            removed.or_else(|error| {
                if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(words(error)) }
            })?;
        }
        let child = Command::new("qemu-system-x86_64")
            .args(&self.args)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(self.dir.join("qemu.log")).map_err(words)?)
            .kill_on_drop(true)
            .spawn()
            .map_err(words)?;
        let mut qmp = timeout(PATIENCE, Qmp::connect(&self.dir.join("qmp"))).await.map_err(words)??;
        qmp.migrate("migrate-incoming", "exec:cat state").await?;
        qmp.execute("cont", json!({})).await?;
        self.running = Some((child, qmp));
        greet(world, self.dir.join("agent"), self.network == Network::User).await
    }

    /// Ends it and deletes its files.
    pub async fn end(mut self) -> Outcome<()> {
        if let Some((mut child, _)) = self.running.take() {
            child.kill().await.map_err(words)?;
        }
        std::fs::remove_dir_all(&self.dir).map_err(words)
    }
}

/// One argument as this machine has it: its memory shared, its sockets made by QEMU, `exec:` allowed.
fn adapted(arg: &str, network: Network) -> String {
    let socket = |name: &str| format!("socket,id={name},path={name},server=on,wait=off");
    match arg {
        _ if arg.starts_with("socket,id=qmp,") => socket("qmp"),
        _ if arg.starts_with("socket,id=agent,") => socket("agent"),
        _ if arg.starts_with("stream,id=net0,") => match network {
            Network::Nobody => "stream,id=net0,server=on,addr.type=unix,addr.path=network".to_owned(),
            Network::User => "user,id=net0".to_owned(),
        },
        _ if arg.starts_with("on,obsolete=deny") => "off".to_owned(),
        _ => arg.replace("share=off", "share=on").replace(",readonly=on,rom=off", ""),
    }
}

async fn succeed(command: &mut Command) -> Outcome<()> {
    let output = command.output().await.map_err(words)?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Just enough of QEMU's machine protocol.
struct Qmp {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
    events: Vec<Value>,
}

impl Qmp {
    async fn connect(path: &Path) -> Outcome<Self> {
        // Its socket is there some milliseconds after its process.
        let stream = loop {
            match UnixStream::connect(path).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
            }
        };
        let (read, writer) = stream.into_split();
        let mut qmp = Self { lines: BufReader::new(read).lines(), writer, events: Vec::new() };
        qmp.next().await?;
        qmp.execute("qmp_capabilities", json!({})).await?;
        let on = |name| json!({ "capability": name, "state": true });
        let capabilities = json!({ "capabilities": [on("x-ignore-shared"), on("events")] });
        qmp.execute("migrate-set-capabilities", capabilities).await?;
        Ok(qmp)
    }

    async fn next(&mut self) -> Outcome<Value> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.map_err(words)?.map_err(words)?;
        serde_json::from_str(&line.ok_or("QEMU hung up")?).map_err(words)
    }

    async fn execute(&mut self, command: &str, arguments: Value) -> Outcome<()> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.writer.write_all(format!("{request}\n").as_bytes()).await.map_err(words)?;
        loop {
            let message = self.next().await?;
            if message.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = message.get("error") {
                return Err(format!("{command}: {error}"));
            }
            self.events.push(message);
        }
    }

    /// Runs a migration to its end.
    async fn migrate(&mut self, command: &str, uri: &str) -> Outcome<()> {
        self.events.clear();
        self.execute(command, json!({ "uri": uri })).await?;
        loop {
            let ended = self.events.drain(..).find_map(|event| match event["data"]["status"].as_str()? {
                "completed" => Some(Ok(())),
                "failed" => Some(Err(format!("{command} failed"))),
                _ => None,
            });
            if let Some(ended) = ended {
                return ended;
            }
            let event = self.next().await?;
            self.events.push(event);
        }
    }
}
