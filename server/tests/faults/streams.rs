//! What is under way between a machine and its clients at the moment of a freeze.

use forkyard::{Command, OutputEvent, Process};

use crate::world::{World, memory, sh};

/// Lines of the program whose output is followed.
const LINES: usize = 100;

/// Reads a process's output up to its end.
async fn rest_of(mut process: Process, text: &mut Vec<u8>) -> i32 {
    loop {
        match process.next().await.unwrap() {
            Some(OutputEvent::Stdout(data)) => text.extend(data),
            Some(OutputEvent::Exited(exit)) => return exit.exit_code.unwrap(),
            Some(_) => {}
            None => panic!("no end"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_in_the_source_and_can_be_taken_up_in_the_fork() {
    let world = World::new().await;
    let script = format!("for n in $(seq {LINES}); do echo $n; sleep 0.01; done");
    let mut process = world.source.start(Command::new("sh").args(["-c", &script])).await.unwrap();
    let id = process.id().to_string();
    let mut seen = Vec::new();
    while seen.len() < 20 {
        if let Some(OutputEvent::Stdout(data)) = process.next().await.unwrap() {
            seen.extend(data);
        }
    }
    // A download that is half through, more than all windows on the way hold.
    sh(&world.source, "yes 0123456789 | head -c 8000000 >big").await;
    let target = world.dir().join("big");
    let (source, path) = (world.source.clone(), target.clone());
    let begun = std::sync::Arc::new(tokio::sync::Notify::new());
    let notify = begun.clone();
    let progress: forkyard::OnProgress = std::sync::Arc::new(move |_| notify.notify_one());
    let download =
        tokio::spawn(async move { source.files().download("/workspace/big", path, Some(progress)).await });
    begun.notified().await;
    let is_half = !download.is_finished();
    let snapshot = world.source.checkpoint(memory()).await.unwrap();
    assert!(is_half, "the download was under way");
    let fork = world.fork_of(&snapshot).await;

    let mut wanted = (1..=LINES).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
    wanted.push('\n');
    assert_eq!(rest_of(process, &mut seen).await, 0);
    assert_eq!(String::from_utf8(seen).unwrap(), wanted, "nothing is lost, nothing comes twice");
    assert_eq!(download.await.unwrap().unwrap(), 8_000_000);
    let received = std::fs::read(&target).unwrap();
    assert!(received.len() == 8_000_000 && received.chunks(11).all(|line| b"0123456789\n".starts_with(line)));

    // The same process in the fork, by its id: what it wrote before the freeze, and what it writes since.
    let mut text = Vec::new();
    assert_eq!(rest_of(fork.process(&id).unwrap(), &mut text).await, 0);
    assert_eq!(String::from_utf8(text).unwrap(), wanted);
    assert_eq!(sh(&fork, "stat -c %s big").await, "8000000\n");
    fork.terminate().await.unwrap();
    world.source.terminate().await.unwrap();
}
