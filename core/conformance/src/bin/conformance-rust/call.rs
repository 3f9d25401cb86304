//! A call as it is asked for, and the table of all there are.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use forkyard::{Client, Error, EventStream, Forward, Handle, Process, Pty, Sandbox, Tunnel, Watch};
use forkyard_conformance::value::to_bytes;
use forkyard_conformance::wire::Call;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::sync::Mutex as AsyncMutex;

use crate::objects::{Object, Objects};
use crate::{client, events, files, ports, process, pty, sandbox, swarm};

/// How a call failed, as it is told.
#[derive(Debug)]
pub struct Failure(pub Value);

/// What a call came to.
pub type Outcome = Result<Value, Failure>;

impl Failure {
    pub fn cancelled() -> Self {
        Self(json!({"code": "cancelled", "message": "the call was cancelled"}))
    }

    /// Asked for what there is not: a fault of the suite.
    pub fn unasked(why: impl Display) -> Self {
        Self(json!({"code": "executor", "message": why.to_string()}))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let Error { code, message, request_id, retry_after, resource, errno } = error;
        let retry_after_ms = retry_after.map(|wait| wait.as_millis());
        Self(
            json!({"code": code, "message": message, "request_id": request_id, "retry_after_ms": retry_after_ms,
            "resource": resource, "errno": errno}),
        )
    }
}

/// What a stream's own functions fail with has no code: they are those of every stream.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Error::new(forkyard::ErrorCode::Connection, error.to_string()).into()
    }
}

impl From<forkyard::InvalidId> for Failure {
    fn from(error: forkyard::InvalidId) -> Self {
        Self(json!({"code": "invalid_argument", "message": error.to_string()}))
    }
}

/// A call that is to be made.
pub struct Invocation<'a> {
    objects: &'a Objects,
    on: Option<Object>,
    args: Value,
}

impl<'a> Invocation<'a> {
    pub fn new(objects: &'a Objects, call: Call) -> Result<Self, Failure> {
        let on = match call.on {
            None => None,
            Some(handle) => {
                Some(objects.get(&handle).ok_or_else(|| Failure::unasked(format!("no object {handle}")))?)
            }
        };
        Ok(Self { objects, on, args: Value::Object(call.args) })
    }

    /// Its arguments; unknown ones are refused.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        T::deserialize(&self.args).map_err(Failure::unasked)
    }

    pub fn client(&self) -> Result<&Client, Failure> {
        match &self.on {
            Some(Object::Client(client)) => Ok(client),
            _ => Err(Failure::unasked("it is called on a client")),
        }
    }

    /// A client that is named among the arguments.
    pub fn client_of(&self, handle: &str) -> Result<Client, Failure> {
        match self.objects.get(handle) {
            Some(Object::Client(client)) => Ok(client),
            _ => Err(Failure::unasked(format!("{handle} is no client"))),
        }
    }

    pub fn sandbox(&self) -> Result<&Sandbox, Failure> {
        match &self.on {
            Some(Object::Sandbox(sandbox)) => Ok(sandbox),
            _ => Err(Failure::unasked("it is called on a sandbox")),
        }
    }

    pub fn process(&self) -> Result<(&Arc<AsyncMutex<Process>>, &Handle), Failure> {
        match &self.on {
            Some(Object::Process(process, handle)) => Ok((process, handle)),
            _ => Err(Failure::unasked("it is called on a process")),
        }
    }

    pub fn pty(&self) -> Result<&AsyncMutex<Option<Pty>>, Failure> {
        match &self.on {
            Some(Object::Pty(pty)) => Ok(pty),
            _ => Err(Failure::unasked("it is called on a terminal")),
        }
    }

    pub fn tunnel(&self) -> Result<&AsyncMutex<Option<Tunnel>>, Failure> {
        match &self.on {
            Some(Object::Tunnel(tunnel)) => Ok(tunnel),
            _ => Err(Failure::unasked("it is called on a stream")),
        }
    }

    pub fn forward(&self) -> Result<&AsyncMutex<Option<Forward>>, Failure> {
        match &self.on {
            Some(Object::Forward(forward)) => Ok(forward),
            _ => Err(Failure::unasked("it is called on a forwarded port")),
        }
    }

    pub fn watch(&self) -> Result<&AsyncMutex<Option<Watch>>, Failure> {
        match &self.on {
            Some(Object::Watch(watch)) => Ok(watch),
            _ => Err(Failure::unasked("it is called on a watched folder")),
        }
    }

    pub fn events(&self) -> Result<&AsyncMutex<Option<EventStream>>, Failure> {
        match &self.on {
            Some(Object::Events(events)) => Ok(events),
            _ => Err(Failure::unasked("it is called on a machine's events")),
        }
    }

    /// Keeps an object, and adds its handle to what is said of it.
    pub fn keep(&self, object: Object, mut said: Value) -> Value {
        said["$handle"] = self.objects.add(object).into();
        said
    }
}

