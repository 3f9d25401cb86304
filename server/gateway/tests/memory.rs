//! A gateway's memory, measured as this process's: alone in its program, so that no other test counts.

mod support;

use std::io::{Read as _, Write as _};
use std::sync::mpsc;

use smoltcp::socket::tcp::State;
use support::{PATIENCE, World, serve};

/// Resident memory of this process, the gateway's and the guest's: KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_gigabyte_through_one_connection_in_flat_memory() {
    const TOTAL: usize = 1024 * 1024 * 1024;
    const BACK: usize = TOTAL / 16;
    const PIECE: usize = 256 * 1024;
    // How often memory is looked at.
    const STEP: usize = TOTAL / 64;
    let (tell, told) = mpsc::channel();
    let server = serve("127.0.0.1:0", move |mut stream| {
        let mut piece = vec![0; PIECE];
        let mut sent = 0;
        while sent < TOTAL {
            piece.fill(u8::try_from(sent / PIECE % 256).unwrap());
            stream.write_all(&piece).unwrap();
            sent += piece.len();
        }
        let mut got = 0;
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            got += count;
        }
        tell.send(got).unwrap();
    });
    let pieces: Vec<_> = (0..=255).map(|byte| vec![byte; PIECE]).collect();
    let mut world = World::open();
    let connection = world.guest.connect_with(server, 256 * 1024);
    let mut next = 0;
    let (mut got, mut early, mut most) = (0, 0, 0);
    world.guest.until("all read", |guest| {
        while guest.tcp(connection).can_recv() {
            got += guest
                .tcp(connection)
                .recv(|bytes| {
                    // Up to where the next piece of the server's begins.
                    let len = bytes.len().min(PIECE - got % PIECE);
                    let right = &pieces[(got / PIECE) % 256];
                    assert!(bytes[..len] == right[..len], "wrong bytes after {got}");
                    (len, len)
                })
                .unwrap();
        }
        if got >= next {
            next += STEP;
            most = resident().max(most);
            if early == 0 && got > TOTAL / 16 {
                early = most;
            }
        }
        got == TOTAL
    });
    assert!(early > 0 && most < early + 4 * 1024, "{early} KiB at first, {most} KiB at the most");
    let piece = vec![7; 64 * 1024];
    let mut left = BACK;
    world.guest.until("all written", |guest| {
        while left > 0 && guest.tcp(connection).can_send() {
            left -= guest.tcp(connection).send_slice(&piece[..piece.len().min(left)]).unwrap();
        }
        left == 0
    });
    world.guest.tcp(connection).close();
    world
        .guest
        .until("closed", |guest| matches!(guest.tcp(connection).state(), State::TimeWait | State::Closed));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), BACK);
}
