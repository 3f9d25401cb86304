use std::io;
use std::pin::pin;
use std::rc::Rc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{FromGateway, ToGateway};
use crate::gateway::Gateway;
use crate::limits::{CONTROL_WRITE_DEADLINE, MAX_CONTROL_LINE};

/// Answers that wait while the server reads none; no more of its lines are read then.
const ANSWERS: usize = 8;

/// Serves one server at a time; a new one takes the place of the one before. Ends when the server says so, or the socket fails.
pub async fn serve(gateway: Rc<Gateway>, listener: UnixListener) -> io::Result<()> {
    let mut next = listener.accept().await?.0;
    loop {
        tokio::select! {
            stop = session(&gateway, next) => {
                if stop {
                    return Ok(());
                }
                next = listener.accept().await?.0;
            }
            newer = listener.accept() => next = newer?.0,
        }
    }
}

/// Speaks with one server until it goes; true where it says that the gateway is to end.
async fn session(gateway: &Rc<Gateway>, stream: UnixStream) -> bool {
    let (reader, writer) = stream.into_split();
    let (answers, waiting) = mpsc::channel(ANSWERS);
    let mut listening = pin!(listen(gateway, reader, answers));
    let outcome = tokio::select! {
        outcome = &mut listening => outcome,
        outcome = speak(gateway, writer, waiting) => match outcome {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(error),
            // It hears nothing any more, but what it said before it went still counts: it may be the end.
            Ok(()) | Err(_) => listening.await,
        },
    };
    outcome.unwrap_or_else(|error| {
        tracing::info!("the server's connection broke: {error}");
        false
    })
}

async fn listen(
    gateway: &Gateway,
    reader: OwnedReadHalf,
    answers: mpsc::Sender<FromGateway>,
) -> io::Result<bool> {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = MAX_CONTROL_LINE as u64 + 1;
        if (&mut reader).take(most).read_until(b'\n', &mut line).await? == 0 {
            return Ok(false);
        }
        if line.last() != Some(&b'\n') {
            let why = format!("a line has at most {MAX_CONTROL_LINE} bytes and ends with a newline");
            // Where the next line begins is not known.
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let answer = match serde_json::from_slice(&line) {
            Ok(ToGateway::Stop) => return Ok(true),
            Ok(ToGateway::Counters) => FromGateway::Counters(gateway.counters()),
            Ok(ToGateway::Policy(policy)) => match gateway.set_policy(&policy) {
                Ok(()) => FromGateway::PolicySet,
                Err(error) => FromGateway::Error(error.to_string()),
            },
            Err(error) => FromGateway::Error(error.to_string()),
        };
        if answers.send(answer).await.is_err() {
            tracing::debug!("the server is gone before its answer");
        }
    }
}

async fn speak(
    gateway: &Gateway,
    mut writer: OwnedWriteHalf,
    mut answers: mpsc::Receiver<FromGateway>,
) -> io::Result<()> {
    loop {
        let event = gateway.events.first();
        if let Some(event) = event {
            send(&mut writer, &FromGateway::Event(event)).await?;
            gateway.events.pop();
            if let Ok(answer) = answers.try_recv() {
                send(&mut writer, &answer).await?;
            }
            continue;
        }
        tokio::select! {
            answer = answers.recv() => match answer {
                Some(answer) => send(&mut writer, &answer).await?,
                None => return Ok(()),
            },
            () = gateway.events.told() => {}
        }
    }
}

async fn send(writer: &mut OwnedWriteHalf, message: &FromGateway) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    timeout(CONTROL_WRITE_DEADLINE, writer.write_all(&line)).await?
}
