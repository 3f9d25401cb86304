use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::UnixListener;

use crate::api::Agent;
use crate::process::Limits;
use crate::session;

/// Serves over a Unix socket, one session at a time as over a port; for tests on a host.
pub fn run(path: &Path) -> ExitCode {
    match serve(path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forkyard-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve(path: &Path) -> std::io::Result<()> {
    let agent = Arc::new(Agent::new(Limits::none(), false));
    let listener = UnixListener::bind(path)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let agent = agent.clone();
        tokio::spawn(async move {
            if let Err(error) = session::serve(stream, agent).await {
                eprintln!("forkyard-agent: a session ended: {error}");
            }
        });
    }
}
