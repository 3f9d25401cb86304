//! What a host lacks for machines, and how to get it: facts in, findings out, no I/O.

mod gather;

pub use gather::gather;
use serde::Serialize;

use crate::vmm::qemu::{OLDEST, Version};

/// Least disk space for images and machines, in MiB: two images take half a gigabyte, a busy machine a few.
const WANTED_DISK_MB: u64 = 5 * 1024;

/// Least memory for one machine and the server, in MiB.
const WANTED_MEMORY_MB: u64 = 1024;

/// Least open files: each machine takes about ten, each client connection one.
const WANTED_FILES: u64 = 4096;

/// What was found out about a host.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// QEMU's version, or why it could not be asked.
    pub qemu: Option<Result<Version, String>>,
    /// Whether KVM is used, and why or why not.
    pub kvm: (bool, String),
    /// Why the kernel does not bound machines; `None` where it does.
    pub limits: Option<String>,
    /// Programs that building an image takes, and the package that has each, as far as they are missing.
    pub missing_tools: Vec<(&'static str, &'static str)>,
    /// Free disk space for data, in MiB.
    pub disk_mb: u64,
    /// Available memory, in MiB.
    pub memory_mb: u64,
    /// Files that the server may have open.
    pub open_files: u64,
    /// Whether this is root.
    pub is_root: bool,
    /// Tags of the images that are there.
    pub images: Vec<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Machines run; something is slower, weaker or still to be done.
    Warning,
    /// Machines do not run.
    Problem,
}

/// One line of the doctor's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn new(
        check: &'static str,
        severity: Severity,
        message: impl Into<String>,
        remedy: Option<&str>,
    ) -> Self {
        Self { check, severity, message: message.into(), remedy: remedy.map(str::to_owned) }
    }
}

/// The findings, the same checks in the same order always.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    vec![
        qemu(facts),
        kvm(facts),
        limits(facts),
        rights(facts),
        enough("disk", facts.disk_mb, WANTED_DISK_MB, "MiB free", "free some, or choose another --data-dir"),
        enough(
            "memory",
            facts.memory_mb,
            WANTED_MEMORY_MB,
            "MiB available",
            "end other programs, or add memory",
        ),
        enough("open files", facts.open_files, WANTED_FILES, "allowed", "raise the limit: 'ulimit -n 65536'"),
        tools(facts),
        images(facts),
    ]
}

fn qemu(facts: &Facts) -> Finding {
    let remedy = Some("apt-get install qemu-system-x86");
    match &facts.qemu {
        Some(Ok(version)) if *version >= OLDEST => {
            Finding::new("qemu", Severity::Ok, format!("QEMU {version}"), None)
        }
        Some(Ok(version)) => {
            let message = format!("QEMU {version} is older than {OLDEST}");
            Finding::new("qemu", Severity::Problem, message, remedy)
        }
        Some(Err(reason)) => Finding::new("qemu", Severity::Problem, reason, remedy),
        None => Finding::new("qemu", Severity::Problem, "not looked for", remedy),
    }
}

fn kvm(facts: &Facts) -> Finding {
    let (usable, explanation) = &facts.kvm;
    if *usable {
        return Finding::new("kvm", Severity::Ok, explanation, None);
    }
    let message = format!("machines run in software, 8 to 16 times slower: {explanation}");
    let remedy = "a host with hardware virtualisation; nothing else changes";
    Finding::new("kvm", Severity::Warning, message, Some(remedy))
}

fn limits(facts: &Facts) -> Finding {
    match &facts.limits {
        None => Finding::new(
            "limits",
            Severity::Ok,
            "the kernel holds machines to their memory and processors",
            None,
        ),
        Some(reason) => {
            let message =
                format!("the kernel does not hold machines to their memory and processors: {reason}");
            let remedy = "run the server under systemd with Delegate=yes on a host with cgroup v2";
            Finding::new("limits", Severity::Warning, message, Some(remedy))
        }
    }
}

fn rights(facts: &Facts) -> Finding {
    if facts.is_root {
        return Finding::new(
            "rights",
            Severity::Ok,
            "root: each machine runs under a user number of its own",
            None,
        );
    }
    let message = "not root: machines run as this user, and images are built by root";
    Finding::new("rights", Severity::Ok, message, None)
}

fn enough(check: &'static str, found: u64, wanted: u64, unit: &str, remedy: &str) -> Finding {
    if found >= wanted {
        return Finding::new(check, Severity::Ok, format!("{found} {unit}"), None);
    }
    let message = format!("{found} {unit}; {wanted} are wanted");
    Finding::new(check, Severity::Warning, message, Some(remedy))
}

fn tools(facts: &Facts) -> Finding {
    if facts.missing_tools.is_empty() {
        return Finding::new("image tools", Severity::Ok, "all there", None);
    }
    let names: Vec<&str> = facts.missing_tools.iter().map(|(program, _)| *program).collect();
    let mut packages: Vec<&str> = facts.missing_tools.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    let message = format!("images cannot be built without {}", names.join(", "));
    let remedy = format!("apt-get install {}", packages.join(" "));
    Finding::new("image tools", Severity::Warning, message, Some(&remedy))
}

fn images(facts: &Facts) -> Finding {
    if facts.images.is_empty() {
        let remedy = Some("forkyard image build");
        return Finding::new("images", Severity::Warning, "none yet: no machine can be made", remedy);
    }
    Finding::new("images", Severity::Ok, facts.images.join(", "), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Facts {
        Facts {
            qemu: Some(Ok(OLDEST)),
            kvm: (true, "KVM works".into()),
            limits: None,
            missing_tools: Vec::new(),
            disk_mb: 100_000,
            memory_mb: 16_000,
            open_files: 65_536,
            is_root: true,
            images: vec!["base".into()],
        }
    }

    fn worst(change: impl FnOnce(&mut Facts)) -> Finding {
        let mut facts = healthy();
        change(&mut facts);
        let mut findings = examine(&facts);
        findings.retain(|finding| finding.severity != Severity::Ok);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings.remove(0)
    }

    #[test]
    fn a_healthy_host_has_no_findings_and_a_faulty_one_a_remedy() {
        assert!(
            examine(&healthy())
                .iter()
                .all(|finding| finding.severity == Severity::Ok && finding.remedy.is_none())
        );
        let faults: [(&str, Severity, Finding); 7] = [
            ("qemu", Severity::Problem, worst(|f| f.qemu = Some(Ok(Version { major: 6, minor: 2 })))),
            ("qemu", Severity::Problem, worst(|f| f.qemu = Some(Err("not found".into())))),
            ("kvm", Severity::Warning, worst(|f| f.kvm = (false, "no device".into()))),
            ("limits", Severity::Warning, worst(|f| f.limits = Some("cgroup v1".into()))),
            ("disk", Severity::Warning, worst(|f| f.disk_mb = 100)),
            ("image tools", Severity::Warning, worst(|f| f.missing_tools = vec![("mke2fs", "e2fsprogs")])),
            ("images", Severity::Warning, worst(|f| f.images.clear())),
        ];
        for (check, severity, finding) in faults {
            assert_eq!((finding.check, finding.severity), (check, severity));
            assert!(finding.remedy.is_some());
        }
    }

    #[test]
    fn missing_tools_are_named_with_their_packages() {
        let finding = worst(|f| {
            f.missing_tools = vec![("xz", "xz-utils"), ("mke2fs", "e2fsprogs"), ("e2fsck", "e2fsprogs")];
        });
        assert_eq!(finding.remedy.as_deref(), Some("apt-get install e2fsprogs xz-utils"));
    }
}
