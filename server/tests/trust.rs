//! Whom machines trust: those of whom the host does now, whenever what they go on from was frozen.

mod common;

use common::server::{Machines, Server, free_port, small};
use forkyard::{CheckpointType, Command, CreateSandbox, CreateSnapshot, NetworkPolicy, Sandbox};

const STORE: &str = "/etc/ssl/certs/ca-certificates.crt";

fn open() -> NetworkPolicy {
    NetworkPolicy { allow_internet_access: true, ..NetworkPolicy::default() }
}

/// The trust store of a machine, which is ended.
async fn trusted_by(machine: Sandbox) -> String {
    let read = machine.run(Command::new("cat").args([STORE])).await.unwrap();
    machine.terminate().await.unwrap();
    String::from_utf8(read.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trust_store_that_changed_reaches_forks_of_what_was_frozen_before() {
    let (images, dir) = common::folders();
    let trust = dir.path().join("trust");
    std::fs::write(&trust, "first").unwrap();
    let server = Server::start_trusting(free_port(), &images, dir.path(), &trust).await;
    let port = server.port();
    let client = server.client(dir.path());
    let _machines = Machines(dir.path().to_owned());
    let made =
        async |network| trusted_by(client.create(CreateSandbox { network, ..small() }).await.unwrap()).await;

    // The first makes the template.
    made(NetworkPolicy::default()).await;
    assert_eq!(made(NetworkPolicy::default()).await, "first", "the template has it");
    let machine = client.create(CreateSandbox { network: open(), ..small() }).await.unwrap();
    let what = CreateSnapshot { checkpoint_type: CheckpointType::Memory, ..CreateSnapshot::default() };
    let snapshot_id = machine.checkpoint(what).await.unwrap().snapshot_id;
    assert_eq!(trusted_by(machine).await, "first");

    server.stop().await;
    std::fs::write(&trust, "second").unwrap();
    let server = Server::start_trusting(port, &images, dir.path(), &trust).await;
    assert_eq!(made(open()).await, "second", "of a template");
    let fork = CreateSandbox { snapshot_id: Some(snapshot_id), network: open(), ..CreateSandbox::default() };
    assert_eq!(trusted_by(client.create(fork).await.unwrap()).await, "second", "of a snapshot");
    server.stop().await;
}
