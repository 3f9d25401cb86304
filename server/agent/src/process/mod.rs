//! Processes: started once, followed to their end, their output kept for whoever comes back for it.

mod account;
mod check;
mod input;
mod limits;
#[allow(clippy::module_inception)] // the noun's own file
mod process;
mod reaper;
mod restart;
mod ring;
mod run;
mod spawn;
mod stream;
mod terminal;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use account::Account;
use forkyard_protocol::{ErrorBody, ErrorCode, ProcessId, ProcessList, ProcessSpec, Resource};
pub use limits::Limits;
pub use process::Process;
pub use ring::Offsets;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Duration, sleep};

use self::reaper::Reaper;
use self::run::{Run, Starter};
use self::spawn::Started;
use crate::config::Config;
use crate::reply::{internal, invalid};

/// Processes that run at once.
const MAX_RUNNING: usize = 1024;

/// Processes that run on a terminal at once: each keeps a MiB of what was shown.
const MAX_TERMINALS: usize = 32;

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
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    processes: HashMap<ProcessId, Arc<Process>>,
    /// The ended ones, in the order of their ends.
    ended: VecDeque<ProcessId>,
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
        config: &Arc<Config>,
        mut spec: ProcessSpec,
        attach: bool,
    ) -> Result<Arc<Process>, ErrorBody> {
        spec.validate()?;
        let id = spec.id.take().ok_or_else(|| invalid("the process lacks an id"))?;
        let _starting = self.starting.lock().await;
        if let Some(process) = self.lock().processes.get(&id) {
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
        if spec.pty.is_some() && self.terminals() >= MAX_TERMINALS {
            let message = format!("{MAX_TERMINALS} processes run on a terminal already; end one first");
            return Err(ErrorBody::new(ErrorCode::NoCapacity, message).retry_after_ms(1000));
        }
        if let Some(name) = &spec.name
            && let Some(other) = self.named(name)
        {
            let message = format!("process {other} is called '{name}' already and has not ended");
            return Err(ErrorBody::new(ErrorCode::AlreadyExists, message).about(Resource::Process));
        }
        // Fork and exec take milliseconds under emulation.
        let started = tokio::task::block_in_place(|| self.spawn(config, &spec))?;
        let starter = Starter { processes: self.clone(), config: config.clone() };
        let process = Process::new(id.clone(), spec, started, attach, starter)?;
        self.lock().processes.insert(id.clone(), process.clone());
        tokio::spawn(self.clone().after(id, process.clone()));
        Ok(process)
    }

    /// Starts what is to be followed by whoever asked for it. Blocks for as long as fork and exec take.
    fn spawn(&self, config: &Config, spec: &ProcessSpec) -> Result<(Arc<Run>, Started), ErrorBody> {
        let cgroup = self.limits.take().map_err(|error| internal(&error))?;
        let started = spawn::spawn(&self.reaper, config, spec, cgroup.as_ref()).inspect_err(|_| {
            if let Some(cgroup) = &cgroup {
                self.limits.give_back(cgroup);
            }
        })?;
        Ok((Arc::new(Run { pid: started.pid, cgroup }), started))
    }

    /// The process of this name that has not ended.
    fn named(&self, name: &str) -> Option<ProcessId> {
        let table = self.lock();
        let found = table
            .processes
            .values()
            .find(|process| process.spec.name.as_deref() == Some(name) && process.lock().exit.is_none());
        found.map(|process| process.id().clone())
    }

    /// A process by its id.
    pub fn get(&self, id: &ProcessId) -> Result<Arc<Process>, ErrorBody> {
        self.lock().processes.get(id).cloned().ok_or_else(|| {
            let message =
                format!("there is no process {id} in this machine; the oldest ended ones are forgotten");
            ErrorBody::new(ErrorCode::NotFound, message).about(Resource::Process)
        })
    }

    /// Forgets a process that has ended.
    pub fn forget(&self, id: &ProcessId) -> Result<(), ErrorBody> {
        if self.get(id)?.info().exit.is_none() {
            let message = format!("process {id} still runs");
            return Err(ErrorBody::new(ErrorCode::FailedPrecondition, message).about(Resource::Process));
        }
        let mut table = self.lock();
        table.processes.remove(id);
        table.ended.retain(|ended| ended != id);
        Ok(())
    }

    /// All processes, oldest first.
    pub fn list(&self) -> ProcessList {
        let mut processes: Vec<_> = self.lock().processes.values().map(|process| process.info()).collect();
        processes.sort_by(|a, b| (a.started_at_ms, &a.id).cmp(&(b.started_at_ms, &b.id)));
        ProcessList { processes }
    }

    /// How many run.
    pub fn running(&self) -> u32 {
        let table = self.lock();
        u32::try_from(table.processes.len() - table.ended.len()).unwrap_or(u32::MAX)
    }

    fn terminals(&self) -> usize {
        self.lock().processes.values().filter(|process| process.terminal().is_some()).count()
    }

    /// What is due once a process has ended.
    async fn after(self: Arc<Self>, id: ProcessId, process: Arc<Process>) {
        process.until(|state| state.exit.is_some().then_some(())).await;
        self.lock().end(id);
        self.recover_cgroup(&process.run()).await;
    }

    /// Takes an ended run's cgroup back.
    async fn recover_cgroup(&self, run: &Run) {
        let Some(cgroup) = &run.cgroup else { return };
        for _ in 0..RECOVERY_TRIES {
            if self.limits.give_back(cgroup) {
                return;
            }
            sleep(RECOVERY_PAUSE).await;
        }
        // Children that outlive the process keep it, so that a kill still finds them; it goes with the machine.
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Notes an end, and forgets the oldest ended processes beyond those that are kept, and before that their output.
    fn end(&mut self, id: ProcessId) {
        // It may have been forgotten already.
        if self.processes.contains_key(&id) {
            self.ended.push_back(id);
        }
        let older = self.ended.len().checked_sub(MAX_ENDED_OUTPUT + 1);
        if let Some(process) = older.and_then(|at| self.processes.get(&self.ended[at])) {
            process.lock().ring.shrink(KEPT_OUTPUT);
        }
        while self.ended.len() > MAX_ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.processes.remove(&oldest);
        }
    }
}

/// Bytes of output that an older ended process keeps: 1,024 of them take 16 MiB.
const KEPT_OUTPUT: usize = 16 * 1024;

/// The kernel empties a cgroup a moment after its last process was reaped, and tells nobody who does not watch a file.
const RECOVERY_TRIES: u32 = 10;
const RECOVERY_PAUSE: Duration = Duration::from_millis(100);
