//! QEMU's machine protocol: one JSON document a line (<https://www.qemu.org/docs/master/interop/qmp-spec.html>).

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex as AsyncMutex, broadcast, oneshot};
use tokio::time::timeout;

use super::super::{VmmError, socket};

/// How long a command may take. QEMU answers in milliseconds; work that lasts is started by a command and ends in an event.
const COMMAND_DEADLINE: Duration = Duration::from_secs(20);

/// Longest line that is taken, in bytes: answers are small, and a ring buffer's content is 64 KiB.
const MAX_LINE: u64 = 1024 * 1024;

/// Events that a listener may lag behind before it loses the oldest.
const EVENTS: usize = 64;

#[derive(Deserialize)]
struct Message {
    id: Option<u64>,
    event: Option<String>,
    data: Option<Value>,
    #[serde(rename = "return")]
    result: Option<Value>,
    error: Option<CommandError>,
}

#[derive(Deserialize)]
struct CommandError {
    desc: String,
}

/// Something that happened in a machine.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its name, such as `SHUTDOWN`.
    pub name: String,
    /// What belongs to it; null where nothing does.
    pub data: Value,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>>;

/// A connection to one QEMU. Commands may overlap; each has a deadline.
pub struct Qmp {
    writer: AsyncMutex<OwnedWriteHalf>,
    waiting: Waiting,
    next_id: AtomicU64,
    events: broadcast::WeakSender<Event>,
    reader: tokio::task::JoinHandle<()>,
}

impl Qmp {
    /// Connects and negotiates; answers the connection and its events from the first on. They end with the connection.
    pub async fn connect(path: &Path) -> Result<(Self, broadcast::Receiver<Event>), VmmError> {
        let stream = socket::connect(path).await.map_err(|error| failed("connect", &error))?;
        let (read, write) = stream.into_split();
        let mut lines = BufReader::new(read);
        let greeting = timeout(COMMAND_DEADLINE, read_line(&mut lines))
            .await
            .map_err(|_| failed("greeting", &"no answer in time"))?
            .map_err(|error| failed("greeting", &error))?;
        if serde_json::from_slice::<Value>(&greeting)
            .ok()
            .and_then(|value| value.get("QMP").cloned())
            .is_none()
        {
            return Err(failed("greeting", &"not QEMU's machine protocol"));
        }
        let waiting = Waiting::default();
        let (sender, events) = broadcast::channel(EVENTS);
        let weak = sender.downgrade();
        let reader = tokio::spawn(read_messages(lines, waiting.clone(), sender));
        let qmp = Self {
            writer: AsyncMutex::new(write),
            waiting,
            next_id: AtomicU64::new(1),
            events: weak,
            reader,
        };
        qmp.execute::<IgnoredAny>("qmp_capabilities", None).await?;
        Ok((qmp, events))
    }

    /// Runs a command and answers what it returns.
    pub async fn execute<T: DeserializeOwned>(
        &self,
        command: &str,
        arguments: Option<Value>,
    ) -> Result<T, VmmError> {
        let answer = self.exchange(command, arguments).await?;
        serde_json::from_value(answer).map_err(|error| failed(command, &error))
    }

    /// The events from now on; an error once the connection has ended.
    pub fn events(&self) -> Result<broadcast::Receiver<Event>, VmmError> {
        let sender = self.events.upgrade().ok_or_else(|| failed("events", &"the connection ended"))?;
        Ok(sender.subscribe())
    }

    async fn exchange(&self, command: &str, arguments: Option<Value>) -> Result<Value, VmmError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut request = serde_json::json!({ "execute": command, "id": id });
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(id, sender);
        // Also where the caller gives up: nobody else would take the entry away.
        let _forget = Forget { waiting: &self.waiting, id };
        let exchange = async {
            let line = format!("{request}\n");
            self.writer
                .lock()
                .await
                .write_all(line.as_bytes())
                .await
                .map_err(|error| failed(command, &error))?;
            answer
                .await
                .map_err(|_| failed(command, &"the connection ended"))?
                .map_err(|description| failed(command, &description))
        };
        let result = timeout(COMMAND_DEADLINE, exchange).await;
        result.unwrap_or_else(|_| Err(failed(command, &"no answer in time")))
    }
}

