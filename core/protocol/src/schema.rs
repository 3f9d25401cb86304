//! The frozen surface: `schema/v1.json` against what the types say now.

use std::path::Path;

use schemars::SchemaGenerator;

use crate::{
    Capacity, CreateKey, CreatePreview, CreateSandbox, CreateSnapshot, CreatedKey, ErrorReply, ExitStatus,
    ExtendTimeout, FileEvent, FileList, FileStat, ForkSandbox, GuestConfig, GuestFiles, GuestHealth, Health,
    ImageList, KeyList, MissingFiles, NetworkEventList, NetworkInfo, Pool, PoolList, PoolSpec, PortList,
    Preview, ProcessInfo, ProcessList, ProcessSpec, PtySize, RestoreSandbox, RetentionPolicy, Sandbox,
    SandboxEventList, SandboxList, SandboxPage, ServerInfo, SignalRequest, SnapshotList, StdinReply,
    TreeSummary,
};

fn schema_now() -> serde_json::Value {
    let mut generator = SchemaGenerator::default();
    macro_rules! add {
        ($($name:ty),+ $(,)?) => { $(generator.subschema_for::<$name>();)+ };
    }
    add!(
        Capacity,
        CreateKey,
        CreateSandbox,
        CreateSnapshot,
        CreatedKey,
        ErrorReply,
        ExitStatus,
        ExtendTimeout,
        FileEvent,
        FileList,
        FileStat,
        ForkSandbox,
        GuestConfig,
        GuestFiles,
        GuestHealth,
        Health,
        ImageList,
        KeyList,
        MissingFiles,
        NetworkEventList,
        NetworkInfo,
        Pool,
        PoolList,
        PoolSpec,
        CreatePreview,
        PortList,
        Preview,
        ProcessInfo,
        ProcessList,
        ProcessSpec,
        PtySize,
        RestoreSandbox,
        RetentionPolicy,
        Sandbox,
        SandboxEventList,
        SandboxList,
        SandboxPage,
        ServerInfo,
        SignalRequest,
        SnapshotList,
        StdinReply,
        TreeSummary,
    );
    serde_json::json!({ "definitions": generator.take_definitions(true) })
}

#[test]
fn the_wire_is_what_the_reviewed_file_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/v1.json");
    let now = serde_json::to_string_pretty(&schema_now()).unwrap() + "\n";
    if std::env::var_os("FORKYARD_WRITE_SCHEMA").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let frozen = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        frozen == now,
        "the wire types differ from {}; if that is meant, run the test with FORKYARD_WRITE_SCHEMA=1 and review the diff",
        path.display()
    );
}
