use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::super::VmmError;

/// QEMU's program.
pub const PROGRAM: &str = "qemu-system-x86_64";

const INSTALL: &str = "install it, on Debian with 'apt-get install qemu-system-x86'";

/// A version of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The 7 of 7.2.
    pub major: u32,
    /// The 2 of 7.2.
    pub minor: u32,
}

/// The oldest version that Forkyard is tested with: Debian 12's.
pub const OLDEST: Version = Version { major: 7, minor: 2 };

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// Reads what `qemu-system-x86_64 --version` prints.
    pub fn parse(output: &str) -> Option<Self> {
        let rest = output.strip_prefix("QEMU emulator version ")?;
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
        Some(Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
    }

    /// Asks the installed QEMU, and refuses one that is too old.
    pub async fn installed() -> Result<Self, VmmError> {
        let asked = Command::new(PROGRAM).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
        let output = timeout(Duration::from_secs(10), asked)
            .await
            .map_err(|_| VmmError::Failed(format!("'{PROGRAM} --version' did not answer within 10 seconds")))?
            .map_err(|error| VmmError::Failed(format!("{PROGRAM} cannot be started ({error}); {INSTALL}")))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = Self::parse(&text)
            .ok_or_else(|| VmmError::Failed(format!("'{PROGRAM} --version' printed {text:?}")))?;
        if version < OLDEST {
            return Err(VmmError::Failed(format!(
                "QEMU {version} is too old: {OLDEST} or newer is needed; {INSTALL}"
            )));
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_print_them() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright";
        assert_eq!(Version::parse(debian), Some(Version { major: 7, minor: 2 }));
        assert_eq!(Version::parse("QEMU emulator version 10.0.2"), Some(Version { major: 10, minor: 0 }));
        assert_eq!(Version::parse("something else"), None);
        assert!(Version { major: 10, minor: 0 } > OLDEST);
    }
}
