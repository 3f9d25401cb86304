//! A server over real QEMU, in this process; as a process of its own it is in [`server`].
#![allow(dead_code)] // each test takes what it needs

pub mod server;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::{KeyId, KeyInfo, ProjectId, Scope};
use forkyard_server::action::Service;
use forkyard_server::image::ImageStore;
use forkyard_server::key::Keys;
use forkyard_server::preview::Previews;
use forkyard_server::quota::HostBudget;
use forkyard_server::sandbox::{Sandboxes, Settings};
use forkyard_server::store::SqliteStore;
use forkyard_server::vmm::Accelerator;
use forkyard_server::vmm::qemu::Qemu;

/// The images' folder and, beside it, a folder of the test's own: machines link the images' files.
pub fn folders() -> (PathBuf, tempfile::TempDir) {
    let images = PathBuf::from(
        std::env::var_os("FORKYARD_TEST_IMAGES").expect("'make test' names the images' folder"),
    );
    let dir = tempfile::tempdir_in(images.parent().unwrap()).unwrap();
    (images, dir)
}

pub fn caller() -> KeyInfo {
    KeyInfo {
        key_id: KeyId::parse("key_1").unwrap(),
        project: ProjectId::parse("prj_1").unwrap(),
        scope: Scope::Sandboxes,
        description: String::new(),
        max_sandboxes: 8,
        requests_per_second: 1000,
        created_at_ms: 0,
    }
}

pub async fn service(dir: &tempfile::TempDir, images: PathBuf) -> Service {
    let store = Arc::new(SqliteStore::open(&dir.path().join("store.sqlite")).unwrap());
    let settings = Settings {
        machines_dir: dir.path().join("machines"),
        snapshots_dir: dir.path().join("snapshots"),
        suspended_dir: dir.path().join("suspended"),
        templates_dir: dir.path().join("templates"),
        template_budget_bytes: 4 << 30,
        budget: HostBudget { memory_mb: 4096, sandboxes: 8 },
        boot_deadline: Duration::from_mins(2),
        concurrent_boots: 2,
        guest_env: [].into(),
        network: Arc::default(),
    };
    let vmm = Arc::new(Qemu::find(Accelerator::Tcg).await.unwrap());
    let sandboxes = Sandboxes::open(settings, vmm, ImageStore::open(images), store.clone()).await.unwrap();
    let previews = Previews::open(&dir.path().join("preview-key")).unwrap();
    Service { sandboxes, keys: Keys::load(store).await.unwrap(), previews }
}
