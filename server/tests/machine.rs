//! A real microVM from its creation to its end: QEMU, Debian's kernel, the agent. `make test` builds the image and names
//! its folder in `FORKYARD_TEST_IMAGES`.

mod common;

use std::time::Duration;

use forkyard_protocol::{CreateSandbox, ErrorCode, ProcessSpec, SandboxStatus};
use forkyard_server::action::{Action, Reply};
use forkyard_server::guest::{GuestCall, Offsets};
use http_body_util::BodyExt as _;

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
    let (images, dir) = common::folders();
    let service = common::service(&dir, images).await;
    let caller = common::caller();
    let request =
        CreateSandbox { image: Some("base".to_owned()), memory_mb: Some(256), ..CreateSandbox::default() };
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
