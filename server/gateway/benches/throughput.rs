//! How fast one TCP connection goes through a gateway: `cargo bench -p forkyard-gateway`. The guest is `smoltcp` in this process, so
//! that both directions cost a second TCP stack, and the two share the host's processors; a real guest's stack runs in its machine.
#![allow(missing_docs, reason = "a program")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use support::{World, serve};

const PIECE: usize = 256 * 1024;
const TOTAL: usize = 512 * 1024 * 1024;

fn main() {
    // The linter's and the test runner's ways to call a bench.
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    report("to the guest", &download(&mut World::open()));
    report("from the guest", &upload(&mut World::open()));
    let mut world = World::open();
    let idle = serve("127.0.0.1:0", |mut stream| {
        let _ = stream.read(&mut [0]);
    });
    let idle: Vec<_> = (0..500).map(|_| world.guest.connect_with(idle, 2048)).collect();
    world.guest.until("connected", |guest| idle.iter().all(|one| guest.tcp(*one).may_send()));
    // The guest's own stack goes through all of its sockets for each packet: the ones of no more interest leave it.
    for one in idle {
        world.guest.sockets.remove(one);
    }
    report("to the guest, beside 500 idle connections", &download(&mut world));
    report("one byte there and back", &round_trip(&mut World::open()));
}

fn report(what: &str, figure: &str) {
    println!("{what}: {figure}");
}

fn rate(began: Instant) -> String {
    #[expect(clippy::cast_precision_loss)]
    let rate = TOTAL as f64 / 1e6 / began.elapsed().as_secs_f64();
    format!("{rate:.0} MB/s")
}

fn download(world: &mut World) -> String {
    let server = serve("127.0.0.1:0", |mut stream| {
        let piece = vec![1; PIECE];
        while stream.write_all(&piece).is_ok() {}
    });
    let connection = world.guest.connect_with(server, PIECE);
    world.guest.until("connected", |guest| guest.tcp(connection).may_send());
    let (mut got, began) = (0, Instant::now());
    world.guest.until("read", |guest| {
        while guest.tcp(connection).can_recv() {
            got += guest.tcp(connection).recv(|bytes| (bytes.len(), bytes.len())).unwrap();
        }
        got >= TOTAL
    });
    rate(began)
}

fn upload(world: &mut World) -> String {
    let server = serve("127.0.0.1:0", |mut stream| {
        let mut piece = vec![0; PIECE];
        let mut got = 0;
        while got < TOTAL {
            got += stream.read(&mut piece).unwrap();
        }
        stream.write_all(b"all").unwrap();
    });
    let connection = world.guest.connect_with(server, PIECE);
    world.guest.until("connected", |guest| guest.tcp(connection).may_send());
    let piece = vec![1; PIECE];
    let (mut left, began) = (TOTAL, Instant::now());
    world.guest.until("written", |guest| {
        while left > 0 && guest.tcp(connection).can_send() {
            left -= guest.tcp(connection).send_slice(&piece[..piece.len().min(left)]).unwrap();
        }
        left == 0
    });
    world.guest.read(connection, 3);
    rate(began)
}

fn round_trip(world: &mut World) -> String {
    let server = serve("127.0.0.1:0", |mut stream| {
        stream.set_nodelay(true).unwrap();
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() {
            stream.write_all(&byte).unwrap();
        }
    });
    let connection = world.guest.established(server);
    let mut times: Vec<Duration> = (0..2000)
        .map(|_| {
            let began = Instant::now();
            world.guest.send(connection, b"x");
            world.guest.read(connection, 1);
            began.elapsed()
        })
        .collect();
    times.sort();
    format!("{:?} (median of 2,000)", times[times.len() / 2])
}
