//! Records as the suite writes them: the wire's names, milliseconds, and bytes where text would lose some.

use forkyard::{CommandResult, FileStat, PoolInfo, ProcessInfo, Sandbox};
use forkyard_conformance::value::bytes;
use forkyard_protocol::ExitStatus;
use serde::Serialize;
use serde_json::{Value, json};

/// A record as it is on the wire.
pub fn plain(record: impl Serialize) -> Value {
    serde_json::to_value(record).unwrap_or_else(|error| json!({"unreadable": error.to_string()}))
}

pub fn list<T>(records: impl IntoIterator<Item = T>, one: impl Fn(T) -> Value) -> Value {
    records.into_iter().map(one).collect()
}

/// What a machine says of itself without being asked anew.
pub fn sandbox(sandbox: &Sandbox) -> Value {
    json!({"sandbox_id": sandbox.id(), "name": sandbox.info().name, "status": sandbox.info().status})
}

pub fn result(result: &CommandResult) -> Value {
    let CommandResult { process_id, exit_code, signal, stdout, stderr, oom_killed, timed_out, duration } =
        result;
    // Here alone a signal has an exit code, as shells have it.
    let own_code = signal.is_none().then_some(exit_code);
    json!({
        "process_id": process_id, "exit_code": own_code, "signal": signal, "ok": *exit_code == 0,
        "stdout": String::from_utf8_lossy(stdout), "stderr": String::from_utf8_lossy(stderr),
        "stdout_bytes": bytes(stdout), "stderr_bytes": bytes(stderr),
        "oom_killed": oom_killed, "timed_out": timed_out, "duration_ms": duration.as_millis(),
    })
}

pub fn exit(status: &ExitStatus) -> Value {
    let ExitStatus { exit_code, signal, oom_killed, timed_out, duration_ms, stdout_bytes, stderr_bytes } =
        status;
    json!({
        "exit_code": exit_code, "signal": signal, "oom_killed": oom_killed, "timed_out": timed_out,
        "duration_ms": duration_ms, "stdout_size": stdout_bytes, "stderr_size": stderr_bytes,
    })
}

pub fn process_info(info: &ProcessInfo) -> Value {
    let ProcessInfo {
        id,
        pid,
        command,
        args,
        state,
        started_at_ms,
        exit: ended,
        pty,
        name,
        restarts,
        next_start_at_ms,
        last_exit,
        healthy,
    } = info;
    json!({
        "id": id, "pid": pid, "command": command, "args": args, "state": state, "started_at_ms": started_at_ms,
        "exit": ended.as_ref().map(exit), "pty": pty, "name": name, "restarts": restarts,
        "next_start_at_ms": next_start_at_ms, "last_exit": last_exit.as_ref().map(exit), "healthy": healthy,
    })
}

pub fn file(stat: FileStat) -> Value {
    let exact = stat.name_base64.as_ref().map(|name| json!({ "$bytes": name }));
    let mut value = plain(stat);
    if let Some(exact) = exact {
        value["name"] = exact;
    }
    value
}

pub fn pool(pool: PoolInfo) -> Value {
    let mut value = plain(pool);
    if let Some(Value::Object(spec)) = value.as_object_mut().and_then(|pool| pool.remove("spec")) {
        value.as_object_mut().into_iter().for_each(|pool| pool.extend(spec.clone()));
    }
    value
}
