use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
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
use crate::config::Config;
use crate::reply::os_error;

/// A process that was started, with its ends of the pipes.
pub struct Started {
    pub pid: u32,
    pub ended: oneshot::Receiver<WaitStatus>,
    pub stdin: Option<OwnedFd>,
    pub outputs: [OwnedFd; 2],
}

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
    let env = environment(config.base_env(), account.as_ref(), &spec.env);
    let cwd = spec.cwd.clone().unwrap_or_else(|| defaults.cwd.clone());
    let cwd = PathBuf::from(if cwd.is_empty() { "/" } else { &cwd });
    if !cwd.is_dir() {
        let message = format!("cwd '{}' is no folder in the machine", cwd.display());
        return Err(ErrorBody::new(ErrorCode::NotFound, message).about(Resource::File));
    }
    let program = find_program(&spec.command, env.get("PATH").map_or("", String::as_str), &cwd)?;
    let mut command = Command::new(&program);
    command.arg0(&spec.command).args(&spec.args).env_clear().envs(&env).current_dir(&cwd);
    command.stdin(if spec.stdin { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |error: io::Error| {
        os_error(&error, Resource::Process, &format!("'{}' cannot be started", spec.command))
    };
    let entrance = cgroup.map(Cgroup::entrance).transpose().map_err(failed)?;
    // SAFETY: only system calls that are async-signal-safe run between fork and exec, on memory made before.
    unsafe {
        command.pre_exec(move || become_process(entrance.as_ref(), account.as_ref()));
    }
    let (child, ended) = reaper.spawn(&mut command).map_err(failed)?;
    take_pipes(child, ended).ok_or_else(|| failed(io::Error::other("its pipes are missing")))
}

fn take_pipes(mut child: Child, ended: oneshot::Receiver<WaitStatus>) -> Option<Started> {
    Some(Started {
        pid: child.id(),
        ended,
        stdin: child.stdin.take().map(OwnedFd::from),
        outputs: [child.stdout.take()?.into(), child.stderr.take()?.into()],
    })
}

/// Runs in the child between fork and exec.
fn become_process(entrance: Option<&File>, account: Option<&Account>) -> io::Result<()> {
    rustix::process::setsid()?;
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