struct Forget<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(&self.id);
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read_line(lines: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    lines.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

async fn read_messages(
    mut lines: BufReader<OwnedReadHalf>,
    waiting: Waiting,
    events: broadcast::Sender<Event>,
) {
    while let Ok(line) = read_line(&mut lines).await {
        let message: Message = match serde_json::from_slice(&line) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(%error, "QEMU sent a line that is no message");
                continue;
            }
        };
        if let Some(name) = message.event {
            tracing::debug!(event = name, "QEMU");
            // Without a listener nobody misses it.
            drop(events.send(Event { name, data: message.data.unwrap_or(Value::Null) }));
        } else if let Some(sender) = message.id.and_then(|id| lock(&waiting).remove(&id)) {
            let result = match message.error {
                Some(error) => Err(error.desc),
                None => Ok(message.result.unwrap_or(Value::Null)),
            };
            // A caller whose deadline passed needs no answer.
            drop(sender.send(result));
        }
    }
    // Dropping the senders tells every caller that the connection ended.
    lock(&waiting).clear();
}

fn lock(
    waiting: &Waiting,
) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<Value, String>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(command: &str, error: &dyn std::fmt::Display) -> VmmError {
    VmmError::Failed(format!("QEMU's machine protocol, {command}: {error}"))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    async fn fake_qemu(listener: UnixListener) {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        write.write_all(b"{\"QMP\": {\"version\": {}}}\r\n").await.unwrap();
        let mut lines = BufReader::new(read);
        while let Ok(line) = read_line(&mut lines).await {
            let request: Value = serde_json::from_slice(&line).unwrap();
            let answer = match request["execute"].as_str().unwrap() {
                "fail" => {
                    serde_json::json!({ "id": request["id"], "error": { "class": "X", "desc": "told to" } })
                }
                "hang_up" => return,
                "be_silent" => continue,
                _ => serde_json::json!({ "id": request["id"], "return": request["arguments"] }),
            };
            let event = serde_json::json!({ "event": "STOP", "timestamp": {}, "data": { "n": 1 } });
            write.write_all(format!("{event}\r\n{answer}\r\n").as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn answers_and_errors_find_their_commands_between_events() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp");
        tokio::spawn(fake_qemu(UnixListener::bind(&socket).unwrap()));
        let (qmp, mut events) = Qmp::connect(&socket).await.unwrap();
        let arguments = serde_json::json!({ "a": [1, 2] });
        assert_eq!(qmp.execute::<Value>("echo", Some(arguments.clone())).await.unwrap(), arguments);
        let failure = async |command| qmp.execute::<Value>(command, None).await.unwrap_err().to_string();
        assert!(failure("fail").await.contains("told to"));
        assert!(
            qmp.execute::<u64>("echo", Some(arguments))
                .await
                .unwrap_err()
                .to_string()
                .contains("expected u64")
        );
        assert!(failure("hang_up").await.contains("the connection ended"));
        let event = events.recv().await.unwrap();
        assert_eq!((event.name.as_str(), &event.data["n"]), ("STOP", &Value::from(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_without_an_answer_meets_its_deadline_and_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp");
        tokio::spawn(fake_qemu(UnixListener::bind(&socket).unwrap()));
        let (qmp, _events) = Qmp::connect(&socket).await.unwrap();
        let error = qmp.execute::<Value>("be_silent", None).await.unwrap_err();
        assert!(error.to_string().contains("no answer in time"), "{error}");
        drop(timeout(Duration::from_millis(1), qmp.execute::<Value>("be_silent", None)).await);
        assert!(lock(&qmp.waiting).is_empty());
    }
}
