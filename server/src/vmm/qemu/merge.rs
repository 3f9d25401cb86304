//! Merging a disk's layers, so that a machine that is frozen again and again does not read through as many files.
//!
//! The layers below the top belong to snapshots too and nobody writes to them: what they hold is copied up into the top one, while
//! the guest runs, and the machine lets go of them.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::timeout;

use super::argv::{disk_node, layer_file};
use super::freeze::{blocking, remove_if_there};
use super::machine::QemuMachine;
use crate::host::free_disk_mb;
use crate::vmm::{Machine as _, VmmError};

/// Layers that a disk may have before they are merged. Each is an open file, and a read of what none of them holds looks into all of
/// them; each merge writes once more what they hold.
const MOST: usize = 16;

/// How long a merge may take: it copies what the layers hold, at the disk's speed.
const DEADLINE: Duration = Duration::from_mins(5);

/// What must be free on the host's disk beyond the copy, in MiB: the guests' own writes come first.
const KEEP_FREE_MB: u64 = 1024;

/// The job's name.
const JOB: &str = "merge";

/// The lowest of the layers that a machine's directory holds.
pub(super) fn lowest(dir: &Path, top: usize) -> usize {
    (0..top).find(|layer| dir.join(layer_file(*layer)).exists()).unwrap_or(top)
}

impl QemuMachine {
    /// Merges the disk's layers into the one that the guest writes to, if there are many. A disk that cannot be merged stays as it
    /// is. Not while the guest's file system is at rest: it takes as long as it takes to copy them.
    pub(super) async fn merge_layers(&self) -> Result<(), VmmError> {
        let halted = self.halted.lock().await;
        if *halted {
            return Ok(());
        }
        let top = self.top_layer().await?;
        let dir = self.dir().to_owned();
        let looked = blocking("the disk's layers", move || {
            let lowest = lowest(&dir, top);
            let below = (lowest..top).map(|layer| Ok(std::fs::metadata(dir.join(layer_file(layer)))?.len()));
            let needed_mb = below.sum::<io::Result<u64>>()? >> 20;
            Ok((lowest, free_disk_mb(&dir)? >= needed_mb + KEEP_FREE_MB))
        });
        let (lowest, has_space) = looked.await?;
        if top - lowest < MOST || !has_space {
            return Ok(());
        }
        if let Err(error) = timeout(DEADLINE, self.copy_up(top)).await.unwrap_or_else(|_| {
            Err(VmmError::Failed(format!("it took longer than {} seconds", DEADLINE.as_secs())))
        }) {
            tracing::warn!(pid = self.pid(), %error, "a disk's layers were not merged");
            return self.give_up_merge().await;
        }
        self.let_go(lowest, top).await
    }

    async fn copy_up(&self, top: usize) -> Result<(), VmmError> {
        let qmp = self.qmp().await?;
        let mut events = qmp.events()?;
        let arguments = json!({ "job-id": JOB, "device": disk_node(top), "base-node": "base" });
        qmp.execute::<IgnoredAny>("block-stream", Some(arguments)).await?;
        loop {
            let event = events.recv().await.map_err(|error| VmmError::Failed(error.to_string()))?;
            if event.data["device"].as_str() != Some(JOB) {
                continue;
            }
            match (event.name.as_str(), event.data["error"].as_str()) {
                ("BLOCK_JOB_COMPLETED", None) => return Ok(()),
                ("BLOCK_JOB_COMPLETED", Some(error)) => return Err(VmmError::Failed(error.to_owned())),
                ("BLOCK_JOB_CANCELLED", _) => return Err(VmmError::Failed("it was cancelled".to_owned())),
                _ => {}
            }
        }
    }

    /// A job that goes on would have the disk change under a freeze.
    async fn give_up_merge(&self) -> Result<(), VmmError> {
        let arguments = json!({ "device": JOB, "force": true });
        if let Err(error) = self.qmp().await?.execute::<IgnoredAny>("block-job-cancel", Some(arguments)).await
        {
            tracing::trace!(%error, "the merge had ended");
        }
        Ok(())
    }

    /// Closes the layers below the top, which the disk no longer reads, and removes them from the machine's directory. Wherever
    /// this ends in the middle, what is left holds nothing that the top does not.
    async fn let_go(&self, lowest: usize, top: usize) -> Result<(), VmmError> {
        for layer in (lowest..top).rev() {
            self.drop_node(&disk_node(layer)).await?;
            self.drop_node(&format!("file-{layer}")).await?;
        }
        let dir = self.dir().to_owned();
        blocking("the merged layers", move || {
            (lowest..top).try_for_each(|layer| remove_if_there(&dir.join(layer_file(layer))))
        })
        .await
    }
}
