use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use forkyard_protocol::{ErrorBody, ErrorCode, TreeSummary};
use tar::{Builder, EntryType, Header};

use super::*;

fn words(error: &TreeError) -> ErrorBody {
    ErrorBody::new(ErrorCode::FailedPrecondition, error.to_string())
}

fn packed(folder: &Path) -> Vec<u8> {
    let mut stream = Vec::new();
    pack(folder, &mut stream, words).unwrap();
    stream
}

/// A stream as a hostile program writes it: names go in as they are.
fn hostile(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let is_link = kind.is_symlink() || kind.is_hard_link();
        let mut header = Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        header.set_mtime(1);
        let content =
            if is_link { header.set_link_name_literal(content).map(|()| "").unwrap() } else { content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("cut"))
    }
}

fn refusal(stream: &[u8], target: &Path) -> String {
    unpack(target, stream, Unpack::default()).unwrap_err().to_string()
}

#[test]
fn a_folder_arrives_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    let deep = source.join("a").join("x".repeat(120)).join("y".repeat(120));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), vec![7; 300_000]).unwrap();
    fs::write(source.join("empty"), "").unwrap();
    fs::write(source.join("tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(source.join("tool"), fs::Permissions::from_mode(0o4750)).unwrap();
    symlink("../".to_owned() + &"z".repeat(150), source.join("a/link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        source.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    fs::set_permissions(source.join("a"), fs::Permissions::from_mode(0o555)).unwrap();
    let wanted = TreeSummary {
        files: 3,
        folders: 4,
        links: 1,
        bytes: 300_010,
        skipped: 1,
        skipped_paths: vec!["pipe".to_owned()],
    };
    let mut stream = Vec::new();
    assert_eq!(pack(&source, &mut stream, words).unwrap(), wanted);
    let options = Unpack { contain_links: true, want_summary: true, ..Unpack::default() };
    assert_eq!(unpack(&target, stream.as_slice(), options).unwrap(), wanted);
    let again = pack(&target, io::sink(), words).unwrap();
    assert_eq!(again, TreeSummary { skipped: 0, skipped_paths: Vec::new(), ..wanted });
    let there = target.join(deep.strip_prefix(&source).unwrap());
    assert_eq!(fs::read(there.join("file")).unwrap(), vec![7; 300_000]);
    assert_eq!(fs::metadata(target.join("tool")).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(fs::metadata(target.join("a")).unwrap().mode() & 0o7777, 0o555);
    let time = |path: &Path| fs::metadata(path).unwrap().mtime();
    assert_eq!(time(&target.join("tool")), time(&source.join("tool")));
    assert_eq!(fs::read_link(target.join("a/link")).unwrap(), fs::read_link(source.join("a/link")).unwrap());
    fs::set_permissions(source.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(target.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_is_there_stays_but_for_what_has_the_same_name() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    for (path, content) in
        [("source/a/new", "1"), ("source/same", "2"), ("target/a/old", "3"), ("target/same", "4")]
    {
        let file = dir.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    fs::set_permissions(target.join("a"), fs::Permissions::from_mode(0o711)).unwrap();
    let stream = packed(&source);
    unpack(&target, stream.as_slice(), Unpack::default()).unwrap();
    let read = |path: &str| fs::read_to_string(target.join(path)).unwrap();
    assert_eq!([read("a/new"), read("a/old"), read("same")], ["1", "3", "2"]);
    assert_eq!(fs::metadata(target.join("a")).unwrap().mode() & 0o777, 0o711);
    // A file where a folder is, and the other way round.
    let file = hostile(&[("a", EntryType::Regular, "x")]);
    assert!(refusal(&file, &target).contains("target/a: "));
    let folder = hostile(&[("same/", EntryType::Directory, "")]);
    assert!(refusal(&folder, &target).contains("target/same: "));
    assert_eq!(fs::read_dir(&target).unwrap().count(), 2, "nothing is left beside");
}

#[test]
fn a_stream_that_breaks_off_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    fs::create_dir_all(source.join("a")).unwrap();
    fs::write(source.join("a/file"), vec![7; 100_000]).unwrap();
    let stream = packed(&source);
    let options = Unpack { want_summary: true, ..Unpack::default() };
    for length in [0, 100, 512, 1024, 2000, 90_000, stream.len() - 1600] {
        let cut = unpack(&target, &stream[..length], options).unwrap_err();
        assert!(matches!(cut, TreeError::Broken(_)), "{length}: {cut}");
        assert!(!target.exists());
    }
    let failing = stream[..50_000].chain(Failing);
    assert!(matches!(unpack(&target, failing, options).unwrap_err(), TreeError::Broken(_)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn whoever_reads_learns_why_whoever_sends_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut stream = Vec::new();
    let sent = pack(&dir.path().join("none"), &mut stream, words).unwrap_err();
    assert!(sent.to_string().ends_with("/none: No such file or directory (os error 2)"), "{sent}");
    let read = unpack(&dir.path().join("target"), stream.as_slice(), Unpack::default()).unwrap_err();
    let TreeError::Told(told) = read else { panic!("{read}") };
    assert_eq!((told.code, told.message), (ErrorCode::FailedPrecondition, sent.to_string()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn nothing_lands_outside() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let up = "../outside/x";
    let absolute = outside.join("x").display().to_string();
    for name in [up, "a/../../outside/x", &absolute] {
        for kind in [EntryType::Regular, EntryType::Directory, EntryType::Symlink] {
            let message = refusal(&hostile(&[(name, kind, "content")]), &target);
            assert!(message.contains("the stream holds") && message.contains("outside"), "{message}");
        }
    }
    // Through a link of the stream's own, or one that was there before.
    let through = [("l", EntryType::Symlink, "../outside"), ("l/x", EntryType::Regular, "content")];
    assert!(refusal(&hostile(&through), &target).contains("target/l: "));
    let deep = [("l", EntryType::Symlink, "../outside"), ("l/d/x", EntryType::Regular, "content")];
    assert!(refusal(&hostile(&deep), &target).contains("target/l: "));
    fs::create_dir(&target).unwrap();
    symlink(&outside, target.join("l")).unwrap();
    for stream in [&through[1..], &[("l/d/", EntryType::Directory, "")], &[("l/", EntryType::Directory, "")]]
    {
        assert!(refusal(&hostile(stream), &target).contains("target/l: "));
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // What takes a link's own place replaces it, and not what it leads to.
    unpack(&target, hostile(&[("l", EntryType::Regular, "x")]).as_slice(), Unpack::default()).unwrap();
    assert!(target.join("l").symlink_metadata().unwrap().is_file());
    assert_eq!(fs::metadata(target.join("l")).unwrap().mode() & 0o7777, 0o755, "no set-user-ID");
}

#[test]
fn links_that_lead_out_are_left_out_where_that_matters() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    let links = [("in", EntryType::Symlink, "a/b"), ("out", EntryType::Symlink, "/etc/passwd")];
    let options = Unpack { contain_links: true, ..Unpack::default() };
    let summary = unpack(&target, hostile(&links).as_slice(), options).unwrap();
    assert_eq!((summary.links, summary.skipped, summary.skipped_paths), (1, 1, vec!["out".to_owned()]));
    assert!(target.join("out").symlink_metadata().is_err());
    unpack(&target, hostile(&links).as_slice(), Unpack::default()).unwrap();
    assert_eq!(fs::read_link(target.join("out")).unwrap(), Path::new("/etc/passwd"));
}

#[test]
fn devices_hard_links_and_endless_headers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::GNUSparse] {
        assert!(refusal(&hostile(&[("dev", kind, "")]), &target).contains("neither file, folder nor"));
    }
    assert!(refusal(&hostile(&[("h", EntryType::Link, "/etc/passwd")]), &target).contains("hard link"));
    let long = "x".repeat(70_000);
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader]
    {
        assert!(refusal(&hostile(&[("n", kind, &long)]), &target).contains("a header of 70000 bytes"));
    }
    let size = hostile(&[("p", EntryType::XHeader, "10 size=9\n"), ("f", EntryType::Regular, "x")]);
    assert!(refusal(&size, &target).contains("size"));
    assert!(!target.exists());
}

#[test]
fn other_programs_streams_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    let name = format!("deep/{}", "n".repeat(200));
    let path = format!("{} path={name}\n", name.len() + 10);
    let entries = [
        ("pax_global_header", EntryType::XGlobalHeader, "14 comment=ab\n"),
        ("p", EntryType::XHeader, path.as_str()),
        ("short", EntryType::Regular, "content"),
    ];
    let summary = unpack(&target, hostile(&entries).as_slice(), Unpack::default()).unwrap();
    assert_eq!((summary.files, summary.bytes), (1, 7));
    assert_eq!(fs::read_to_string(target.join(&name)).unwrap(), "content");
    assert_eq!(fs::metadata(target.join("deep")).unwrap().mode() & 0o777, 0o755);
}
