//! PID 1 of a Forkyard guest: mounts what a system needs, reaps, and serves the host over a virtio-serial port.
//!
//! For tests on a host, `forkyard-agent --listen PATH` serves the same over a Unix socket and leaves the system alone.

mod api;
mod boot;
mod clock;
mod config;
mod disk;
mod file;
mod given;
mod identity;
mod listen;
mod netlink;
mod network;
mod port;
mod process;
mod reply;
mod session;
mod tail;
mod tunnel;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.as_slice() {
        _ if std::process::id() == 1 => boot::run(),
        [flag, path] if flag == "--listen" => listen::run(path.as_ref()),
        _ => {
            eprintln!("usage: forkyard-agent --listen PATH\n(as PID 1 of a guest it takes no arguments)");
            ExitCode::from(2)
        }
    }
}
