//! A real microVM from its creation to its end: QEMU, Debian's kernel, the agent. `make test` builds the image and names
//! its folder in `FORKYARD_TEST_IMAGES`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::{
    CreateSandbox, ErrorCode, KeyId, KeyInfo, ProcessSpec, ProjectId, SandboxStatus, Scope,
};
use forkyard_server::action::{Action, Reply, Service};
use forkyard_server::guest::{GuestCall, Offsets};
use forkyard_server::image::ImageStore;
use forkyard_server::key::Keys;
use forkyard_server::quota::HostBudget;
use forkyard_server::sandbox::{Sandboxes, Settings};
use forkyard_server::store::SqliteStore;
use forkyard_server::vmm::Accelerator;
use forkyard_server::vmm::qemu::Qemu;
use http_body_util::BodyExt as _;

fn caller() -> KeyInfo {
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

async fn service(dir: &tempfile::TempDir, images: PathBuf) -> Service {
    let store = Arc::new(SqliteStore::open(&dir.path().join("store.sqlite")).unwrap());
    let settings = Settings {
        machines_dir: dir.path().join("machines"),
        budget: HostBudget { memory_mb: 4096, sandboxes: 8 },
        boot_deadline: Duration::from_mins(2),
        concurrent_boots: 2,
        guest_env: [].into(),
        guest_files: Vec::new(),
    };
    let vmm = Arc::new(Qemu::find(Accelerator::Tcg).await.unwrap());
    let sandboxes = Sandboxes::open(settings, vmm, ImageStore::open(images), store.clone()).await.unwrap();
    Service { sandboxes, keys: Keys::load(store).await.unwrap() }
}

fn sh(script: &str) -> GuestCall {
    let spec = ProcessSpec {
        id: Some(format!("prc_{}", ulid::Ulid::generate()).parse().unwrap()),
        command: "sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        ..ProcessSpec::default()
    };
    GuestCall::StartProcess(Box::new(spec), Some(Offsets::default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_runs_commands_and_its_loss_is_noticed() {
    let images = PathBuf::from(
        std::env::var_os("FORKYARD_TEST_IMAGES").expect("'make test' names the images' folder"),
    );
    // Beside the images: machines link their files.
    let dir = tempfile::tempdir_in(images.parent().unwrap()).unwrap();
    let service = service(&dir, images).await;
    let caller = caller();
    let request = CreateSandbox { image: "base".to_owned(), memory_mb: 256, ..CreateSandbox::default() };
    let create = Action::CreateSandbox { request, idempotency_key: None, wait: true };
    let Reply::Created(sandbox) = service.perform(&caller, create).await.unwrap() else {
        panic!("no machine")
    };
    assert_eq!(sandbox.status, SandboxStatus::Running);
    let guest =
        async |call| match service.perform(&caller, Action::Guest(sandbox.sandbox_id.clone(), call)).await {
            Ok(Reply::Guest(reply)) => {
                Ok(reply.response.into_body().collect().await.unwrap().to_bytes().to_vec())
            }
            Ok(_) => panic!("another reply"),
            Err(error) => Err(error),
        };
    let text = String::from_utf8_lossy(&guest(sh("id -un && pwd")).await.unwrap()).into_owned();
    assert!(text.contains("agent\n") && text.contains("/workspace\n"), "{text}");

    let machine = dir.path().join("machines").join(sandbox.sandbox_id.as_str());
    let qemu = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid = entry.ok()?.file_name().into_string().ok()?.parse::<i32>().ok()?;
        (std::fs::read_link(format!("/proc/{pid}/cwd")).ok()? == machine).then_some(pid)
    });
    let pid = rustix::process::Pid::from_raw(qemu.last().expect("QEMU runs")).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let slot = service.sandboxes.get(&caller.project, &sandbox.sandbox_id).unwrap();
    let lost = tokio::time::timeout(Duration::from_secs(1), slot.wait_for(|record| !record.is_alive()));
    assert_eq!(lost.await.expect("noticed within a second").view.status, SandboxStatus::Failed);
    assert_eq!(guest(sh("true")).await.unwrap_err().code, ErrorCode::SandboxLost);
    assert!(!machine.exists());
}
