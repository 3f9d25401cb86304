use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use forkyard_protocol::{ErrorBody, ErrorCode, ProcessSpec, Resource};
use rustix::process::{Gid, Uid, WaitStatus};
use tokio::sync::oneshot;

use super::account::Account;
use super::limits::Cgroup;
use super::reaper::Reaper;
use super::terminal::Terminal;
use crate::config::Config;
use crate::reply::os_error;

/// A process that was started, and how to talk to it.
pub struct Started {
    pub command: String,
    pub pid: u32,
    pub ended: oneshot::Receiver<WaitStatus>,
    pub channel: Channel,
}

/// The agent's ends of a process's input and output.
pub enum Channel {
    Pipes { stdin: Option<OwnedFd>, outputs: [OwnedFd; 2] },
    Terminal(Terminal),
}

/// The shell of an agent that runs processes as itself.
const DEFAULT_SHELL: &str = "/bin/sh";

/// Starts a process. Blocks for as long as fork and exec take.
pub fn spawn(
    reaper: &Reaper,
    config: &Config,
    spec: &ProcessSpec,
    cgroup: Option<&Cgroup>,
) -> Result<Started, ErrorBody> {
    let defaults = config.get();
    let wanted = spec.user.as_deref().or(Some(defaults.user.as_str()).filter(|user| !user.is_empty()));
    // Without a default user (an agent on somebody's host) processes run as the agent itself.
    let account = wanted.map(Account::find).transpose()?;
    let mut base = config.base_env();
    if let Some(pty) = &spec.pty {
        base.insert("TERM".to_owned(), pty.term.clone());
    }
    let env = environment(base, account.as_ref(), &spec.env);
    let cwd = spec.cwd.clone().unwrap_or_else(|| defaults.cwd.clone());
    let cwd = PathBuf::from(if cwd.is_empty() { "/" } else { &cwd });
    if !cwd.is_dir() {
        let message = format!("cwd '{}' is no folder in the machine", cwd.display());
        return Err(ErrorBody::new(ErrorCode::NotFound, message).about(Resource::File));
    }
    // Only on a terminal, as the specification was checked.
    let shell = || account.as_ref().map_or(DEFAULT_SHELL, |account| account.shell.as_str()).to_owned();
    let name = if spec.command.is_empty() { shell() } else { spec.command.clone() };
    let program = find_program(&name, env.get("PATH").map_or("", String::as_str), &cwd)?;
    let mut command = Command::new(&program);
    command.arg0(&name).args(&spec.args).env_clear().envs(&env).current_dir(&cwd);
    let failed =
        |error: io::Error| os_error(&error, Resource::Process, &format!("'{name}' cannot be started"));
    let terminal = match &spec.pty {
        Some(pty) => {
            let owner = account.as_ref().filter(|_| rustix::process::geteuid().is_root());
            Some(Terminal::open(pty.size(), owner.map(|account| account.uid)).map_err(failed)?)
        }
        None => None,
    };
    connect(&mut command, spec.stdin, terminal.as_ref()).map_err(failed)?;
    let on_terminal = terminal.is_some();
    let entrance = cgroup.map(Cgroup::entrance).transpose().map_err(failed)?;
    // SAFETY: only system calls that are async-signal-safe run between fork and exec, on memory made before.
    unsafe {
        command.pre_exec(move || become_process(entrance.as_ref(), account.as_ref(), on_terminal));
    }
    let (child, ended) = reaper.spawn(&mut command).map_err(failed)?;
    let pid = child.id();
    let channel = match terminal {
        Some(terminal) => Some(Channel::Terminal(terminal)),
        None => take_pipes(child),
    };
    let channel = channel.ok_or_else(|| failed(io::Error::other("its pipes are missing")))?;
    Ok(Started { command: name, pid, ended, channel })
}

