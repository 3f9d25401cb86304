//! Processes that are started again, over the channel.

use super::*;

/// What a process has written.
async fn output(session: &Session, id: &str) -> String {
    let response = send(session, &format!("GET /processes/{id}/output"), "").await;
    let mut body = response.into_body();
    let (mut decoder, mut text) = (Decoder::default(), String::new());
    while let Some(frame) = body.frame().await {
        decoder.push(frame.unwrap().data_ref().unwrap());
        while let Some(frame) = decoder.next_frame().unwrap() {
            match frame {
                Frame::Stdout(data) | Frame::Stderr(data) => text += &String::from_utf8_lossy(&data),
                Frame::Exited(_) => return text,
                _ => {}
            }
        }
    }
    text
}

async fn start(session: &Session, id: &str, script: &str, more: Value) -> ProcessInfo {
    let mut spec = json!({"id": id, "command": "sh", "args": ["-c", script]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    call(session, "POST /processes", spec.to_string()).await
}

async fn ended(session: &Session, id: &str) -> ProcessInfo {
    call(session, &format!("GET /processes/{id}?wait_ms=20000"), "").await
}

/// Looks until it is as wanted.
async fn until(session: &Session, id: &str, wanted: impl Fn(&ProcessInfo) -> bool) -> ProcessInfo {
    let looking = async {
        loop {
            let info: ProcessInfo = call(session, &format!("GET /processes/{id}"), "").await;
            if wanted(&info) {
                return info;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking).await.expect("as wanted in time")
}

#[tokio::test]
async fn what_fails_is_started_again_and_its_output_goes_on() {
    let agent = Agent::start();
    let session = agent.session().await;
    let left = agent.path("left");
    // It fails twice, and leaves a child behind each time that must not outlive its run.
    let script = format!(
        "touch {left}; n=$(wc -l < {left}); echo run $n; test $n = 2 && exit; sleep 60 & echo $! >> {left}; exit 1"
    );
    let restart = json!({"name": "shaky", "restart": {"backoff_ms": 100}});
    let info = start(&session, "prc_1", &script, restart).await;
    assert_eq!(info.name.as_deref(), Some("shaky"));
    let info = ended(&session, "prc_1").await;
    assert_eq!((info.restarts, info.next_start_at_ms, info.healthy), (2, None, None));
    assert_eq!(info.exit.unwrap().exit_code, Some(0));
    assert_eq!(info.last_exit.unwrap().exit_code, Some(1));
    assert_eq!(output(&session, "prc_1").await, "run 0\nrun 1\nrun 2\n");
    let pids = std::fs::read_to_string(left).unwrap();
    assert_eq!(pids.lines().count(), 2);
    // Empty once it has ended, whether or not this host's first process has reaped it.
    let command = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    assert_eq!(pids.lines().map(command).collect::<String>(), "");
}

#[tokio::test]
async fn restarts_end_with_their_number_and_with_the_word_of_whoever_asks() {
    let agent = Agent::start();
    let session = agent.session().await;
    let restart = json!({"restart": {"when": "on_failure", "backoff_ms": 100, "max_restarts": 1}});
    start(&session, "prc_1", "exit 7", restart).await;
    let info = ended(&session, "prc_1").await;
    assert_eq!((info.restarts, info.exit.unwrap().exit_code), (1, Some(7)));

    // While it waits for its next start, and while it runs.
    let restart = json!({"name": "web", "restart": {"when": "always", "backoff_ms": 60_000}});
    start(&session, "prc_2", "true", restart.clone()).await;
    let waiting = until(&session, "prc_2", |info| info.next_start_at_ms.is_some()).await;
    assert_eq!((waiting.exit, waiting.last_exit.unwrap().exit_code), (None, Some(0)));
    let spec = json!({"id": "prc_3", "name": "web", "command": "true"});
    let taken = refused(&session, "POST /processes", spec.to_string()).await.error;
    assert_eq!(taken.code, ErrorCode::AlreadyExists);
    assert!(taken.message.contains("prc_2 is called 'web'"), "{taken}");
    let hup = refused(&session, "POST /processes/prc_2/signal", r#"{"signal":1}"#).await.error;
    assert!(hup.message.contains("waits for its next start"), "{hup}");
    call::<ProcessInfo>(&session, "POST /processes/prc_2/signal", r#"{"signal":15}"#).await;
    let info = ended(&session, "prc_2").await;
    assert_eq!((info.restarts, info.exit.unwrap().exit_code), (0, Some(0)));
    start(&session, "prc_4", "exec sleep 60", restart).await;
    call::<ProcessInfo>(&session, "POST /processes/prc_4/signal", r#"{"signal":15}"#).await;
    assert_eq!(ended(&session, "prc_4").await.exit.unwrap().signal, Some(15));

    let bounded = json!({"timeout_ms": 1500, "restart": {"when": "always", "backoff_ms": 1000}});
    start(&session, "prc_5", "exec sleep 60", bounded).await;
    let info = ended(&session, "prc_5").await;
    assert_eq!((info.restarts, info.exit.unwrap().timed_out), (0, true));
}

#[tokio::test]
async fn a_reader_that_stands_still_does_not_keep_it_from_its_work() {
    let agent = Agent::start();
    let session = agent.session().await;
    let spec = json!({"id": "prc_1", "command": "head", "args": ["-c", "6000000", "/dev/zero"],
                      "restart": {"when": "always", "backoff_ms": 100, "max_restarts": 1}});
    let unread = send(&session, "POST /processes?attach=true", spec.to_string()).await;
    let info = ended(&session, "prc_1").await;
    assert_eq!((info.restarts, info.exit.unwrap().stdout_bytes), (1, 12_000_000));
    drop(unread);
}

#[tokio::test]
async fn a_check_by_command_finds_out_and_what_does_not_do_its_work_is_started_again() {
    let agent = Agent::start();
    let session = agent.session().await;
    let sick = agent.path("sick");
    let check = json!({"command": ["sh", "-c", format!("yes | head -c 200000; ! test -e {sick}")],
                       "interval_ms": 100, "retries": 2});
    let more = json!({"restart": {"backoff_ms": 100}, "health_check": check});
    let script = format!("rm -f {sick}; exec sleep 60");
    let first = start(&session, "prc_1", &script, more).await;
    assert_eq!(first.healthy, None);
    until(&session, "prc_1", |info| info.healthy == Some(true)).await;
    std::fs::write(&sick, "").unwrap();
    let again = until(&session, "prc_1", |info| info.restarts == 1 && info.healthy == Some(true)).await;
    assert_ne!(again.pid, first.pid);
    assert_eq!(again.last_exit.unwrap().signal, Some(15));

    // Without a policy it is only said.
    let check = json!({"command": ["sleep", "60"], "interval_ms": 100, "timeout_ms": 100, "retries": 1,
                       "start_period_ms": 0});
    let only = start(&session, "prc_2", "exec sleep 60", json!({"health_check": check})).await;
    let said = until(&session, "prc_2", |info| info.healthy == Some(false)).await;
    assert_eq!((said.pid, said.restarts), (only.pid, 0));
    for id in ["prc_1", "prc_2"] {
        call::<ProcessInfo>(&session, &format!("POST /processes/{id}/signal"), r#"{"signal":9}"#).await;
        assert_eq!(ended(&session, id).await.exit.unwrap().signal, Some(9));
    }
}

#[tokio::test]
async fn a_port_and_a_server_are_asked() {
    use tokio::net::TcpListener;
    let agent = Agent::start();
    let session = agent.session().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (word, answers) = tokio::sync::watch::channel("204 No Content");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = format!("HTTP/1.1 {}\r\n\r\n", *answers.borrow());
            let mut request = vec![0; 4096];
            // Whoever only connects reads no answer.
            if let Ok(count) = stream.read(&mut request).await
                && count > 0
            {
                let request = String::from_utf8_lossy(&request[..count]).into_owned();
                assert!(request.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"), "{request}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let check = |port: u16| json!({"port": port, "interval_ms": 100, "retries": 1, "start_period_ms": 0});
    let mut asked = check(port);
    asked["http_path"] = "/healthz?deep=1".into();
    for (id, check) in [("prc_1", check(port)), ("prc_2", asked), ("prc_3", check(closed))] {
        start(&session, id, "exec sleep 60", json!({"health_check": check})).await;
    }
    until(&session, "prc_1", |info| info.healthy == Some(true)).await;
    until(&session, "prc_2", |info| info.healthy == Some(true)).await;
    until(&session, "prc_3", |info| info.healthy == Some(false)).await;
    word.send_replace("500 Internal Server Error");
    until(&session, "prc_2", |info| info.healthy == Some(false)).await;
    word.send_replace("302 Found");
    until(&session, "prc_2", |info| info.healthy == Some(true)).await;
    for id in ["prc_1", "prc_2", "prc_3"] {
        call::<ProcessInfo>(&session, &format!("POST /processes/{id}/signal"), r#"{"signal":9}"#).await;
    }
}
