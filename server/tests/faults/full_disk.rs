//! A file system that is full to its last block: one of the test's own, in a mount namespace that ends with the server and its
//! machines.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::Duration;

use forkyard::{Client, Command, CreateSandbox, ErrorCode, Sandbox};
use serde_json::Value;

use crate::common;
use crate::common::server::{FORKYARD, Machines, Server, free_port, small, until};
use crate::world::{assert_counts_on, memory, sh};

/// Room for an image, a template and a machine, and some to write, in bytes.
const DISK_BYTES: u64 = 1300 << 20;

/// Mounts the file system of the first argument over the second's folder, copies from the third what is named up to `--`, and
/// becomes the program after that. Not a tmpfs: there QEMU needs room to read memory that was never written.
const SET_UP: &str = r#"
    mount -o loop "$1" "$2"
    mkdir "$2/images" && cd "$3" && dir=$2 && shift 3
    while [ "$1" != -- ]; do cp -a --parents --sparse=always "$1" "$dir/images"; shift; done
    shift && exec "$@"
"#;

/// The files of the image that the tests' machines are of, within the images' folder.
fn files_of_image(images: &Path) -> Vec<String> {
    let tag = format!("tags/{}", small().image.unwrap());
    let digest = std::fs::read_to_string(images.join(&tag)).unwrap();
    let manifest = format!("manifests/{}.json", digest.trim());
    let parsed: Value = serde_json::from_slice(&std::fs::read(images.join(&manifest)).unwrap()).unwrap();
    let part = |name: &str| parsed[name].as_str().unwrap().to_owned();
    vec![tag, manifest, format!("rootfs/{}.raw", part("rootfs")), format!("boot/{}", part("boot"))]
}

/// A server whose folders lie on a small file system.
async fn start(images: &Path, dir: &Path) -> Server {
    let (disk, mount) = (dir.join("disk.img"), dir.join("mount"));
    std::fs::create_dir(&mount).unwrap();
    File::create(&disk).unwrap().set_len(DISK_BYTES).unwrap();
    let made =
        Program::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-m", "0"]).arg(&disk).status().unwrap();
    assert!(made.success());
    let mut program = Program::new("unshare");
    program.args(["--mount", "sh", "-euc", SET_UP, "sh"]).args([&disk, &mount]).arg(images);
    program.args(files_of_image(images)).args(["--", FORKYARD]);
    Server::start_by(program, free_port(), &mount.join("images"), &mount.join("data"), &[]).await
}

/// Writes until there is no room.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let piece = vec![0x5a; 1 << 20];
    let full = loop {
        match file.write(&piece) {
            Ok(written) => assert_ne!(written, 0),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}

fn free_bytes(path: &Path) -> u64 {
    let space = rustix::fs::statvfs(path).unwrap();
    space.f_bavail * space.f_frsize
}

async fn answers(machine: &Sandbox) -> bool {
    let call = machine.run(Command::new("true").timeout(Duration::from_secs(2)));
    tokio::time::timeout(Duration::from_secs(3), call).await.is_ok_and(|outcome| outcome.is_ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_write_finds_the_disk_full_waits_for_room_and_loses_nothing() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tried: a file system of its own takes root");
        return;
    }
    let (images, folder) = common::folders();
    let server = start(&images, folder.path()).await;
    // Seen from outside its namespace.
    let root = PathBuf::from(format!("/proc/{}/root", server.pid().as_raw_nonzero()));
    let inside = root.join(folder.path().join("mount").strip_prefix("/").unwrap());
    let client: Client = server.client(&inside.join("data"));
    let _machines = Machines(PathBuf::from("/data"));
    let machine = client.create(CreateSandbox { name: Some("full".into()), ..small() }).await.unwrap();
    let count = "n=0; while :; do n=$((n + 1)); echo $n >/dev/shm/n; sleep 0.1; done";
    sh(&machine, &format!("({count}) >/dev/null 2>&1 &")).await;

    let ballast = inside.join("ballast");
    fill(&ballast);
    let write =
        "head -c 50000000 /dev/urandom | tee big | sha256sum && sync && echo 3 >/proc/sys/vm/drop_caches";
    let writer = machine.clone();
    let script = format!("{write} && sha256sum <big");
    let written = tokio::spawn(async move {
        let command = Command::new("sh").args(["-ec", &script]).user("root").timeout(Duration::from_mins(3));
        writer.run(command).await.unwrap()
    });
    until("the guest stands still", async || !answers(&machine).await).await;
    for refused in [machine.checkpoint(memory()).await.map(drop), machine.suspend().await.map(drop)] {
        let error = refused.unwrap_err();
        assert_eq!(error.code, ErrorCode::NoSpace, "{error}");
    }
    assert!(!written.is_finished() && !answers(&machine).await, "it waits");
    assert!(free_bytes(&inside) < 1 << 20);

    std::fs::remove_file(&ballast).unwrap();
    let result = tokio::time::timeout(Duration::from_mins(2), written).await.expect("it goes on").unwrap();
    assert_eq!(result.exit_code, 0, "{result:?}");
    let digests = String::from_utf8(result.stdout).unwrap();
    let (first, second) = digests.trim().split_once('\n').unwrap();
    assert_eq!(first, second, "what was written is there");
    assert_counts_on(&machine).await;
    machine.terminate().await.unwrap();
    server.stop().await;
}
