//! What happens in a folder, over the channel.

use forkyard_protocol::{FileEvent, FileEventKind};

use super::*;

struct Events {
    body: Incoming,
    rest: Vec<u8>,
}

impl Events {
    async fn of(session: &Session, path: &str) -> Self {
        let response = send(session, &format!("GET /files/watch?path={path}&recursive=true"), "").await;
        assert_eq!(response.status(), StatusCode::OK);
        Self { body: response.into_body(), rest: Vec::new() }
    }

    /// The next event; `None` at the stream's end.
    async fn next(&mut self) -> Option<FileEvent> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if line.len() > 1 {
                    return Some(serde_json::from_slice(&line).unwrap());
                }
                continue;
            }
            let frame =
                tokio::time::timeout(Duration::from_secs(10), self.body.frame()).await.expect("news")?;
            self.rest.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }
}

fn event(kind: FileEventKind, path: &str, is_dir: bool) -> FileEvent {
    FileEvent { kind, path: path.to_owned(), from: None, is_dir }
}

#[tokio::test]
async fn folders_are_followed_in_out_and_under_other_names() {
    use FileEventKind::{Created, Modified, Moved, Removed};
    let agent = Agent::start();
    let session = agent.session().await;
    let path = |name: &str| agent.path(&format!("watched/{name}"));
    std::fs::create_dir_all(path("a/b")).unwrap();
    let mut events = Events::of(&session, &agent.path("watched")).await;
    std::fs::write(path("a/b/file"), "x").unwrap();
    assert_eq!(events.next().await.unwrap(), event(Created, &path("a/b/file"), false));
    assert_eq!(events.next().await.unwrap(), event(Modified, &path("a/b/file"), false));
    std::fs::rename(path("a"), path("c")).unwrap();
    let moved = FileEvent { from: Some(path("a")), ..event(Moved, &path("c"), true) };
    assert_eq!(events.next().await.unwrap(), moved);
    std::fs::remove_file(path("c/b/file")).unwrap();
    assert_eq!(events.next().await.unwrap(), event(Removed, &path("c/b/file"), false));
    // Moved out it is not watched; moved in with what it holds, it is.
    std::fs::rename(path("c"), agent.path("out")).unwrap();
    assert_eq!(events.next().await.unwrap(), event(Removed, &path("c"), true));
    std::fs::write(agent.path("out/b/unseen"), "x").unwrap();
    std::fs::rename(agent.path("out"), path("in")).unwrap();
    assert_eq!(events.next().await.unwrap(), event(Created, &path("in"), true));
    assert_eq!(events.next().await.unwrap(), event(Created, &path("in/b"), true));
    assert_eq!(events.next().await.unwrap(), event(Created, &path("in/b/unseen"), false));
    std::fs::remove_dir_all(agent.path("watched")).unwrap();
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event);
    }
    assert_eq!(last.unwrap(), event(Removed, &agent.path("watched"), true), "and no more");
}

/// The two halves of a rename reach a reader that is quick one by one.
#[tokio::test]
async fn a_rename_is_never_told_as_a_removal() {
    const RENAMES: usize = 2000;
    let agent = Agent::start();
    let session = agent.session().await;
    let path = |name: usize| agent.path(&format!("watched/{name}"));
    std::fs::create_dir_all(path(0)).unwrap();
    let mut events = Events::of(&session, &agent.path("watched")).await;
    let names: Vec<_> = (0..=RENAMES).map(path).collect();
    let renaming = tokio::task::spawn_blocking(move || {
        names.windows(2).for_each(|pair| std::fs::rename(&pair[0], &pair[1]).unwrap());
    });
    for number in 1..=RENAMES {
        let moved =
            FileEvent { from: Some(path(number - 1)), ..event(FileEventKind::Moved, &path(number), true) };
        assert_eq!(events.next().await.unwrap(), moved);
    }
    renaming.await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_watched_is_named() {
    let agent = Agent::start();
    let session = agent.session().await;
    let missing = refused(&session, &format!("GET /files/watch?path={}", agent.path("none")), "").await.error;
    assert_eq!((missing.code, missing.errno.as_deref()), (ErrorCode::NotFound, Some("ENOENT")));
    std::fs::write(agent.path("file"), "").unwrap();
    let file = refused(&session, &format!("GET /files/watch?path={}", agent.path("file")), "").await.error;
    assert_eq!((file.code, file.errno.as_deref()), (ErrorCode::FailedPrecondition, Some("ENOTDIR")));
}
