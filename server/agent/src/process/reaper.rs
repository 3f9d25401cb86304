use std::collections::HashMap;
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitOptions, WaitStatus};
use tokio::sync::oneshot;

/// Reaps every child, its own and the orphans that PID 1 inherits, and tells whoever started one.
pub struct Reaper {
    waiting: Mutex<HashMap<i32, oneshot::Sender<WaitStatus>>>,
    started: Condvar,
}

impl Reaper {
    /// Starts to reap, in a thread of its own.
    pub fn start() -> Arc<Self> {
        let reaper = Arc::new(Self { waiting: Mutex::default(), started: Condvar::new() });
        let reaping = reaper.clone();
        std::thread::spawn(move || reaping.reap());
        reaper
    }

    /// Starts a process; the receiver gets its end. The lock is held until it is registered, so no end is missed, and
    /// nothing is reaped while the standard library waits for a child that failed to execute. Blocks for as long as fork
    /// and exec take.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, oneshot::Receiver<WaitStatus>)> {
        let mut waiting = self.lock();
        let child = command.spawn()?;
        let (sender, receiver) = oneshot::channel();
        // Process numbers fit: Linux's largest is 2^22.
        waiting.insert(i32::try_from(child.id()).unwrap_or_default(), sender);
        self.started.notify_one();
        Ok((child, receiver))
    }

    fn reap(&self) {
        loop {
            // Looks without reaping, and without the lock, until some child has ended.
            match rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(_) => self.reap_ended(),
                Err(Errno::CHILD) => self.wait_for_child(),
                Err(_) => {}
            }
        }
    }

    fn reap_ended(&self) {
        let mut waiting = self.lock();
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(sender) = waiting.remove(&pid.as_raw_nonzero().get()) {
                // Whoever no longer waits need not know.
                let _ = sender.send(status);
            }
        }
    }

    /// Without children there are no descendants either, so nothing to inherit: only a start can end the wait.
    fn wait_for_child(&self) {
        let waiting = self.lock();
        drop(self.started.wait_while(waiting, |waiting| waiting.is_empty()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<WaitStatus>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
