use napi_derive::napi;

/// A TCP port that something in a machine listens on.
#[napi(object, object_from_js = false)]
pub struct ListeningPort {
    /// The port.
    pub port: u32,
    /// Whether only the machine itself could reach it over its network; `Sandbox.ports` reaches it either way.
    pub loopback_only: bool,
}

impl From<forkyard::ListeningPort> for ListeningPort {
    fn from(listening: forkyard::ListeningPort) -> Self {
        let forkyard::ListeningPort { port, loopback_only } = listening;
        Self { port: port.into(), loopback_only }
    }
}
