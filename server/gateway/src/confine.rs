//! What the gateway gives up once its sockets are open, before it reads a guest's first byte: files, other programs, other
//! processes. A guest that takes it over has an ordinary user's network and nothing else; what of that it may use is the policy's
//! and, beyond it, the host's firewall's to say.

use std::collections::BTreeMap;

use anyhow::Context as _;
use landlock::{ABI, Access as _, AccessFs, Ruleset, RulesetAttr as _, RulesetStatus, Scope};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::limits::{MAX_CONNECTIONS, SPARE_FILES};

/// What a kernel without Landlock lacks is said in the log; everything else must succeed.
pub fn confine() -> anyhow::Result<()> {
    bound_files()?;
    rustix::thread::set_no_new_privs(true).context("cannot give up new privileges")?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .context("cannot give up core dumps")?;
    match deny_files() {
        Ok(RulesetStatus::FullyEnforced) => {}
        Ok(status) => {
            tracing::warn!("this kernel's Landlock keeps the gateway from files incompletely: {status:?}");
        }
        Err(error) => tracing::warn!("Landlock does not keep the gateway from files: {error}"),
    }
    let filter = filter().context("the system call filter is wrong")?;
    seccompiler::apply_filter_all_threads(&filter).context("cannot filter system calls")
}

fn bound_files() -> anyhow::Result<()> {
    let most = (MAX_CONNECTIONS + SPARE_FILES) as u64;
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(most).min(most);
    let limit = Rlimit { current: Some(hard), maximum: Some(hard) };
    setrlimit(Resource::Nofile, limit).context("cannot bound the number of open files")
}

fn deny_files() -> Result<RulesetStatus, landlock::RulesetError> {
    let abi = ABI::V6;
    let rules = Ruleset::default().handle_access(AccessFs::from_all(abi))?.scope(Scope::from_all(abi))?;
    Ok(rules.create()?.restrict_self()?.ruleset)
}

/// System calls that are left: memory, sockets, waiting, time. What is not here fails with `EPERM`, so that a library which tries
/// something else first goes on without it.
fn filter() -> anyhow::Result<BpfProgram> {
    let allowed = [
        // Memory.
        libc::SYS_brk,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_madvise,
        // Sockets. No listening: what comes from outside is not for the guest.
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_accept4,
        libc::SYS_getsockname,
        libc::SYS_getpeername,
        libc::SYS_getsockopt,
        libc::SYS_setsockopt,
        libc::SYS_shutdown,
        libc::SYS_sendto,
        libc::SYS_recvfrom,
        libc::SYS_sendmsg,
        libc::SYS_recvmsg,
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_fcntl,
        // Waiting.
        libc::SYS_epoll_ctl,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_ppoll,
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_restart_syscall,
        // Time and chance.
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_gettimeofday,
        libc::SYS_getrandom,
        // Signals and the end.
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_tgkill,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    // Older calls for the same, which newer architectures never had.
    #[cfg(target_arch = "x86_64")]
    let older = [libc::SYS_epoll_wait, libc::SYS_poll];
    #[cfg(not(target_arch = "x86_64"))]
    let older = [];
    let mut rules: BTreeMap<i64, _> =
        allowed.into_iter().chain(older).map(|call| (call, Vec::new())).collect();
    // Memory that programs could be written into.
    let exec = u64::from(libc::PROT_EXEC.unsigned_abs());
    let data = || SeccompRule::new(vec![dword(2, SeccompCmpOp::MaskedEq(exec), 0)?]);
    rules.insert(libc::SYS_mmap, vec![data()?]);
    rules.insert(libc::SYS_mprotect, vec![data()?]);
    // No unix sockets, which Landlock does not keep it from: those of its neighbours, of QEMU, of the host's services.
    let family =
        |family: i32| SeccompRule::new(vec![dword(0, SeccompCmpOp::Eq, u64::from(family.unsigned_abs()))?]);
    rules.insert(libc::SYS_socket, vec![family(libc::AF_INET)?, family(libc::AF_INET6)?]);
    let nonblocking = SeccompRule::new(vec![dword(1, SeccompCmpOp::Eq, libc::FIONBIO)?])?;
    rules.insert(libc::SYS_ioctl, vec![nonblocking]);
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().context("no filter for this architecture")?;
    Ok(SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?.try_into()?)
}

fn dword(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}
