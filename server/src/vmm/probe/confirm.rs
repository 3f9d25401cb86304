//! Boots the real kernel under KVM: the proof that the probe's instructions only promise.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::super::qemu::PROGRAM;
use super::{Kernel, KvmVerdict, unusable};

/// How long the kernel may take to its first program: under a second where KVM works, even on a busy host a few.
const BOOT_DEADLINE: Duration = Duration::from_secs(15);

/// The kernel's own word that it is up and starts its first program.
const FIRST_PROGRAM: &[u8] = b"Run /init as init process";

/// Console output that is looked at, in bytes; a whole boot prints about 40 KB.
const MAX_CONSOLE: u64 = 1024 * 1024;

/// How much of QEMU's complaint an error shows, in characters.
const COMPLAINT: usize = 500;

/// Boots this kernel under KVM until it starts its first program; the verdict says whether it got there.
pub async fn confirm(kernel: Kernel<'_>) -> KvmVerdict {
    boot(Command::new(PROGRAM), kernel).await
}

async fn boot(mut qemu: Command, kernel: Kernel<'_>) -> KvmVerdict {
    qemu.args(["-accel", "kvm", "-cpu", "host", "-M", "q35,hpet=off,usb=off,sata=off", "-m", "256M"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"])
        // No "quiet": the kernel is to say how far it came.
        .args(["-append", "console=ttyS0 panic=-1 8250.nr_uarts=1"])
        .arg("-kernel")
        .arg(kernel.vmlinux)
        .arg("-initrd")
        .arg(kernel.initrd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = match qemu.spawn() {
        Ok(child) => child,
        Err(error) => return unusable(format!("{PROGRAM} cannot be started: {error}")),
    };
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return unusable(format!("{PROGRAM} has no output"));
    };
    let verdict = match timeout(BOOT_DEADLINE, reaches_first_program(stdout)).await {
        Ok(Ok(true)) => KvmVerdict::Usable { confirmed: true },
        Ok(Ok(false)) => {
            unusable(format!("{PROGRAM} ended before the kernel was up: {}", complaint(stderr).await))
        }
        Ok(Err(error)) => unusable(error.to_string()),
        Err(_) => unusable(format!(
            "the probe passed, but the kernel did not boot within {} seconds",
            BOOT_DEADLINE.as_secs()
        )),
    };
    if let Err(error) = child.start_kill() {
        tracing::debug!(%error, "QEMU had ended");
    }
    if timeout(super::KILL_DEADLINE, child.wait()).await.is_err() {
        tracing::warn!("the machine that tried KVM cannot be ended: the host's kernel holds it");
    }
    verdict
}

async fn reaches_first_program(console: impl tokio::io::AsyncRead + Unpin) -> std::io::Result<bool> {
    let mut console = BufReader::new(console.take(MAX_CONSOLE));
    let mut line = Vec::new();
    while console.read_until(b'\n', &mut line).await? > 0 {
        if line.windows(FIRST_PROGRAM.len()).any(|part| part == FIRST_PROGRAM) {
            return Ok(true);
        }
        line.clear();
    }
    Ok(false)
}

async fn complaint(mut stderr: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    // QEMU has ended or closed its console; what it wrote is in the pipe, and a pipe that stays open is not waited for.
    let _ = timeout(super::KILL_DEADLINE, (&mut stderr).take(4096).read_to_end(&mut text)).await;
    let text = String::from_utf8_lossy(&text).trim().chars().take(COMPLAINT).collect::<String>();
    if text.is_empty() { "it gave no reason".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A command that QEMU's arguments are passed to and that does what the script says instead.
    async fn boot_with(script: &str) -> KvmVerdict {
        let mut qemu = Command::new("sh");
        qemu.args(["-c", script, "qemu"]);
        boot(qemu, Kernel { vmlinux: Path::new("/k"), initrd: Path::new("/i") }).await
    }

    #[tokio::test]
    async fn the_kernels_word_decides() {
        let up = "echo '[    0.9] Run /init as init process'; exec sleep 600";
        assert_eq!(boot_with(up).await, KvmVerdict::Usable { confirmed: true });
        let failed = boot_with("echo 'Linux version 6'; echo 'no such device' >&2; exit 1").await;
        assert!(failed.to_string().contains("no such device"), "{failed}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_kernel_that_hangs_is_no_kernel_that_boots() {
        let verdict = boot_with("exec sleep 600").await;
        assert!(verdict.to_string().contains("did not boot within 15 seconds"), "{verdict}");
    }
}
