//! One real server for a whole run, and what it leaves.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use forkyard::Client;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt as _;

/// What the host says to a machine that reaches it.
const GREETING: &[u8] = b"hello from outside\n";

/// A server that runs; ended, with its machines, when this is dropped.
pub struct World {
    server: Child,
    /// Open as long as it runs: what it says at its end needs somewhere to go.
    _output: BufReader<ChildStdout>,
    address: SocketAddr,
    host: SocketAddr,
    dir: tempfile::TempDir,
}

impl World {
    /// Starts one over the images of a folder, and waits until it serves.
    pub async fn start(forkyard: &Path, images: &Path, log: File) -> anyhow::Result<Self> {
        // Beside the images: machines link their files.
        let dir = tempfile::Builder::new()
            .prefix("conformance-")
            .tempdir_in(images.parent().context("no parent")?)?;
        let host = greet().await?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut server = Command::new(forkyard)
            .args(["serve", "--memory-mb", "16000", "--listen", &address.to_string()])
            .args(["--network-allow", &host.to_string()])
            .arg("--data-dir")
            .arg(dir.path())
            .arg("--image-dir")
            .arg(images)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} cannot be started", forkyard.display()))?;
        let mut output = BufReader::new(server.stdout.take().context("no output")?);
        let serving = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            while !line.contains("serving on") {
                line.clear();
                ensure!(output.read_line(&mut line)? != 0, "the server ended before it served");
            }
            Ok(output)
        });
        let output = tokio::time::timeout(Duration::from_mins(2), serving).await???;
        Ok(Self { server, _output: output, address, host, dir })
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where machines that may find somebody who greets them.
    pub fn host(&self) -> SocketAddr {
        self.host
    }

    /// A folder for what a run needs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The key that the server made at its first start.
    pub fn first_key(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.dir.path().join("api-key"))?.trim().to_owned())
    }

    /// A client with a key.
    pub fn client(&self, api_key: &str) -> anyhow::Result<Client> {
        Ok(Client::builder().url(format!("http://{}", self.address)).api_key(api_key).build()?)
    }

    /// Ends the server as an operator does, and says what it left.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.server), Signal::TERM)?;
        let deadline = Instant::now() + Duration::from_mins(1);
        let status = loop {
            if let Some(status) = self.server.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "the server does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        ensure!(status.success(), "the server ended with {status}");
        let left = machine_processes(self.dir.path());
        ensure!(left.is_empty(), "machines outlive the server: {left:?}");
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Where it was not stopped; one that has ended has ended.
        let _ = self.server.kill();
        let _ = self.server.wait();
        for pid in machine_processes(self.dir.path()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Processes that run in a machine's folder.
fn machine_processes(dir: &Path) -> Vec<Pid> {
    let of = |entry: std::fs::DirEntry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let cwd: PathBuf = std::fs::read_link(entry.path().join("cwd")).ok()?;
        cwd.starts_with(dir.join("machines")).then_some(pid)
    };
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(of).collect()
}

/// Greets whoever connects, at an address of this host that is not loopback: machines have that themselves.
async fn greet() -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind((own_address()?, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // One that has gone again was not interested.
            let _ = stream.write_all(GREETING).await;
        }
    });
    Ok(address)
}

/// The address that this host would send from; nothing is sent.
fn own_address() -> anyhow::Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("203.0.113.7:9").context("this host has no address that machines could reach")?;
    Ok(socket.local_addr()?.ip())
}