fn connect(command: &mut Command, stdin: bool, terminal: Option<&Terminal>) -> io::Result<()> {
    if let Some(terminal) = terminal {
        let end = || terminal.slave().try_clone();
        command.stdin(end()?).stdout(end()?).stderr(end()?);
        return Ok(());
    }
    command.stdin(if stdin { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(())
}

fn take_pipes(mut child: Child) -> Option<Channel> {
    Some(Channel::Pipes {
        stdin: child.stdin.take().map(OwnedFd::from),
        outputs: [child.stdout.take()?.into(), child.stderr.take()?.into()],
    })
}

/// Runs in the child between fork and exec.
fn become_process(entrance: Option<&File>, account: Option<&Account>, on_terminal: bool) -> io::Result<()> {
    rustix::process::setsid()?;
    if on_terminal {
        // SAFETY: standard input was put in place before, and is open as long as this process has not replaced itself.
        let terminal = unsafe { BorrowedFd::borrow_raw(0) };
        // With it the process becomes the foreground of its session.
        rustix::process::ioctl_tiocsctty(terminal)?;
    }
    if let Some(entrance) = entrance {
        rustix::io::write(entrance.as_fd(), b"0")?;
        // The agent itself is exempt from the kernel's out-of-memory killer; what it starts must not be.
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
        let score = rustix::fs::open(c"/proc/self/oom_score_adj", flags, rustix::fs::Mode::empty())?;
        rustix::io::write(&score, b"0")?;
    }
    if let Some(account) = account
        && rustix::process::geteuid().is_root()
    {
        let mut groups = [Gid::ROOT; 64];
        let count = account.groups.len().min(groups.len());
        for (slot, gid) in groups.iter_mut().zip(&account.groups) {
            *slot = Gid::from_raw(*gid);
        }
        rustix::thread::set_thread_groups(&groups[..count])?;
        rustix::thread::set_thread_gid(Gid::from_raw(account.gid))?;
        rustix::thread::set_thread_uid(Uid::from_raw(account.uid))?;
    }
    Ok(())
}

fn environment(
    mut env: BTreeMap<String, String>,
    account: Option<&Account>,
    own: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    if let Some(account) = account {
        for (name, value) in [
            ("HOME", &account.home),
            ("USER", &account.name),
            ("LOGNAME", &account.name),
            ("SHELL", &account.shell),
        ] {
            env.insert(name.to_owned(), value.clone());
        }
    }
    env.extend(own.clone());
    env
}

/// The program's file: as named where the name has a slash, else the first executable in the process's own `PATH`.
fn find_program(command: &str, path: &str, cwd: &Path) -> Result<PathBuf, ErrorBody> {
    let missing = |code, errno| {
        let message = match code {
            ErrorCode::NotFound => {
                format!("there is no program '{command}' in the machine (PATH is '{path}')")
            }
            _ => format!("'{command}' is not executable"),
        };
        ErrorBody::new(code, message).about(Resource::File).errno(errno)
    };
    if command.contains('/') {
        let file = cwd.join(command);
        return match std::fs::metadata(&file) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => Ok(file),
            Ok(_) => Err(missing(ErrorCode::PermissionDenied, "EACCES")),
            Err(_) => Err(missing(ErrorCode::NotFound, "ENOENT")),
        };
    }
    let executable = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let found = path.split(':').map(|dir| cwd.join(dir).join(command)).find(executable);
    found.ok_or_else(|| missing(ErrorCode::NotFound, "ENOENT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_up_in_the_processs_own_path() {
        let cwd = Path::new("/");
        assert_eq!(find_program("sh", "/nowhere:/bin", cwd).unwrap(), Path::new("/bin/sh"));
        assert_eq!(find_program("bin/sh", "", cwd).unwrap(), Path::new("/bin/sh"));
        let missing = find_program("no-such-program", "/bin", cwd).unwrap_err();
        assert_eq!((missing.code, missing.errno.as_deref()), (ErrorCode::NotFound, Some("ENOENT")));
        assert_eq!(find_program("/etc/passwd", "", cwd).unwrap_err().code, ErrorCode::PermissionDenied);
    }

    #[test]
    fn a_processs_own_variables_win() {
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let account = Account {
            name: "a".into(),
            uid: 1,
            gid: 1,
            groups: vec![],
            home: "/home/a".into(),
            shell: "/bin/sh".into(),
        };
        let env = environment(one("PATH", "/bin"), Some(&account), &one("HOME", "/elsewhere"));
        assert_eq!(
            (env["HOME"].as_str(), env["USER"].as_str(), env["PATH"].as_str()),
            ("/elsewhere", "a", "/bin")
        );
    }
}
