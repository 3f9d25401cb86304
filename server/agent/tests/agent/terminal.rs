//! Processes on a terminal.

use super::*;

fn on_terminal(id: &str, script: &str) -> Value {
    json!({ "id": id, "command": "sh", "args": ["-c", script], "pty": { "rows": 30, "cols": 100 } })
}

async fn start(session: &Session, spec: Value) {
    let _: ProcessInfo = call(session, "POST /processes", spec.to_string()).await;
}

async fn kind(session: &Session, writer: &str, offset: usize, data: &'static str) -> u64 {
    let target = format!("PUT /processes/prc_1/stdin?offset={offset}&writer={writer}");
    call::<StdinReply>(session, &target, data).await.offset
}

/// Waits until a viewer of its own is shown this.
async fn until_shown(session: &Session, part: &str) {
    let mut body = send(session, "GET /processes/prc_1/output", "").await.into_body();
    let (mut decoder, mut shown) = (Decoder::new(), Vec::new());
    while !shown.windows(part.len()).any(|window| window == part.as_bytes()) {
        let frame = body.frame().await.unwrap_or_else(|| panic!("never shown: {part}, but {shown:?}"));
        decoder.push(frame.unwrap().data_ref().unwrap());
        while let Some(frame) = decoder.next_frame().unwrap() {
            if let Frame::Stdout(data) = frame {
                shown.extend(data);
            }
        }
    }
}

/// Its whole output, from the oldest that is kept.
async fn whole(session: &Session) -> Output {
    read(send(session, "GET /processes/prc_1/output", "").await, usize::MAX).await
}

#[tokio::test]
async fn a_process_leads_its_terminal() {
    let agent = Agent::start();
    let session = agent.session().await;
    let script =
        "stty size; echo $TERM; ps -o pid=,sid=,tpgid= -p $$; test -t 0 && test -t 1 && test -t 2; exit 3";
    let output = run(&session, on_terminal("prc_1", script)).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(lines[..2], ["30 100", "xterm-256color"]);
    let ids: Vec<&str> = lines[2].split_whitespace().collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let exit = output.exit.unwrap();
    assert_eq!((exit.exit_code, exit.stdout_bytes), (Some(3), text.len() as u64));
    let info: ProcessInfo = call(&session, "GET /processes/prc_1", "").await;
    assert_eq!(info.pty.map(|size| (size.rows, size.cols)), Some((30, 100)));
}

#[tokio::test]
async fn without_a_command_it_is_the_shell() {
    let agent = Agent::start();
    let session = agent.session().await;
    start(&session, json!({ "id": "prc_1", "pty": {} })).await;
    kind(&session, "a", 0, "stty size; exit 5\n").await;
    let output = whole(&session).await;
    assert!(String::from_utf8_lossy(&output.stdout).contains("24 80\r\n"));
    assert_eq!(output.exit.unwrap().exit_code, Some(5));
    let info: ProcessInfo = call(&session, "GET /processes/prc_1", "").await;
    assert_eq!(info.command, "/bin/sh");
}