/// Bytes, or a string's.
pub struct Raw(pub Vec<u8>);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        to_bytes(&Value::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

/// No arguments.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct None_ {}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

macro_rules! calls {
    ($($name:literal: $run:path, [$($method:literal),+];)+) => {
        /// All calls.
        pub const NAMES: &[&str] = &[$($name),+];

        /// The public methods that a call goes through, the telling one first.
        pub fn via(name: &str) -> Option<&'static [&'static str]> {
            match name {
                $($name => Some(&[$($method),+]),)+
                _ => None,
            }
        }

        /// Makes a call.
        pub async fn dispatch(name: &str, invocation: &Invocation<'_>) -> Outcome {
            match name {
                $($name => $run(invocation).await,)+
                _ => Err(Failure::unasked(format!("no binding for {name}"))),
            }
        }
    };
}

calls! {
    "client.open": client::open,
        ["Client::builder", "ClientBuilder::url", "ClientBuilder::api_key", "ClientBuilder::timeout", "ClientBuilder::build"];
    "client.in_scope": client::in_scope, ["Client::server_info"];
    "client.create": client::create, ["Client::create"];
    "client.create_in_scope": client::create_in_scope, ["Client::create", "Sandbox::terminate"];
    "client.get_or_create": client::get_or_create, ["Client::get_or_create"];
    "client.connect": client::connect, ["Client::connect"];
    "client.get": client::get, ["Client::get"];
    "client.list": client::list, ["Client::list"];
    "client.find": client::find, ["Client::sandboxes", "SandboxListing::all"];
    "client.iter": client::iter, ["Client::sandboxes", "SandboxListing::next"];
    "client.terminate": client::terminate, ["Client::terminate"];
    "client.images": client::images, ["Client::images"];
    "client.server_info": client::server_info, ["Client::server_info"];
    "client.create_key": client::create_key, ["Client::create_key"];
    "client.list_keys": client::list_keys, ["Client::list_keys"];
    "client.revoke_key": client::revoke_key, ["Client::revoke_key"];
    "client.snapshot": client::snapshot, ["Client::snapshot"];
    "client.snapshots": client::snapshots, ["Client::snapshots"];
    "client.delete_snapshot": client::delete_snapshot, ["Client::delete_snapshot"];
    "client.retention": client::retention, ["Client::retention"];
    "client.set_retention": client::set_retention, ["Client::set_retention"];
    "client.create_pool": client::create_pool, ["Client::create_pool"];
    "client.pool": client::pool, ["Client::pool"];
    "client.pools": client::pools, ["Client::pools"];
    "client.change_pool": client::change_pool, ["Client::change_pool"];
    "client.delete_pool": client::delete_pool, ["Client::delete_pool"];
    "client.swarm": swarm::swarm, ["Client::swarm", "Swarm::concurrency", "Swarm::retries", "Swarm::task_timeout",
        "Swarm::on_progress", "Swarm::run"];
    "sandbox.record": sandbox::record, ["Sandbox::info", "Sandbox::id"];
    "sandbox.info": sandbox::info, ["Sandbox::refresh"];
    "sandbox.in_scope": sandbox::in_scope, ["Sandbox::terminate", "Sandbox::run"];
    "sandbox.terminate": sandbox::terminate, ["Sandbox::terminate"];
    "sandbox.checkpoint": sandbox::checkpoint, ["Sandbox::checkpoint"];
    "sandbox.delete_snapshot": sandbox::delete_snapshot, ["Client::delete_snapshot"];
    "sandbox.fork": sandbox::fork, ["Sandbox::fork"];
    "sandbox.suspend": sandbox::suspend, ["Sandbox::suspend"];
    "sandbox.resume": sandbox::resume, ["Sandbox::resume"];
    "sandbox.extend_timeout": sandbox::extend_timeout, ["Sandbox::extend_timeout"];
    "sandbox.restore": sandbox::restore, ["Sandbox::restore"];
    "sandbox.network": sandbox::network, ["Sandbox::network"];
    "sandbox.update_network": sandbox::update_network, ["Sandbox::update_network"];
    "sandbox.network_events": sandbox::network_events, ["Sandbox::network_events"];
    "sandbox.events": events::list, ["Sandbox::events"];
    "sandbox.follow_events": events::follow, ["Sandbox::follow_events"];
    "sandbox.follow_events_in_scope": events::follow_in_scope, ["Sandbox::follow_events", "EventStream::next"];
    "sandbox.run": sandbox::run, ["Sandbox::run", "Command::new", "Command::args", "Command::env", "Command::cwd",
        "Command::user", "Command::stdin", "Command::timeout", "Command::kill_on_cancel"];
    "sandbox.run_streamed": sandbox::run_streamed, ["Sandbox::run_with"];
    "sandbox.run_on_terminal": sandbox::run_on_terminal, ["Command::terminal", "Sandbox::run"];
    "sandbox.start": sandbox::start, ["Sandbox::start", "Command::open_stdin", "Command::name", "Command::restart",
        "Command::health_check"];
    "sandbox.process": sandbox::process, ["Sandbox::process"];
    "sandbox.processes": sandbox::processes, ["Sandbox::processes"];
    "sandbox.pty": pty::start, ["Sandbox::pty", "Command::shell"];
    "sandbox.attach_pty": pty::attach, ["Sandbox::attach_pty"];
    "sandbox.pty_in_scope": pty::in_scope, ["Sandbox::pty", "Pty::signal"];
    "files.read": files::read, ["Files::read", "Files::read_range", "Sandbox::files"];
    "files.read_text": files::read_text, ["Files::read"];
    "files.write": files::write, ["Files::write"];
    "files.list": files::list, ["Files::list"];
    "files.stat": files::stat, ["Files::stat"];
    "files.exists": files::exists, ["Files::exists"];
    "files.make_dir": files::make_dir, ["Files::make_dir"];
    "files.move": files::rename, ["Files::rename"];
    "files.remove": files::remove, ["Files::remove"];
    "files.upload": files::upload, ["Files::upload"];
    "files.download": files::download, ["Files::download"];
    "files.upload_dir": files::upload_dir, ["Files::upload_dir"];
    "files.download_dir": files::download_dir, ["Files::download_dir"];
    "files.watch": events::watch, ["Files::watch"];
    "files.watch_in_scope": events::watch_in_scope, ["Files::watch", "Watch::next"];
    "watch.read": events::read_watch, ["Watch::next"];
    "watch.close": events::close_watch, ["Files::watch"];
    "events.read": events::read_events, ["EventStream::next"];
    "events.close": events::close_events, ["Sandbox::follow_events"];
    "process.id": process::id, ["Process::id", "Handle::id"];
    "process.read": process::read, ["Process::next"];
    "process.wait": process::wait, ["Process::next"];
    "process.info": process::info, ["Handle::info", "Process::handle"];
    "process.send_signal": process::send_signal, ["Handle::signal"];
    "process.kill": process::kill, ["Handle::signal"];
    "process.write_stdin": process::write_stdin, ["Handle::write_stdin"];
    "process.close_stdin": process::close_stdin, ["Handle::close_stdin"];
    "process.resize": process::resize, ["Handle::resize"];
    "pty.id": pty::id, ["Pty::id"];
    "pty.read": pty::read, ["Pty::next"];
    "pty.wait": pty::wait, ["Pty::wait"];
    "pty.write": pty::write, ["Pty::write"];
    "pty.resize": pty::resize, ["Pty::resize"];
    "pty.send_signal": pty::send_signal, ["Pty::signal"];
    "pty.kill": pty::kill, ["Handle::signal", "Pty::handle"];
    "pty.info": pty::info, ["Pty::info"];
    "pty.detach": pty::detach, ["Sandbox::attach_pty"];
    "ports.list": ports::list, ["Ports::list", "Sandbox::ports"];
    "ports.wait": ports::wait, ["Ports::wait"];
    "ports.url": ports::url, ["Ports::url"];
    "ports.preview_url": ports::preview_url, ["Ports::preview"];
    "ports.connect": ports::connect, ["Ports::connect"];
    "ports.forward": ports::forward, ["Ports::forward", "Forward::address"];
    "ports.exchange_in_scope": ports::exchange_in_scope, ["Ports::connect", "Ports::forward"];
    "forward.close": ports::close_forward, ["Forward::close"];
    "tunnel.read": ports::read, ["Ports::connect"];
    "tunnel.read_all": ports::read_all, ["Ports::connect"];
    "tunnel.write": ports::write, ["Ports::connect"];
    "tunnel.close_write": ports::close_write, ["Ports::connect"];
    "tunnel.close": ports::close, ["Ports::connect"];
}
