//! The guest's file system at rest for the moment in which the host freezes its disk.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forkyard_protocol::{ErrorBody, ErrorCode};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::sleep;

use crate::reply::internal;

/// After so long the file system goes on by itself: a host that does not come back must not leave it at rest for ever.
const AT_MOST: Duration = Duration::from_secs(10);

/// linux/fs.h: FIFREEZE and FITHAW, each with an int that is not looked at.
const FREEZE: rustix::ioctl::Opcode = 0xc004_5877;
const THAW: rustix::ioctl::Opcode = 0xc004_5878;

/// Whether the root file system is at rest.
#[derive(Default)]
pub struct Disk(Arc<Mutex<Option<JoinHandle<()>>>>);

impl Disk {
    /// Writes out what is cached and lets nobody write from then on, until [`Disk::thaw`], for ten seconds at the most.
    pub fn freeze(&self) -> Result<(), ErrorBody> {
        let mut timer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if timer.is_some() {
            return Err(failed("the file system is at rest already"));
        }
        block_in_place(command::<FREEZE>).map_err(|error| internal(&error))?;
        let frozen = self.0.clone();
        *timer = Some(tokio::spawn(async move {
            sleep(AT_MOST).await;
            if frozen.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
                && let Err(error) = command::<THAW>()
            {
                eprintln!("forkyard-agent: the file system stays at rest: {error}");
            }
        }));
        Ok(())
    }

    /// Lets it go on; an error where it went on already, so that what was frozen meanwhile is not whole.
    pub fn thaw(&self) -> Result<(), ErrorBody> {
        let timer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let timer = timer.ok_or_else(|| failed("the file system was not at rest any more"))?;
        timer.abort();
        command::<THAW>().map_err(|error| internal(&error))
    }
}

fn failed(message: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::FailedPrecondition, message)
}

fn command<const OPCODE: rustix::ioctl::Opcode>() -> io::Result<()> {
    let root = File::open("/")?;
    // SAFETY: the kernel reads at most the int that it is given.
    unsafe { rustix::ioctl::ioctl(&root, rustix::ioctl::Setter::<OPCODE, i32>::new(0)) }?;
    Ok(())
}