#[tokio::test]
async fn a_new_size_is_told_to_the_foreground() {
    let agent = Agent::start();
    let session = agent.session().await;
    let script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done";
    let response =
        send(&session, "POST /processes?attach=true", on_terminal("prc_1", script).to_string()).await;
    read(response, 7).await;
    let size = r#"{"rows": 40, "cols": 132}"#;
    let info: ProcessInfo = call(&session, "POST /processes/prc_1/resize", size).await;
    assert_eq!(info.pty.map(|size| (size.rows, size.cols)), Some((40, 132)));
    assert_eq!(whole(&session).await.stdout, b"ready\r\n40 132\r\n");
    let ended = refused(&session, "POST /processes/prc_1/resize", size).await.error;
    assert_eq!(ended.code, ErrorCode::FailedPrecondition);
    let bad = refused(&session, "POST /processes/prc_1/resize", r#"{"rows": 0, "cols": 1}"#).await.error;
    assert_eq!(bad.code, ErrorCode::InvalidArgument);
    run(&session, spec("prc_2", "true")).await;
    let none = refused(&session, "POST /processes/prc_2/resize", size).await.error;
    assert!(none.message.contains("no terminal"), "{none}");
}

#[tokio::test]
async fn two_who_type_lose_nothing_and_repeat_nothing() {
    let agent = Agent::start();
    let session = agent.session().await;
    let script = "stty -echo; echo ready; for i in 1 2 3; do read x; echo got $x; done";
    start(&session, on_terminal("prc_1", script)).await;
    until_shown(&session, "ready\r\n").await;
    assert_eq!(kind(&session, "a", 0, "one\n").await, 4);
    // Said again, as after a cut.
    assert_eq!(kind(&session, "a", 0, "one\n").await, 4);
    assert_eq!(kind(&session, "b", 0, "two\n").await, 4);
    let gap = refused(&session, "PUT /processes/prc_1/stdin?offset=9&writer=c", "x").await.error;
    assert_eq!(gap.code, ErrorCode::FailedPrecondition);
    let closing = refused(&session, "PUT /processes/prc_1/stdin?offset=0&close=true", "").await.error;
    assert!(closing.message.contains("Ctrl-D"), "{closing}");
    assert_eq!(kind(&session, "a", 4, "three\n").await, 10);
    assert_eq!(whole(&session).await.stdout, b"ready\r\ngot one\r\ngot two\r\ngot three\r\n");
}

#[tokio::test]
async fn keys_and_signals_reach_the_foreground_alone() {
    let agent = Agent::start();
    let session = agent.session().await;
    // A shell with job control: what it runs has a process group of its own.
    let shell = json!({ "id": "prc_1", "command": "sh", "args": ["-i"], "env": { "PS1": "" }, "pty": {} });
    start(&session, shell).await;
    kind(&session, "a", 0, "sleep 100\n").await;
    until_foreground_sleeps(&session).await;
    kind(&session, "a", 10, "\x03").await;
    kind(&session, "a", 11, "echo code $?\n").await;
    until_shown(&session, "code 130\r\n").await;
    kind(&session, "a", 24, "sleep 100; echo code $?\n").await;
    until_foreground_sleeps(&session).await;
    let _: ProcessInfo = call(&session, "POST /processes/prc_1/signal", r#"{"signal": 15}"#).await;
    until_shown(&session, "code 143\r\n").await;
    kind(&session, "a", 48, "exit 6\n").await;
    assert_eq!(whole(&session).await.exit.unwrap().exit_code, Some(6));
}

/// Waits until the process's child runs `sleep`.
async fn until_foreground_sleeps(session: &Session) {
    let info: ProcessInfo = call(session, "GET /processes/prc_1", "").await;
    let children = format!("/proc/{0}/task/{0}/children", info.pid);
    let sleeps = || {
        let child = std::fs::read_to_string(&children).unwrap_or_default();
        let name = std::fs::read_to_string(format!("/proc/{}/comm", child.trim())).unwrap_or_default();
        name == "sleep\n"
    };
    while !sleeps() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_viewer_that_stands_still_learns_what_it_lost() {
    let agent = Agent::start();
    let session = agent.session().await;
    let script = "stty -opost; head -c 10000000 /dev/zero | tr '\\0' a; echo end";
    let response =
        send(&session, "POST /processes?attach=true", on_terminal("prc_1", script).to_string()).await;
    // The connection is there, and nobody reads it.
    let info: ProcessInfo = call(&session, "GET /processes/prc_1?wait_ms=30000", "").await;
    assert_eq!(info.exit.expect("it runs on").stdout_bytes, 10_000_004);
    let output = read(response, usize::MAX).await;
    assert!(output.dropped > 1_000_000, "{}", output.dropped);
    assert_eq!(output.dropped + output.stdout.len() as u64, 10_000_004);
    assert!(output.stdout.ends_with(b"end\n"));
}

#[tokio::test]
async fn a_viewer_that_reads_gets_all_whatever_another_does() {
    let agent = Agent::start();
    let session = agent.session().await;
    let script = "stty -opost -echo; echo ready; read x; head -c 10000000 /dev/zero | tr '\\0' a; echo end";
    let quick = send(&session, "POST /processes?attach=true", on_terminal("prc_1", script).to_string()).await;
    let still = send(&session, "GET /processes/prc_1/output", "").await;
    // Before that what is typed is shown.
    until_shown(&session, "ready\n").await;
    kind(&session, "a", 0, "\n").await;
    let quick = read(quick, usize::MAX).await;
    assert_eq!((quick.stdout.len(), quick.dropped), (10_000_010, 0));
    let still = read(still, usize::MAX).await;
    assert_eq!(still.stdout.len() as u64 + still.dropped, 10_000_010);
    assert!(still.dropped > 1_000_000, "{}", still.dropped);
}

#[tokio::test]
async fn one_that_all_have_left_is_hung_up() {
    let agent = Agent::start();
    let session = agent.session().await;
    let mut spec = on_terminal("prc_1", "echo ready; sleep 100; echo never");
    spec["pty"]["hangup_after_ms"] = json!(300);
    let response = send(&session, "POST /processes?attach=true", spec.to_string()).await;
    // While it is viewed it lives.
    let info: ProcessInfo = call(&session, "GET /processes/prc_1?wait_ms=900", "").await;
    assert!(info.exit.is_none());
    drop(response);
    let info: ProcessInfo = call(&session, "GET /processes/prc_1?wait_ms=20000", "").await;
    assert_eq!(info.exit.expect("hung up").signal, Some(1));
}

#[tokio::test]
async fn terminals_are_bounded() {
    let agent = Agent::start();
    let session = agent.session().await;
    for number in 0..32 {
        start(&session, on_terminal(&format!("prc_{number}"), "exec sleep 100")).await;
    }
    let spec = on_terminal("prc_more", "true").to_string();
    let full = refused(&session, "POST /processes", spec.clone()).await.error;
    assert_eq!(full.code, ErrorCode::NoCapacity);
    let _: ProcessInfo = call(&session, "POST /processes/prc_7/signal", r#"{"signal": 9}"#).await;
    let info: ProcessInfo = call(&session, "GET /processes/prc_7?wait_ms=20000", "").await;
    assert_eq!(info.exit.unwrap().signal, Some(9));
    start(&session, json!(serde_json::from_str::<Value>(&spec).unwrap())).await;
}
