//! Processes: started once, followed to their end, their output kept for whoever comes back for it.

mod account;
mod limits;
#[allow(clippy::module_inception)] // the noun's own file
mod process;
mod reaper;
mod ring;
mod spawn;
mod stream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use account::Account;
use forkyard_protocol::{ErrorBody, ErrorCode, ProcessId, ProcessList, ProcessSpec, ProcessState, Resource};
pub use limits::Limits;
pub use process::Process;
pub use ring::Offsets;
use tokio::sync::Mutex as AsyncMutex;

use self::reaper::Reaper;
use crate::config::Config;
use crate::reply::{internal, invalid};

/// Processes that run at once.
const MAX_RUNNING: usize = 1024;

/// Ended processes that are kept for whoever asks how they ended; the oldest are forgotten first.
const MAX_ENDED: usize = 1024;

/// Ended processes whose output is kept too.
const MAX_ENDED_OUTPUT: usize = 64;

/// All processes that were started through the channel.
pub struct Processes {
    limits: Limits,
    reaper: Arc<Reaper>,
    /// Held from the look for a process of the same id to its start: a start that is repeated meanwhile waits.
    starting: AsyncMutex<()>,
    table: Mutex<HashMap<ProcessId, Arc<Process>>>,
}

impl Processes {
    /// No processes yet.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            reaper: Reaper::start(),
            starting: AsyncMutex::new(()),
            table: Mutex::default(),
        })
    }

    /// Starts a process, or finds the one that the same call started before.
    pub async fn start(
        self: &Arc<Self>,
        config: &Config,
        mut spec: ProcessSpec,
        attach: bool,
    ) -> Result<Arc<Process>, ErrorBody> {
        spec.validate()?;
        let id = spec.id.take().ok_or_else(|| invalid("the process lacks an id"))?;
        let _starting = self.starting.lock().await;
        if let Some(process) = self.lock().get(&id) {
            if process.spec == spec {
                return Ok(process.clone());
            }
            let message = format!("process {id} was started with another specification");
            return Err(ErrorBody::new(ErrorCode::AlreadyExists, message).about(Resource::Process));
        }
        if self.running() as usize >= MAX_RUNNING {
            let message = format!("{MAX_RUNNING} processes run already");
            return Err(ErrorBody::new(ErrorCode::NoCapacity, message).retry_after_ms(1000));
        }
        let cgroup = self.limits.make(id.as_str()).map_err(|error| internal(&error))?;
        // Fork and exec take milliseconds under emulation.
        let started =
            tokio::task::block_in_place(|| spawn::spawn(&self.reaper, config, &spec, cgroup.as_ref()));
        let started = started.inspect_err(|_| {
            if let Some(cgroup) = &cgroup {
                cgroup.remove();
            }
        })?;
        let process = Process::new(id.clone(), spec, started, cgroup, attach)?;
        self.lock().insert(id, process.clone());
        tokio::spawn(self.clone().after(process.clone()));
        Ok(process)
    }

    /// A process by its id.
    pub fn get(&self, id: &ProcessId) -> Result<Arc<Process>, ErrorBody> {
        self.lock().get(id).cloned().ok_or_else(|| {
            let message =
                format!("there is no process {id} in this machine; the oldest ended ones are forgotten");
            ErrorBody::new(ErrorCode::NotFound, message).about(Resource::Process)
        })
    }

    /// All processes, oldest first.
    pub fn list(&self) -> ProcessList {
        let mut processes: Vec<_> = self.lock().values().map(|process| process.info()).collect();
        processes.sort_by(|a, b| (a.started_at_ms, &a.id).cmp(&(b.started_at_ms, &b.id)));
        ProcessList { processes }
    }

    /// How many run.
    pub fn running(&self) -> u32 {
        let running = self.lock().values().filter(|process| process.lock().exit.is_none()).count();
        u32::try_from(running).unwrap_or(u32::MAX)
    }

    /// What is due once a process has ended.
    async fn after(self: Arc<Self>, process: Arc<Process>) {
        process.until(|state| state.exit.is_some().then_some(())).await;
        self.evict();
        process.clean_up().await;
    }

    /// Forgets the oldest ended processes beyond those that are kept, and before that their output.
    fn evict(&self) {
        let mut table = self.lock();
        let infos = table.values().map(|process| process.info());
        let mut ended: Vec<_> = infos.filter(|info| info.state == ProcessState::Exited).collect();
        ended.sort_by_key(|info| std::cmp::Reverse(info.started_at_ms));
        for (age, info) in ended.iter().enumerate().skip(MAX_ENDED_OUTPUT) {
            if age >= MAX_ENDED {
                table.remove(&info.id);
            } else if let Some(process) = table.get(&info.id) {
                process.lock().ring.shrink(KEPT_OUTPUT);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ProcessId, Arc<Process>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of output that an older ended process keeps: 1,024 of them take 16 MiB.
const KEPT_OUTPUT: usize = 16 * 1024;
