//! `forkyard serve` as a process over real QEMU, and what the host holds of it.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command as Program, Stdio};
use std::time::{Duration, Instant};

use forkyard::{Client, CreateSandbox};
use rustix::process::{Pid, Signal, kill_process};

/// The program.
pub const FORKYARD: &str = env!("CARGO_BIN_EXE_forkyard");

/// A server that runs; ended when this is dropped.
pub struct Server {
    process: Child,
    port: u16,
    /// Open as long as it runs: what it says at its end needs somewhere to go.
    _output: BufReader<ChildStdout>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Where a test failed; one that was ended already is ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts a server over a data directory and waits until it serves.
    pub async fn start(images: &Path, dir: &Path) -> Self {
        Self::start_at(free_port(), images, dir).await
    }

    /// The same, at the port of one that has ended: its clients find this one.
    pub async fn start_at(port: u16, images: &Path, dir: &Path) -> Self {
        Self::start_with(port, images, dir, &[]).await
    }

    /// The same, with more arguments.
    pub async fn start_with(port: u16, images: &Path, dir: &Path, more: &[String]) -> Self {
        Self::start_by(Program::new(FORKYARD), port, images, dir, more).await
    }

    /// The same, in an environment that trusts whom this file names.
    pub async fn start_trusting(port: u16, images: &Path, dir: &Path, trust: &Path) -> Self {
        let mut program = Program::new(FORKYARD);
        program.env("SSL_CERT_FILE", trust);
        Self::start_by(program, port, images, dir, &[]).await
    }

    /// The same, by a program that runs what its last arguments say, or is it.
    pub async fn start_by(
        mut program: Program,
        port: u16,
        images: &Path,
        dir: &Path,
        more: &[String],
    ) -> Self {
        let mut process = program
            .args(["serve", "--accelerator", "tcg", "--listen", &format!("127.0.0.1:{port}")])
            .args(["--memory-mb", "12000"])
            .arg("--data-dir")
            .arg(dir)
            .arg("--image-dir")
            .arg(images)
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let serving = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            while !line.contains("serving on") {
                line.clear();
                assert_ne!(output.read_line(&mut line).unwrap(), 0, "the server ended");
            }
            output
        });
        let output = tokio::time::timeout(Duration::from_mins(1), serving).await.expect("it serves").unwrap();
        Self { process, port, _output: output }
    }

    /// A client that tries nothing twice.
    pub fn client(&self, dir: &Path) -> Client {
        let key = std::fs::read_to_string(dir.join("api-key")).unwrap();
        let url = format!("http://127.0.0.1:{}", self.port);
        Client::builder().url(url).api_key(key).max_retries(0).build().unwrap()
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Ends it as nobody should.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends it as an operator does.
    pub async fn stop(mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        let ended = tokio::task::spawn_blocking(move || self.process.wait().unwrap());
        assert!(tokio::time::timeout(Duration::from_mins(1), ended).await.unwrap().unwrap().success());
    }
}

/// A port of the loopback that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// The machines of a data directory: they outlive the server, and so would those of a test that fails. Ended when this is
/// dropped, which is to be after the server.
pub struct Machines(pub PathBuf);

impl Drop for Machines {
    fn drop(&mut self) {
        for (pid, _) in machine_processes(&self.0) {
            // It may end by itself meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The smallest machine of the smallest image that is still quick.
pub fn small() -> CreateSandbox {
    CreateSandbox { image: Some("base".to_owned()), memory_mb: Some(256), ..CreateSandbox::default() }
}

/// Processes that run in a machine's directory, with the machine's id.
pub fn machine_processes(dir: &Path) -> Vec<(Pid, String)> {
    let machines = dir.join("machines");
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let found = entries.filter_map(|entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let cwd = std::fs::read_link(entry.path().join("cwd")).ok()?;
        let id = cwd.strip_prefix(&machines).ok()?.to_str()?.trim_end_matches(" (deleted)");
        Some((pid, id.to_owned()))
    });
    found.collect()
}

/// The gateways of machines in a data directory, with the machines' ids.
pub fn gateways(dir: &Path) -> Vec<(Pid, String)> {
    let machines = dir.join("machines").canonicalize().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let found = entries.filter_map(|entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let mut words = line.split('\0');
        let is_one = words.next()? == "forkyard" && words.next()? == "gateway";
        let id = Path::new(words.next()?).strip_prefix(&machines).ok()?.to_str()?.to_owned();
        is_one.then_some((pid, id))
    });
    found.collect()
}

/// The process that runs a machine.
pub fn process_of(dir: &Path, id: &str) -> Option<Pid> {
    machine_processes(dir).into_iter().find_map(|(pid, of)| (of == id).then_some(pid))
}

/// What lies in a folder, in order; nothing where there is none.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Control groups of machines that have ended: of those below `forkyard` anywhere.
pub fn cgroups(ids: &[String]) -> Vec<PathBuf> {
    let mounted = Path::new("/sys/fs/cgroup");
    let folders = [mounted.join("forkyard"), mounted.join("unified/forkyard")];
    let paths = folders.iter().flat_map(|folder| ids.iter().map(|id| folder.join(id)));
    paths.filter(|path| path.exists()).collect()
}

/// Waits for something to come about.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
