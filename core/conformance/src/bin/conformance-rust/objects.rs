//! What calls answered with that can be called on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use forkyard::{Client, EventStream, Forward, Handle, Process, Pty, Sandbox, Tunnel, Watch};
use tokio::sync::Mutex as AsyncMutex;

/// One of them. What is dropped to end it is optional.
#[derive(Clone)]
pub enum Object {
    Client(Client),
    Sandbox(Sandbox),
    Process(Arc<AsyncMutex<Process>>, Handle),
    Pty(Arc<AsyncMutex<Option<Pty>>>),
    Tunnel(Arc<AsyncMutex<Option<Tunnel>>>),
    Forward(Arc<AsyncMutex<Option<Forward>>>),
    Watch(Arc<AsyncMutex<Option<Watch>>>),
    Events(Arc<AsyncMutex<Option<EventStream>>>),
}

/// All of them, by handle.
#[derive(Default)]
pub struct Objects(Mutex<HashMap<String, Object>>);

impl Objects {
    /// Keeps one, and answers its handle.
    pub fn add(&self, object: Object) -> String {
        let mut objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = format!("h{}", objects.len());
        objects.insert(handle.clone(), object);
        handle
    }

    pub fn get(&self, handle: &str) -> Option<Object> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(handle).cloned()
    }
}
