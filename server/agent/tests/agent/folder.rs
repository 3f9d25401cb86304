//! Folders, there and back over the channel.

use forkyard_protocol::{ErrorBody, TreeSummary};
use forkyard_tree::{TreeError, Unpack, pack, unpack};

use super::*;

fn words(error: &TreeError) -> ErrorBody {
    ErrorBody::new(ErrorCode::PermissionDenied, error.to_string())
}

#[tokio::test]
async fn a_folder_moves_both_ways() {
    let agent = Agent::start();
    let session = agent.session().await;
    let source = agent.dir.path().join("source");
    std::fs::create_dir_all(source.join("a/b")).unwrap();
    std::fs::write(source.join("a/b/big"), vec![7; 3_000_000]).unwrap();
    std::os::unix::fs::symlink("a/b", source.join("link")).unwrap();
    let mut sent = Vec::new();
    let wanted = pack(&source, &mut sent, words).unwrap();
    let target = format!("/files/tree?path={}&parents=true", agent.path("new/target"));
    let there: TreeSummary = call(&session, &format!("PUT {target}"), sent.clone()).await;
    assert_eq!(there, wanted);
    let response = send(&session, &format!("GET {target}"), "").await;
    assert_eq!(response.status(), StatusCode::OK);
    let back = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(back, sent, "the same folder is the same stream");
}

#[tokio::test]
async fn what_cannot_be_sent_or_taken_is_named() {
    let agent = Agent::start();
    let session = agent.session().await;
    let target = format!("PUT /files/tree?path={}", agent.path("target"));
    let missing = refused(&session, &format!("GET /files/tree?path={}", agent.path("none")), "").await.error;
    assert_eq!((missing.code, missing.errno.as_deref()), (ErrorCode::NotFound, Some("ENOENT")));
    // The sender's own trouble comes back to it.
    let mut sent = Vec::new();
    let trouble = pack(&agent.dir.path().join("none"), &mut sent, words).unwrap_err();
    let told = refused(&session, &target, sent).await.error;
    assert_eq!((told.code, told.message), (ErrorCode::PermissionDenied, trouble.to_string()));
    let mut cut = Vec::new();
    std::fs::create_dir(agent.dir.path().join("source")).unwrap();
    std::fs::write(agent.dir.path().join("source/file"), vec![7; 100_000]).unwrap();
    pack(&agent.dir.path().join("source"), &mut cut, words).unwrap();
    cut.truncate(50_000);
    let cut = refused(&session, &target, cut).await.error;
    assert!(cut.message.contains("broke off"), "{cut}");
    assert!(!agent.dir.path().join("target").exists());
    let root = refused(&session, "PUT /files/tree?path=/", "").await.error;
    assert_eq!(root.code, ErrorCode::InvalidArgument);
}

#[tokio::test]
async fn one_that_ends_early_says_why() {
    let agent = Agent::start();
    let session = agent.session().await;
    let source = agent.dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let shrinking = source.join("file");
    std::fs::write(&shrinking, vec![7; 20_000_000]).unwrap();
    let response = send(&session, &format!("GET /files/tree?path={}", source.display()), "").await;
    let mut body = response.into_body();
    let mut stream = Vec::new();
    while let Some(frame) = body.frame().await {
        stream.extend_from_slice(frame.unwrap().data_ref().unwrap());
        if stream.len() > 100_000 {
            // It is open, and no more than a window of it is packed.
            std::fs::File::options().write(true).open(&shrinking).unwrap().set_len(10_000_000).unwrap();
        }
    }
    let options = Unpack { want_summary: true, ..Unpack::default() };
    let error = unpack(&agent.dir.path().join("target"), stream.as_slice(), options).unwrap_err();
    let TreeError::Told(told) = error else { panic!("{error}") };
    assert!(told.message.ends_with("source/file: it shrank while it was sent"), "{told}");
}
